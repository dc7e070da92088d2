"""SSE and SSE2 floating point minimum, maximum and comparison (SDM 2: MINPS, MAXPS, CMPPS, COMISS, UCOMISS and kin).

Same contract as sse_float.pxd; the COMIS functions return ZF, PF and CF at their RFLAGS positions and report an
unmasked exception as MXCSR_FAULT. Two ordered operands that are not denormal raise nothing, whatever MXCSR says,
and are compared by the host. Must not know registers, memory or where RFLAGS lives.
"""
cimport cython
from hvcore._native.base.types cimport u32, u64, u8, xmm_t
from hvcore._native.sem.float cimport (
    BINARY32, BINARY64, EQUAL, LESS, MAXIMUM, MINIMUM, UNORDERED, cold_void, outcome_t,
)
from hvcore._native.sem.float_arithmetic cimport compare
from hvcore._native.sem.float_host cimport host_relation, is_comparable, is_comparable_single
from hvcore._native.sem.sse_float cimport MXCSR_FAULT, arithmetic_slow, raise_flags, take_fault


# ---- minimum and maximum ---------------------------------------------------------------------------------------------

cdef inline int extreme(u32* mxcsr, xmm_t* target, const xmm_t* source, int operation, int lanes) noexcept nogil:
    cdef bint comparable = True, better
    cdef int lane
    for lane in range(lanes):
        comparable = comparable and is_comparable(target.u64s[lane]) and is_comparable(source.u64s[lane])
    if cython.unlikely(not comparable):
        arithmetic_slow(mxcsr, target, source, operation, BINARY64, lanes)
        return take_fault(mxcsr)
    for lane in range(lanes):
        if operation == MINIMUM:
            better = target.f64s[lane] < source.f64s[lane]
        else:
            better = target.f64s[lane] > source.f64s[lane]
        target.u64s[lane] = target.u64s[lane] if better else source.u64s[lane]
    return 0


cdef inline int extreme_single(u32* mxcsr, xmm_t* target, const xmm_t* source, int operation, int lanes) noexcept nogil:
    cdef bint comparable = True, better
    cdef int lane
    for lane in range(lanes):
        comparable &= is_comparable_single(target.u32s[lane]) & is_comparable_single(source.u32s[lane])
    if cython.unlikely(not comparable):
        arithmetic_slow(mxcsr, target, source, operation, BINARY32, lanes)
        return take_fault(mxcsr)
    for lane in range(lanes):
        if operation == MINIMUM:
            better = target.f32s[lane] < source.f32s[lane]
        else:
            better = target.f32s[lane] > source.f32s[lane]
        target.u32s[lane] = target.u32s[lane] if better else source.u32s[lane]
    return 0


cdef inline int sse_minps(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme_single(mxcsr, target, source, MINIMUM, 4)


cdef inline int sse_minss(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme_single(mxcsr, target, source, MINIMUM, 1)


cdef inline int sse_minpd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme(mxcsr, target, source, MINIMUM, 2)


cdef inline int sse_minsd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme(mxcsr, target, source, MINIMUM, 1)


cdef inline int sse_maxps(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme_single(mxcsr, target, source, MAXIMUM, 4)


cdef inline int sse_maxss(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme_single(mxcsr, target, source, MAXIMUM, 1)


cdef inline int sse_maxpd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme(mxcsr, target, source, MAXIMUM, 2)


cdef inline int sse_maxsd(u32* mxcsr, xmm_t* target, const xmm_t* source) noexcept nogil:
    return extreme(mxcsr, target, source, MAXIMUM, 1)


# ---- compare into a mask ---------------------------------------------------------------------------------------------

cdef inline int accepted_relations(u8 predicate) noexcept nogil:
    """The relations for which a predicate is true: EQ, LT, LE, UNORD, and from 4 on their complements."""
    cdef int accepted = (0x8312 >> (4 * (predicate & 3))) & 0xF
    return accepted ^ 0xF if predicate & 4 else accepted


cdef inline bint is_signaling(u8 predicate) noexcept nogil:
    """LT, LE, NLT and NLE are invalid for a quiet NaN too (SDM 2, table 3-1)."""
    return predicate & 3 == 1 or predicate & 3 == 2


cdef inline cold_void compare_lanes_slow(
        u32* mxcsr, xmm_t* target, const xmm_t* source, u8 predicate, int format, int lanes) noexcept nogil:
    cdef xmm_t result = target[0]
    cdef outcome_t found
    cdef u32 flags = 0
    cdef int lane, accepted = accepted_relations(predicate)
    for lane in range(lanes):
        if format == BINARY32:
            found = compare(target.u32s[lane], source.u32s[lane], format, is_signaling(predicate), mxcsr[0])
            result.u32s[lane] = <u32>0 - ((<int>found.bits & accepted) != 0)
        else:
            found = compare(target.u64s[lane], source.u64s[lane], format, is_signaling(predicate), mxcsr[0])
            result.u64s[lane] = <u64>0 - ((<int>found.bits & accepted) != 0)
        flags |= found.flags
    if raise_flags(mxcsr, flags):
        mxcsr[0] |= MXCSR_FAULT
    else:
        target[0] = result


cdef inline int compare_lanes(
        u32* mxcsr, xmm_t* target, const xmm_t* source, u8 predicate, int lanes) noexcept nogil:
    cdef bint comparable = True
    cdef int lane, accepted = accepted_relations(predicate)
    for lane in range(lanes):
        comparable = comparable and is_comparable(target.u64s[lane]) and is_comparable(source.u64s[lane])
    if cython.unlikely(not comparable):
        compare_lanes_slow(mxcsr, target, source, predicate, BINARY64, lanes)
        return take_fault(mxcsr)
    for lane in range(lanes):
        target.u64s[lane] = <u64>0 - ((host_relation(target.f64s[lane], source.f64s[lane]) & accepted) != 0)
    return 0


cdef inline int compare_lanes_single(
        u32* mxcsr, xmm_t* target, const xmm_t* source, u8 predicate, int lanes) noexcept nogil:
    cdef bint comparable = True
    cdef int lane, accepted = accepted_relations(predicate)
    for lane in range(lanes):
        comparable &= is_comparable_single(target.u32s[lane]) & is_comparable_single(source.u32s[lane])
    if cython.unlikely(not comparable):
        compare_lanes_slow(mxcsr, target, source, predicate, BINARY32, lanes)
        return take_fault(mxcsr)
    for lane in range(lanes):
        target.u32s[lane] = <u32>0 - ((host_relation(target.f32s[lane], source.f32s[lane]) & accepted) != 0)
    return 0


cdef inline int sse_cmpps(u32* mxcsr, xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    return compare_lanes_single(mxcsr, target, source, immediate, 4)


cdef inline int sse_cmpss(u32* mxcsr, xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    return compare_lanes_single(mxcsr, target, source, immediate, 1)


cdef inline int sse_cmppd(u32* mxcsr, xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    return compare_lanes(mxcsr, target, source, immediate, 2)


cdef inline int sse_cmpsd(u32* mxcsr, xmm_t* target, const xmm_t* source, u8 immediate) noexcept nogil:
    return compare_lanes(mxcsr, target, source, immediate, 1)


# ---- compare into RFLAGS ---------------------------------------------------------------------------------------------

cdef inline u32 relation_flags(int relation) noexcept nogil:
    """ZF (0x40), PF (0x04) and CF (0x01): all for unordered, none for greater."""
    if relation == UNORDERED:
        return 0x45
    return 0x40 if relation == EQUAL else 0x01 if relation == LESS else 0


cdef inline u32 compare_slow(u32* mxcsr, u64 first, u64 second, int format, bint is_signaling) noexcept nogil:
    cdef outcome_t found = compare(first, second, format, is_signaling, mxcsr[0])
    if raise_flags(mxcsr, found.flags):
        mxcsr[0] |= MXCSR_FAULT
    return relation_flags(<int>found.bits)


cdef inline u32 compare_first(u32* mxcsr, const xmm_t* first, const xmm_t* second, bint signaling) noexcept nogil:
    if is_comparable(first.u64s[0]) and is_comparable(second.u64s[0]):
        return relation_flags(host_relation(first.f64s[0], second.f64s[0]))
    return compare_slow(mxcsr, first.u64s[0], second.u64s[0], BINARY64, signaling)


cdef inline u32 compare_first_single(
        u32* mxcsr, const xmm_t* first, const xmm_t* second, bint signaling) noexcept nogil:
    if is_comparable_single(first.u32s[0]) and is_comparable_single(second.u32s[0]):
        return relation_flags(host_relation(first.f32s[0], second.f32s[0]))
    return compare_slow(mxcsr, first.u32s[0], second.u32s[0], BINARY32, signaling)


cdef inline u32 sse_comiss(u32* mxcsr, const xmm_t* first, const xmm_t* second) noexcept nogil:
    return compare_first_single(mxcsr, first, second, True)


cdef inline u32 sse_ucomiss(u32* mxcsr, const xmm_t* first, const xmm_t* second) noexcept nogil:
    return compare_first_single(mxcsr, first, second, False)


cdef inline u32 sse_comisd(u32* mxcsr, const xmm_t* first, const xmm_t* second) noexcept nogil:
    return compare_first(mxcsr, first, second, True)


cdef inline u32 sse_ucomisd(u32* mxcsr, const xmm_t* first, const xmm_t* second) noexcept nogil:
    return compare_first(mxcsr, first, second, False)
