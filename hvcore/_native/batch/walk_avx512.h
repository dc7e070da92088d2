/* Pass 1 with AVX-512 VBMI: the length of an instruction at every byte of a tile, then one walk along them.
 *
 * 64 bytes at a time, from the end of the tile to its beginning: the length at a byte that is a prefix is one more than
 * that at the byte behind it, which is known by then. Tables of 256 bytes lie in four registers. What this pass does
 * not know (two prefixes, most of EVEX, opcodes marked in the tables) it marks, and `step` of walk.h settles it.
 *
 * Three bytes a position: the length; the place code of batch_tables_t.places; bits 12 to 19 of a sum, that is the REX
 * prefix and its B, X, R, and vvvv. A place code: 0-1 map, 2 segment prefix, 3 REX.W, 4-5 mandatory prefix, 6 REX; or
 * with bit 7 VEX, 6 EVEX, 2 256 or 512 bits, 3 W, 4-5 pp; 88 and up without a map C5; 80 what it does not know.
 */
#ifndef HVCORE_BATCH_WALK_AVX512_H
#define HVCORE_BATCH_WALK_AVX512_H

#include <immintrin.h>

#include "walk.h"

enum { VECTOR = 64, VECTOR_TILE = 2048, VECTOR_AHEAD = 4 * VECTOR };

typedef struct {
    uint8_t lengths[VECTOR_TILE + VECTOR], places[VECTOR_TILE + VECTOR], extensions[VECTOR_TILE + VECTOR];
    /* Of each instruction: info, fast entry, eight bytes from the opcode on, eight up to the instruction's end. */
    uint64_t infos[VECTOR_TILE + VECTOR], entries[VECTOR_TILE + VECTOR], heads[VECTOR_TILE + VECTOR],
        tails[VECTOR_TILE + VECTOR];
    uint16_t forms[VECTOR_TILE + VECTOR];
    uint8_t sizes[VECTOR_TILE + VECTOR];
    uint32_t open_rows[VECTOR_TILE + VECTOR], open_count;   /* left to `slow` */
} vector_walk_t;

typedef struct { __m512i quarter[4]; } vector_table_t;

static inline vector_table_t vector_table(const uint8_t *bytes) {
    vector_table_t t;
    for (int i = 0; i < 4; i++)
        t.quarter[i] = _mm512_loadu_si512(bytes + VECTOR * i);
    return t;
}

static inline __m512i look_up(const vector_table_t *t, __m512i bytes, __mmask64 upper) {
    __m512i low = _mm512_permutex2var_epi8(t->quarter[0], bytes, t->quarter[1]);
    return _mm512_mask_blend_epi8(upper, low, _mm512_permutex2var_epi8(t->quarter[2], bytes, t->quarter[3]));
}

#define BYTES(x) _mm512_set1_epi8((char)(x))
#define ADD(mask, a, b) _mm512_mask_add_epi8(a, mask, a, b)
#define AFTER(distance, now, later) _mm512_permutex2var_epi8(now, _mm512_loadu_si512(count_up + (distance)), later)
#define NEXT(now, later) _mm512_permutex2var_epi8(now, behind, later)

/* Lengths, places and extensions of `size` positions from `code` on. VECTOR_AHEAD bytes behind them can be read. */
static void find_lengths(const batch_tables_t *t, const uint8_t *code, uint32_t size, vector_walk_t *w) {
    const vector_table_t modrm_lengths = vector_table(t->modrm_lengths);
    const vector_table_t opcodes = vector_table(t->opcodes[0]), escaped = vector_table(t->opcodes[1]);
    const __m512i zero = _mm512_setzero_si512(), one = BYTES(1), four = BYTES(4);
    __m512i behind, later_modrm = zero, later_escaped = zero, later_map = zero, later_plain = zero, later_place = zero;
    __m512i later_extended = zero, later_extended_place = zero, later_extensions = zero;
    uint8_t count_up[VECTOR + 8];
    for (int i = 0; i < VECTOR + 8; i++)
        count_up[i] = (uint8_t)i;
    behind = _mm512_loadu_si512(count_up + 1);
    for (int32_t at = (int32_t)((size + VECTOR - 1) / VECTOR * VECTOR); at >= 0; at -= VECTOR) {
        __m512i b = _mm512_loadu_si512(code + at), b1 = _mm512_loadu_si512(code + at + 1);
        __mmask64 upper = _mm512_movepi8_mask(b);

        /* ModRM at this byte, with SIB and displacement. */
        __m512i modrm = look_up(&modrm_lengths, b, upper);
        __mmask64 sib_adds = _mm512_mask_cmpeq_epi8_mask(_mm512_movepi8_mask(modrm), _mm512_and_si512(b1, BYTES(7)),
                                                         BYTES(5));
        modrm = _mm512_and_si512(modrm, BYTES(0x7F));
        modrm = ADD(sib_adds, modrm, four);
        __m512i modrm1 = NEXT(modrm, later_modrm);
        __m512i modrm2 = NEXT(modrm1, NEXT(later_modrm, zero));

        /* An opcode of the one-byte map at this byte. Bit 7 of a length: two bytes less with 66. */
        __m512i known = look_up(&opcodes, b, upper);
        __mmask64 unknown = _mm512_movepi8_mask(known);
        __mmask64 tests_immediate = _mm512_testn_epi8_mask(b1, BYTES(0x30));
        __m512i plain = _mm512_and_si512(known, BYTES(15));
        plain = ADD(_mm512_test_epi8_mask(known, BYTES(16)), plain, modrm1);
        plain = ADD(_mm512_mask_cmpeq_epi8_mask(tests_immediate, b, BYTES(0xF6)), plain, one);
        plain = ADD(_mm512_mask_cmpeq_epi8_mask(tests_immediate, b, BYTES(0xF7)), plain, four);
        plain = ADD(_mm512_test_epi8_mask(known, BYTES(32)), plain, BYTES(0x80));
        __m512i place = _mm512_maskz_mov_epi8(unknown, BYTES(0x80));

        /* Behind an escape 0F. */
        __m512i escape = look_up(&escaped, b, upper);
        __mmask64 is_38 = _mm512_cmpeq_epi8_mask(b, BYTES(0x38)), is_3a = _mm512_cmpeq_epi8_mask(b, BYTES(0x3A));
        __m512i map = _mm512_mask_mov_epi8(one, _mm512_movepi8_mask(escape), BYTES(0x80));
        __m512i behind_escape = _mm512_and_si512(escape, BYTES(15));
        behind_escape = ADD(_mm512_test_epi8_mask(escape, BYTES(16)), behind_escape, modrm1);
        behind_escape = _mm512_mask_add_epi8(behind_escape, is_38, modrm2, BYTES(2));
        behind_escape = _mm512_mask_add_epi8(behind_escape, is_3a, modrm2, BYTES(3));
        map = _mm512_mask_mov_epi8(map, is_38, BYTES(2));
        map = _mm512_mask_mov_epi8(map, is_3a, BYTES(3));
        __mmask64 is_escape = _mm512_cmpeq_epi8_mask(b, BYTES(0x0F));
        plain = _mm512_mask_add_epi8(plain, is_escape, NEXT(behind_escape, later_escaped), one);
        place = _mm512_mask_mov_epi8(place, is_escape, NEXT(map, later_map));

        /* REX in front. W: immediates of B8 to BF have eight bytes. */
        __mmask64 is_rex = _mm512_cmpeq_epi8_mask(_mm512_and_si512(b, BYTES(0xF0)), BYTES(0x40));
        __mmask64 is_wide = _mm512_mask_test_epi8_mask(is_rex, b, BYTES(8));
        __mmask64 grows = _mm512_mask_cmpeq_epi8_mask(is_wide, _mm512_and_si512(b1, BYTES(0xF8)), BYTES(0xB8));
        __m512i extended = _mm512_mask_add_epi8(plain, is_rex, NEXT(plain, later_plain), one);
        extended = ADD(grows, extended, four);
        __m512i extended_place = _mm512_mask_mov_epi8(place, is_rex,
                                                      _mm512_or_si512(NEXT(place, later_place), BYTES(0x40)));
        extended_place = ADD(is_wide, extended_place, BYTES(8));
        __m512i extensions = _mm512_maskz_mov_epi8(
            is_rex, _mm512_or_si512(_mm512_and_si512(_mm512_add_epi8(b, b), BYTES(14)), one));

        /* One of 66 F3 F2 FS GS in front of all. */
        __mmask64 is_66 = _mm512_cmpeq_epi8_mask(b, BYTES(0x66));
        __mmask64 is_repeat = _mm512_cmpeq_epi8_mask(_mm512_or_si512(b, one), BYTES(0xF3));
        __mmask64 is_segment = _mm512_cmpeq_epi8_mask(_mm512_or_si512(b, one), BYTES(0x65));
        __mmask64 is_prefix = is_66 | is_repeat | is_segment;
        __m512i next_length = NEXT(extended, later_extended);
        __m512i length = _mm512_mask_add_epi8(extended, is_prefix, next_length, one);
        __mmask64 shrinks = _mm512_mask_test_epi8_mask(is_66, next_length, BYTES(0x80));
        length = _mm512_mask_sub_epi8(length, shrinks, length, BYTES(2));
        /* 66 -> 1, F3 -> 2, F2 -> 3 in bits 4 and 5; segments in bit 2. */
        __m512i mandatory = _mm512_maskz_mov_epi8(is_66, BYTES(0x10));
        mandatory = _mm512_mask_mov_epi8(mandatory, is_segment, four);
        mandatory = _mm512_mask_mov_epi8(mandatory, is_repeat, BYTES(0x30));
        __mmask64 is_f3 = _mm512_mask_test_epi8_mask(is_repeat, b, one);
        mandatory = _mm512_mask_sub_epi8(mandatory, is_f3, mandatory, BYTES(0x10));
        __m512i final_place = _mm512_mask_mov_epi8(extended_place, is_prefix,
                                           _mm512_or_si512(NEXT(extended_place, later_extended_place), mandatory));
        __m512i final_extensions = _mm512_mask_mov_epi8(extensions, is_prefix, NEXT(extensions, later_extensions));

        __mmask64 is_c5 = _mm512_cmpeq_epi8_mask(b, BYTES(0xC5)), is_c4 = _mm512_cmpeq_epi8_mask(b, BYTES(0xC4));
        __mmask64 is_62 = _mm512_cmpeq_epi8_mask(b, BYTES(0x62)), has_payload = is_c5 | is_c4 | is_62;
        if (has_payload) {
            __m512i b2 = _mm512_loadu_si512(code + at + 2), b3 = _mm512_loadu_si512(code + at + 3);
            __m512i last = _mm512_mask_mov_epi8(b2, is_c5, b1), map_field = _mm512_and_si512(b1, BYTES(31));
            __mmask64 knows_vex = _mm512_mask_cmplt_epu8_mask(is_c4, _mm512_sub_epi8(map_field, one), BYTES(3));
            /* EVEX: R' and V' as in VEX, no mask, no broadcast, 128 or 512 bits. */
            __mmask64 knows_evex = _mm512_mask_cmplt_epu8_mask(is_62, _mm512_sub_epi8(map_field, BYTES(0x11)),
                                                               BYTES(3));
            knows_evex = _mm512_mask_test_epi8_mask(knows_evex, b2, four);
            knows_evex = _mm512_mask_cmpeq_epi8_mask(knows_evex, _mm512_and_si512(b3, BYTES(0xBF)), BYTES(8));
            map_field = _mm512_and_si512(map_field, BYTES(3));
            __mmask64 first_map = _mm512_cmpeq_epi8_mask(map_field, one);
            __mmask64 third_map = _mm512_cmpeq_epi8_mask(map_field, BYTES(3));

            /* The opcode is the third, fourth, fifth byte. */
            __m512i vex = ADD(third_map, _mm512_add_epi8(AFTER(4, modrm, later_modrm), four), one);
            vex = _mm512_mask_add_epi8(vex, first_map, AFTER(3, behind_escape, later_escaped), BYTES(3));
            __m512i evex = ADD(third_map, _mm512_add_epi8(AFTER(5, modrm, later_modrm), BYTES(5)), one);
            evex = _mm512_mask_add_epi8(evex, first_map, AFTER(4, behind_escape, later_escaped), four);
            length = _mm512_mask_add_epi8(length, is_c5, AFTER(2, behind_escape, later_escaped), BYTES(2));
            length = _mm512_mask_mov_epi8(length, is_c4, vex);
            length = _mm512_mask_mov_epi8(length, is_62, evex);

            __m512i pp = _mm512_slli_epi16(_mm512_and_si512(last, BYTES(3)), 4);
            __m512i wide = _mm512_and_si512(_mm512_srli_epi16(b2, 4), BYTES(8));
            __m512i common = _mm512_or_si512(pp, BYTES(0x80));
            __m512i l = _mm512_and_si512(last, four);
            __m512i named = _mm512_or_si512(_mm512_or_si512(common, wide), map_field);
            final_place = _mm512_mask_mov_epi8(final_place, has_payload, BYTES(0x80));
            __m512i short_vex = _mm512_or_si512(_mm512_or_si512(common, l), BYTES(8));
            final_place = _mm512_mask_mov_epi8(final_place, is_c5, short_vex);
            final_place = _mm512_mask_mov_epi8(final_place, knows_vex, _mm512_or_si512(named, l));
            l = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(b3, 4), four), BYTES(0x40));
            final_place = _mm512_mask_mov_epi8(final_place, knows_evex, _mm512_or_si512(named, l));

            __m512i inverted = _mm512_xor_si512(b1, BYTES(0xFF)), vvvv = _mm512_xor_si512(last, BYTES(0xFF));
            __m512i rxb = _mm512_and_si512(_mm512_srli_epi16(inverted, 4), BYTES(14));
            rxb = _mm512_mask_mov_epi8(rxb, is_c5, _mm512_and_si512(rxb, BYTES(8)));
            vvvv = _mm512_and_si512(_mm512_add_epi8(vvvv, vvvv), BYTES(0xF0));
            final_extensions = _mm512_mask_mov_epi8(final_extensions, has_payload, _mm512_or_si512(rxb, vvvv));
        }

        _mm512_storeu_si512(w->lengths + at, _mm512_and_si512(length, BYTES(0x7F)));
        _mm512_storeu_si512(w->places + at, final_place);
        _mm512_storeu_si512(w->extensions + at, final_extensions);
        later_modrm = modrm;
        later_escaped = behind_escape;
        later_map = map;
        later_plain = plain;
        later_place = place;
        later_extended = extended;
        later_extended_place = extended_place;
        later_extensions = extensions;
    }
}

#undef BYTES
#undef ADD
#undef AFTER
#undef NEXT

/* Walk the tile of `size` bytes at `base`, whose first byte begins an instruction. Returns how many begin in it;
 * `*stop` is where the next one does. `full`: leave what pass 2 needs, too. */
static inline __attribute__((always_inline)) uint32_t walk_vectors(const batch_tables_t *t, const uint8_t *base,
                                                                   uint32_t size, const uint8_t *end, vector_walk_t *w,
                                                                   uint32_t *stop, int full) {
    uint32_t at = 0, count = 0, open = 0;
    find_lengths(t, base, size, w);
    while (at < size) {
        const uint8_t *p = base + at;
        uint64_t length = w->lengths[at], extensions = w->extensions[at], info, f, head;
        uint32_t place = t->places[w->places[at]], before = place & 255, cell, fast;
        head = load_64(p + before);
        cell = t->cells[(place >> 16) + (head & 255)];
        fast = (cell & 0xFFFF) + t->picks[(cell >> 16) + (head >> 8 & 255)];
        f = t->fast[fast];
        info = (uint64_t)fast << INFO_FAST | (uint64_t)(before | extensions << 4) << INFO_SUM | length << INFO_LENGTH;
        if (BATCH_UNLIKELY((extensions | 256) & f >> FAST_FORBIDDEN)) {
            info = step(t, p, end);
            length = info >> INFO_LENGTH;
            f = t->fast[info >> INFO_FAST & 0xFFFF];
            head = load_64(p + (info >> INFO_SUM & 15));
            w->open_rows[open] = count;
            open += !(info >> INFO_FAST & 0xFFFF);
        }
        w->infos[count] = info | at;
        w->forms[count] = (uint16_t)f;
        w->sizes[count] = (uint8_t)length;
        if (full) {
            w->entries[count] = f;
            w->heads[count] = head;
            w->tails[count] = load_64(p + length - 8);
        }
        count++;
        at += (uint32_t)length;
    }
    *stop = at;
    w->open_count = open;
    return count;
}

#endif
