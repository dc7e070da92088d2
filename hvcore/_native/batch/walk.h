/* Pass 1: where instructions begin, and which entry of the tables each of them is.
 *
 * One instruction's length is needed to find the next, and costs some fifty cycles of latency but only half of that in
 * work. So a tile is cut into chunks and STREAMS chunks are followed at the same time, each from its first byte, which
 * need not be the first of an instruction. x86 code synchronises by itself: the join behind it finds the place where
 * the instruction that really comes out of the chunk before meets the chunk's own, mostly at once, and follows the code
 * until it does. More than three streams gain nothing where it was measured (Zen 4): its schedulers are full by then.
 */
#ifndef HVCORE_BATCH_WALK_H
#define HVCORE_BATCH_WALK_H

#include "layout.h"

enum { STREAMS = 3, CHUNK = 1024, CHUNKS = 30, TILE = CHUNK * CHUNKS, CHUNK_ROOM = CHUNK + 24,
       LOOK_AHEAD = 24 };       /* bytes behind an instruction's first that the fast path may read */

typedef struct {
    uint64_t infos[(CHUNKS + 1) * CHUNK_ROOM];
    uint32_t counts[CHUNKS], exits[CHUNKS];     /* of each chunk: infos, where the next chunk is entered */
    uint32_t next, running;
} batch_walk_t;

/* One more look at what the fixed steps of `step` did not settle, then the decoder of single instructions. */
static __attribute__((noinline)) uint64_t step_slow(const batch_tables_t *t, const uint8_t *p, uint64_t available) {
    uint64_t window = load_64(p), sum = 0, e = t->steps[window & 255], shape, f;
    uint32_t fast, length, i;
    for (i = 0; i < 5 && e & 63; i++) {
        sum += e;
        window >>= 8;
        e = t->steps[(e >> STEP_ROW) + (window & 255)];
    }
    sum = (sum & 0xFFFF00) | SUSPECT;
    if (!(e & 63)) {
        shape = t->shapes[((e >> STEP_CLASS & 15) << 8) + (window >> 8 & 255)];
        fast = (uint32_t)(e >> STEP_FAST & 0xFFFF) + (uint32_t)(shape >> 8);
        f = t->fast[fast];
        if (!(sum >> STEP_REX & f >> FAST_FORBIDDEN)) {
            length = i + (e >> STEP_SIZE & 15) + (shape & 127) + ((window >> 16 & 7) == 5 ? shape >> 5 & 4 : 0);
            return (uint64_t)fast << INFO_FAST | ((sum ^ SUSPECT) >> 8) << INFO_SUM | (uint64_t)length << INFO_LENGTH;
        }
    }
    batch_row_t row;
    t->slow(p, available > 64 ? 64 : (uint32_t)available, t->options, &row);
    return (uint64_t)row.length << INFO_LENGTH;
}

/* The instruction at p: its info without the offset. `end`: of the buffer; LOOK_AHEAD bytes are there. */
static inline __attribute__((always_inline)) uint64_t step(const batch_tables_t *t, const uint8_t *p,
                                                           const uint8_t *end) {
    uint64_t window = load_64(p), sum, e, shape, f, length;
    uint32_t fast;
    e = t->steps[window & 255];
    sum = e;
    window >>= e & 63;
    e = t->steps[(e >> STEP_ROW) + (window & 255)];
    sum += e;
    window >>= e & 63;
    e = t->steps[(e >> STEP_ROW) + (window & 255)];
    sum += e;
    window >>= e & 63;
    e = t->steps[(e >> STEP_ROW) + (window & 255)];
    shape = t->shapes[(e >> (STEP_CLASS - 8) & 0xF00) + (window >> 8 & 255)];
    fast = (uint32_t)(e >> STEP_FAST & 0xFFFF) + (uint32_t)(shape >> 8);
    f = t->fast[fast];
    length = (sum >> STEP_COUNT & 15) + (e >> STEP_SIZE & 15) + (shape & 127)
             + ((shape >> 5 & 4) & -(uint64_t)((window >> 16 & 7) == 5));
    if (BATCH_UNLIKELY(((sum & 0xFFF000) | SUSPECT) >> STEP_REX & f >> FAST_FORBIDDEN))
        return step_slow(t, p, (uint64_t)(end - p));
    return (uint64_t)fast << INFO_FAST | (sum & 0xFFFF00) << (INFO_SUM - 8) | length << INFO_LENGTH;
}

typedef struct {
    const uint8_t *stop;
    uint32_t chunk;
} batch_stream_t;

/* Stream k has come to the end of its chunk: note that, and give it the next one. Behind the last it follows the first
 * again, into nowhere: a stream that does nothing would cost more than one that works in vain for a moment. */
static __attribute__((noinline)) uint64_t *next_chunk(batch_walk_t *w, batch_stream_t *stream, const uint8_t *base,
                                                      uint32_t size, const uint8_t **at, uint64_t *out) {
    uint32_t count = (size + CHUNK - 1) / CHUNK, c;
    if (stream->chunk < count) {
        w->counts[stream->chunk] = (uint32_t)(out - (w->infos + stream->chunk * CHUNK_ROOM));
        w->exits[stream->chunk] = (uint32_t)(*at - base);
        w->running--;
    }
    c = stream->chunk = w->next < count ? w->next++ : count;
    *at = base + (c < count ? c : 0) * CHUNK;
    stream->stop = c + 1 < count ? *at + CHUNK : c < count ? base + size : base + (size < CHUNK ? size : CHUNK);
    return w->infos + (c < count ? c : CHUNKS) * CHUNK_ROOM;
}

/* Walk the chunks of the tile at `base`. size + LOOK_AHEAD bytes can be read; end is the buffer's. */
static void walk_tile(const batch_tables_t *t, const uint8_t *base, uint32_t size, const uint8_t *end,
                      batch_walk_t *w) {
    batch_stream_t streams[STREAMS];
#define EACH(do_) do_(0) do_(1) do_(2)
#define DECLARE(k) const uint8_t *at_##k; uint64_t *out_##k;
#define START(k) streams[k].chunk = ~0u; out_##k = next_chunk(w, &streams[k], base, size, &at_##k, NULL);
#define STEP(k) { \
        uint64_t info = step(t, at_##k, end); \
        *out_##k++ = info | (uint64_t)(at_##k - base); \
        at_##k += info >> INFO_LENGTH; \
        if (BATCH_UNLIKELY(at_##k >= streams[k].stop)) { \
            const uint8_t *at = at_##k; \
            out_##k = next_chunk(w, &streams[k], base, size, &at, out_##k); \
            at_##k = at; \
        } \
    }
    w->next = 0;
    w->running = (size + CHUNK - 1) / CHUNK;
    EACH(DECLARE)
    EACH(START)
    while (w->running) {
        EACH(STEP)
    }
#undef EACH
#undef DECLARE
#undef START
#undef STEP
}

#endif
