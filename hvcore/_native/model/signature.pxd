"""Sixteen-bit signatures of the keys in a row, and all places of one of them at once: on x86 by SSE2, which every
64-bit processor has; elsewhere one after the other."""
from hvcore._native.base.types cimport u16, u32, u64

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    static inline uint32_t hv_match8(const uint16_t* row, uint16_t wanted) {
        __m128i equal = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i*)row), _mm_set1_epi16((short)wanted));
        return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128()));
    }
    static inline uint32_t hv_match16(const uint16_t* row, uint16_t wanted) {
        __m128i all = _mm_set1_epi16((short)wanted);
        __m128i low = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i*)row), all);
        __m128i high = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i*)row + 1), all);
        return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high));
    }
    #else
    static inline uint32_t hv_match(const uint16_t* row, uint16_t wanted, unsigned count) {
        uint32_t found = 0;
        unsigned place;
        for (place = 0; place < count; place++)
            found |= (uint32_t)(row[place] == wanted) << place;
        return found;
    }
    #define hv_match8(row, wanted) hv_match(row, wanted, 8)
    #define hv_match16(row, wanted) hv_match(row, wanted, 16)
    #endif
    """
    u32 match8 "hv_match8" (const u16* row, u16 wanted) noexcept nogil
    u32 match16 "hv_match16" (const u16* row, u16 wanted) noexcept nogil
    int lowest_bit "__builtin_ctzll" (u64 bits) noexcept nogil


cdef inline u16 signature_of(u64 key) noexcept nogil:
    """The page number folded: keys of one set rarely share it, and if they do the keys decide."""
    return <u16>(key >> 18 ^ key >> 32)
