/* Builds the tables of the fast path by asking the decoder of single instructions.
 *
 * For every row of steps (a combination of prefixes and escape) and every opcode, `slow` describes instructions that
 * cover all ModRM bytes that differ and every extension bit. What the fast path's own formulas reproduce becomes an
 * entry; whatever they do not (or only without certain bits set, which the entry then forbids) stays with `slow`.
 */
#ifndef HVCORE_BATCH_BUILD_H
#define HVCORE_BATCH_BUILD_H

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
    uint32_t extensions = bits >> 1 & 7, vvvv = bits >> (STEP_VVVV - STEP_REX) & 15, high = bits >> (STEP_HIGH - STEP_REX);
    uint8_t *at = p->code;
    if (place.space == SPACE_EVEX) {
        *at++ = 0x62;
        *at++ = (uint8_t)((~extensions & 7) << 5 | (~high & 1) << 4 | place.map);
        *at++ = (uint8_t)(place.rex << 7 | (~vvvv & 15) << 3 | 4 | place.pp);
        *at++ = (uint8_t)((bits & 1) << 7 | place.l << 5 | (~high >> 1 & 1) << 3 | (bits >> (STEP_MASKED - STEP_REX) & 1));
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

static uint32_t shape_length(const batch_tables_t *t, uint32_t class, const batch_probe_t *p) {
    uint32_t shape = t->shapes[class << 8 | p->modrm];
    return (shape & 127) + ((p->code[p->opcode_at + 2] & 7) == 5 ? shape >> 5 & 4 : 0);
}

static uint32_t shape_pick(const batch_tables_t *t, uint32_t class, const batch_probe_t *p) {
    return t->shapes[class << 8 | p->modrm] >> 8;
}

/* Does an entry reproduce what `slow` said? `others` holds the registers of operands 0 to 3. */
static int reproduces(const batch_tables_t *t, const batch_probe_t *p, uint32_t length, uint64_t f, uint64_t others) {
    const batch_row_t *r = &p->row;
    uint64_t info = probe_info(p, length), window = load_64(p->code + p->opcode_at);
    uint64_t fields = register_fields(window, info) | is4_field(p->code + length);
    uint8_t base, index, scale;
    int32_t displacement;
    if (r->segment != BATCH_NONE || r->address_size != 64 || r->operand_size != t->operand_sizes[r->form])
        return 0;
    if (r->status || r->form != (uint16_t)f || r->length != length || r->kinds != (uint8_t)(f >> FAST_KINDS))
        return 0;
    memory_of(t, window, load_64(p->code + p->opcode_at + 2), info, f, &base, &index, &scale, &displacement);
    if (r->base != base || r->index != index || r->scale != scale || r->displacement != displacement)
        return 0;
    if (r->immediate != immediate_of(t, p->code + length, f) || r->target_bits != (f >> FAST_RELATIVE & 1) * 64)
        return 0;
    if (r->reg != register_of(f >> FAST_REGISTER & 0xFFFF, fields, p->bits & 1) || r->registers[4] != BATCH_NONE)
        return 0;
    for (uint32_t i = 0; i < 4; i++)
        if (r->registers[i] != register_of(others >> 16 * i & 0xFFFF, fields, p->bits & 1))
            return 0;
    return 1;
}

static uint32_t observed_register(const batch_probe_t *p, uint32_t which) {
    return which == 4 ? p->row.reg : p->row.registers[which];
}

/* How the column `which` (0 to 3: that operand's, 4: the first register's) of a group's probes comes about: what fits
 * all of them or, as some extension bits may not be allowed, all without and most with. */
static uint32_t find_register(const batch_tables_t *t, batch_probe_t *const *group, const uint64_t *fields, uint32_t count,
                              uint32_t which) {
    static const uint8_t LANE_ORDER[] = {LANE_REG, LANE_RM, LANE_VVVV, LANE_OPCODE, LANE_IS4};
    static const uint8_t BASES[] = {0, 0, 32, 64, 72, 80, 88, 96, 112, 128, 136, 144, 0, 0, 32};
    static const uint8_t WITHOUT[] = {4, 4, 4, 6, 6, 6, 6, 4, 4, 6, 6, 7, 6, 0, 0};
    uint32_t first = observed_register(group[0], which), best = first | 7 << REGISTER_WITHOUT, best_score = 0;
    uint32_t candidate, i, score;
    for (i = 1; i < count && observed_register(group[i], which) == first; i++) {
    }
    for (candidate = 0; i < count && candidate < sizeof LANE_ORDER * sizeof BASES; candidate++) {
        uint32_t class = candidate % sizeof BASES;
        uint32_t spec = BASES[class] | (uint32_t)WITHOUT[class] << REGISTER_WITHOUT
                        | (uint32_t)LANE_ORDER[candidate / sizeof BASES] << REGISTER_LANE
                        | (uint32_t)(class == 1) << REGISTER_BYTE;
        for (score = i = 0; i < count; i++) {
            if (observed_register(group[i], which) == register_of(spec, fields[i], group[i]->bits & 1))
                score++;
            else if (is_plain(group[i]))
                break;
        }
        if (i == count && score > best_score)
            best = spec, best_score = score;
        i = score;                                          /* all fit: no need to look further */
    }
    return best;
}

/* log2 of N of disp8*N. */
static uint32_t disp8_scale(batch_probe_t *const *group, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const batch_probe_t *p = group[i];
        uint32_t at = p->opcode_at + 2 + ((p->modrm & 7) == 4), scale = 0;
        if (p->modrm >> 6 != 1 || p->row.status || !p->code[at])
            continue;
        while (scale < 7 && (int32_t)((uint32_t)(int8_t)p->code[at] << scale) != p->row.displacement)
            scale++;
        return scale & 7;
    }
    return 0;
}

/* The entry of a group of probes that differ in registers, addressing and values only; 0 if there is none. */
static uint64_t find_entry(const batch_tables_t *t, batch_place_t place, batch_probe_t *const *group, uint32_t count,
                           uint32_t class, uint32_t size, uint64_t *others) {
    const batch_row_t *first = &group[0]->row;
    uint64_t f = first->form | (uint64_t)first->kinds << FAST_KINDS, forbidden = 0;
    uint32_t i, kind, lengths[PROBES];
    uint64_t fields[PROBES];
    int fits;
    if (count == 0 || first->status)
        return 0;
    for (i = 0; i < count; i++) {
        lengths[i] = group[i]->opcode_at + 1 + size + shape_length(t, class, group[i]);
        fields[i] = register_fields(load_64(group[i]->code + group[i]->opcode_at), probe_info(group[i], lengths[i]))
                    | is4_field(group[i]->code + lengths[i]);
    }
    if (first->target_bits)
        f |= 1 << FAST_RELATIVE;
    if (class != SHAPE_BARE && group[0]->modrm < 0xC0 && (first->scale || first->base != BATCH_NONE))
        f |= 1 << FAST_MEMORY;
    if (place.space == SPACE_EVEX)
        f |= (uint64_t)disp8_scale(group, count) << FAST_SCALE;
    *others = 0;
    for (i = 0; i < 4; i++)
        *others |= (uint64_t)find_register(t, group, fields, count, i) << 16 * i;
    f |= (uint64_t)find_register(t, group, fields, count, 4) << FAST_REGISTER;
    for (kind = fits = 0; kind < IMMEDIATE_KINDS && !fits; kind++) {
        uint64_t candidate = (f & ~(15ull << FAST_IMMEDIATE)) | (uint64_t)kind << FAST_IMMEDIATE;
        for (fits = 1, i = 0; i < count && fits; i++)
            if (is_plain(group[i]))
                fits = reproduces(t, group[i], lengths[i], candidate, *others);
        if (fits)
            f = candidate;
    }
    if (!fits)
        return 0;
    for (i = 0; i < count; i++)
        if (!reproduces(t, group[i], lengths[i], f, *others))
            forbidden |= group[i]->bits & 1 ? 1 : group[i]->bits;
    return f | forbidden << FAST_FORBIDDEN;
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

/* Nothing depends on the byte behind the opcode, as if it were ModRM, but the immediate. */
static int opcode_is_bare(const batch_builder_t *b) {
    const batch_row_t *first = &b->probes[0].row;
    for (uint32_t i = 0; i < b->probe_count; i++) {
        const batch_row_t *r = &b->probes[i].row;
        if (is_plain(&b->probes[i]) && (r->status || r->form != first->form || r->length - b->probes[i].opcode_at
                != first->length - b->probes[0].opcode_at || memcmp(r->registers, first->registers, BATCH_OPERANDS)))
            return 0;
    }
    return 1;
}

/* Bytes of immediate if every valid probe has the same number behind what `class` says, else 99. */
static uint32_t immediate_size(const batch_builder_t *b, uint32_t class) {
    uint32_t size = 99;
    for (uint32_t i = 0; i < b->probe_count; i++) {
        const batch_probe_t *p = &b->probes[i];
        uint32_t here = p->row.length - p->opcode_at - 1 - shape_length(b->tables, class, p);
        if (p->row.status)
            continue;
        if (here > 8 || (size != 99 && here != size))
            return 99;
        size = here;
    }
    return size;
}

static uint32_t add_entries(batch_tables_t *t, const uint64_t *f, const uint64_t *others, uint32_t count) {
    uint32_t at;
    for (at = 1; at + count <= t->fast_count; at++)
        if (t->fast[at] == f[0] && !memcmp(t->fast + at, f, count * 8)
                && !memcmp(t->others + at, others, count * 8))
            return at;
    at = t->fast_count;
    if (at + count > BATCH_FAST)
        return 0;
    memcpy(t->fast + at, f, count * 8);
    memcpy(t->others + at, others, count * 8);
    t->fast_count += count;
    return at;
}

static uint64_t build_cell(batch_builder_t *b, batch_place_t place, uint32_t opcode) {
    static const uint8_t COUNTS[SHAPES] = {1, 2, 16, 72, 16, 16, 16};
    batch_tables_t *t = b->tables;
    batch_probe_t *group[PROBES];
    uint64_t f[72], others[72], best[72], best_others[72];
    uint32_t class, best_class = 0, size = 0, best_known = 0, i, at, known, valid = 0;
    if (!opcode_exists(b, place, opcode))
        return 0;
    probe_opcode(b, place, opcode);
    for (i = 0; i < b->probe_count; i++) {
        if (place.space == SPACE_LEGACY && !place.map && opcode == 0x8F && b->probes[i].modrm & 0x38)
            b->probes[i].row.status = 1;                    /* POP only with reg = 0, else the first byte of XOP */
        valid += !b->probes[i].row.status;
    }
    if (!valid)
        return 0;
    for (class = opcode_is_bare(b) ? SHAPE_BARE : SHAPE_MODE; class < SHAPES; class++) {
        uint32_t bytes = immediate_size(b, class);
        if (bytes == 99 || (class == SHAPE_WHOLE && bytes))     /* one probe a ModRM would say nothing of an immediate */
            continue;
        for (known = at = 0; at < COUNTS[class]; at++) {
            uint32_t members = 0;
            for (i = 0; i < b->probe_count; i++)
                if (shape_pick(t, class, &b->probes[i]) == at)
                    group[members++] = &b->probes[i];
            f[at] = others[at] = 0;
            if (members)
                f[at] = find_entry(t, place, group, members, class, bytes, &others[at]);
            if (f[at] && class == SHAPE_WHOLE && at >= 8 && members == 1)
                f[at] |= 0xEFFull << FAST_FORBIDDEN;        /* alone: no extension bit was ever seen with it */
            if (!f[at]) {
                f[at] = FAST_UNKNOWN;
                others[at] = 0;
            } else
                known += members;
        }
        if (known > best_known) {
            best_known = known, best_class = class, size = bytes;
            memcpy(best, f, sizeof f);
            memcpy(best_others, others, sizeof others);
        }
        if (known == valid || class == SHAPE_BARE)
            break;
    }
    at = best_known ? add_entries(t, best, best_others, COUNTS[best_class]) : 0;
    return at ? (uint64_t)best_class << STEP_CLASS | (uint64_t)(size + 1) << STEP_SIZE | (uint64_t)at << STEP_FAST : 0;
}

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
    for (i = 0; i < IMMEDIATE_KINDS; i++) { /* none; 1 2 4 8 bytes sign-extended; 1 2 4 8 zero-extended; the constant 1 */
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

/* What pass 1 of AVX-512 computes the length of an opcode from: 0-3 1 + bytes of immediate, 4 ModRM, 5 two bytes less of
 * immediate with 66, 7 it does not know. */
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
    return (uint8_t)(size | (class != SHAPE_BARE) << 4 | (!map && with_66 && (with_66 >> STEP_SIZE & 15) + 2 == size) << 5);
}

/* Bytes from the opcode on without those of ModRM, as pass 1 of AVX-512 computes them; 99: it would be wrong. */
static uint32_t computed_size(const batch_tables_t *t, batch_place_t place, uint32_t opcode, uint32_t class) {
    uint32_t code = place.map > 1 ? 0x10u + place.map - 1 : t->opcodes[place.map][opcode];
    uint32_t size = code & 15;
    if (code & 0x80 || (class != SHAPE_BARE) != (code >> 4 & 1))
        return 99;
    if (class >= SHAPE_TEST_8 && (place.map || opcode != (class == SHAPE_TEST_8 ? 0xF6 : 0xF7) || class == SHAPE_TEST_16))
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
        for (i = 0; i < 4 && place.space == SPACE_LEGACY; i++) {    /* with a segment prefix or without, with REX that changes nothing */
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
