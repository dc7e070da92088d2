/* The linear sweep: tiles, joins, and the ends of the buffer. */
#ifndef HVCORE_BATCH_SWEEP_H
#define HVCORE_BATCH_SWEEP_H

#include "emit.h"

/* One instruction by the decoder of single instructions; 0 if it is cut off and `more` will follow. */
static uint32_t sweep_one(batch_sweep_t *s, uint64_t offset, int more) {
    batch_row_t r;
    describe_at(s, offset, &r);
    if (r.status == 2 && more)
        return 0;
    put_row(s, s->row++, offset, &r);
    return r.length;
}

/* The tile of `size` bytes at offset `at`, which is where an instruction begins. Returns where the next one begins. */
static uint64_t sweep_tile(batch_sweep_t *s, uint64_t at, uint32_t size) {
    const batch_tables_t *t = s->tables;
    const uint8_t *tile = s->code + at, *end = s->code + s->size;
    batch_walk_t *w = &s->scratch->walk;
    uint32_t position = 0, chunk, count = (size + CHUNK - 1) / CHUNK;
    walk_tile(t, tile, size, end, w);
    for (chunk = 0; chunk < count; chunk++) {
        const uint64_t *infos = w->infos + chunk * CHUNK_ROOM;
        uint32_t stop = chunk + 1 < count ? (chunk + 1) * CHUNK : size, i = 0, total = w->counts[chunk], bridged = 0;
        size_t done;
        while (position < stop) {
            while (i < total && (infos[i] & 0xFFFF) < position)
                i++;
            if (i < total && (infos[i] & 0xFFFF) == position)
                break;
            uint64_t info = step(t, tile + position, end);
            s->scratch->bridge[bridged++] = info | position;
            position += info >> INFO_LENGTH;
        }
        done = emit(s, s->scratch->bridge, bridged, at, fill_operands, NULL);
        if (done < bridged)
            return at + (s->scratch->bridge[done] & 0xFFFF);
        if (position < stop) {
            done = emit(s, infos + i, total - i, at, fill_operands, NULL);
            if (done < total - i)
                return at + (infos[i + done] & 0xFFFF);
            position = w->exits[chunk];
        }
    }
    return at + position;
}

#ifdef HVCORE_AVX512
/* The same with AVX-512, up to VECTOR_TILE bytes. */
static uint64_t sweep_vectors(batch_sweep_t *s, uint64_t at, uint32_t size) {
    vector_walk_t *w = &s->scratch->vectors;
    const uint8_t *tile = s->code + at, *end = s->code + s->size;
    uint32_t stop, count;
    size_t done;
    if (s->want & WANT_OPERANDS)
        count = walk_vectors(s->tables, tile, size, end, w, &stop, 1);
    else
        count = walk_vectors(s->tables, tile, size, end, w, &stop, 0);
    batch_known_t known = {w->forms, w->sizes, w->open_rows, w->open_count};
    done = emit(s, w->infos, count, at, fill_vectors, &known);
    return at + (done < count ? w->infos[done] & 0xFFFF : stop);
}
#endif

/* Sweep from `at` until the buffer ends, no row is left, or (`more`) an instruction is cut off. Returns where. */
static uint64_t sweep(batch_sweep_t *s, uint64_t at, int more) {
    uint64_t head = at + 8;         /* the fast path reads eight bytes before the end of an instruction */
    uint32_t length;
    s->want = wanted(s->columns);
    s->scratch = s->fast ? malloc(sizeof *s->scratch) : NULL;       /* without, everything goes one by one */
    while (at < s->size && s->row < s->capacity) {
#ifdef HVCORE_AVX512
        if (at >= head && s->size - at > VECTOR_AHEAD && s->scratch) {
            uint64_t size = s->size - at - VECTOR_AHEAD;
            at = sweep_vectors(s, at, size > VECTOR_TILE ? VECTOR_TILE : (uint32_t)size);
            continue;
        }
#endif
        if (at >= head && s->size - at > LOOK_AHEAD + 64 && s->scratch) {
            uint64_t size = s->size - at - LOOK_AHEAD;
            at = sweep_tile(s, at, size > TILE ? TILE : (uint32_t)size);
            continue;
        }
        length = sweep_one(s, at, more);
        if (!length)
            break;
        at += length;
    }
    free(s->scratch);
    return at;
}

#endif
