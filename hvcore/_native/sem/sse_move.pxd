"""SSE and SSE2 moves between registers, memory and general registers, and the sign masks (SDM 2: MOV*, PMOVMSKB).

A name says how many bytes move and what becomes of the rest of the target: `_zero` clears it, `_merge` leaves it.
A store is the same function with guest memory as its target, so nothing but the named bytes may be read or written.
Alignment and page crossing are the caller's. Must not know registers or memory.
"""
from hvcore._native.base.types cimport u32, u64, xmm_t


cdef inline void sse_move16(xmm_t* target, const xmm_t* source) noexcept nogil:
    """MOVAPS, MOVUPS, MOVDQA, MOVNTPS and all their kin, both directions."""
    cdef xmm_t value = source[0]
    target[0] = value


cdef inline void sse_move8_zero(xmm_t* target, const xmm_t* source) noexcept nogil:
    """MOVSD from memory, MOVQ to a register."""
    target.u64s[0] = source.u64s[0]
    target.u64s[1] = 0


cdef inline void sse_move8_merge(xmm_t* target, const xmm_t* source) noexcept nogil:
    """MOVSD between registers, MOVLPS from memory, and every 8-byte store of a low half."""
    target.u64s[0] = source.u64s[0]


cdef inline void sse_move4_zero(xmm_t* target, const xmm_t* source) noexcept nogil:
    """MOVSS from memory."""
    target.u64s[0] = source.u32s[0]
    target.u64s[1] = 0


cdef inline void sse_move4_merge(xmm_t* target, const xmm_t* source) noexcept nogil:
    """MOVSS between registers and to memory."""
    target.u32s[0] = source.u32s[0]


cdef inline void sse_move8_high_to_low(xmm_t* target, const xmm_t* source) noexcept nogil:
    """MOVHLPS, and MOVHPS to memory."""
    target.u64s[0] = source.u64s[1]


cdef inline void sse_move8_low_to_high(xmm_t* target, const xmm_t* source) noexcept nogil:
    """MOVLHPS, and MOVHPS from memory."""
    target.u64s[1] = source.u64s[0]


# ---- general registers -----------------------------------------------------------------------------------------------

cdef inline void sse_movd_load(xmm_t* target, u64 value) noexcept nogil:
    target.u64s[0] = <u32>value
    target.u64s[1] = 0


cdef inline void sse_movq_load(xmm_t* target, u64 value) noexcept nogil:
    target.u64s[0] = value
    target.u64s[1] = 0


cdef inline u64 sse_movd_store(const xmm_t* source) noexcept nogil:
    return source.u32s[0]


cdef inline u64 sse_movq_store(const xmm_t* source) noexcept nogil:
    return source.u64s[0]


cdef inline u64 sse_movmskps(const xmm_t* source) noexcept nogil:
    cdef u64 mask = 0
    cdef int lane
    for lane in range(4):
        mask |= <u64>(source.u32s[lane] >> 31) << lane
    return mask


cdef inline u64 sse_movmskpd(const xmm_t* source) noexcept nogil:
    return (source.u64s[0] >> 63) | (source.u64s[1] >> 63 << 1)


cdef inline u64 gather_signs(u64 lanes) noexcept nogil:
    """The top bits of eight bytes; the multiplier sends each to its place without carries meeting."""
    return ((lanes >> 7 & <u64>0x0101010101010101) * <u64>0x0102040810204080) >> 56


cdef inline u64 sse_pmovmskb(const xmm_t* source) noexcept nogil:
    return gather_signs(source.u64s[0]) | gather_signs(source.u64s[1]) << 8


cdef inline void sse_maskmovdqu(xmm_t* target, const xmm_t* source, const xmm_t* mask) noexcept nogil:
    """Only the bytes whose mask byte has its top bit set are touched; the target is the 16 bytes at DS:rDI."""
    cdef int lane
    for lane in range(16):
        if mask.i8s[lane] < 0:
            target.u8s[lane] = source.u8s[lane]
