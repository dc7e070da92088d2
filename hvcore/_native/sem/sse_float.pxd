"""SSE and SSE2 floating point arithmetic (SDM 2: ADDPS, SUBPS, MULPS, DIVPS, SQRTPS, RCPPS and kin).

Every function takes MXCSR, the target register and a source of which only the operand's bytes are read. It returns
nonzero, and leaves the target alone, when an unmasked exception occurred; its flags are then in MXCSR and #XM is the
caller's. The first source operand of the SDM is the target. Must not know registers, memory or RFLAGS' owner.
"""
cimport cython
from hvcore._native.base.types cimport u32, u64, xmm_t
from hvcore._native.sem.float cimport (
    ADD, BEFORE_OPERATION, BINARY32, BINARY64, DIVIDE, MULTIPLY, MXCSR_FLAGS, MXCSR_MASK_SHIFT, SQUARE_ROOT,
    SUBTRACT, cold_void, outcome_t,
)
from hvcore._native.sem.float_arithmetic cimport approximate, operate
from hvcore._native.sem.float_host cimport (
    are_plain, are_plain_single, bits_of, compute, is_default, is_ordinary, is_trusted, is_trusted_single,
)

# A fault is reported in a bit that MXCSR does not have by the functions whose return value is taken.
cdef enum:
    MXCSR_FAULT = 0x80000000


cdef inline u32 raise_flags(u32* mxcsr, u32 flags) noexcept nogil:
    """Set the flags that all lanes together found; the unmasked ones are returned."""
    cdef u32 unmasked = ~(mxcsr[0] >> MXCSR_MASK_SHIFT) & MXCSR_FLAGS
    if flags & BEFORE_OPERATION & unmasked:
        flags &= BEFORE_OPERATION
    mxcsr[0] |= flags
    return flags & unmasked


cdef inline int take_fault(u32* mxcsr) noexcept nogil:
    """What a cold function left in MXCSR_FAULT, as a return value."""
    cdef int fault = mxcsr[0] >> 31
    mxcsr[0] &= ~<u32>MXCSR_FAULT
    return fault


# ---- arithmetic ------------------------------------------------------------------------------------------------------

cdef inline cold_void arithmetic_slow(
        u32* mxcsr, xmm_t* target, const xmm_t* source, int operation, int format, int lanes) noexcept nogil:
    """Any operation of float.pxd, on integers."""
    cdef xmm_t result = target[0]
    cdef outcome_t found
    cdef u32 flags = 0
    cdef int lane
    for lane in range(lanes):
        if format == BINARY32:
            found = operate(operation, target.u32s[lane], source.u32s[lane], format, mxcsr[0])
            result.u32s[lane] = <u32>found.bits
        else:
            found = operate(operation, target.u64s[lane], source.u64s[lane], format, mxcsr[0])
            result.u64s[lane] = found.bits
        flags |= found.flags
    if raise_flags(mxcsr, flags):
        mxcsr[0] |= MXCSR_FAULT
    else:
        target[0] = result


# In the ordinary case only PE can change, and the host's own sticky flag collects it: every operation that runs on the
# host's floating point unit is inexact there exactly when it is inexact in the guest. `inexact.pxd` brings it home.
# The two binary64 lanes are written out, and the four of binary32 kept in loops: gcc 12 makes good code of that.

# `quick` functions do the ordinary case or nothing, and say which: a handler that gives up then starts again, slowly.

cdef inline int arithmetic_quick(u32* mxcsr, xmm_t* target, const xmm_t* source, int operation,
                                 int lanes) noexcept nogil:
    """Nonzero, and nothing done, unless operands and results are plain and not zero."""
    cdef u64 ordinary = is_ordinary(source.u64s[0]) & is_ordinary(target.u64s[0]) & is_default(mxcsr[0])
    cdef double low, high = 0
    if lanes == 2:
        ordinary &= is_ordinary(source.u64s[1]) & is_ordinary(target.u64s[1])
    if cython.unlikely(not ordinary):
        return 1
    low = compute(operation, target.f64s[0], source.f64s[0])
    ordinary = is_ordinary(bits_of(low))
    if lanes == 2:
        high = compute(operation, target.f64s[1], source.f64s[1])
        ordinary &= is_ordinary(bits_of(high))
    if cython.unlikely(not ordinary):
        return 1
    target.f64s[0] = low
    if lanes == 2:
        target.f64s[1] = high
    return 0


cdef inline int arithmetic(u32* mxcsr, xmm_t* target, const xmm_t* source, int operation, int lanes) noexcept nogil:
    """Zeros stay on the host too; anything else that is not plain takes the slow path."""
    cdef double low, high = 0
    cdef bint trusted = is_default(mxcsr[0]) and are_plain(operation, target.f64s[0], source.f64s[0])
    if lanes == 2:
        trusted = trusted and are_plain(operation, target.f64s[1], source.f64s[1])
    if cython.likely(trusted):
        low = compute(operation, target.f64s[0], source.f64s[0])
        trusted = is_trusted(operation, target.f64s[0], source.f64s[0], low)
        if lanes == 2:
            high = compute(operation, target.f64s[1], source.f64s[1])
            trusted = trusted and is_trusted(operation, target.f64s[1], source.f64s[1], high)
    if cython.unlikely(not trusted):
        arithmetic_slow(mxcsr, target, source, operation, BINARY64, lanes)
        return take_fault(mxcsr)
    target.f64s[0] = low
    if lanes == 2:
        target.f64s[1] = high
    return 0


cdef inline int arithmetic_single(u32* mxcsr, xmm_t* target, const xmm_t* source, int operation, int lanes,
                                  bint quick) noexcept nogil:
    cdef xmm_t first, second, result
    cdef bint trusted = is_default(mxcsr[0])
    cdef int lane
    for lane in range(lanes):
        first.u32s[lane] = target.u32s[lane]
        second.u32s[lane] = source.u32s[lane]
    for lane in range(lanes):
        trusted &= are_plain_single(operation, first.u32s[lane], second.u32s[lane])
    if cython.likely(trusted):
        for lane in range(lanes):
            result.f32s[lane] = compute(operation, first.f32s[lane], second.f32s[lane])
        for lane in range(lanes):
            trusted &= is_trusted_single(operation, first.u32s[lane], second.u32s[lane], result.u32s[lane])
    if cython.unlikely(not trusted):
        if quick:
            return 1
        arithmetic_slow(mxcsr, target, source, operation, BINARY32, lanes)
        return take_fault(mxcsr)
    for lane in range(lanes):
        target.u32s[lane] = result.u32s[lane]
    return 0


cdef inline int arithmetic_double(u32* mxcsr, xmm_t* target, const xmm_t* source, int operation, int lanes,
                                  bint quick) noexcept nogil:
    if quick:
        return arithmetic_quick(mxcsr, target, source, operation, lanes)
    return arithmetic(mxcsr, target, source, operation, lanes)


cdef inline int sse_addps(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, ADD, 4, quick)


cdef inline int sse_addss(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, ADD, 1, quick)


cdef inline int sse_addpd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, ADD, 2, quick)


cdef inline int sse_addsd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, ADD, 1, quick)


cdef inline int sse_subps(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, SUBTRACT, 4, quick)


cdef inline int sse_subss(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, SUBTRACT, 1, quick)


cdef inline int sse_subpd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, SUBTRACT, 2, quick)


cdef inline int sse_subsd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, SUBTRACT, 1, quick)


cdef inline int sse_mulps(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, MULTIPLY, 4, quick)


cdef inline int sse_mulss(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, MULTIPLY, 1, quick)


cdef inline int sse_mulpd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, MULTIPLY, 2, quick)


cdef inline int sse_mulsd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, MULTIPLY, 1, quick)


cdef inline int sse_divps(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, DIVIDE, 4, quick)


cdef inline int sse_divss(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, DIVIDE, 1, quick)


cdef inline int sse_divpd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, DIVIDE, 2, quick)


cdef inline int sse_divsd(u32* mxcsr, xmm_t* target, const xmm_t* source, bint quick) noexcept nogil:
    return arithmetic_double(mxcsr, target, source, DIVIDE, 1, quick)


cdef inline int sse_sqrtps(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, SQUARE_ROOT, 4, False)


cdef inline int sse_sqrtss(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return arithmetic_single(mxcsr, target, source, SQUARE_ROOT, 1, False)


cdef inline int sse_sqrtpd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return arithmetic(mxcsr, target, source, SQUARE_ROOT, 2)


cdef inline int sse_sqrtsd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return arithmetic(mxcsr, target, source, SQUARE_ROOT, 1)


# Approximations raise nothing and do not look at MXCSR.

cdef inline void approximate_lanes(xmm_t* target, const xmm_t* source, bint is_root, int lanes) noexcept nogil:
    cdef int lane
    for lane in range(lanes):
        target.u32s[lane] = approximate(source.u32s[lane], is_root)


cdef inline void sse_rcpps(xmm_t* target, const xmm_t* source) noexcept nogil:
    approximate_lanes(target, source, False, 4)


cdef inline void sse_rcpss(xmm_t* target, const xmm_t* source) noexcept nogil:
    approximate_lanes(target, source, False, 1)


cdef inline void sse_rsqrtps(xmm_t* target, const xmm_t* source) noexcept nogil:
    approximate_lanes(target, source, True, 4)


cdef inline void sse_rsqrtss(xmm_t* target, const xmm_t* source) noexcept nogil:
    approximate_lanes(target, source, True, 1)
