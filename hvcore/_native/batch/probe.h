/* Instructions to ask the decoder of single instructions about, and the steps in front of their opcodes. */
#ifndef HVCORE_BATCH_PROBE_H
#define HVCORE_BATCH_PROBE_H

#include "columns.h"

/* Prefixes and escape in front of an opcode. */
typedef struct {
    uint8_t space, map;
    uint8_t pp;         /* 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t rex;        /* 0 none (or, behind an escape, no W), 1 without W, 2 with W; of VEX and EVEX W itself */
    uint8_t l;          /* 0 1 2: 128, 256, 512 bits */
} batch_place_t;

/* SPACE_C4 and SPACE_62: behind that byte, or (with a map) behind the next; SPACE_P2: before the last byte of EVEX. */
enum { SPACE_LEGACY, SPACE_VEX, SPACE_EVEX, SPACE_C5, SPACE_C4, SPACE_62, SPACE_P2 };
enum { PROBES = 512, IMMEDIATE_KINDS = 10 };

typedef struct {
    uint8_t space[8], code[32], opcode_at, modrm;
    uint32_t bits;              /* bits 12 to 23 of the sum */
    batch_row_t row;
} batch_probe_t;

typedef struct {
    batch_tables_t *tables;
    batch_place_t places[BATCH_ROWS];
    batch_probe_t probes[PROBES];
    uint32_t probe_count;
} batch_builder_t;

static uint32_t row_of(batch_builder_t *b, batch_place_t place) {
    batch_tables_t *t = b->tables;
    for (uint32_t i = 0; i < t->row_count; i++)
        if (!memcmp(&b->places[i], &place, sizeof place))
            return i;
    if (t->row_count >= BATCH_ROWS)
        abort();
    b->places[t->row_count] = place;
    return t->row_count++;
}

static uint64_t pass(batch_builder_t *b, batch_place_t to) {
    return 8 | 1 << STEP_COUNT | (uint64_t)row_of(b, to) << (STEP_ROW + 8);
}

/* The step over a byte that is no opcode in `place`; 0: it is one, 1: leave it to `slow`. */
static uint64_t passing_step(batch_builder_t *b, batch_place_t place, uint32_t byte) {
    batch_place_t to = place;
    if (place.space == SPACE_C5) {
        to = (batch_place_t){SPACE_VEX, 1, byte & 3, 0, byte >> 2 & 1};
        return pass(b, to) | (uint64_t)(~byte >> 7 & 1) << (STEP_EXTENSIONS + 2)
               | (uint64_t)(~byte >> 3 & 15) << STEP_VVVV;
    }
    if (place.space == SPACE_C4 && place.map == 0) {
        if ((byte & 31) == 0 || (byte & 31) > 3)
            return 1;
        to = (batch_place_t){SPACE_C4, byte & 31, 0, 0, 0};
        return pass(b, to) | (uint64_t)(~byte >> 5 & 7) << STEP_EXTENSIONS;
    }
    if (place.space == SPACE_C4) {
        to = (batch_place_t){SPACE_VEX, place.map, byte & 3, byte >> 7, byte >> 2 & 1};
        return pass(b, to) | (uint64_t)(~byte >> 3 & 15) << STEP_VVVV;
    }
    if (place.space == SPACE_62 && place.map == 0) {
        if ((byte & 7) == 0 || (byte & 7) > 3 || byte & 8)
            return 1;                               /* FP16, APX */
        to = (batch_place_t){SPACE_62, byte & 7, 0, 0, 0};
        return pass(b, to) | (uint64_t)(~byte >> 5 & 7) << STEP_EXTENSIONS | (uint64_t)(~byte >> 4 & 1) << STEP_HIGH;
    }
    if (place.space == SPACE_62) {
        if (!(byte & 4))
            return 1;
        to = (batch_place_t){SPACE_P2, place.map, byte & 3, byte >> 7, 0};
        return pass(b, to) | (uint64_t)(~byte >> 3 & 15) << STEP_VVVV;
    }
    if (place.space == SPACE_P2) {
        if (byte & 16 || (byte & 0x60) == 0x60 || (byte & 0x87) == 0x80)
            return 1;                               /* broadcast, rounding; zeroing without a mask */
        to.space = SPACE_EVEX;
        to.l = byte >> 5 & 3;
        return pass(b, to) | (uint64_t)(byte >> 7) << STEP_REX | (uint64_t)(~byte >> 3 & 1) << (STEP_HIGH + 1)
               | (uint64_t)((byte & 7) != 0) << STEP_MASKED;
    }
    if (place.space == SPACE_VEX || place.space == SPACE_EVEX)
        return 0;
    if (place.map == 1 && (byte == 0x38 || byte == 0x3A)) {
        to.map = byte == 0x38 ? 2 : 3;
        return pass(b, to);
    }
    if (place.map == 1 && byte == 0x0F)
        return 1;                                   /* 3DNow!: the opcode comes last */
    if (place.map)
        return 0;
    switch (byte) {
    case 0x0F:
        to.map = 1;
        to.rex = place.rex == 2 ? 2 : 0;
        return pass(b, to);
    case 0x26: case 0x2E: case 0x36: case 0x3E: case 0x64: case 0x65:
        return place.rex ? 1 : pass(b, to);
    case 0x66: case 0xF3: case 0xF2:
        to.pp = byte == 0x66 ? 1 : byte == 0xF3 ? 2 : 3;
        return place.rex || (place.pp && place.pp != to.pp) ? 1 : pass(b, to);
    case 0xC4: case 0xC5: case 0x62:
        to.space = byte == 0xC5 ? SPACE_C5 : byte == 0xC4 ? SPACE_C4 : SPACE_62;
        return place.rex || place.pp ? 1 : pass(b, to);
    case 0x67: case 0xD5: case 0xF0:
        return 1;
    }
    if ((byte & 0xF0) == 0x40) {
        to.rex = byte & 8 ? 2 : 1;
        return place.rex ? 1 : pass(b, to) | 1 << STEP_REX | (uint64_t)(byte & 7) << STEP_EXTENSIONS;
    }
    return 0;
}

/* Describe one instruction. Bytes behind ModRM and SIB differ within an instruction and from probe to probe; most have
 * their sign bits set. */
static batch_probe_t *probe(batch_builder_t *b, batch_place_t place, uint32_t opcode, uint32_t modrm, uint32_t sib,
                            uint32_t bits) {
    static const uint8_t FILLER[] = {0x91, 0xA2, 0xB3, 0xC4, 0xD5, 0xE6, 0xF7, 0x88, 0x99, 0xAA, 0x3B, 0xCC, 0xDD, 0x7E,
                                     0xEF, 0x80};
    batch_probe_t *p = &b->probes[b->probe_count++];
    uint32_t extensions = bits >> 1 & 7, vvvv = bits >> (STEP_VVVV - STEP_REX) & 15;
    uint32_t high = bits >> (STEP_HIGH - STEP_REX), masked = bits >> (STEP_MASKED - STEP_REX) & 1;
    uint8_t *at = p->code;
    if (place.space == SPACE_EVEX) {
        *at++ = 0x62;
        *at++ = (uint8_t)((~extensions & 7) << 5 | (~high & 1) << 4 | place.map);
        *at++ = (uint8_t)(place.rex << 7 | (~vvvv & 15) << 3 | 4 | place.pp);
        *at++ = (uint8_t)((bits & 1) << 7 | place.l << 5 | (~high >> 1 & 1) << 3 | masked);
    } else if (place.space == SPACE_VEX) {
        *at++ = 0xC4;
        *at++ = (uint8_t)((~extensions & 7) << 5 | place.map);
        *at++ = (uint8_t)(place.rex << 7 | (~vvvv & 15) << 3 | place.l << 2 | place.pp);
    } else {
        static const uint8_t PREFIX[] = {0, 0x66, 0xF3, 0xF2};
        if (place.pp)
            *at++ = PREFIX[place.pp];
        bits |= place.rex || extensions;
        if (bits & 1)
            *at++ = (uint8_t)(0x40 | (place.rex == 2) << 3 | extensions);
        if (place.map)
            *at++ = 0x0F;
        if (place.map > 1)
            *at++ = place.map == 2 ? 0x38 : 0x3A;
    }
    p->bits = bits;
    p->opcode_at = (uint8_t)(at - p->code);
    p->modrm = (uint8_t)modrm;
    *at++ = (uint8_t)opcode;
    *at++ = (uint8_t)modrm;
    *at++ = (uint8_t)sib;
    for (uint32_t i = 0; i < 12; i++)
        *at++ = FILLER[(i + 5 * b->probe_count) % sizeof FILLER];
    b->tables->slow(p->code, 24, b->tables->options, &p->row);
    return p;
}

/* Nothing that an entry could forbid; a REX prefix by itself changes registers only. */
static int is_plain(const batch_probe_t *p) {
    return p->bits < 2;
}

static uint64_t probe_info(const batch_probe_t *p, uint32_t length) {
    uint64_t sum = (uint64_t)p->opcode_at << STEP_COUNT | (uint64_t)p->bits << STEP_REX;
    return sum >> 8 << INFO_SUM | (uint64_t)length << INFO_LENGTH;
}

/* Is there anything at this opcode? What hides from this look is left to `slow`. */
static int opcode_exists(batch_builder_t *b, batch_place_t place, uint32_t opcode) {
    for (uint32_t i = 0; i < 16; i++) {
        b->probe_count = 0;
        if (!probe(b, place, opcode, (i & 1 ? 0xC1 : 0x04) | i >> 1 << 3, 0x91, 0)->row.status)
            return 1;
    }
    return 0;
}

/* The reg field is a register and nothing else, as far as can be seen. */
static int is_uniform(const batch_builder_t *b) {
    const batch_row_t *seen[2] = {NULL, NULL};
    for (uint32_t i = 0; i < b->probe_count; i++) {
        const batch_row_t *r = &b->probes[i].row, **first = &seen[b->probes[i].modrm >= 0xC0];
        if (!*first)
            *first = r;
        if (r->form != (*first)->form)
            return 0;
    }
    return 1;
}

/* Probes of an opcode: every ModRM that can differ, then extension bits and vvvv over the groups. */
static void probe_opcode(batch_builder_t *b, batch_place_t place, uint32_t opcode) {
    static const uint8_t RM[4][5] = {{0, 4, 5, 9, 9}, {1, 4, 9, 9, 9}, {2, 4, 9, 9, 9}, {9, 9, 9, 9, 9}};
    const uint32_t masked = 1u << (STEP_MASKED - STEP_REX);
    uint32_t mode, reg, i, bit, varied;
    if (place.space == SPACE_EVEX)
        varied = 0xEFF;
    else if (place.space == SPACE_VEX)
        varied = 0x0FE;
    else
        varied = place.rex ? 0x00E : place.map ? 0x00F : 0;
    b->probe_count = 0;
    for (reg = 0; reg < 8; reg++) {
        for (mode = 0; mode < 3; mode++)
            for (i = 0; RM[mode][i] != 9; i++)
                probe(b, place, opcode, mode << 6 | reg << 3 | RM[mode][i], 0x8D + 0x11 * (reg & 1), 0);
        for (i = 0; i < 8; i++)
            probe(b, place, opcode, 0xC0 | reg << 3 | i, 0x91 + 0x23 * (i & 1), 0);
    }
    const uint32_t first_reg = is_uniform(b) ? 5 : 0;
    for (reg = first_reg; reg < 8; reg++)
        for (mode = 0; mode < 3; mode++) {
            static const uint8_t SAMPLE[] = {0x01, 0x44, 0xC1};
            uint32_t modrm = SAMPLE[mode] | reg << 3;
            for (bit = 0; bit < 12; bit++)
                if (varied >> bit & 1)
                    probe(b, place, opcode, modrm, 0x91, bit ? 1u << bit : place.space == SPACE_EVEX ? 1 | masked : 1);
        }
}

#endif
