"""The four synthetic timers of a virtual processor (digest 9.7).

Times are reference time, u64 in units of 100 ns. A timer never fires early: the engine asks irq_next_deadline, stops
there and calls irq_expire. A deadline of NEVER (2**64 - 1, more than 58,000 years) means not armed.
"""
cimport cython

from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.irq.lapic cimport request_from
from hvcore._native.irq.observer cimport EVENT_TIMER_EXPIRED, SOURCE_SYNTHETIC_TIMER, note_event
from hvcore._native.irq.queue cimport write_message
from hvcore._native.irq.spec cimport (
    DONE, GENERAL_PROTECTION, LOWEST_VECTOR, MESSAGE_TIMER_EXPIRED, SYNTHETIC_TIMER_COUNT, TIMER_AUTO_ENABLE,
    TIMER_CATCH_UP, TIMER_DEFINED, TIMER_DIRECT, TIMER_ENABLE, TIMER_LAZY, TIMER_PERIODIC, TIMER_SINT_SHIFT,
    TIMER_VECTOR_SHIFT, timer_payload_t,
)
from hvcore._native.irq.state cimport irq_t, synthetic_timer_t
from hvcore._native.irq.synic cimport queue_message


cdef inline u64 never() noexcept nogil:
    return ~<u64>0


cdef inline u64 add_time(u64 time, u64 span) noexcept nogil:
    """Saturates at never(): a period past the end of time does not wrap into the past."""
    return time + span if span <= never() - time else never()


cdef inline u64 irq_next_deadline(const irq_t *irq) noexcept nogil:
    """When irq_expire has something to do next; 2**64 - 1 if nothing is armed."""
    return irq.next_deadline


cdef inline void find_next_deadline(irq_t *irq) noexcept nogil:
    cdef u32 index
    cdef u64 earliest = never()
    for index in range(SYNTHETIC_TIMER_COUNT):
        earliest = min(earliest, irq.timers[index].deadline)
    irq.next_deadline = earliest


cdef inline u32 timer_vector(u64 config) noexcept nogil:
    return (config >> TIMER_VECTOR_SHIFT) & 0xFF


cdef inline u32 timer_sint(u64 config) noexcept nogil:
    return (config >> TIMER_SINT_SHIFT) & 0xF


cdef inline void signal_timer(irq_t *irq, u32 index, u64 nominal) noexcept nogil:
    """One expiry: an edge interrupt in direct mode, otherwise the timer's message to its SINT."""
    cdef synthetic_timer_t *timer = &irq.timers[index]
    cdef timer_payload_t payload
    irq.counters.timers_expired += 1
    note_event(irq.observer, EVENT_TIMER_EXPIRED, irq.fabric.clock.now, 0, SOURCE_SYNTHETIC_TIMER, index)
    if timer.config & TIMER_DIRECT:
        request_from(irq, timer_vector(timer.config), False, False, SOURCE_SYNTHETIC_TIMER)
    elif timer.buffer.holder is not NULL:
        irq.counters.timers_merged += 1
    else:
        payload.timer = index
        payload.reserved = 0
        payload.expiration = nominal
        payload.delivery = 0
        write_message(&timer.buffer.message, MESSAGE_TIMER_EXPIRED, 0, <const u8 *>&payload, sizeof(timer_payload_t))
        queue_message(irq, &timer.buffer, timer_sint(timer.config))


@cython.cdivision(True)      # count is not 0 in an armed timer
cdef inline u64 skip_periods(irq_t *irq, const synthetic_timer_t *timer, u64 now) noexcept nogil:
    """The oldest due expiry of a periodic timer that is still worth a signal; the phase is kept (13 #40).

    A lazy timer makes up for nothing, and drops even the last period when less than a quarter of the next is left.
    """
    cdef u64 due = (now - timer.deadline) // timer.count + 1
    cdef u64 phase = (now - timer.deadline) % timer.count
    cdef u64 wanted = TIMER_CATCH_UP
    if timer.config & TIMER_LAZY:
        wanted = 0 if phase > timer.count - timer.count // 4 else 1
    if due <= wanted:
        return timer.deadline
    irq.counters.timers_skipped += due - wanted
    # (due - wanted) periods after the deadline, written so that it cannot wrap before it saturates.
    return add_time(now - phase, timer.count) if wanted == 0 else now - phase - (wanted - 1) * timer.count


cdef inline u32 expire_timer(irq_t *irq, u32 index, u64 now) noexcept nogil:
    """Fire one timer as far as it is due; how many signals it made."""
    cdef synthetic_timer_t *timer = &irq.timers[index]
    cdef u64 nominal = timer.deadline
    cdef u32 signals = 0
    if nominal > now or nominal == never():
        return 0
    if not timer.config & TIMER_PERIODIC:
        timer.config &= ~<u64>TIMER_ENABLE
        timer.deadline = never()
        signal_timer(irq, index, nominal)
        return 1
    nominal = skip_periods(irq, timer, now)
    while nominal <= now and nominal != never():
        signal_timer(irq, index, nominal)
        signals += 1
        nominal = add_time(nominal, timer.count)
    timer.deadline = nominal
    return signals


cdef inline u32 irq_expire(irq_t *irq, u64 now) noexcept nogil:
    """Fire everything that is due at `now`; how many signals that made."""
    cdef u32 index, signals = 0
    irq.now = now
    if now < irq.next_deadline:
        return 0
    for index in range(SYNTHETIC_TIMER_COUNT):
        signals += expire_timer(irq, index, now)
    find_next_deadline(irq)
    return signals


cdef inline u64 deadline_from(const synthetic_timer_t *timer, u64 now) noexcept nogil:
    """When a timer expires whose period, if it has one, begins at `now`."""
    if not timer.config & TIMER_ENABLE or timer.count == 0:
        return never()
    return add_time(now, timer.count) if timer.config & TIMER_PERIODIC else timer.count


cdef inline void arm_timer(irq_t *irq, u32 index, u64 now) noexcept nogil:
    """Recompute the deadline after a register write. A one-shot in the past fires at once; a period starts over."""
    cdef synthetic_timer_t *timer = &irq.timers[index]
    if not timer.config & TIMER_DIRECT and timer_sint(timer.config) == 0:
        timer.config &= ~<u64>TIMER_ENABLE      # SINT0 belongs to the intercepts
    timer.deadline = deadline_from(timer, now)
    expire_timer(irq, index, now)
    find_next_deadline(irq)


cdef inline bint is_timer_config(u64 value) noexcept nogil:
    """No reserved bits, and in direct mode the vector of an interrupt."""
    return not value & ~<u64>TIMER_DEFINED and (not value & TIMER_DIRECT or timer_vector(value) >= LOWEST_VECTOR)


cdef inline int write_timer_config(irq_t *irq, u32 index, u64 value, u64 now) noexcept nogil:
    if not is_timer_config(value):
        return GENERAL_PROTECTION
    irq.timers[index].config = value
    arm_timer(irq, index, now)
    return DONE


cdef inline void write_timer_count(irq_t *irq, u32 index, u64 value, u64 now) noexcept nogil:
    """Zero stops the timer and clears enable; anything else enables a timer with auto-enable."""
    cdef synthetic_timer_t *timer = &irq.timers[index]
    timer.count = value
    if value == 0:
        timer.config &= ~<u64>TIMER_ENABLE
    elif timer.config & TIMER_AUTO_ENABLE:
        timer.config |= TIMER_ENABLE
    arm_timer(irq, index, now)


cdef inline void timers_reset(irq_t *irq) noexcept nogil:
    """Configurations and counts are 0. Messages of the timers go with the queues (synic_reset)."""
    cdef u32 index
    for index in range(SYNTHETIC_TIMER_COUNT):
        irq.timers[index].config = irq.timers[index].count = 0
        irq.timers[index].deadline = never()
        irq.timers[index].buffer.is_timer = True
    irq.next_deadline = never()
