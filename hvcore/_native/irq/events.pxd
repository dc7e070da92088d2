"""When an interrupt controller has something to do next, and doing it. The engine asks between blocks."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.apic_timer cimport expire_apic_timer
from hvcore._native.irq.clock cimport reference_time, ticks_of_reference
from hvcore._native.irq.inbox cimport take_inbox
from hvcore._native.irq.lapic cimport (
    accept_init, accept_interrupt, accept_nmi, accept_startup, has_vector, highest_vector, put_vector,
)
from hvcore._native.irq.state cimport inbox_t, irq_t
from hvcore._native.irq.timer cimport irq_expire


cdef inline u64 irq_next_event(const irq_t *irq) noexcept nogil:
    """Ticks; never_ticks() when nothing is armed."""
    return min(min(irq.inbox.time, irq.lapic.timer_deadline), ticks_of_reference(&irq.fabric.timebase, irq.next_deadline))


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
        accept_interrupt(irq, <u32>vector, has_vector(inbox.levels, <u32>vector),
                         has_vector(inbox.auto_eoi, <u32>vector))
    if inbox.nmi:
        accept_nmi(irq)


cdef inline void irq_advance(irq_t *irq, u64 now) noexcept nogil:
    """The processor has come to `now` ticks: everything that is due happens."""
    irq.time = irq.fabric.clock.now = now
    while irq.inbox.time <= now:
        receive_inbox(irq)
    if irq.lapic.timer_deadline <= now:
        expire_apic_timer(irq, now)
    if ticks_of_reference(&irq.fabric.timebase, irq.next_deadline) <= now:
        irq_expire(irq, reference_time(&irq.fabric.timebase, now))
