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
from hvcore._native.irq.clock cimport never_ticks
from hvcore._native.irq.inbox cimport lags_behind, notice, open_inbox
from hvcore._native.irq.spec cimport LOWEST_VECTOR
from hvcore._native.irq.state cimport inbox_t, irq_t, lapic_t

cdef enum:
    EOI_REPORT_LEVEL = 1        # of level-triggered interrupts: a parent's message, or a line that may still be up
    EOI_REPORT_EDGE = 2         # of the others, too (intercept X64ApicEoi)


cdef extern from *:
    int count_leading_zeros "__builtin_clzll"(u64 word) noexcept nogil


cdef inline int highest_vector(const u64 *vectors) noexcept nogil:
    """The highest member of a vector set, or -1."""
    if vectors[3]:
        return 255 - count_leading_zeros(vectors[3])
    if vectors[2]:
        return 191 - count_leading_zeros(vectors[2])
    if vectors[1]:
        return 127 - count_leading_zeros(vectors[1])
    if vectors[0]:
        return 63 - count_leading_zeros(vectors[0])
    return -1


cdef inline bint has_vector(const u64 *vectors, u32 vector) noexcept nogil:
    return (vectors[vector >> 6] >> (vector & 63)) & 1


cdef inline void put_vector(u64 *vectors, u32 vector, bint present) noexcept nogil:
    """Make the vector a member of the set, or not."""
    cdef u64 bit = <u64>1 << (vector & 63)
    if present:
        vectors[vector >> 6] |= bit
    else:
        vectors[vector >> 6] &= ~bit


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
    irq.lapic.tsc_offset = kept.tsc_offset
    irq.lapic.pins = kept.pins
    irq.lapic.startup_pending = kept.startup_pending
    irq.lapic.startup_page = kept.startup_page
    irq.lapic.dfr = <u32>0xFFFFFFFF
    irq.lapic.svr = SVR_RESET
    irq.lapic.timer_deadline = never_ticks()
    for i in range(LVT_COUNT):
        irq.lapic.lvt[i] = LVT_MASKED


cdef inline void lapic_reset(irq_t *irq) noexcept nogil:
    """Power-on (11.4.7.1): xAPIC at its usual place, software-disabled. Processor 0 is the bootstrap processor."""
    irq.lapic.startup_pending = False
    irq.lapic.base = <u64>BASE_RESET | BASE_ENABLE | (BASE_BSP if irq.index == 0 else 0)
    lapic_init(irq)


cdef inline void put_request(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """Into IRR, whose bit stands for all requests of the vector."""
    cdef lapic_t *lapic = &irq.lapic
    if has_vector(lapic.irr, vector):
        irq.counters.interrupts_merged += 1
        # A level request among them still owes the EOI, and a source with auto-EOI still has a handler that sends none.
        level = level or has_vector(lapic.tmr, vector)
        auto_eoi = auto_eoi or has_vector(lapic.auto_eoi, vector)
    put_vector(lapic.irr, vector, True)
    put_vector(lapic.tmr, vector, level)
    put_vector(lapic.auto_eoi, vector, auto_eoi and not level)


cdef inline void record_error(irq_t *irq, u32 error) noexcept nogil:
    """An error for ESR (11.5.3). The first one since ESR was last written raises the error interrupt."""
    cdef u32 entry = irq.lapic.lvt[LVT_ERROR], vector = entry & LVT_VECTOR
    cdef bint armed = irq.lapic.errors == 0
    irq.lapic.errors |= error
    irq.counters.apic_errors += 1
    if not armed or entry & LVT_MASKED or not is_enabled(&irq.lapic):
        return
    irq.counters.interrupts_requested += 1
    if vector < LOWEST_VECTOR:
        irq.lapic.errors |= ERROR_RECEIVE_VECTOR
        irq.counters.interrupts_lost += 1
    else:
        put_request(irq, vector, False, False)


cdef inline void accept_interrupt(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """Accept a fixed interrupt into IRR. It is lost, and counted so, when the APIC is disabled or the vector illegal."""
    notice(irq)
    if not is_enabled(&irq.lapic):
        irq.counters.interrupts_lost += 1
    elif vector < LOWEST_VECTOR:
        irq.counters.interrupts_lost += 1
        record_error(irq, ERROR_RECEIVE_VECTOR)
    else:
        put_request(irq, vector, level, auto_eoi)


cdef inline void request_interrupt(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """A fixed interrupt for this processor; from one that is ahead in time it waits in the inbox."""
    cdef inbox_t *inbox
    irq.counters.interrupts_requested += 1
    if not lags_behind(irq):
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


cdef inline u32 irq_priority(const irq_t *irq) noexcept nogil:
    """The processor priority register: TPR, or the class in service where that is higher (SDM 3A 11.8.3.1)."""
    cdef int in_service = highest_vector(irq.lapic.isr)
    cdef u32 task = irq.lapic.tpr
    if in_service < 0 or (task >> 4) >= (<u32>in_service >> 4):
        return task
    return <u32>in_service & 0xF0


cdef inline int irq_pending_vector(const irq_t *irq) noexcept nogil:
    """The vector that the core would take now if it may take interrupts, or -1."""
    cdef int vector = highest_vector(irq.lapic.irr)
    if vector < 0 or (<u32>vector >> 4) <= (irq_priority(irq) >> 4):
        return -1
    return vector


cdef inline void irq_acknowledge(irq_t *irq, int vector) noexcept nogil:
    """The core takes `vector`, which irq_pending_vector has just named."""
    put_vector(irq.lapic.irr, <u32>vector, False)
    put_vector(irq.lapic.isr, <u32>vector, not has_vector(irq.lapic.auto_eoi, <u32>vector))
    irq.counters.interrupts_delivered += 1
    irq.delivered[vector] += 1


cdef inline int retire_interrupt(irq_t *irq) noexcept nogil:
    """The APIC's part of an EOI: the highest vector in service ends. With none in service it is a no-op.

    The vector, if it was level-triggered, for the broadcast (eoi.pxd); else -1."""
    cdef int vector = highest_vector(irq.lapic.isr)
    irq.counters.eois += 1
    if vector < 0:
        return -1
    put_vector(irq.lapic.isr, <u32>vector, False)
    if not has_vector(irq.lapic.tmr, <u32>vector):
        put_vector(irq.lapic.level_eois, <u32>vector, irq.fabric.eoi_reports & EOI_REPORT_EDGE != 0)
        return -1
    put_vector(irq.lapic.level_eois, <u32>vector, True)
    return vector


cdef inline bint irq_reports_eoi(const irq_t *irq) noexcept nogil:
    """Somebody has to be told of an EOI before the processor goes on."""
    cdef const u64 *eois = irq.lapic.level_eois
    return irq.fabric.eoi_reports and eois[0] | eois[1] | eois[2] | eois[3]


cdef inline int irq_take_level_eoi(irq_t *irq) noexcept nogil:
    """A level-triggered vector whose EOI the parent has not been told of (message 80010004), or -1. Asking takes it."""
    cdef int vector = highest_vector(irq.lapic.level_eois)
    if vector >= 0:
        put_vector(irq.lapic.level_eois, <u32>vector, False)
    return vector


cdef inline void request_nmi(irq_t *irq) noexcept nogil:
    """NMIs are accepted by a disabled APIC too (SDM 3A 11.4.7.2). A second one before delivery merges."""
    irq.counters.nmis_requested += 1
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


cdef inline u32 irq_cr8(const irq_t *irq) noexcept nogil:
    return irq.lapic.tpr >> 4


cdef inline void irq_set_cr8(irq_t *irq, u32 value) noexcept nogil:
    """`value` is 0..15; the caller has raised #GP for anything else."""
    irq.lapic.tpr = <u8>(value << 4)


# INIT, SIPI and ExtINT are noted here and taken by the run loop, at an instruction boundary.

cdef inline void accept_init(irq_t *irq) noexcept nogil:
    """A SIPI from before it does not count any more."""
    notice(irq)
    irq.lapic.init_pending = True
    irq.lapic.startup_pending = False


cdef inline void request_init(irq_t *irq) noexcept nogil:
    cdef inbox_t *inbox
    irq.counters.inits_received += 1
    if lags_behind(irq):
        inbox = open_inbox(irq)
        inbox.init = True
        inbox.startup = False
    else:
        accept_init(irq)


cdef inline void accept_startup(irq_t *irq, u8 page) noexcept nogil:
    """The first of several counts, as for a processor that is already on its way."""
    notice(irq)
    if irq.lapic.startup_pending:
        irq.counters.startups_ignored += 1
    else:
        irq.lapic.startup_pending = True
        irq.lapic.startup_page = page


cdef inline void request_startup(irq_t *irq, u8 page) noexcept nogil:
    cdef inbox_t *inbox
    irq.counters.startups_received += 1
    if not lags_behind(irq):
        accept_startup(irq, page)
        return
    inbox = open_inbox(irq)
    if inbox.startup:
        irq.counters.startups_ignored += 1
    else:
        inbox.startup = True
        inbox.startup_page = page


cdef inline void request_external(irq_t *irq) noexcept nogil:
    """ExtINT: the vector comes from the 8259 when the processor asks for it."""
    if lags_behind(irq):
        open_inbox(irq).external = True
    else:
        irq.lapic.external_pending = True
