"""The core of the local APIC: request, priority, acknowledge, retire (SDM 3A 11.8; digest 10).

The engine calls the irq_* functions at event boundaries; the SynIC, the timers and the fabric call request_*.
Registers are in apic_registers.pxd, who is meant by a message in fabric.pxd. Reset leaves the APIC software-disabled,
as the SDM has it: until its owner enables it, it loses fixed interrupts, those of SINTs among them, and counts them.
"""
from libc.string cimport memset

from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.apic_spec cimport (
    BASE_BSP, BASE_ENABLE, BASE_RESET, ERROR_RECEIVE_VECTOR, LVT_COUNT, LVT_ERROR, LVT_MASKED, LVT_VECTOR, SVR_ENABLE,
    SVR_RESET,
)
from hvcore._native.irq.assist cimport promise_no_eoi, reset_assist, settle_eoi, withdraw_promise
from hvcore._native.irq.clock cimport never_ticks
from hvcore._native.irq.inbox cimport lags_behind, notice, open_inbox
from hvcore._native.irq.observer cimport (
    EVENT_ACCEPTED, EVENT_EOI, EVENT_LOST, EVENT_WITHDRAWN, NMI_VECTOR, SINT_SHIFT, SOURCE_LOCAL, SOURCE_UNKNOWN,
    note_delivery, note_event, note_gone, note_request, note_reset, source_of,
)
from hvcore._native.irq.spec cimport LOWEST_VECTOR
from hvcore._native.irq.state cimport inbox_t, irq_t, lapic_t
from hvcore._native.irq.vectors cimport has_vector, highest_vector, put_vector


cdef inline bint is_enabled(const lapic_t *lapic) noexcept nogil:
    """It accepts fixed interrupts: enabled by IA32_APIC_BASE and by SVR."""
    return lapic.base & BASE_ENABLE != 0 and lapic.svr & SVR_ENABLE != 0


cdef inline void lapic_init(irq_t *irq) noexcept nogil:
    """What INIT does to the APIC (11.4.7.3): ids, mode and base stay; a SIPI that came behind the INIT waits on."""
    cdef lapic_t kept = irq.lapic
    cdef u32 i
    memset(&irq.lapic, 0, sizeof(lapic_t))
    irq.lapic.base = kept.base
    irq.lapic.apic_id = kept.apic_id
    irq.lapic.pins = kept.pins
    irq.lapic.startup_pending = kept.startup_pending
    irq.lapic.startup_page = kept.startup_page
    irq.lapic.dfr = <u32>0xFFFFFFFF
    irq.lapic.svr = SVR_RESET
    irq.lapic.timer_deadline = never_ticks()
    for i in range(<u32>LVT_COUNT):
        irq.lapic.lvt[i] = LVT_MASKED
    reset_assist(irq)
    note_reset(irq.observer)


cdef inline void lapic_reset(irq_t *irq) noexcept nogil:
    """Power-on (11.4.7.1): xAPIC at its usual place, software-disabled. Processor 0 is the bootstrap processor."""
    irq.lapic.startup_pending = False
    irq.lapic.base = <u64>BASE_RESET | BASE_ENABLE | (BASE_BSP if irq.index == 0 else 0)
    lapic_init(irq)


cdef inline void put_request(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """Into IRR, whose bit stands for all requests of the vector."""
    cdef lapic_t *lapic = &irq.lapic
    settle_eoi(irq)
    if irq.assist.promised and (vector >> 4) <= (<u32>highest_vector(lapic.isr) >> 4):
        withdraw_promise(irq)       # its EOI would have to let this one in
    if has_vector(lapic.irr, vector):
        irq.counters.interrupts_merged += 1
        # A level request among them still owes the EOI; a source with auto-EOI still has a handler that sends none.
        level = level or has_vector(lapic.tmr, vector)
        auto_eoi = auto_eoi or has_vector(lapic.auto_eoi, vector)
    put_vector(lapic.irr, vector, True)
    put_vector(lapic.tmr, vector, level)
    put_vector(lapic.auto_eoi, vector, auto_eoi and not level)
    note_event(irq.observer, EVENT_ACCEPTED, irq.fabric.clock.now, vector, SOURCE_UNKNOWN, level)


cdef inline void lose_interrupt(irq_t *irq, u32 vector) noexcept nogil:
    irq.counters.interrupts_lost += 1
    note_gone(irq.observer, EVENT_LOST, irq.fabric.clock.now, vector)


cdef inline void record_error(irq_t *irq, u32 error) noexcept nogil:
    """An error for ESR (11.5.3). The first one since ESR was last written raises the error interrupt."""
    cdef u32 entry = irq.lapic.lvt[LVT_ERROR], vector = entry & LVT_VECTOR
    cdef bint armed = irq.lapic.errors == 0
    irq.lapic.errors |= error
    irq.counters.apic_errors += 1
    if not armed or entry & LVT_MASKED or not is_enabled(&irq.lapic):
        return
    count_request(irq, vector, SOURCE_LOCAL, False)
    if vector < LOWEST_VECTOR:
        irq.lapic.errors |= ERROR_RECEIVE_VECTOR
        lose_interrupt(irq, vector)
    else:
        put_request(irq, vector, False, False)


cdef inline void accept_interrupt(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """Into IRR with a fixed interrupt. In a disabled APIC, or with an illegal vector, it is lost and counted so."""
    notice(irq)
    if not is_enabled(&irq.lapic):
        lose_interrupt(irq, vector)
    elif vector < LOWEST_VECTOR:
        lose_interrupt(irq, vector)
        record_error(irq, ERROR_RECEIVE_VECTOR)
    else:
        put_request(irq, vector, level, auto_eoi)


cdef inline void count_request(irq_t *irq, u32 vector, u32 origin, bint later) noexcept nogil:
    """An interrupt is requested; `later`: it goes to the inbox."""
    irq.counters.interrupts_requested += 1
    irq.tallies.requested[vector] += 1
    irq.tallies.sources[source_of(origin)] += 1
    if origin >> SINT_SHIFT:
        irq.tallies.sint_interrupts[((origin >> SINT_SHIFT) - 1) & 15] += 1
    note_request(irq.observer, irq.fabric.clock.now, vector, origin, later)


cdef inline void request_from(irq_t *irq, u32 vector, bint level, bint auto_eoi, u32 origin) noexcept nogil:
    """A fixed interrupt for this processor; from one that is ahead in time it waits in the inbox.

    `origin` is who sends: an InterruptSource, or origin_of() one that speaks through a SINT.
    """
    cdef inbox_t *inbox
    cdef bint later = lags_behind(irq)
    count_request(irq, vector, origin, later)
    if not later:
        accept_interrupt(irq, vector, level, auto_eoi)
        return
    inbox = open_inbox(irq)
    if has_vector(inbox.vectors, vector):
        irq.counters.interrupts_merged += 1
        level = level or has_vector(inbox.levels, vector)
        auto_eoi = auto_eoi or has_vector(inbox.auto_eoi, vector)
    put_vector(inbox.vectors, vector, True)
    put_vector(inbox.levels, vector, level)
    put_vector(inbox.auto_eoi, vector, auto_eoi)


cdef inline void withdraw_interrupt(irq_t *irq, u32 vector) noexcept nogil:
    """Take back a level-triggered request that was not delivered yet. An edge stays requested (10.2)."""
    cdef u32 i
    for i in range(irq.inbox.count):
        if has_vector(irq.inbox.moments[i].levels, vector):
            put_vector(irq.inbox.moments[i].vectors, vector, False)
            put_vector(irq.inbox.moments[i].levels, vector, False)
            irq.counters.interrupts_withdrawn += 1
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


cdef inline int retire_interrupt(irq_t *irq) noexcept nogil:
    """The APIC's part of an EOI: the highest vector in service ends. With none in service it is a no-op.

    A partition with an I/O APIC of its own owes nobody the EOI of a level, unless its parent asked for all (8.1, 0Eh).

    The vector, if it was level-triggered, for the broadcast (eoi.pxd); else -1."""
    cdef int vector
    cdef bint level
    withdraw_promise(irq)           # a plain EOI stays legal while the bit is set
    vector = highest_vector(irq.lapic.isr)
    irq.counters.eois += 1
    if vector < 0:
        return -1
    put_vector(irq.lapic.isr, <u32>vector, False)
    level = has_vector(irq.lapic.tmr, <u32>vector)
    note_event(irq.observer, EVENT_EOI, irq.fabric.clock.now, <u32>vector, SOURCE_UNKNOWN, 0)
    if irq.fabric.reports_eois or (level and irq.fabric.platform == NULL):
        put_vector(irq.lapic.level_eois, <u32>vector, True)
        irq.lapic.owes_eois = True
    return vector if level else -1


cdef inline int irq_take_level_eoi(irq_t *irq) noexcept nogil:
    """A level-triggered vector whose EOI the parent has not been told of (message 80010004), or -1. Asking takes it."""
    cdef int vector = highest_vector(irq.lapic.level_eois)
    if vector >= 0:
        put_vector(irq.lapic.level_eois, <u32>vector, False)
    irq.lapic.owes_eois = highest_vector(irq.lapic.level_eois) >= 0
    return vector


cdef inline void request_nmi(irq_t *irq, u32 source) noexcept nogil:
    """NMIs are accepted by a disabled APIC too (SDM 3A 11.4.7.2). A second one before delivery merges."""
    irq.counters.nmis_requested += 1
    note_request(irq.observer, irq.fabric.clock.now, NMI_VECTOR, source, lags_behind(irq))
    if lags_behind(irq):
        open_inbox(irq).nmi = True
    else:
        accept_nmi(irq)


cdef inline void accept_nmi(irq_t *irq) noexcept nogil:
    notice(irq)
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
