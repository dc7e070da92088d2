"""The core of the local APIC: request, priority, acknowledge, retire (SDM 3A 11.8; digest 10).

The engine calls the irq_* functions at event boundaries, the SynIC and the timers call request_interrupt. The
register page, the LVT, IPIs to others and the I/O APIC are not here. Reset leaves the APIC software-ENABLED although
the SDM has it disabled: without a register page a guest could not enable it, and in a disabled APIC the TLFS loses
SINT interrupts.
"""
from libc.string cimport memset

from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.spec cimport (
    DONE, ICR_DELIVERY_MODE, ICR_DELIVERY_STATUS, ICR_SHORTHAND, ICR_SHORTHAND_SELF, LOWEST_VECTOR, NOT_MINE,
)
from hvcore._native.irq.assist cimport promise_no_eoi, reset_assist, settle_eoi, withdraw_promise
from hvcore._native.irq.inbox cimport lags_behind, open_inbox
from hvcore._native.irq.observer cimport (
    EVENT_ACCEPTED, EVENT_EOI, EVENT_IPI_SENT, EVENT_LOST, EVENT_WITHDRAWN, NMI_VECTOR, SOURCE_SELF_IPI,
    SOURCE_UNKNOWN, note_delivery, note_event, note_gone, note_request, note_reset, source_of, SINT_SHIFT,
)
from hvcore._native.irq.state cimport inbox_t, irq_t, lapic_t
from hvcore._native.irq.vectors cimport has_vector, highest_vector, put_vector

cdef inline void lapic_reset(irq_t *irq) noexcept nogil:
    cdef u32 apic_id = irq.lapic.apic_id
    memset(&irq.lapic, 0, sizeof(lapic_t))
    irq.lapic.apic_id = apic_id
    irq.lapic.enabled = True
    reset_assist(irq)
    note_reset(irq.observer)


cdef inline void accept_interrupt(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """Accept a fixed interrupt, vector 16..255, into IRR. It is lost, and counted so, when the APIC is disabled."""
    cdef lapic_t *lapic = &irq.lapic
    if not lapic.enabled:
        irq.counters.interrupts_lost += 1
        note_gone(irq.observer, EVENT_LOST, irq.fabric.clock.now, vector)
        return
    settle_eoi(irq)
    if irq.assist.promised and (vector >> 4) <= (<u32>highest_vector(lapic.isr) >> 4):
        withdraw_promise(irq)       # its EOI would have to let this one in
    if has_vector(lapic.irr, vector):
        irq.counters.interrupts_merged += 1
        # One bit stands for both: a level request among them still owes its parent the EOI, and a source with
        # auto-EOI still has a handler that sends none.
        level = level or has_vector(lapic.tmr, vector)
        auto_eoi = auto_eoi or has_vector(lapic.auto_eoi, vector)
    put_vector(lapic.irr, vector, True)
    put_vector(lapic.tmr, vector, level)
    put_vector(lapic.auto_eoi, vector, auto_eoi and not level)
    note_event(irq.observer, EVENT_ACCEPTED, irq.fabric.clock.now, vector, SOURCE_UNKNOWN, level)


cdef inline void request_from(irq_t *irq, u32 vector, bint level, bint auto_eoi, u32 origin) noexcept nogil:
    """A fixed interrupt, vector 16..255, for this processor; from one that is ahead in time it waits in the inbox.

    `origin` is who sends: an InterruptSource, or origin_of() one that speaks through a SINT.
    """
    cdef inbox_t *inbox
    cdef bint later = lags_behind(irq)
    irq.counters.interrupts_requested += 1
    irq.tallies.requested[vector] += 1
    irq.tallies.sources[source_of(origin)] += 1
    if origin >> SINT_SHIFT:
        irq.tallies.sint_interrupts[((origin >> SINT_SHIFT) - 1) & 15] += 1
    note_request(irq.observer, irq.fabric.clock.now, vector, origin, later)
    if not later:
        accept_interrupt(irq, vector, level, auto_eoi)
        return
    inbox = open_inbox(irq)
    if has_vector(inbox.vectors, vector):
        irq.counters.interrupts_merged += 1
        level = level or has_vector(inbox.levels, vector)
        auto_eoi = auto_eoi and has_vector(inbox.auto_eoi, vector)
    put_vector(inbox.vectors, vector, True)
    put_vector(inbox.levels, vector, level)
    put_vector(inbox.auto_eoi, vector, auto_eoi)


cdef inline void request_interrupt(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """The same from nobody known."""
    request_from(irq, vector, level, auto_eoi, SOURCE_UNKNOWN)


cdef inline void withdraw_interrupt(irq_t *irq, u32 vector) noexcept nogil:
    """Take back a level-triggered request that was not delivered yet. An edge stays requested (10.2)."""
    if has_vector(irq.lapic.irr, vector) and has_vector(irq.lapic.tmr, vector):
        put_vector(irq.lapic.irr, vector, False)
        irq.counters.interrupts_withdrawn += 1
        note_gone(irq.observer, EVENT_WITHDRAWN, irq.fabric.clock.now, vector)


cdef inline u32 irq_priority(irq_t *irq) noexcept nogil:
    """The processor priority register: TPR, or the class in service where that is higher (SDM 3A 11.8.3.1)."""
    settle_eoi(irq)
    cdef int in_service = highest_vector(irq.lapic.isr)
    cdef u32 task = irq.lapic.tpr
    if in_service < 0 or (task >> 4) >= (<u32>in_service >> 4):
        return task
    return <u32>in_service & 0xF0


cdef inline int irq_pending_vector(irq_t *irq) noexcept nogil:
    """The vector that the core would take now if it may take interrupts, or -1."""
    cdef int vector = highest_vector(irq.lapic.irr)
    if vector < 0 or (<u32>vector >> 4) <= (irq_priority(irq) >> 4):
        return -1
    return vector


cdef inline void irq_acknowledge(irq_t *irq, int vector) noexcept nogil:
    """The core takes `vector`, which irq_pending_vector has just named."""
    cdef bint in_service = not has_vector(irq.lapic.auto_eoi, <u32>vector)
    withdraw_promise(irq)
    put_vector(irq.lapic.irr, <u32>vector, False)
    put_vector(irq.lapic.isr, <u32>vector, in_service)
    if in_service:
        promise_no_eoi(irq, <u32>vector)
    irq.counters.interrupts_delivered += 1
    irq.delivered[vector] += 1
    note_delivery(irq.observer, irq.time, <u32>vector)


cdef inline void retire_interrupt(irq_t *irq) noexcept nogil:
    """The APIC's part of an EOI: the highest vector in service ends. With none in service it is a no-op."""
    cdef int vector
    withdraw_promise(irq)           # a plain EOI stays legal while the bit is set
    vector = highest_vector(irq.lapic.isr)
    irq.counters.eois += 1
    if vector < 0:
        return
    put_vector(irq.lapic.isr, <u32>vector, False)
    note_event(irq.observer, EVENT_EOI, irq.fabric.clock.now, <u32>vector, SOURCE_UNKNOWN, 0)
    if has_vector(irq.lapic.tmr, <u32>vector):
        put_vector(irq.lapic.level_eois, <u32>vector, True)


cdef inline int irq_take_level_eoi(irq_t *irq) noexcept nogil:
    """A level-triggered vector whose EOI the parent has not been told of (message 80010004), or -1. Asking takes it."""
    cdef int vector = highest_vector(irq.lapic.level_eois)
    if vector >= 0:
        put_vector(irq.lapic.level_eois, <u32>vector, False)
    return vector


cdef inline void request_nmi(irq_t *irq) noexcept nogil:
    """NMIs are accepted by a disabled APIC too (SDM 3A 11.4.7.2). A second one before delivery merges."""
    irq.counters.nmis_requested += 1
    note_request(irq.observer, irq.fabric.clock.now, NMI_VECTOR, SOURCE_UNKNOWN, lags_behind(irq))
    if lags_behind(irq):
        open_inbox(irq).nmi = True
    else:
        accept_nmi(irq)


cdef inline void accept_nmi(irq_t *irq) noexcept nogil:
    if irq.lapic.nmi_pending:
        irq.counters.nmis_merged += 1
    irq.lapic.nmi_pending = True


cdef inline bint irq_nmi_pending(const irq_t *irq) noexcept nogil:
    return irq.lapic.nmi_pending


cdef inline void irq_acknowledge_nmi(irq_t *irq) noexcept nogil:
    """The core takes the pending NMI."""
    irq.lapic.nmi_pending = False
    irq.counters.nmis_delivered += 1
    note_delivery(irq.observer, irq.time, NMI_VECTOR)


cdef inline u32 irq_cr8(const irq_t *irq) noexcept nogil:
    return irq.lapic.tpr >> 4


cdef inline void irq_set_cr8(irq_t *irq, u32 value) noexcept nogil:
    """`value` is 0..15; the caller has raised #GP for anything else."""
    irq.lapic.tpr = <u8>(value << 4)


cdef inline int write_icr(irq_t *irq, u64 value) noexcept nogil:
    """Store the ICR and send a fixed interrupt to oneself. NOT_MINE: stored, but the sending is the caller's."""
    cdef u32 vector = value & 0xFF
    irq.lapic.icr = value & ~<u64>ICR_DELIVERY_STATUS
    if value & ICR_DELIVERY_MODE or (value & ICR_SHORTHAND) != ICR_SHORTHAND_SELF:
        return NOT_MINE
    note_event(irq.observer, EVENT_IPI_SENT, irq.fabric.clock.now, vector, SOURCE_SELF_IPI, value)
    if vector < LOWEST_VECTOR:
        irq.counters.interrupts_requested += 1
        irq.counters.interrupts_lost += 1
    else:
        # An IPI is an edge whatever its trigger-mode bit says (SDM 3A 11.6.1).
        request_from(irq, vector, False, False, SOURCE_SELF_IPI)
    return DONE
