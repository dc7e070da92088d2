"""SSE2 packed integer arithmetic (SDM 2: PADD*, PSUB*, PAVG*, PMIN*, PMAX*, PMUL*, PMADDWD, PSADBW).

Shape `vv` throughout: the source is read whole, before the target is written, so both may be the same register.
Lanes are worked on in local copies because that lets the compiler use the host's vectors on any host.
Must not know registers, memory or MXCSR.
"""
from hvcore._native.base.types cimport i16, i32, i8, u16, u32, u64, u8, xmm_t


cdef inline i8 saturate_i8(i32 value) noexcept nogil:
    return <i8>(-128 if value < -128 else 127 if value > 127 else value)


cdef inline u8 saturate_u8(i32 value) noexcept nogil:
    return <u8>(0 if value < 0 else 255 if value > 255 else value)


cdef inline i16 saturate_i16(i32 value) noexcept nogil:
    return <i16>(-32768 if value < -32768 else 32767 if value > 32767 else value)


cdef inline u16 saturate_u16(i32 value) noexcept nogil:
    return <u16>(0 if value < 0 else 65535 if value > 65535 else value)


# ---- addition and subtraction ----------------------------------------------------------------------------------------

cdef inline void sse_paddb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] += second.u8s[lane]
    target[0] = first


cdef inline void sse_paddw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] += second.u16s[lane]
    target[0] = first


cdef inline void sse_paddd(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(4):
        first.u32s[lane] += second.u32s[lane]
    target[0] = first


cdef inline void sse_paddq(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        first.u64s[lane] += second.u64s[lane]
    target[0] = first


cdef inline void sse_psubb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] -= second.u8s[lane]
    target[0] = first


cdef inline void sse_psubw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] -= second.u16s[lane]
    target[0] = first


cdef inline void sse_psubd(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(4):
        first.u32s[lane] -= second.u32s[lane]
    target[0] = first


cdef inline void sse_psubq(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        first.u64s[lane] -= second.u64s[lane]
    target[0] = first


cdef inline void sse_paddsb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.i8s[lane] = saturate_i8(<i32>first.i8s[lane] + second.i8s[lane])
    target[0] = first


cdef inline void sse_paddsw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.i16s[lane] = saturate_i16(<i32>first.i16s[lane] + second.i16s[lane])
    target[0] = first


cdef inline void sse_paddusb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] = saturate_u8(<i32>first.u8s[lane] + second.u8s[lane])
    target[0] = first


cdef inline void sse_paddusw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] = saturate_u16(<i32>first.u16s[lane] + second.u16s[lane])
    target[0] = first


cdef inline void sse_psubsb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.i8s[lane] = saturate_i8(<i32>first.i8s[lane] - second.i8s[lane])
    target[0] = first


cdef inline void sse_psubsw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.i16s[lane] = saturate_i16(<i32>first.i16s[lane] - second.i16s[lane])
    target[0] = first


cdef inline void sse_psubusb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] = saturate_u8(<i32>first.u8s[lane] - second.u8s[lane])
    target[0] = first


cdef inline void sse_psubusw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] = saturate_u16(<i32>first.u16s[lane] - second.u16s[lane])
    target[0] = first


# ---- average, minimum, maximum ---------------------------------------------------------------------------------------

cdef inline void sse_pavgb(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] = <u8>((<u32>first.u8s[lane] + second.u8s[lane] + 1) >> 1)
    target[0] = first


cdef inline void sse_pavgw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] = <u16>((<u32>first.u16s[lane] + second.u16s[lane] + 1) >> 1)
    target[0] = first


cdef inline void sse_pminub(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] = first.u8s[lane] if first.u8s[lane] < second.u8s[lane] else second.u8s[lane]
    target[0] = first


cdef inline void sse_pminsw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.i16s[lane] = first.i16s[lane] if first.i16s[lane] < second.i16s[lane] else second.i16s[lane]
    target[0] = first


cdef inline void sse_pmaxub(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(16):
        first.u8s[lane] = first.u8s[lane] if first.u8s[lane] > second.u8s[lane] else second.u8s[lane]
    target[0] = first


cdef inline void sse_pmaxsw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.i16s[lane] = first.i16s[lane] if first.i16s[lane] > second.i16s[lane] else second.i16s[lane]
    target[0] = first


# ---- multiplication --------------------------------------------------------------------------------------------------

cdef inline void sse_pmullw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] = <u16>(<u32>first.u16s[lane] * second.u16s[lane])
    target[0] = first


cdef inline void sse_pmulhw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.i16s[lane] = <i16>((<i32>first.i16s[lane] * second.i16s[lane]) >> 16)
    target[0] = first


cdef inline void sse_pmulhuw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(8):
        first.u16s[lane] = <u16>((<u32>first.u16s[lane] * second.u16s[lane]) >> 16)
    target[0] = first


cdef inline void sse_pmuludq(xmm_t* target, const xmm_t* source) noexcept nogil:
    """The even 32-bit lanes."""
    cdef xmm_t first = target[0], second = source[0]
    cdef int lane
    for lane in range(2):
        first.u64s[lane] = <u64><u32>first.u64s[lane] * <u32>second.u64s[lane]
    target[0] = first


cdef inline void sse_pmaddwd(xmm_t* target, const xmm_t* source) noexcept nogil:
    """Summed unsigned: four times -32768 gives 0x80000000 by wrapping."""
    cdef xmm_t first = target[0], second = source[0], result
    cdef int lane
    for lane in range(4):
        result.u32s[lane] = (
            <u32>(<i32>first.i16s[2 * lane] * second.i16s[2 * lane])
            + <u32>(<i32>first.i16s[2 * lane + 1] * second.i16s[2 * lane + 1]))
    target[0] = result


cdef inline void sse_psadbw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t first = target[0], second = source[0], result
    cdef i32 difference
    cdef int lane
    result.u64s[0] = result.u64s[1] = 0
    for lane in range(16):
        difference = <i32>first.u8s[lane] - second.u8s[lane]
        result.u64s[lane >> 3] += <u64>(-difference if difference < 0 else difference)
    target[0] = result
