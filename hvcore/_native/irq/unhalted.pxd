"""The time-unhalted timer of a virtual processor: periods of the time that it runs (digest 2, 2.1, 9.7).

Run time and ticks differ by what the processor has not run; that is constant while it runs, and the timer has no
deadline while it does not. An expiry sets a byte of the assist page and raises an NMI (vector 2) or a fixed interrupt.
"""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.assist cimport ASSIST_UNHALTED_EXPIRED
from hvcore._native.irq.clock cimport LAST_TICK, TICKS_PER_REFERENCE_UNIT, never_ticks
from hvcore._native.irq.lapic cimport request_from, request_nmi
from hvcore._native.irq.observer cimport NMI_VECTOR, SOURCE_UNHALTED_TIMER
from hvcore._native.irq.spec cimport DONE, GENERAL_PROTECTION, LOWEST_VECTOR
from hvcore._native.irq.state cimport irq_t

cdef enum:
    UNHALTED_VECTOR = 0xFF
    UNHALTED_ENABLE = 1 << 8
    UNHALTED_DEFINED = 0x1FF


cdef inline u64 unhalted_event(const irq_t *irq) noexcept nogil:
    """Ticks; never_ticks() while the processor does not run or the timer is not armed."""
    if not irq.unhalted.running or irq.unhalted.deadline == never_ticks():
        return never_ticks()
    return irq.unhalted.deadline + irq.unhalted.not_run


cdef inline void arm_unhalted(irq_t *irq) noexcept nogil:
    """A period begins now."""
    cdef u64 period = irq.unhalted.count * TICKS_PER_REFERENCE_UNIT
    irq.unhalted.deadline = never_ticks()
    if irq.unhalted.config & UNHALTED_ENABLE and 0 < irq.unhalted.count < <u64>LAST_TICK // TICKS_PER_REFERENCE_UNIT:
        irq.unhalted.deadline = irq.time - irq.unhalted.not_run + period


cdef inline void expire_unhalted(irq_t *irq, u64 now) noexcept nogil:
    """A period is over, and the next one has begun; if several are, they make one interrupt."""
    cdef u32 vector = irq.unhalted.config & UNHALTED_VECTOR
    while unhalted_event(irq) <= now:
        irq.unhalted.deadline += irq.unhalted.count * TICKS_PER_REFERENCE_UNIT
        irq.counters.unhalted_expired += 1
    if irq.assist.page is not NULL:
        irq.assist.page[ASSIST_UNHALTED_EXPIRED] = 1
    if vector == NMI_VECTOR:
        request_nmi(irq, SOURCE_UNHALTED_TIMER)
    else:
        request_from(irq, vector, False, False, SOURCE_UNHALTED_TIMER)


cdef inline u64 unhalted_left(const irq_t *irq) noexcept nogil:
    """Ticks that the processor has to run until it expires; never_ticks(): not armed."""
    cdef u64 deadline = irq.unhalted.deadline, run = irq.time - irq.unhalted.not_run
    if deadline == never_ticks():
        return deadline
    return deadline - run if deadline > run else 0


cdef inline void set_unhalted_left(irq_t *irq, u64 left) noexcept nogil:
    irq.unhalted.deadline = left if left == never_ticks() else irq.time - irq.unhalted.not_run + left


cdef inline bint is_unhalted_config(u64 value) noexcept nogil:
    """No reserved bits, and a vector that is an NMI or one of an interrupt."""
    cdef u32 vector = value & UNHALTED_VECTOR
    if value & ~<u64>UNHALTED_DEFINED:
        return False
    return not value & UNHALTED_ENABLE or vector >= LOWEST_VECTOR or vector == NMI_VECTOR


cdef inline int write_unhalted_config(irq_t *irq, u64 value) noexcept nogil:
    """#GP for what a configuration cannot be."""
    if not is_unhalted_config(value):
        return GENERAL_PROTECTION
    irq.unhalted.config = value
    arm_unhalted(irq)
    return DONE


cdef inline void write_unhalted_count(irq_t *irq, u64 value) noexcept nogil:
    irq.unhalted.count = value
    arm_unhalted(irq)


cdef inline void unhalted_reset(irq_t *irq) noexcept nogil:
    irq.unhalted.config = irq.unhalted.count = 0
    irq.unhalted.deadline = never_ticks()
