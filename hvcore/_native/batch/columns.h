/* Pass 2: columns from the infos of pass 1. Plain C; columns_avx512.h does the same sixteen at a time. */
#ifndef HVCORE_BATCH_COLUMNS_H
#define HVCORE_BATCH_COLUMNS_H

#include "layout.h"

/* Where the next row goes. All are given: what nobody asked for goes to a scratch area. */
typedef struct {
    uint8_t *length, *reg, *base, *index, *scale, *kinds;
    uint16_t *form;
    int32_t *displacement;
    int64_t *immediate;
} batch_operands_t;

static inline uint32_t register_of(uint32_t spec, uint64_t fields, uint32_t has_rex) {
    uint32_t number = fields >> (spec >> (REGISTER_LANE - 3) & 0x38) & 31 & ~(spec >> (REGISTER_WITHOUT - 2) & 0x1C);
    uint32_t is_high = spec >> REGISTER_BYTE & ~has_rex & number >> 2;
    return (spec & 255) + number + is_high * REGISTER_HIGH;
}

/* Lanes of a register's number: ModRM.reg, ModRM.rm, low opcode bits, vvvv, with their extension bits. */
static inline uint64_t register_fields(uint64_t window, uint64_t info) {
    uint64_t sum = info >> (INFO_SUM + STEP_EXTENSIONS - 8), high = sum >> (STEP_HIGH - STEP_EXTENSIONS);
    uint64_t b8 = sum << 3 & 8, x16 = sum << 3 & 16, r8 = sum << 1 & 8;
    uint64_t vvvv = sum >> (STEP_VVVV - STEP_EXTENSIONS) & 15;
    uint64_t reg = (window >> 11 & 7) | r8 | (high << 4 & 16), rm = (window >> 8 & 7) | b8 | x16;
    return reg << (8 * LANE_REG) | rm << (8 * LANE_RM) | ((window & 7) | b8) << (8 * LANE_OPCODE)
           | (vvvv | (high << 3 & 16)) << (8 * LANE_VVVV);
}

/* The lane of a register in the upper half of the last byte; it is never an instruction's first register. */
static inline uint64_t is4_field(const uint8_t *end) {
    return (uint64_t)(end[-1] >> 4) << (8 * LANE_IS4);
}

static inline int64_t immediate_of(const batch_tables_t *t, const uint8_t *end, uint64_t f) {
    uint32_t kind = f >> FAST_IMMEDIATE & 15;
    uint64_t value = (load_64(end - 8) & t->immediate_mask[kind]) >> (t->immediate_shift[kind] & 63);
    return (int64_t)((value ^ t->immediate_flip[kind]) - t->immediate_less[kind]);
}

/* The rest of a row from its ModRM byte on: window starts at the opcode. */
static inline void memory_of(const batch_tables_t *t, uint64_t window, uint64_t tail, uint64_t info, uint64_t f,
                             uint8_t *base, uint8_t *index, uint8_t *scale, int32_t *displacement) {
    uint32_t memory = f >> FAST_MEMORY & 1, modrm = window >> 8 & 255, sib = window >> 16 & 255;
    uint32_t extensions = info >> (INFO_SUM + STEP_EXTENSIONS - 8) & 7;
    uint32_t has_sib = memory & ((modrm & 7) == 4), low = has_sib ? sib : modrm, mode = modrm >> 6;
    uint32_t pick = memory << 6 | has_sib << 5 | (uint32_t)(mode == 0) << 4 | (extensions & 1) << 3 | (low & 7);
    uint32_t base_number = t->base_map[pick];
    uint32_t wide = (mode == 2) | ((mode == 0) & ((low & 7) == 5)), bits = memory * (wide * 32 + (mode == 1) * 8);
    uint64_t bytes = has_sib ? tail >> 8 : tail;
    *base = (uint8_t)base_number;
    *index = t->index_map[has_sib << 4 | (extensions & 2) << 2 | (sib >> 3 & 7)];
    *scale = t->scale_map[memory << 3 | has_sib << 2 | sib >> 6];
    uint32_t shift = (mode == 1) * (f >> FAST_SCALE & 7);
    *displacement = (int32_t)((uint64_t)((int64_t)(bytes << (56 - bits) << 8) >> ((64 - bits) & 63)) << shift);
}

/* Eight rows of 16-bit numbers; the compiler makes of them what the host has. Comparisons give all ones or zeros. */
typedef uint16_t rows_t __attribute__((vector_size(16)));
typedef uint8_t narrow_rows_t __attribute__((vector_size(8)));
enum { ROWS = 8, BLOCK = 256 };

static inline rows_t load_rows(const uint16_t *from) { rows_t v; memcpy(&v, from, sizeof v); return v; }

static inline void put_rows(uint8_t *to, rows_t v, size_t count) {
    narrow_rows_t narrow = __builtin_convertvector(v, narrow_rows_t);
    if (BATCH_LIKELY(count >= ROWS))
        memcpy(to, &narrow, ROWS);
    else
        memcpy(to, &narrow, count);
}

/* What a block of rows needs, side by side. `head`: ModRM and SIB; `sum`: bits 8-23 of it; `entry`: bits 16-31 of the
 * fast entry. The second step leaves the size of displacements there. */
typedef struct {
    uint16_t head[BLOCK], opcode[BLOCK], sum[BLOCK], entry[BLOCK], spec[BLOCK];
    uint16_t is_byte[BLOCK], is_wide[BLOCK], has_sib[BLOCK];
    const uint8_t *at[BLOCK];               /* of ModRM */
    uint8_t scale[BLOCK];                   /* of disp8*N */
} batch_block_t;

/* Registers and memory of eight rows from row i of the block, which is row `to` of the columns; `count` are left. */
static inline __attribute__((always_inline)) void fill_eight(batch_block_t *x, size_t i, const batch_operands_t *o,
                                                             size_t to, size_t count) {
    rows_t head = load_rows(x->head + i), sum = load_rows(x->sum + i), spec = load_rows(x->spec + i);
    rows_t entry = load_rows(x->entry + i), lane = spec >> REGISTER_LANE & 7;
    rows_t b8 = sum >> 2 & 8, x8 = sum >> 3 & 8;            /* sum: 4 REX, 5 B, 6 X, 7 R, 8-11 vvvv, 13 R', 14 V' */
    rows_t reg = (head >> 3 & 7) | (sum >> 4 & 8) | (sum >> 9 & 16), rm = (head & 7) | b8 | (sum >> 2 & 16);
    rows_t low_opcode = (load_rows(x->opcode + i) & 7) | b8, vvvv = (sum >> 8 & 15) | (sum >> 10 & 16);
    rows_t number = ((rows_t)(lane == LANE_REG) & reg) | ((rows_t)(lane == LANE_RM) & rm)
                    | ((rows_t)(lane == LANE_OPCODE) & low_opcode) | ((rows_t)(lane == LANE_VVVV) & vvvv);
    number &= ~(spec >> (REGISTER_WITHOUT - 2) & 0x1C);
    rows_t is_high = -(spec >> REGISTER_BYTE & ~(sum >> 4) & number >> 2 & 1);
    put_rows(o->reg + to, ((spec & 255) + number + (is_high & REGISTER_HIGH)) & 255, count);
    put_rows(o->kinds + to, entry & 255, count);

    rows_t is_memory = -(entry >> (FAST_MEMORY - 16) & 1), mode = head & 0xC0;
    rows_t has_sib = is_memory & (rows_t)((head & 7) == 4);
    rows_t low = (has_sib & (head >> 8 & 7)) | (~has_sib & head & 7);
    rows_t no_base = is_memory & (rows_t)((mode | low) == 5);
    rows_t base = (low | b8) & ~no_base, index = (head >> 11 & 7) | x8;
    base |= no_base & ((has_sib & BATCH_NONE) | (~has_sib & BATCH_RIP));
    put_rows(o->base + to, (base | ~is_memory) & 255, count);
    put_rows(o->index + to, (index | ~has_sib | (rows_t)(index == 4)) & 255, count);
    rows_t shift = head >> 14 & has_sib, small = (shift & 1) + 1, large = -(shift >> 1);
    put_rows(o->scale + to, ((small & ~large) | (small << 2 & large)) & is_memory, count);
    rows_t is_byte = is_memory & (rows_t)(mode == 0x40), is_wide = no_base | (is_memory & (rows_t)(mode == 0x80));
    memcpy(x->is_byte + i, &is_byte, sizeof is_byte);
    memcpy(x->is_wide + i, &is_wide, sizeof is_wide);
    memcpy(x->has_sib + i, &has_sib, sizeof has_sib);
}

static void fill_operands(const batch_tables_t *t, const uint8_t *tile, const uint64_t *infos, size_t count,
                          const batch_operands_t *to) {
    batch_operands_t o = *to;
    batch_block_t x;
    size_t start, i;
    for (start = 0; start < count; start += BLOCK) {
        size_t rows = count - start < BLOCK ? count - start : BLOCK;
        for (i = 0; i < rows; i++) {
            uint64_t info = infos[start + i], f = t->fast[info >> INFO_FAST & 0xFFFF];
            const uint8_t *p = tile + (info & 0xFFFF), *opcode = p + (info >> INFO_SUM & 15);
            uint32_t length = info >> INFO_LENGTH;
            o.form[start + i] = (uint16_t)f;
            o.length[start + i] = (uint8_t)length;
            o.immediate[start + i] = immediate_of(t, p + length, f);
            x.opcode[i] = opcode[0];
            memcpy(&x.head[i], opcode + 1, 2);
            x.at[i] = opcode + 1;
            x.sum[i] = (uint16_t)(info >> INFO_SUM);
            x.entry[i] = (uint16_t)(f >> 16);
            x.spec[i] = (uint16_t)(f >> FAST_REGISTER);
            x.scale[i] = f >> FAST_SCALE & 7;
        }
        for (i = 0; i < rows; i += ROWS)
            fill_eight(&x, i, &o, start + i, rows - i);
        for (i = 0; i < rows; i++) {
            int32_t value = load_32(x.at[i] + 1 - (int16_t)x.has_sib[i]);
            int32_t small = (int32_t)((uint32_t)(int8_t)value << x.scale[i]);
            o.displacement[start + i] = (value & (int16_t)x.is_wide[i]) | (small & (int16_t)x.is_byte[i]);
        }
    }
}

static void fill_forms(const batch_tables_t *t, const uint64_t *infos, size_t count, uint16_t *form, uint8_t *length) {
    for (size_t i = 0; i < count; i++) {
        form[i] = (uint16_t)t->fast[infos[i] >> INFO_FAST & 0xFFFF];
        length[i] = (uint8_t)(infos[i] >> INFO_LENGTH);
    }
}

static void fill_lengths(const uint64_t *infos, size_t count, uint8_t *length) {
    for (size_t i = 0; i < count; i++)
        length[i] = (uint8_t)(infos[i] >> INFO_LENGTH);
}

#endif
