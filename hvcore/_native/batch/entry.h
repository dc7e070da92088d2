/* From what the decoder of single instructions said about an opcode to its entries in the tables. */
#ifndef HVCORE_BATCH_ENTRY_H
#define HVCORE_BATCH_ENTRY_H

#include "probe.h"

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
static uint32_t find_register(batch_probe_t *const *group, const uint64_t *fields, uint32_t count, uint32_t which) {
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
        *others |= (uint64_t)find_register(group, fields, count, i) << 16 * i;
    f |= (uint64_t)find_register(group, fields, count, 4) << FAST_REGISTER;
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
        if (bytes == 99 || (class == SHAPE_WHOLE && bytes))
            continue;                               /* one probe a ModRM would say nothing of an immediate */
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

#endif
