/* Pass 2 with AVX-512: the columns of columns.h, sixteen rows at a time, from what walk_vectors left. */
#ifndef HVCORE_BATCH_COLUMNS_AVX512_H
#define HVCORE_BATCH_COLUMNS_AVX512_H

#include "columns.h"
#include "walk_avx512.h"

#define WORDS(x) _mm512_set1_epi32((int)(x))
#define SHIFT_RIGHT(v, n) _mm512_srli_epi32(v, n)
#define AND(a, b) _mm512_and_si512(a, b)
#define OR(a, b) _mm512_or_si512(a, b)

/* Eight bytes of immediate in the upper end of each lane: shifted down as its kind says. */
static inline __m512i immediates(const batch_tables_t *t, __m512i bytes, __m512i kinds) {
    __m512i shift = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)t->immediate_shift));
    __m512i shift_more = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)(t->immediate_shift + 8)));
    __m512i flip = _mm512_permutex2var_epi64(_mm512_loadu_si512(t->immediate_flip), kinds,
                                             _mm512_loadu_si512(t->immediate_flip + 8));
    __m512i less = _mm512_permutex2var_epi64(_mm512_loadu_si512(t->immediate_less), kinds,
                                             _mm512_loadu_si512(t->immediate_less + 8));
    bytes = _mm512_srlv_epi64(bytes, _mm512_permutex2var_epi64(shift, kinds, shift_more));
    return _mm512_sub_epi64(_mm512_xor_si512(bytes, flip), less);
}

static inline void fill_sixteen(const batch_tables_t *t, const uint64_t *infos, __mmask16 rows,
                                const batch_operands_t *o, size_t i) {
    enum { PART = VECTOR_TILE + VECTOR };
    const uint64_t *entries = infos + PART, *heads = entries + PART, *tails = heads + PART;
    const __m512i low_halves = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i high_halves = _mm512_add_epi32(low_halves, WORDS(1));
    const __m512i none = WORDS(255), seven = WORDS(7), one = WORDS(1);
    __m512i entry_0 = _mm512_loadu_si512(entries + i), entry_1 = _mm512_loadu_si512(entries + i + 8);
    __m512i head_0 = _mm512_loadu_si512(heads + i), head_1 = _mm512_loadu_si512(heads + i + 8);
    __m512i entry = _mm512_permutex2var_epi32(entry_0, low_halves, entry_1);
    __m512i spec = _mm512_permutex2var_epi32(entry_0, high_halves, entry_1);
    __m512i head = _mm512_permutex2var_epi32(head_0, low_halves, head_1);
    __m512i info = _mm512_permutex2var_epi32(_mm512_loadu_si512(infos + i), high_halves,
                                             _mm512_loadu_si512(infos + i + 8));

    _mm256_mask_storeu_epi16(o->form + i, rows, _mm512_cvtepi32_epi16(entry));
    _mm512_mask_cvtepi32_storeu_epi8(o->kinds + i, rows, SHIFT_RIGHT(entry, FAST_KINDS));
    _mm512_mask_cvtepi32_storeu_epi8(o->length + i, rows, SHIFT_RIGHT(info, INFO_LENGTH - 32));

    /* The first register: one of four numbers, side by side, chosen by a shift. */
    __m512i b = AND(SHIFT_RIGHT(info, STEP_EXTENSIONS - 8), one);
    __m512i b8 = _mm512_slli_epi32(b, 3);
    __m512i x16 = AND(_mm512_slli_epi32(info, 3 - (STEP_EXTENSIONS - 8)), WORDS(16));
    __m512i reg_16 = AND(SHIFT_RIGHT(info, STEP_HIGH - 8 - 4), WORDS(16));
    __m512i vvvv_16 = AND(SHIFT_RIGHT(info, STEP_HIGH - 8 + 1 - 4), WORDS(16));
    __m512i r8 = AND(SHIFT_RIGHT(info, STEP_EXTENSIONS - 8 + 2 - 3), WORDS(8));
    __m512i reg = OR(OR(AND(SHIFT_RIGHT(head, 11), seven), r8), reg_16);
    __m512i rm = OR(OR(AND(SHIFT_RIGHT(head, 8), seven), b8), x16);
    __m512i opcode = OR(AND(head, seven), b8);
    __m512i vvvv = OR(AND(SHIFT_RIGHT(info, STEP_VVVV - 8), WORDS(15)), vvvv_16);
    __m512i fields = OR(OR(reg, _mm512_slli_epi32(rm, 8)),
                        OR(_mm512_slli_epi32(opcode, 16), _mm512_slli_epi32(vvvv, 24)));
    __m512i lane = _mm512_sub_epi32(AND(SHIFT_RIGHT(spec, REGISTER_LANE - 3), WORDS(0x38)), WORDS(8));
    /* The fixed lane shifts by 2^32 - 8: nothing is left. */
    __m512i number = _mm512_andnot_si512(AND(SHIFT_RIGHT(spec, REGISTER_WITHOUT - 2), WORDS(0x1C)),
                                         AND(_mm512_srlv_epi32(fields, lane), WORDS(31)));
    __mmask16 is_high = _mm512_test_epi32_mask(spec, WORDS(1 << REGISTER_BYTE))
                        & _mm512_testn_epi32_mask(info, WORDS(1 << (STEP_REX - 8)))
                        & _mm512_test_epi32_mask(number, WORDS(4));
    number = _mm512_add_epi32(number, AND(spec, none));
    number = _mm512_mask_add_epi32(number, is_high, number, WORDS(REGISTER_HIGH));
    _mm512_mask_cvtepi32_storeu_epi8(o->reg + i, rows, number);

    /* Memory: modrm and sib in the second and third byte. */
    __mmask16 is_memory = _mm512_test_epi32_mask(entry, WORDS(1 << FAST_MEMORY));
    __mmask16 has_sib = _mm512_mask_cmpeq_epi32_mask(is_memory, AND(head, WORDS(0x700)), WORDS(0x400));
    __m512i low = _mm512_mask_mov_epi32(AND(SHIFT_RIGHT(head, 8), seven), has_sib, AND(SHIFT_RIGHT(head, 16), seven));
    __m512i mode = AND(head, WORDS(0xC000));
    __mmask16 mode_0 = _mm512_testn_epi32_mask(head, WORDS(0xC000));
    __mmask16 no_base = _mm512_mask_cmpeq_epi32_mask(mode_0 & is_memory, low, WORDS(5));
    __m512i base = _mm512_mask_or_epi32(none, is_memory, low, b8);
    base = _mm512_mask_mov_epi32(base, no_base & ~has_sib, WORDS(BATCH_RIP));
    base = _mm512_mask_mov_epi32(base, no_base & has_sib, none);
    __m512i x8 = _mm512_slli_epi32(AND(SHIFT_RIGHT(info, STEP_EXTENSIONS - 8 + 1), one), 3);
    __m512i index = OR(AND(SHIFT_RIGHT(head, 19), seven), x8);
    __mmask16 has_index = _mm512_mask_cmpneq_epi32_mask(has_sib, index, WORDS(4));
    index = _mm512_mask_mov_epi32(none, has_index, index);
    __m512i scale = _mm512_maskz_mov_epi32(is_memory, one);
    scale = _mm512_mask_sllv_epi32(scale, has_sib, one, AND(SHIFT_RIGHT(head, 22), WORDS(3)));
    _mm512_mask_cvtepi32_storeu_epi8(o->base + i, rows, base);
    _mm512_mask_cvtepi32_storeu_epi8(o->index + i, rows, index);
    _mm512_mask_cvtepi32_storeu_epi8(o->scale + i, rows, scale);

    /* Displacement: of 0, 8 or 32 bits behind ModRM and SIB. */
    __mmask16 is_byte = _mm512_mask_cmpeq_epi32_mask(is_memory, mode, WORDS(0x4000));
    __mmask16 is_wide = no_base | _mm512_mask_cmpeq_epi32_mask(is_memory, mode, WORDS(0x8000));
    __m512i at_2 = _mm512_permutex2var_epi32(_mm512_srli_epi64(head_0, 16), low_halves, _mm512_srli_epi64(head_1, 16));
    __m512i at_3 = _mm512_permutex2var_epi32(_mm512_srli_epi64(head_0, 24), low_halves, _mm512_srli_epi64(head_1, 24));
    __m512i displacement = _mm512_mask_mov_epi32(at_2, has_sib, at_3);
    displacement = _mm512_mask_srai_epi32(displacement, is_byte, _mm512_slli_epi32(displacement, 24), 24);
    displacement = _mm512_mask_sllv_epi32(displacement, is_byte, displacement,
                                          AND(SHIFT_RIGHT(spec, FAST_SCALE - 32), seven));
    _mm512_mask_storeu_epi32(o->displacement + i, rows, _mm512_maskz_mov_epi32(is_byte | is_wide, displacement));

    __m512i kind = AND(_mm512_srli_epi64(entry_0, FAST_IMMEDIATE), _mm512_set1_epi64(15));
    _mm512_mask_storeu_epi64(o->immediate + i, (__mmask8)rows, immediates(t, _mm512_loadu_si512(tails + i), kind));
    kind = AND(_mm512_srli_epi64(entry_1, FAST_IMMEDIATE), _mm512_set1_epi64(15));
    _mm512_mask_storeu_epi64(o->immediate + i + 8, (__mmask8)(rows >> 8),
                             immediates(t, _mm512_loadu_si512(tails + i + 8), kind));
}

#undef WORDS
#undef SHIFT_RIGHT
#undef AND
#undef OR

/* fill_operands, where `infos` are those of a vector_walk_t. */
static void fill_vectors(const batch_tables_t *t, const uint8_t *tile, const uint64_t *infos, size_t count,
                         const batch_operands_t *to) {
    batch_operands_t o = *to;
    size_t i;
    (void)tile;
    for (i = 0; i + 16 <= count; i += 16)
        fill_sixteen(t, infos, 0xFFFF, &o, i);
    if (i < count)
        fill_sixteen(t, infos, (__mmask16)((1u << (count - i)) - 1), &o, i);
}

#endif
