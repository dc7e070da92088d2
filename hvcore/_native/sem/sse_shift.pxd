"""SSE2 packed shifts, by an immediate and by a register or memory count (SDM 2: PSLL*, PSRL*, PSRA*, PSLLDQ, PSRLDQ).

A count is 64 bits wide; from the lane's width on it empties the lane, or fills it with the sign.
Must not know registers or memory.
"""
from hvcore._native.base.types cimport i16, i32, u16, u32, u64, u8, xmm_t


cdef inline void psllw(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    for lane in range(8):
        result.u16s[lane] = <u16>(result.u16s[lane] << <int>count) if count < 16 else 0
    target[0] = result


cdef inline void pslld(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    for lane in range(4):
        result.u32s[lane] = <u32>(result.u32s[lane] << <int>count) if count < 32 else 0
    target[0] = result


cdef inline void psllq(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    for lane in range(2):
        result.u64s[lane] = <u64>(result.u64s[lane] << <int>count) if count < 64 else 0
    target[0] = result


cdef inline void psrlw(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    for lane in range(8):
        result.u16s[lane] = <u16>(result.u16s[lane] >> <int>count) if count < 16 else 0
    target[0] = result


cdef inline void psrld(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    for lane in range(4):
        result.u32s[lane] = <u32>(result.u32s[lane] >> <int>count) if count < 32 else 0
    target[0] = result


cdef inline void psrlq(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    for lane in range(2):
        result.u64s[lane] = <u64>(result.u64s[lane] >> <int>count) if count < 64 else 0
    target[0] = result


cdef inline void psraw(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    if count > 15:
        count = 15
    for lane in range(8):
        result.i16s[lane] = <i16>(result.i16s[lane] >> <int>count)
    target[0] = result


cdef inline void psrad(xmm_t* target, u64 count) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef int lane
    if count > 31:
        count = 31
    for lane in range(4):
        result.i32s[lane] = <i32>(result.i32s[lane] >> <int>count)
    target[0] = result


# ---- the instructions ------------------------------------------------------------------------------------------------

cdef inline void sse_psllw(xmm_t* target, const xmm_t* source) noexcept nogil:
    psllw(target, source.u64s[0])


cdef inline void sse_pslld(xmm_t* target, const xmm_t* source) noexcept nogil:
    pslld(target, source.u64s[0])


cdef inline void sse_psllq(xmm_t* target, const xmm_t* source) noexcept nogil:
    psllq(target, source.u64s[0])


cdef inline void sse_psrlw(xmm_t* target, const xmm_t* source) noexcept nogil:
    psrlw(target, source.u64s[0])


cdef inline void sse_psrld(xmm_t* target, const xmm_t* source) noexcept nogil:
    psrld(target, source.u64s[0])


cdef inline void sse_psrlq(xmm_t* target, const xmm_t* source) noexcept nogil:
    psrlq(target, source.u64s[0])


cdef inline void sse_psraw(xmm_t* target, const xmm_t* source) noexcept nogil:
    psraw(target, source.u64s[0])


cdef inline void sse_psrad(xmm_t* target, const xmm_t* source) noexcept nogil:
    psrad(target, source.u64s[0])


cdef inline void sse_psllw_imm(xmm_t* target, u8 count) noexcept nogil:
    psllw(target, count)


cdef inline void sse_pslld_imm(xmm_t* target, u8 count) noexcept nogil:
    pslld(target, count)


cdef inline void sse_psllq_imm(xmm_t* target, u8 count) noexcept nogil:
    psllq(target, count)


cdef inline void sse_psrlw_imm(xmm_t* target, u8 count) noexcept nogil:
    psrlw(target, count)


cdef inline void sse_psrld_imm(xmm_t* target, u8 count) noexcept nogil:
    psrld(target, count)


cdef inline void sse_psrlq_imm(xmm_t* target, u8 count) noexcept nogil:
    psrlq(target, count)


cdef inline void sse_psraw_imm(xmm_t* target, u8 count) noexcept nogil:
    psraw(target, count)


cdef inline void sse_psrad_imm(xmm_t* target, u8 count) noexcept nogil:
    psrad(target, count)


cdef inline void sse_pslldq(xmm_t* target, u8 count) noexcept nogil:
    cdef xmm_t value = target[0]
    cdef int lane
    for lane in range(16):
        target.u8s[lane] = value.u8s[lane - count] if lane >= count else 0


cdef inline void sse_psrldq(xmm_t* target, u8 count) noexcept nogil:
    cdef xmm_t value = target[0]
    cdef int lane
    for lane in range(16):
        target.u8s[lane] = value.u8s[lane + count] if lane + count < 16 else 0
