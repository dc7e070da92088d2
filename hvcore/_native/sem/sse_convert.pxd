"""SSE and SSE2 conversions between floating point formats and integers (SDM 2, the CVT* pages).

Same contract as sse_float.pxd. Functions that give a general register's value report an unmasked exception as
MXCSR_FAULT. Suffix 32 or 64 is the integer's width. Must not know registers or memory.
"""
cimport cython
from hvcore._native.base.types cimport i32, i64, u32, u64, xmm_t
from hvcore._native.sem.float cimport (
    BINARY32, BINARY64, MXCSR_PE, MXCSR_RC_SHIFT, ROUND_TO_ZERO, cold_void, outcome_t,
)
from hvcore._native.sem.float_arithmetic cimport convert_format, from_integer, to_integer
from hvcore._native.sem.float_host cimport (
    bits_of, bits_of_single, is_comparable_single, is_default, is_plain, is_plain_single,
)
from hvcore._native.sem.sse_float cimport MXCSR_FAULT, raise_flags, take_fault


# ---- one value: the host where it is certain, else the slow path -----------------------------------------------------

cdef inline outcome_t widen(u32 bits, u32 mxcsr) noexcept nogil:
    cdef xmm_t pun
    cdef outcome_t found
    if cython.unlikely(not is_comparable_single(bits)):
        return convert_format(bits, BINARY32, BINARY64, mxcsr)
    pun.u32s[0] = bits
    found.bits = bits_of(pun.f32s[0])
    found.flags = 0
    return found


cdef inline outcome_t narrow(u64 bits, u32 mxcsr) noexcept nogil:
    cdef xmm_t pun
    cdef outcome_t found
    cdef float narrowed
    pun.u64s[0] = bits
    if is_plain(bits) and is_default(mxcsr):
        narrowed = <float>pun.f64s[0]
        if is_plain_single(bits_of_single(narrowed)) and (narrowed != 0 or pun.f64s[0] == 0):
            found.bits = bits_of_single(narrowed)
            found.flags = 0 if narrowed == pun.f64s[0] else MXCSR_PE
            return found
    return convert_format(bits, BINARY64, BINARY32, mxcsr)


cdef inline outcome_t single_of_integer(i64 value, u32 mxcsr) noexcept nogil:
    cdef outcome_t found
    cdef float rounded = <float>value
    cdef i64 limit = <i64>1 << (53 if is_default(mxcsr) else 24)
    if cython.unlikely(value > limit or value < -limit):
        return from_integer(value, BINARY32, mxcsr)
    found.bits = bits_of_single(rounded)
    found.flags = 0 if <double>rounded == <double>value else MXCSR_PE
    return found


cdef inline outcome_t double_of_integer(i64 value, u32 mxcsr) noexcept nogil:
    cdef outcome_t found
    if cython.unlikely(value > <i64>1 << 53 or value < -(<i64>1 << 53)):
        return from_integer(value, BINARY64, mxcsr)
    found.bits = bits_of(<double>value)
    found.flags = 0
    return found


cdef inline outcome_t integer_of(double value, int integer_bits, bint truncates, u32 mxcsr) noexcept nogil:
    """Also for a binary32 value that was comparable, since widening it is exact.

    Adding and taking away 1.5 * 2**52 leaves the nearest integer, ties to even, of anything below 2**51.
    """
    cdef outcome_t found
    cdef double rounded = value
    if is_plain(bits_of(value)) and is_default(mxcsr) and -2147483648.5 < value < 2147483647.5:
        if not truncates:
            rounded = (value + 6755399441055744.0) - 6755399441055744.0
        found.bits = <u64><i64>rounded if integer_bits == 64 else <u32><i32>rounded
        found.flags = 0 if <double><i64>rounded == value else MXCSR_PE
        return found
    if truncates:
        mxcsr |= ROUND_TO_ZERO << MXCSR_RC_SHIFT
    return to_integer(bits_of(value), BINARY64, integer_bits, mxcsr)


cdef inline outcome_t integer_of_single(u32 bits, int integer_bits, bint truncates, u32 mxcsr) noexcept nogil:
    cdef xmm_t pun
    pun.u32s[0] = bits
    if is_plain_single(bits):
        return integer_of(pun.f32s[0], integer_bits, truncates, mxcsr)
    if truncates:
        mxcsr |= ROUND_TO_ZERO << MXCSR_RC_SHIFT
    return to_integer(bits, BINARY32, integer_bits, mxcsr)


# ---- four lanes of 32 bits where the host is not certain -------------------------------------------------------------

cdef enum:
    FROM_INTEGERS
    ROUNDING
    TRUNCATING


cdef inline cold_void convert_lanes_slow(u32* mxcsr, xmm_t* target, const xmm_t* source, int direction) noexcept nogil:
    cdef xmm_t result
    cdef outcome_t found
    cdef u32 flags = 0
    cdef int lane
    for lane in range(4):
        if direction == FROM_INTEGERS:
            found = from_integer(source.i32s[lane], BINARY32, mxcsr[0])
        else:
            found = integer_of_single(source.u32s[lane], 32, direction == TRUNCATING, mxcsr[0])
        result.u32s[lane] = <u32>found.bits
        flags |= found.flags
    if raise_flags(mxcsr, flags):
        mxcsr[0] |= MXCSR_FAULT
    else:
        target[0] = result


# ---- between the floating point formats ------------------------------------------------------------------------------

cdef inline int sse_cvtps2pd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef outcome_t low = widen(source.u32s[0], mxcsr[0]), high = widen(source.u32s[1], mxcsr[0])
    if raise_flags(mxcsr, low.flags | high.flags):
        return 1
    target.u64s[0] = low.bits
    target.u64s[1] = high.bits
    return 0


cdef inline int sse_cvtpd2ps(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef outcome_t low = narrow(source.u64s[0], mxcsr[0]), high = narrow(source.u64s[1], mxcsr[0])
    if raise_flags(mxcsr, low.flags | high.flags):
        return 1
    target.u64s[0] = low.bits | high.bits << 32
    target.u64s[1] = 0
    return 0


cdef inline int sse_cvtss2sd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef outcome_t found = widen(source.u32s[0], mxcsr[0])
    if raise_flags(mxcsr, found.flags):
        return 1
    target.u64s[0] = found.bits
    return 0


cdef inline int sse_cvtsd2ss(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef outcome_t found = narrow(source.u64s[0], mxcsr[0])
    if raise_flags(mxcsr, found.flags):
        return 1
    target.u32s[0] = <u32>found.bits
    return 0


# ---- from integers ---------------------------------------------------------------------------------------------------

cdef inline int sse_cvtdq2ps(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    cdef xmm_t value = source[0], result
    cdef bint exact = True
    cdef int lane
    if cython.unlikely(not is_default(mxcsr[0])):
        convert_lanes_slow(mxcsr, target, source, FROM_INTEGERS)
        return take_fault(mxcsr)
    for lane in range(4):
        result.f32s[lane] = <float>value.i32s[lane]
    if not mxcsr[0] & MXCSR_PE:
        for lane in range(4):
            exact &= <double>result.f32s[lane] == <double>value.i32s[lane]
        if not exact:
            mxcsr[0] |= MXCSR_PE
    target[0] = result
    return 0


cdef inline void sse_cvtdq2pd(xmm_t* target, const xmm_t* source) noexcept nogil:
    """Always exact, so that MXCSR plays no part."""
    cdef double low = source.i32s[0], high = source.i32s[1]
    target.f64s[0] = low
    target.f64s[1] = high


cdef inline int set_single(u32* mxcsr, xmm_t* target, i64 value) noexcept nogil:
    cdef outcome_t found = single_of_integer(value, mxcsr[0])
    if raise_flags(mxcsr, found.flags):
        return 1
    target.u32s[0] = <u32>found.bits
    return 0


cdef inline int set_double(u32* mxcsr, xmm_t* target, i64 value) noexcept nogil:
    cdef outcome_t found = double_of_integer(value, mxcsr[0])
    if raise_flags(mxcsr, found.flags):
        return 1
    target.u64s[0] = found.bits
    return 0


cdef inline int sse_cvtsi2ss32(u32* mxcsr, xmm_t* target, u64 value) noexcept nogil:
    return set_single(mxcsr, target, <i32>value)


cdef inline int sse_cvtsi2ss64(u32* mxcsr, xmm_t* target, u64 value) noexcept nogil:
    return set_single(mxcsr, target, <i64>value)


cdef inline int sse_cvtsi2sd32(u32* mxcsr, xmm_t* target, u64 value) noexcept nogil:
    return set_double(mxcsr, target, <i32>value)


cdef inline int sse_cvtsi2sd64(u32* mxcsr, xmm_t* target, u64 value) noexcept nogil:
    return set_double(mxcsr, target, <i64>value)


# ---- to packed integers ----------------------------------------------------------------------------------------------

cdef inline int pack_singles(u32* mxcsr, xmm_t* target, const xmm_t* source, bint truncates) noexcept nogil:
    """The host does it below 2**31, or below 2**22 if it must round: by adding and taking away 1.5 * 2**23."""
    cdef xmm_t value = source[0], rounded = source[0], result
    cdef u32 limit = <u32>(127 + (31 if truncates else 22)) << 24
    cdef bint fits = is_default(mxcsr[0]), exact = True
    cdef int lane
    for lane in range(4):
        fits &= is_plain_single(value.u32s[lane]) & (value.u32s[lane] << 1 < limit)
    if cython.unlikely(not fits):
        convert_lanes_slow(mxcsr, target, source, TRUNCATING if truncates else ROUNDING)
        return take_fault(mxcsr)
    if not truncates:
        for lane in range(4):
            rounded.f32s[lane] = (value.f32s[lane] + <float>12582912.0) - <float>12582912.0
    for lane in range(4):
        result.i32s[lane] = <i32>rounded.f32s[lane]
    if not mxcsr[0] & MXCSR_PE:
        for lane in range(4):
            exact &= <float>result.i32s[lane] == value.f32s[lane]
        if not exact:
            mxcsr[0] |= MXCSR_PE
    target[0] = result
    return 0


cdef inline int pack_doubles(u32* mxcsr, xmm_t* target, const xmm_t* source, bint truncates) noexcept nogil:
    cdef outcome_t low = integer_of(source.f64s[0], 32, truncates, mxcsr[0])
    cdef outcome_t high = integer_of(source.f64s[1], 32, truncates, mxcsr[0])
    if raise_flags(mxcsr, low.flags | high.flags):
        return 1
    target.u64s[0] = low.bits | high.bits << 32
    target.u64s[1] = 0
    return 0


cdef inline int sse_cvtps2dq(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return pack_singles(mxcsr, target, source, False)


cdef inline int sse_cvttps2dq(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return pack_singles(mxcsr, target, source, True)


cdef inline int sse_cvtpd2dq(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return pack_doubles(mxcsr, target, source, False)


cdef inline int sse_cvttpd2dq(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return pack_doubles(mxcsr, target, source, True)


# ---- to a general register -------------------------------------------------------------------------------------------

cdef inline u64 deliver(u32* mxcsr, outcome_t found) noexcept nogil:
    if raise_flags(mxcsr, found.flags):
        mxcsr[0] |= MXCSR_FAULT
    return found.bits


cdef inline u64 sse_cvtss2si32(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of_single(source.u32s[0], 32, False, mxcsr[0]))


cdef inline u64 sse_cvtss2si64(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of_single(source.u32s[0], 64, False, mxcsr[0]))


cdef inline u64 sse_cvtsd2si32(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of(source.f64s[0], 32, False, mxcsr[0]))


cdef inline u64 sse_cvtsd2si64(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of(source.f64s[0], 64, False, mxcsr[0]))


cdef inline u64 sse_cvttss2si32(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of_single(source.u32s[0], 32, True, mxcsr[0]))


cdef inline u64 sse_cvttss2si64(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of_single(source.u32s[0], 64, True, mxcsr[0]))


cdef inline u64 sse_cvttsd2si32(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of(source.f64s[0], 32, True, mxcsr[0]))


cdef inline u64 sse_cvttsd2si64(u32* mxcsr, const xmm_t* source) noexcept nogil:
    return deliver(mxcsr, integer_of(source.f64s[0], 64, True, mxcsr[0]))
