"""Whom a destination means, and who gets an interrupt of lowest priority (SDM 3A 11.6.2, 11.12.10)."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.apic_spec cimport BASE_ENABLE, BASE_X2APIC, BROADCAST, BROADCAST_8, SVR_NO_FOCUS
from hvcore._native.irq.lapic cimport has_vector, highest_vector, is_enabled
from hvcore._native.irq.state cimport fabric_t, interrupt_message_t, irq_t, lapic_t


cdef inline bint is_x2apic(const lapic_t *lapic) noexcept nogil:
    return lapic.base & BASE_X2APIC != 0


cdef inline u32 x2apic_ldr(const lapic_t *lapic) noexcept nogil:
    """Cluster [31:16] and one of sixteen members [15:0], derived from the id."""
    return lapic.apic_id >> 4 << 16 | <u32>1 << (lapic.apic_id & 15)


cdef inline u32 widen_destination(u32 destination) noexcept nogil:
    """A destination of eight bits: FFh is everybody, in every mode."""
    return <u32>BROADCAST if destination == BROADCAST_8 else destination


cdef inline bint is_logically_addressed(const lapic_t *lapic, u32 destination) noexcept nogil:
    cdef u32 ldr
    if is_x2apic(lapic):
        ldr = x2apic_ldr(lapic)
        return ldr >> 16 == destination >> 16 and ldr & destination & 0xFFFF != 0
    if destination > 0xFF:
        return False
    ldr = lapic.ldr >> 24
    if lapic.dfr >> 28 == 0xF:                                              # flat
        return ldr & destination != 0
    if lapic.dfr >> 28 == 0:                                                # clusters of four
        return ldr >> 4 == destination >> 4 and ldr & destination & 0xF != 0
    return False


cdef inline bint is_addressed(const irq_t *irq, u32 destination, bint logical) noexcept nogil:
    """Whether an APIC takes a message; one that IA32_APIC_BASE disables takes none."""
    if not irq.lapic.base & BASE_ENABLE:
        return False
    if destination == <u32>BROADCAST:
        return True
    if logical:
        return is_logically_addressed(&irq.lapic, destination)
    if is_x2apic(&irq.lapic):
        return irq.lapic.apic_id == destination
    return irq.lapic.apic_id & 0xFF == destination or destination == BROADCAST_8


cdef inline u32 arbitration_priority(const irq_t *irq) noexcept nogil:
    """APR (11.6.2.4): the task's priority, or the class in service or requested where that is higher."""
    cdef int requested = highest_vector(irq.lapic.irr), in_service = highest_vector(irq.lapic.isr)
    cdef u32 task = irq.lapic.tpr >> 4
    cdef u32 request = <u32>max(requested, 0) >> 4, service = <u32>max(in_service, 0) >> 4
    if task >= request and task > service:
        return irq.lapic.tpr
    return max(task, max(request, service)) << 4


cdef inline bint is_focus(const irq_t *irq, u32 vector) noexcept nogil:
    """It has the interrupt already, waiting or in service, and checking for that is on."""
    return not irq.lapic.svr & SVR_NO_FOCUS and (has_vector(irq.lapic.irr, vector) or has_vector(irq.lapic.isr, vector))


cdef inline irq_t *arbitrate(const fabric_t *fabric, const irq_t *excepted,
                             const interrupt_message_t *message) noexcept nogil:
    """Who takes an interrupt of lowest priority: the focus processor, else the lowest APR, else the lowest VP index.

    Software-disabled APICs do not take part. NULL: nobody does."""
    cdef irq_t *best = NULL
    cdef irq_t *irq
    cdef u32 i, lowest = 0, priority
    for i in range(fabric.count):
        irq = fabric.controllers[i]
        if irq == excepted or not is_enabled(&irq.lapic) or not is_addressed(irq, message.destination, message.logical):
            continue
        if is_focus(irq, message.vector):
            return irq
        priority = arbitration_priority(irq)
        if best == NULL or priority < lowest:
            best, lowest = irq, priority
    return best
