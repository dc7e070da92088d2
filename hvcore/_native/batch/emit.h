/* Rows of the table: all columns that are asked for, with what the fast path left open. */
#ifndef HVCORE_BATCH_EMIT_H
#define HVCORE_BATCH_EMIT_H

#include "columns.h"
#include "walk.h"
#ifdef HVCORE_AVX512
#include "columns_avx512.h"
#endif

/* Columns that are asked for; the others are NULL. In the order of COLUMNS in sweep.pyx. */
typedef struct {
    uint32_t *offset;
    uint64_t *wide_offset;
    uint8_t *length;
    uint16_t *form, *mnemonic;
    uint8_t *flow, *kinds, *reg, *registers[BATCH_OPERANDS], *base, *index, *scale;
    int32_t *displacement;
    uint8_t *segment;
    int64_t *immediate;
    uint64_t *target;
    uint16_t *prefixes;
    uint8_t *operand_size, *address_size, *mask, *evex;
} batch_columns_t;

enum { WANT_OPERANDS = 1, WANT_FORMS = 2, WANT_REGISTERS = 4, WANT_RARE = 8, WANT_TARGET = 16, WANT_PREFIXES = 32 };

enum { EMIT_ROOM = 2112 };              /* rows that a chunk or tile can have */

/* Memory of a sweep: what pass 1 leaves, and columns that are computed without being asked for. */
typedef struct {
    batch_walk_t walk;
    uint64_t bridge[CHUNK_ROOM];
#ifdef HVCORE_AVX512
    vector_walk_t vectors;
#endif
    uint32_t open_rows[EMIT_ROOM];
    uint8_t bytes[6][EMIT_ROOM];
    uint16_t forms[EMIT_ROOM];
    int32_t displacements[EMIT_ROOM];
    int64_t immediates[EMIT_ROOM];
} batch_scratch_t;

/* What a pass 1 may have found already, by row. */
typedef struct {
    const uint16_t *forms;
    const uint8_t *lengths;
    const uint32_t *open_rows;
    size_t open_count;
} batch_known_t;

typedef void (*batch_fill_t)(const batch_tables_t *t, const uint8_t *tile, const uint64_t *infos, size_t count,
                             const batch_operands_t *to);

typedef struct {
    const batch_tables_t *tables;
    const uint8_t *code;
    uint64_t size, ip;
    uint32_t want;
    const batch_columns_t *columns;
    uint64_t row, capacity;
    int fast;                           /* the tables have a fast path */
    batch_scratch_t *scratch;           /* of one call of `sweep` */
} batch_sweep_t;

typedef uint64_t (*sweep_t)(batch_sweep_t *s, uint64_t at, int more);

static uint64_t target_of(uint64_t next, int64_t immediate, uint32_t bits) {
    if (bits == TARGET_ABSOLUTE)
        return (uint64_t)immediate;
    return bits ? (next + (uint64_t)immediate) & ~0ull >> (64 - bits) : 0;
}

static void put_row(batch_sweep_t *s, uint64_t row, uint64_t offset, const batch_row_t *r) {
    const batch_columns_t *c = s->columns;
#define PUT(column, value) do { if (c->column) c->column[row] = value; } while (0)
    PUT(offset, (uint32_t)offset);
    PUT(wide_offset, offset);
    PUT(length, r->length);
    PUT(form, r->form);
    PUT(mnemonic, s->tables->mnemonics[r->form]);
    PUT(flow, s->tables->flows[r->form]);
    PUT(kinds, r->kinds);
    PUT(reg, r->reg);
    for (int i = 0; i < BATCH_OPERANDS; i++)
        PUT(registers[i], r->registers[i]);
    PUT(base, r->base);
    PUT(index, r->index);
    PUT(scale, r->scale);
    PUT(displacement, r->displacement);
    PUT(segment, r->segment);
    PUT(immediate, r->immediate);
    PUT(target, target_of(s->ip + offset + r->length, r->immediate, r->target_bits));
    PUT(prefixes, r->prefixes);
    PUT(operand_size, r->operand_size);
    PUT(address_size, r->address_size);
    PUT(mask, r->mask);
    PUT(evex, r->evex);
#undef PUT
}

static void describe_at(const batch_sweep_t *s, uint64_t offset, batch_row_t *r) {
    uint64_t available = s->size - offset;
    s->tables->slow(s->code + offset, available > 64 ? 64 : (uint32_t)available, s->tables->options, r);
}

static uint32_t wanted(const batch_columns_t *c) {
    uint32_t want = 0;
    if (c->kinds || c->reg || c->base || c->index || c->scale || c->displacement || c->immediate || c->target)
        want |= WANT_OPERANDS;
    if (c->form || c->mnemonic || c->flow || c->operand_size)
        want |= WANT_FORMS;
    for (int i = 0; i < BATCH_OPERANDS; i++)
        if (c->registers[i])
            want |= WANT_REGISTERS;
    if (c->target)
        want |= WANT_TARGET;
    if (c->segment || c->operand_size || c->address_size || c->mask || c->evex)
        want |= WANT_RARE;
    if (c->prefixes)
        want |= WANT_PREFIXES;
    return want;
}

static void fill_registers(const batch_tables_t *t, const uint8_t *tile, const uint64_t *infos, size_t count,
                           const batch_columns_t *c, uint64_t row) {
    for (size_t i = 0; i < count; i++) {
        uint64_t info = infos[i], others = t->others[info >> INFO_FAST & 0xFFFF];
        const uint8_t *p = tile + (info & 0xFFFF);
        uint64_t window = load_64(p + (info >> INFO_SUM & 15));
        uint64_t fields = register_fields(window, info) | is4_field(p + (info >> INFO_LENGTH));
        uint32_t has_rex = info >> (INFO_SUM + STEP_REX - 8) & 1;
        for (int k = 0; k < 4; k++)
            if (c->registers[k])
                c->registers[k][row + i] = (uint8_t)register_of(others >> 16 * k & 0xFFFF, fields, has_rex);
        if (c->registers[4])
            c->registers[4][row + i] = BATCH_NONE;
    }
}

/* Columns that are the same for nearly all: those of instructions with neither a segment override nor EVEX. */
static void fill_rare(const batch_tables_t *t, const uint16_t *forms, size_t count, const batch_columns_t *c,
                      uint64_t row) {
    if (c->segment)
        memset(c->segment + row, BATCH_NONE, count);
    if (c->address_size)
        memset(c->address_size + row, 64, count);
    if (c->mask)
        memset(c->mask + row, 0, count);
    if (c->evex)
        memset(c->evex + row, 0, count);
    if (c->operand_size)
        for (size_t i = 0; i < count; i++)
            c->operand_size[row + i] = t->operand_sizes[forms[i]];
}

/* May the instruction have more than fill_rare knows? A byte before its opcode that is or looks like such a prefix. */
static inline int has_rare(const uint8_t *p, uint64_t info) {
    uint32_t before = info >> INFO_SUM & 15, found = 0;
    for (uint32_t i = 0; i < before; i++)
        found |= (p[i] & 0xFE) == 0x64 || (p[i] & 0xE7) == 0x26 || p[i] == 0x62;
    return (int)found;
}

/* Rows of `count` instructions of one chunk. `at`: offset of the tile. Returns how many there was room for. */
static inline __attribute__((always_inline)) size_t emit(batch_sweep_t *s, const uint64_t *infos, size_t count,
                                                         uint64_t at, batch_fill_t fill, const batch_known_t *known) {
    const batch_tables_t *t = s->tables;
    const batch_columns_t *c = s->columns;
    const uint8_t *tile = s->code + at;
    batch_scratch_t *x = s->scratch;
    uint64_t row = s->row;
    size_t i, open = 0;
    uint16_t *form = c->form ? c->form + row : x->forms;
    uint8_t *length = c->length ? c->length + row : x->bytes[0];
    const uint16_t *forms = known ? known->forms : form;
    int64_t *immediate = c->immediate ? c->immediate + row : x->immediates;
    if (count > s->capacity - row)
        count = (size_t)(s->capacity - row);
    if (s->want & WANT_OPERANDS) {
        batch_operands_t o = {
            .length = length, .form = form, .immediate = immediate,
            .kinds = c->kinds ? c->kinds + row : x->bytes[1], .reg = c->reg ? c->reg + row : x->bytes[2],
            .base = c->base ? c->base + row : x->bytes[3], .index = c->index ? c->index + row : x->bytes[4],
            .scale = c->scale ? c->scale + row : x->bytes[5],
            .displacement = c->displacement ? c->displacement + row : x->displacements,
        };
        fill(t, tile, infos, count, &o);
    } else if (known) {
        if (c->form)
            memcpy(form, known->forms, count * sizeof *form);
        if (c->length)
            memcpy(length, known->lengths, count);
    } else if (s->want & WANT_FORMS)
        fill_forms(t, infos, count, form, length);
    else if (c->length)
        fill_lengths(infos, count, length);
    if (c->mnemonic)
        for (i = 0; i < count; i++)
            c->mnemonic[row + i] = t->mnemonics[forms[i]];
    if (c->flow)
        for (i = 0; i < count; i++)
            c->flow[row + i] = t->flows[forms[i]];
    if (c->offset)
        for (i = 0; i < count; i++)
            c->offset[row + i] = (uint32_t)at + (uint32_t)(infos[i] & 0xFFFF);
    if (c->wide_offset)
        for (i = 0; i < count; i++)
            c->wide_offset[row + i] = at + (infos[i] & 0xFFFF);
    if (s->want & WANT_TARGET)
        for (i = 0; i < count; i++)
            c->target[row + i] = target_of(s->ip + at + (infos[i] & 0xFFFF) + (infos[i] >> INFO_LENGTH), immediate[i],
                                           t->fast[infos[i] >> INFO_FAST & 0xFFFF] >> FAST_RELATIVE & 1 ? 64 : 0);
    if (s->want & WANT_RARE)
        fill_rare(t, forms, count, c, row);
    if (s->want & WANT_REGISTERS)
        fill_registers(t, tile, infos, count, c, row);
    s->row += count;
    if (!s->want)
        return count;
    const uint32_t *open_rows = x->open_rows;
    if (known && !(s->want & (WANT_RARE | WANT_PREFIXES))) {
        open_rows = known->open_rows;
        open = known->open_count;
    } else
        for (i = 0; i < count; i++) {       /* without branches: which rows are open cannot be predicted */
            x->open_rows[open] = (uint32_t)i;
            open += s->want & WANT_PREFIXES || !(infos[i] >> INFO_FAST & 0xFFFF)
                    || (s->want & WANT_RARE && has_rare(tile + (infos[i] & 0xFFFF), infos[i]));
        }
    for (i = 0; i < open && open_rows[i] < count; i++) {
        batch_row_t r;
        uint64_t offset = at + (infos[open_rows[i]] & 0xFFFF);
        describe_at(s, offset, &r);
        put_row(s, row + open_rows[i], offset, &r);
    }
    return count;
}

#endif
