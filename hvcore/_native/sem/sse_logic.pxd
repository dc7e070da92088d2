"""SSE2 packed comparison and the bitwise logic shared by integers and floats (SDM 2: PCMPEQ*, PCMPGT*, PAND, ANDPS).

Shape `vv` as in sse_integer.pxd. Must not know registers, memory or MXCSR.
"""
from hvcore._native.base.types cimport i16, i32, i8, u16, u32, u8, xmm_t


# ---- comparison and logic --------------------------------------------------------------------------------------------
# ANDPS, ANDPD and PAND are one operation on bits, and so are the other three families.

cdef inline void sse_pcmpeqb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] = <u8>0 - (first.u8s[lane] == second.u8s[lane])
    target[0] = first


cdef inline void sse_pcmpeqw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] = <u16>0 - (first.u16s[lane] == second.u16s[lane])
    target[0] = first


cdef inline void sse_pcmpeqd(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(4):
        first.u32s[lane] = <u32>0 - (first.u32s[lane] == second.u32s[lane])
    target[0] = first


cdef inline void sse_pcmpgtb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.i8s[lane] = <i8>0 - (first.i8s[lane] > second.i8s[lane])
    target[0] = first


cdef inline void sse_pcmpgtw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.i16s[lane] = <i16>0 - (first.i16s[lane] > second.i16s[lane])
    target[0] = first


cdef inline void sse_pcmpgtd(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(4):
        first.i32s[lane] = <i32>0 - (first.i32s[lane] > second.i32s[lane])
    target[0] = first


cdef inline void sse_and(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        first.u64s[lane] &= second.u64s[lane]
    target[0] = first


cdef inline void sse_andn(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        first.u64s[lane] = ~first.u64s[lane] & second.u64s[lane]
    target[0] = first


cdef inline void sse_or(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        first.u64s[lane] |= second.u64s[lane]
    target[0] = first


cdef inline void sse_xor(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        first.u64s[lane] ^= second.u64s[lane]
    target[0] = first
