"""What a parent is told of at instruction boundaries: ends of interrupts, and that an event could be delivered now.

And the other way round: the vector of an ExtINT, which a parent or the 8259 pair gives.
"""
from hvcore._native.base.status cimport REASON_APIC_EOI, REASON_WINDOW
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.spec cimport FLAG_IF
from hvcore._native.cpu.state cimport SLOT_RIP, vp_t
from hvcore._native.irq.lapic cimport irq_priority, irq_take_level_eoi
from hvcore._native.irq.platform cimport platform_acknowledge

cdef enum:
    # DeliverabilityNotifications, and the kind of event in message 80010008
    NOTIFY_NMI = 1
    NOTIFY_INTERRUPT = 2
    NOTIFY_PRIORITY = 15 << 2
    WINDOW_INTERRUPT = 0
    WINDOW_NMI = 2


cdef inline bint window_is_open(const vp_t* vp, bint nmi) noexcept nogil:
    """Whether DeliverabilityNotifications asks for this kind of event, and it could be delivered now.

    An interrupt of the priority [5:2], if one is given, must be above PPR too."""
    cdef u32 priority = (vp.notifications >> 2) & 15
    if nmi:
        return vp.notifications & NOTIFY_NMI != 0 and not vp.nmi_masked
    return vp.notifications & NOTIFY_INTERRUPT != 0 and vp.rflags_system & FLAG_IF != 0 and (
        priority == 0 or priority > irq_priority(vp.irq) >> 4)


cdef inline bint report_window(vp_t* vp) noexcept nogil:
    """An exit for a window that is open; the request is good for one."""
    cdef bint nmi = window_is_open(vp, True)
    if not nmi and not window_is_open(vp, False):
        return False
    vp.notifications &= ~<u64>(NOTIFY_NMI if nmi else NOTIFY_INTERRUPT | NOTIFY_PRIORITY)
    vp.exit.reason = REASON_WINDOW
    vp.exit.index = WINDOW_NMI if nmi else WINDOW_INTERRUPT
    vp.exit.rip = vp.registers[SLOT_RIP]
    vp.exit.length = 0
    return True


cdef inline bint report_eoi(vp_t* vp) noexcept nogil:
    """An exit for an EOI that the parent has to be told of; the root has none."""
    cdef int vector = irq_take_level_eoi(vp.irq)
    if vector < 0 or vp.partition.is_root:
        return False
    vp.exit.reason = REASON_APIC_EOI
    vp.exit.index = <u32>vector
    vp.exit.rip = vp.registers[SLOT_RIP]
    vp.exit.length = 0
    vp.exit.gva_valid = False
    return True


cdef inline u8 acknowledge_external(vp_t* vp) noexcept nogil:
    """The vector of an ExtINT: the one that a parent has asserted (hyperv-abi 10.2), else what the 8259 pair gives."""
    if vp.external_pending:
        vp.external_pending = False
        vp.external_acknowledged = True
        return vp.external_vector
    vp.irq.lapic.external_pending = False
    vp.irq.counters.externals_delivered += 1
    return platform_acknowledge(vp.irq.fabric)


cdef inline bint has_deliverable_sints(const vp_t* vp) noexcept nogil:
    """The parent is owed message 80000062. One in Python looks for itself."""
    return vp.irq.deliverable_sints != 0 and not vp.partition.host_managed


cdef inline void report_sints(vp_t* vp) noexcept nogil:
    """An exit for them all; what comes later is told of later."""
    vp.exit.rip, vp.exit.length = vp.registers[SLOT_RIP], 0
    vp.exit.value = vp.irq.deliverable_sints
    vp.irq.deliverable_sints = 0
