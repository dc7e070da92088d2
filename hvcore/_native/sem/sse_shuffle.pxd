"""SSE and SSE2 rearrangement of lanes: unpack, pack, shuffle, insert, extract (SDM 2: PUNPCK*, PACK*, PSHUF*, SHUFP*).

Both operands are copied before the target is written, so they may be the same register. The whole source is read.
Must not know registers, memory or MXCSR.
"""
from hvcore._native.base.types cimport u16, u64, u8, xmm_t
from hvcore._native.sem.sse_integer cimport saturate_i16, saturate_i8, saturate_u8


# ---- interleave the low or the high halves ---------------------------------------------------------------------------
# UNPCKLPS is PUNPCKLDQ on bits, UNPCKLPD is PUNPCKLQDQ, and likewise for the high halves.

cdef inline void sse_punpcklbw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        target.u8s[2 * lane] = first.u8s[lane]
        target.u8s[2 * lane + 1] = second.u8s[lane]


cdef inline void sse_punpcklwd(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(4):
        target.u16s[2 * lane] = first.u16s[lane]
        target.u16s[2 * lane + 1] = second.u16s[lane]


cdef inline void sse_punpckldq(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        target.u32s[2 * lane] = first.u32s[lane]
        target.u32s[2 * lane + 1] = second.u32s[lane]


cdef inline void sse_punpcklqdq(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(1):
        target.u64s[2 * lane] = first.u64s[lane]
        target.u64s[2 * lane + 1] = second.u64s[lane]


cdef inline void sse_punpckhbw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        target.u8s[2 * lane] = first.u8s[lane + 8]
        target.u8s[2 * lane + 1] = second.u8s[lane + 8]


cdef inline void sse_punpckhwd(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(4):
        target.u16s[2 * lane] = first.u16s[lane + 4]
        target.u16s[2 * lane + 1] = second.u16s[lane + 4]


cdef inline void sse_punpckhdq(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        target.u32s[2 * lane] = first.u32s[lane + 2]
        target.u32s[2 * lane + 1] = second.u32s[lane + 2]


cdef inline void sse_punpckhqdq(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(1):
        target.u64s[2 * lane] = first.u64s[lane + 1]
        target.u64s[2 * lane + 1] = second.u64s[lane + 1]


# ---- narrow with saturation ------------------------------------------------------------------------------------------

cdef inline void sse_packsswb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        target.i8s[lane] = saturate_i8(first.i16s[lane])
        target.i8s[lane + 8] = saturate_i8(second.i16s[lane])


cdef inline void sse_packuswb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        target.u8s[lane] = saturate_u8(first.i16s[lane])
        target.u8s[lane + 8] = saturate_u8(second.i16s[lane])


cdef inline void sse_packssdw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(4):
        target.i16s[lane] = saturate_i16(first.i32s[lane])
        target.i16s[lane + 4] = saturate_i16(second.i32s[lane])


# ---- shuffle by an immediate -----------------------------------------------------------------------------------------

cdef inline void sse_pshufd(xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    cdef xmm_t value = source[0]
    cdef int lane
    for lane in range(4):
        target.u32s[lane] = value.u32s[(immediate >> (2 * lane)) & 3]


cdef inline void sse_pshuflw(xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    cdef xmm_t value = source[0]
    cdef int lane
    target.u64s[1] = value.u64s[1]
    for lane in range(4):
        target.u16s[lane] = value.u16s[((immediate >> (2 * lane)) & 3)]


cdef inline void sse_pshufhw(xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    cdef xmm_t value = source[0]
    cdef int lane
    target.u64s[0] = value.u64s[0]
    for lane in range(4):
        target.u16s[4 + lane] = value.u16s[4 + ((immediate >> (2 * lane)) & 3)]


cdef inline void sse_shufps(xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        target.u32s[lane] = first.u32s[(immediate >> (2 * lane)) & 3]
        target.u32s[lane + 2] = second.u32s[(immediate >> (2 * lane + 4)) & 3]


cdef inline void sse_shufpd(xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    target.u64s[0] = first.u64s[immediate & 1]
    target.u64s[1] = second.u64s[(immediate >> 1) & 1]


# ---- insert and extract a word ---------------------------------------------------------------------------------------

cdef inline void sse_pinsrw(xmm_t* target, u64 value, u8 immediate) noexcept nogil:
    target.u16s[immediate & 7] = <u16>value


cdef inline u64 sse_pextrw(const xmm_t* source, u8 immediate) noexcept nogil:
    return source.u16s[immediate & 7]
