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
from hvcore._native.irq.inbox cimport lags_behind, notice, open_inbox
from hvcore._native.irq.state cimport inbox_t, irq_t, lapic_t

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


cdef inline void lapic_reset(irq_t *irq) noexcept nogil:
    cdef u32 apic_id = irq.lapic.apic_id
    memset(&irq.lapic, 0, sizeof(lapic_t))
    irq.lapic.apic_id = apic_id
    irq.lapic.enabled = True


cdef inline void accept_interrupt(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """Accept a fixed interrupt, vector 16..255, into IRR. It is lost, and counted so, when the APIC is disabled."""
    cdef lapic_t *lapic = &irq.lapic
    notice(irq)
    if not lapic.enabled:
        irq.counters.interrupts_lost += 1
        return
    if has_vector(lapic.irr, vector):
        irq.counters.interrupts_merged += 1
        # One bit stands for both: a level request among them still owes its parent the EOI, and a source with
        # auto-EOI still has a handler that sends none.
        level = level or has_vector(lapic.tmr, vector)
        auto_eoi = auto_eoi or has_vector(lapic.auto_eoi, vector)
    put_vector(lapic.irr, vector, True)
    put_vector(lapic.tmr, vector, level)
    put_vector(lapic.auto_eoi, vector, auto_eoi and not level)


cdef inline void request_interrupt(irq_t *irq, u32 vector, bint level, bint auto_eoi) noexcept nogil:
    """A fixed interrupt, vector 16..255, for this processor; from one that is ahead in time it waits in the inbox."""
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


cdef inline void retire_interrupt(irq_t *irq) noexcept nogil:
    """The APIC's part of an EOI: the highest vector in service ends. With none in service it is a no-op."""
    cdef int vector = highest_vector(irq.lapic.isr)
    irq.counters.eois += 1
    if vector < 0:
        return
    put_vector(irq.lapic.isr, <u32>vector, False)
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


cdef inline int write_icr(irq_t *irq, u64 value) noexcept nogil:
    """Store the ICR and send a fixed interrupt to oneself. NOT_MINE: stored, but the sending is the caller's."""
    cdef u32 vector = value & 0xFF
    irq.lapic.icr = value & ~<u64>ICR_DELIVERY_STATUS
    if value & ICR_DELIVERY_MODE or (value & ICR_SHORTHAND) != ICR_SHORTHAND_SELF:
        return NOT_MINE
    if vector < LOWEST_VECTOR:
        irq.counters.interrupts_requested += 1
        irq.counters.interrupts_lost += 1
    else:
        # An IPI is an edge whatever its trigger-mode bit says (SDM 3A 11.6.1).
        request_interrupt(irq, vector, False, False)
    return DONE
