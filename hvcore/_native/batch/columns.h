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
    uint32_t number = fields >> (spec >> (REGISTER_LANE - 3) & 0x38) & 31 >> (spec >> REGISTER_NARROW & 7);
    uint32_t is_high = spec >> REGISTER_BYTE & ~has_rex & number >> 2;
    return (spec & 255) + number + is_high * REGISTER_HIGH;
}

/* Lanes of a register's number: ModRM.reg, ModRM.rm, low opcode bits, vvvv, with their extension bits. */
static inline uint64_t register_fields(uint64_t window, uint64_t info) {
    uint64_t sum = info >> (INFO_SUM + STEP_EXTENSIONS - 8), high = sum >> (STEP_HIGH - STEP_EXTENSIONS);
    uint64_t b8 = sum << 3 & 8, x16 = sum << 3 & 16, r8 = sum << 1 & 8, vvvv = sum >> (STEP_VVVV - STEP_EXTENSIONS) & 15;
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

static void fill_operands(const batch_tables_t *t, const uint8_t *tile, const uint64_t *infos, size_t count,
                          const batch_operands_t *to) {
    batch_operands_t o = *to;
    for (size_t i = 0; i < count; i++) {
        uint64_t info = infos[i], f = t->fast[info >> INFO_FAST & 0xFFFF];
        const uint8_t *p = tile + (info & 0xFFFF);
        const uint8_t *opcode = p + (info >> INFO_SUM & 15);
        uint32_t length = info >> INFO_LENGTH;
        uint64_t window = load_64(opcode), tail = load_64(opcode + 2);
        o.length[i] = (uint8_t)length;
        o.form[i] = (uint16_t)f;
        o.kinds[i] = (uint8_t)(f >> FAST_KINDS);
        o.reg[i] = (uint8_t)register_of(f >> FAST_REGISTER & 0xFFFF, register_fields(window, info),
                                        info >> (INFO_SUM + STEP_REX - 8) & 1);
        memory_of(t, window, tail, info, f, o.base + i, o.index + i, o.scale + i, o.displacement + i);
        o.immediate[i] = immediate_of(t, p + length, f);
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
