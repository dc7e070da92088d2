"""The timer of the local APIC: one-shot, periodic, TSC-deadline (SDM 3A 11.5.4), exact to the tick.

The count is never stepped: it follows from the tick at which it was known last. A masked timer counts on but has no
deadline, so that it wakes nobody; unmasking finds out where it is.
"""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.apic_spec cimport (
    LVT_MASKED, LVT_PERIODIC, LVT_TIMER, LVT_TIMER_MODE, LVT_TSC_DEADLINE, LVT_VECTOR,
)
from hvcore._native.irq.clock cimport LAST_TICK, TICKS_PER_SECOND, never_ticks, ticks_of_tsc, tsc_of_ticks, u128
from hvcore._native.irq.lapic cimport request_from
from hvcore._native.irq.observer cimport SOURCE_APIC_TIMER
from hvcore._native.irq.state cimport irq_t, lapic_t


cdef inline u32 timer_mode(const lapic_t *lapic) noexcept nogil:
    """0 one-shot, LVT_PERIODIC, LVT_TSC_DEADLINE; both bits are reserved, and such a timer stands still."""
    return lapic.lvt[LVT_TIMER] & LVT_TIMER_MODE


cdef inline u32 divide_shift(const lapic_t *lapic) noexcept nogil:
    """Divide configuration: bits 3, 1 and 0; 000 is by two, 111 by one."""
    return (((lapic.divide >> 1 & 4) | (lapic.divide & 3)) + 1) & 7


cdef inline u64 ticks_of_counts(const irq_t *irq, u64 counts) noexcept nogil:
    """How long the timer takes for them, rounded up to a tick."""
    cdef u64 frequency = irq.fabric.timebase.apic_frequency
    return <u64>(((<u128>counts << divide_shift(&irq.lapic)) * TICKS_PER_SECOND + frequency - 1) // frequency)


cdef inline u64 counts_of_ticks(const irq_t *irq, u64 ticks) noexcept nogil:
    """How many counts are over after so long."""
    return <u64>(<u128>ticks * irq.fabric.timebase.apic_frequency
                 // (<u128>TICKS_PER_SECOND << divide_shift(&irq.lapic)))


cdef inline u64 expiry(const irq_t *irq) noexcept nogil:
    """The tick at which the current count falls to zero; never, if it stands still."""
    cdef const lapic_t *lapic = &irq.lapic
    if lapic.timer_count == 0 or timer_mode(lapic) == LVT_TIMER_MODE:
        return never_ticks()
    return lapic.timer_start + ticks_of_counts(irq, lapic.timer_count)


cdef inline void settle_timer(irq_t *irq, u64 now) noexcept nogil:
    """Make timer_start and timer_count those of the round that `now` falls into."""
    cdef lapic_t *lapic = &irq.lapic
    cdef u64 end = expiry(irq), period
    if end > now or end == never_ticks():
        return
    if timer_mode(lapic) == LVT_PERIODIC and lapic.initial_count:
        period = ticks_of_counts(irq, lapic.initial_count)
        lapic.timer_start = end + (now - end) // period * period
        lapic.timer_count = lapic.initial_count
    else:
        lapic.timer_count = 0


cdef inline u64 deadline_of_tsc(const irq_t *irq, u64 now) noexcept nogil:
    """The tick at which TSC reaches IA32_TSC_DEADLINE: now, if that is past."""
    cdef u64 counter = tsc_of_ticks(&irq.fabric.timebase, now), deadline = irq.lapic.tsc_deadline
    if deadline == 0:
        return never_ticks()
    if deadline <= counter + irq.tsc_offset:
        return now
    deadline -= counter + irq.tsc_offset            # how far the counter has to go
    if counter >= <u64>LAST_TICK or deadline >= <u64>LAST_TICK - counter:
        return never_ticks()
    return ticks_of_tsc(&irq.fabric.timebase, counter + deadline)


cdef inline void rearm_timer(irq_t *irq, u64 now) noexcept nogil:
    """After any change: when the next interrupt is due."""
    cdef lapic_t *lapic = &irq.lapic
    if timer_mode(lapic) == LVT_TSC_DEADLINE:
        lapic.timer_deadline = deadline_of_tsc(irq, now)
    elif lapic.lvt[LVT_TIMER] & LVT_MASKED:
        lapic.timer_deadline = never_ticks()
    else:
        lapic.timer_deadline = expiry(irq)


cdef inline void expire_apic_timer(irq_t *irq, u64 now) noexcept nogil:
    """The deadline has come. Periods that were slept through make one interrupt: IRR could not hold more."""
    cdef lapic_t *lapic = &irq.lapic
    if timer_mode(lapic) == LVT_TSC_DEADLINE:
        lapic.tsc_deadline = 0
    else:
        settle_timer(irq, now)
    rearm_timer(irq, now)
    irq.counters.apic_timer_expired += 1
    if not lapic.lvt[LVT_TIMER] & LVT_MASKED:
        request_from(irq, lapic.lvt[LVT_TIMER] & LVT_VECTOR, False, False, SOURCE_APIC_TIMER)


cdef inline u32 current_count(irq_t *irq, u64 now) noexcept nogil:
    cdef lapic_t *lapic = &irq.lapic
    if timer_mode(lapic) & LVT_TSC_DEADLINE:
        return 0
    settle_timer(irq, now)
    if lapic.timer_count == 0:
        return 0
    return lapic.timer_count - <u32>counts_of_ticks(irq, now - lapic.timer_start)


cdef inline void write_initial_count(irq_t *irq, u32 value, u64 now) noexcept nogil:
    """Starts the timer over; zero stops it. In TSC-deadline mode writes are ignored (11.5.4.1)."""
    if timer_mode(&irq.lapic) & LVT_TSC_DEADLINE:
        return
    irq.lapic.initial_count = irq.lapic.timer_count = value
    irq.lapic.timer_start = now
    rearm_timer(irq, now)


cdef inline void write_divide(irq_t *irq, u32 value, u64 now) noexcept nogil:
    """The count that is left goes on at the new pace; the prescaler starts over."""
    cdef u32 left = current_count(irq, now)
    irq.lapic.divide = value
    if not timer_mode(&irq.lapic) & LVT_TSC_DEADLINE:
        irq.lapic.timer_count = left
        irq.lapic.timer_start = now
    rearm_timer(irq, now)


cdef inline void write_lvt_timer(irq_t *irq, u32 value, u64 now) noexcept nogil:
    """Into TSC-deadline mode or out of it the timer is disarmed (11.5.4.1); otherwise it counts on."""
    cdef lapic_t *lapic = &irq.lapic
    settle_timer(irq, now)
    if (value ^ lapic.lvt[LVT_TIMER]) & LVT_TSC_DEADLINE:
        lapic.timer_count = lapic.initial_count = 0
        lapic.tsc_deadline = 0
    lapic.lvt[LVT_TIMER] = value
    rearm_timer(irq, now)


cdef inline void write_tsc_deadline(irq_t *irq, u64 value, u64 now) noexcept nogil:
    """IA32_TSC_DEADLINE: ignored in the other modes; zero disarms."""
    if timer_mode(&irq.lapic) == LVT_TSC_DEADLINE:
        irq.lapic.tsc_deadline = value
        rearm_timer(irq, now)


cdef inline void tsc_moved(irq_t *irq, u64 now) noexcept nogil:
    """The time-stamp counter of this processor has another offset from now on."""
    if timer_mode(&irq.lapic) == LVT_TSC_DEADLINE:
        rearm_timer(irq, now)
