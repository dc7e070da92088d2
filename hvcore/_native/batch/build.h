/* Builds the tables of the fast path by asking the decoder of single instructions.
 *
 * For every row of steps (a combination of prefixes and escape) and every opcode, `slow` describes instructions that
 * cover all ModRM bytes that differ and every extension bit. What the fast path's own formulas reproduce becomes an
 * entry; whatever they do not (or only without certain bits set, which the entry then forbids) stays with `slow`.
 */
#ifndef HVCORE_BATCH_BUILD_H
#define HVCORE_BATCH_BUILD_H

#include "entry.h"

static void build_maps(batch_tables_t *t) {
    uint32_t i, class, modrm;
    for (i = 0; i < 128; i++) {
        int special = (i & 16) && (i & 7) == 5;
        t->base_map[i] = (uint8_t)(!(i & 64) ? BATCH_NONE : special ? (i & 32 ? BATCH_NONE : BATCH_RIP) : i & 15);
    }
    for (i = 0; i < 32; i++)
        t->index_map[i] = (uint8_t)(i & 16 && (i & 15) != 4 ? i & 15 : BATCH_NONE);
    for (i = 0; i < 16; i++)
        t->scale_map[i] = (uint8_t)(!(i & 8) ? 0 : i & 4 ? 1 << (i & 3) : 1);
    /* None; 1 2 4 8 bytes sign-extended; 1 2 4 8 zero-extended; the constant 1. */
    for (i = 0; i < IMMEDIATE_KINDS; i++) {
        uint32_t bits = i && i < 9 ? 8u << ((i - 1) & 3) : 0;
        t->immediate_shift[i] = (uint8_t)(64 - bits);
        t->immediate_mask[i] = bits ? ~0ull : 0;
        t->immediate_flip[i] = t->immediate_less[i] = i >= 1 && i <= 4 ? 1ull << (bits - 1) : 0;
    }
    t->immediate_less[IMMEDIATE_KINDS - 1] = ~0ull;
    for (class = 1; class < SHAPES; class++)
        for (modrm = 0; modrm < 256; modrm++) {
            uint32_t mode = modrm >> 6, reg = modrm >> 3 & 7, rm = modrm & 7, length = 1, pick;
            if (mode != 3) {
                length += (rm == 4) + (mode == 1 ? 1 : mode == 2 || (mode == 0 && rm == 5) ? 4 : 0);
                if (mode == 0 && rm == 4)
                    length |= 128;
            }
            if (class >= SHAPE_TEST_8 && reg < 2)
                length += 1u << (class - SHAPE_TEST_8);
            pick = class == SHAPE_MODE ? mode == 3 : class == SHAPE_WHOLE ? (mode == 3 ? modrm - 0xC0 + 8 : reg)
                                                                        : (mode == 3) * 8 + reg;
            t->shapes[class << 8 | modrm] = (uint16_t)(length | pick << 8);
        }
}

/* What pass 1 of AVX-512 computes the length of an opcode from: 0-3 1 + bytes of immediate, 4 ModRM, 5 two bytes less
 * of immediate with 66, 7 it does not know. */
static uint8_t opcode_code(const batch_builder_t *b, uint32_t map, uint32_t opcode) {
    const batch_tables_t *t = b->tables;
    uint64_t e = 0, with_66 = 0;
    for (uint32_t row = 0; row < t->row_count; row++) {
        batch_place_t place = b->places[row];
        uint64_t here = t->steps[row << 8 | opcode];
        if (place.space != SPACE_LEGACY || place.map != map || place.rex || here & 63 || !(here >> STEP_FAST & 0xFFFF))
            continue;
        if (place.pp == 1)
            with_66 = here;
        if (!e)
            e = here;
    }
    if (!e)
        return 0x80;
    uint32_t size = e >> STEP_SIZE & 15, class = e >> STEP_CLASS & 15;
    uint32_t shrinks = !map && with_66 && (with_66 >> STEP_SIZE & 15) + 2 == size;
    return (uint8_t)(size | (class != SHAPE_BARE) << 4 | shrinks << 5);
}

/* Bytes from the opcode on without those of ModRM, as pass 1 of AVX-512 computes them; 99: it would be wrong. */
static uint32_t computed_size(const batch_tables_t *t, batch_place_t place, uint32_t opcode, uint32_t class) {
    uint32_t code = place.map > 1 ? 0x10u + place.map - 1 : t->opcodes[place.map][opcode];
    uint32_t size = code & 15;
    if (code & 0x80 || (class != SHAPE_BARE) != (code >> 4 & 1))
        return 99;
    if (class == SHAPE_TEST_16
            || (class >= SHAPE_TEST_8 && (place.map || opcode != (class == SHAPE_TEST_8 ? 0xF6 : 0xF7))))
        return 99;
    if (class < SHAPE_TEST_8 && !place.map && (opcode & 0xFE) == 0xF6)
        return 99;
    if (place.pp == 1 && code & 0x20)
        size -= 2;
    if (place.rex == 2 && !place.map && (opcode & 0xF8) == 0xB8)
        size += 4;
    return size;
}

static void build_vectors(batch_builder_t *b) {
    batch_tables_t *t = b->tables;
    uint32_t i, row, code;
    for (i = 0; i < 256; i++) {
        t->modrm_lengths[i] = (uint8_t)t->shapes[SHAPE_MODE << 8 | i];
        t->opcodes[0][i] = opcode_code(b, 0, i);
        t->opcodes[1][i] = opcode_code(b, 1, i);
        t->places[i] = 255u << 24;
    }
    for (i = 0; i < BATCH_CLASSES * 256; i++)
        t->picks[i] = (uint8_t)(t->shapes[i] >> 8);
    for (row = 0; row < t->row_count; row++) {
        batch_place_t place = b->places[row];
        if (place.space > SPACE_EVEX)
            continue;
        for (i = 0; i < 256; i++) {
            uint64_t e = t->steps[row << 8 | i];
            uint32_t class = e >> STEP_CLASS & 15;
            if (!(e & 63) && e >> STEP_FAST & 0xFFFF && computed_size(t, place, i, class) == (e >> STEP_SIZE & 15))
                t->cells[row << 8 | i] = (uint32_t)(e >> STEP_FAST & 0xFFFF) | class << 24;
        }
        code = 0x80 | place.map | (uint32_t)(place.l != 0) << 2 | (uint32_t)place.rex << 3 | (uint32_t)place.pp << 4;
        if (place.space == SPACE_VEX) {
            t->places[code] = row << 24 | 3;
            if (place.map == 1 && !place.rex)
                t->places[(code & ~3u) | 8] = row << 24 | 2;
        } else if (place.space == SPACE_EVEX && place.l != 1)
            t->places[code | 0x40] = row << 24 | 4;
        /* Legacy: with a segment prefix or without, with a REX prefix that changes nothing or without. */
        for (i = 0; i < 4 && place.space == SPACE_LEGACY; i++) {
            uint32_t segment = i & 1, rex = place.rex ? 1 : place.map ? i >> 1 : 0;
            if (segment && place.pp)
                continue;
            code = place.map | segment << 2 | (place.rex == 2) << 3 | (uint32_t)place.pp << 4 | rex << 6;
            t->places[code] = row << 24 | (place.map > 1 ? 2 : place.map) + segment + rex + (place.pp != 0);
        }
    }
}

/* Fill the tables of a mode; only 64-bit mode has a fast path. 0 without memory. */
static int build_tables(batch_tables_t *t) {
    batch_builder_t *b = calloc(1, sizeof *b);
    if (!b)
        return 0;
    t->fast[0] = FAST_UNKNOWN;
    t->fast_count = 1;
    b->tables = t;
    build_maps(t);
    row_of(b, (batch_place_t){0});
    for (uint32_t row = 0; row < t->row_count; row++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            batch_place_t place = b->places[row];
            uint64_t e = passing_step(b, place, byte);
            if (e < 2) {
                uint64_t cell = e ? 0 : build_cell(b, place, byte);
                e = cell | (uint64_t)row << (STEP_ROW + 8);
            }
            t->steps[row << 8 | byte] = e;
        }
    build_vectors(b);
    free(b);
    return 1;
}

#endif
