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


cdef inline u64 multiply_add(u32 first, u32 second) noexcept nogil:
    """Summed unsigned: two products of -32768 by itself give 0x80000000 by wrapping."""
    return <u32>(<i32><i16>first * <i16>second) + <u32>((<i32>first >> 16) * (<i32>second >> 16))


cdef inline void sse_pmaddwd(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t result
    cdef int half
    for half in range(2):
        result.u64s[half] = (
            multiply_add(target.u32s[2 * half], source.u32s[2 * half])
            | multiply_add(target.u32s[2 * half + 1], source.u32s[2 * half + 1]) << 32)
    target[0] = result


cdef inline u64 sum_of_bytes(u64 lanes) noexcept nogil:
    """Four sums of two in 16-bit lanes, then all of them in the top lane of a product."""
    cdef u64 pairs = (lanes & <u64>0x00FF00FF00FF00FF) + (lanes >> 8 & <u64>0x00FF00FF00FF00FF)
    return (pairs * <u64>0x0001000100010001) >> 48


cdef inline void sse_psadbw(xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t larger = target[0], smaller = source[0]
    sse_pmaxub(&larger, source)
    sse_pminub(&smaller, target)
    sse_psubb(&larger, &smaller)
    target.u64s[0] = sum_of_bytes(larger.u64s[0])
    target.u64s[1] = sum_of_bytes(larger.u64s[1])
