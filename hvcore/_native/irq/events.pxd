"""When an interrupt controller has something to do next, and doing it. The engine asks between blocks."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.apic_timer cimport expire_apic_timer
from hvcore._native.irq.clock cimport never_ticks, reference_time, ticks_of_reference
from hvcore._native.irq.inbox cimport take_inbox
from hvcore._native.irq.lapic cimport accept_interrupt, accept_nmi
from hvcore._native.irq.observer cimport NMI_VECTOR, note_arrival
from hvcore._native.irq.startup cimport accept_init, accept_startup
from hvcore._native.irq.state cimport inbox_t, irq_t
from hvcore._native.irq.synic cimport irq_retry, irq_would_deliver
from hvcore._native.irq.timer cimport irq_expire
from hvcore._native.irq.unhalted cimport expire_unhalted, unhalted_event
from hvcore._native.irq.vectors cimport has_vector, highest_vector, put_vector


cdef inline u64 next_signal(const irq_t *irq) noexcept nogil:
    return min(min(irq.inbox.time, irq.lapic.timer_deadline),
               ticks_of_reference(&irq.fabric.timebase, irq.next_deadline))


cdef inline u64 irq_next_event(const irq_t *irq) noexcept nogil:
    """Ticks; never_ticks() when nothing is armed."""
    return min(min(next_signal(irq), irq.retry_time), unhalted_event(irq))


cdef inline u64 irq_wake_time(const irq_t *irq) noexcept nogil:
    """The same for a halted processor: a retry that would find its slot still full is none of its business."""
    return min(next_signal(irq), irq.retry_time if irq_would_deliver(irq) else never_ticks())


cdef inline void receive_inbox(irq_t *irq) noexcept nogil:
    """Its time has come: what was sent at the earliest moment arrives."""
    cdef inbox_t inbox = take_inbox(irq)
    cdef int vector
    if inbox.init:
        accept_init(irq)
    if inbox.startup:
        accept_startup(irq, inbox.startup_page)
    if inbox.external:
        irq.lapic.external_pending = True
    while True:
        vector = highest_vector(inbox.vectors)
        if vector < 0:
            break
        put_vector(inbox.vectors, <u32>vector, False)
        note_arrival(irq.observer, irq.time, <u32>vector)
        accept_interrupt(irq, <u32>vector, has_vector(inbox.levels, <u32>vector),
                         has_vector(inbox.auto_eoi, <u32>vector))
    if inbox.nmi:
        note_arrival(irq.observer, irq.time, NMI_VECTOR)
        accept_nmi(irq)


cdef inline void irq_advance(irq_t *irq, u64 now) noexcept nogil:
    """The processor has come to `now` ticks: everything that is due happens."""
    irq.time = irq.fabric.clock.now = now
    while irq.inbox.count and irq.inbox.time <= now:
        receive_inbox(irq)
    if irq.lapic.timer_deadline <= now:
        expire_apic_timer(irq, now)
    if irq.retry_time <= now:
        irq_retry(irq)
    if ticks_of_reference(&irq.fabric.timebase, irq.next_deadline) <= now:
        irq_expire(irq, reference_time(&irq.fabric.timebase, now))
    if unhalted_event(irq) <= now:
        expire_unhalted(irq, now)
