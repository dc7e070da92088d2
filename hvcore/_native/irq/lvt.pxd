"""The local vector table: interrupts of the processor's own sources and pins (SDM 3A 11.5.1)."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.apic_spec cimport (
    APIC_LVT_CMCI, APIC_LVT_TIMER, BASE_ENABLE, DELIVERY_EXTERNAL, DELIVERY_FIXED, DELIVERY_INIT, DELIVERY_NMI,
    DELIVERY_SMI, LVT_CMCI, LVT_DELIVERY_SHIFT, LVT_ERROR, LVT_LEVEL, LVT_LINT0, LVT_LINT1,
    LVT_LOW_ACTIVE, LVT_MASKED, LVT_REMOTE_IRR, LVT_TIMER, LVT_TIMER_MODE, LVT_VECTOR, SVR_ENABLE,
)
from hvcore._native.irq.apic_timer cimport write_lvt_timer
from hvcore._native.irq.lapic cimport is_enabled, request_from, request_nmi
from hvcore._native.irq.observer cimport SOURCE_LOCAL
from hvcore._native.irq.startup cimport request_external, request_init
from hvcore._native.irq.state cimport fabric_t, irq_t


cdef inline u32 lvt_index(u32 register) noexcept nogil:
    """LVT_ of one of registers 2Fh and 32h-37h."""
    return LVT_CMCI if register == APIC_LVT_CMCI else register - APIC_LVT_TIMER


cdef inline u32 lvt_defined(u32 index) noexcept nogil:
    """The bits of an entry that can be written."""
    if index == LVT_TIMER:
        return LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE
    if index == LVT_ERROR:
        return LVT_VECTOR | LVT_MASKED
    if index == LVT_LINT0 or index == LVT_LINT1:
        return LVT_VECTOR | 7 << LVT_DELIVERY_SHIFT | LVT_LOW_ACTIVE | LVT_LEVEL | LVT_MASKED
    return LVT_VECTOR | 7 << LVT_DELIVERY_SHIFT | LVT_MASKED


cdef inline bint local_interrupt(irq_t *irq, u32 index) noexcept nogil:
    """A source of the processor itself asks for its interrupt. False: masked, or nothing comes of the mode."""
    cdef u32 entry = irq.lapic.lvt[index]
    cdef u32 mode = entry >> LVT_DELIVERY_SHIFT & 7
    cdef bint level = mode == DELIVERY_FIXED and index == LVT_LINT0 and entry & LVT_LEVEL != 0
    if entry & LVT_MASKED:
        return False
    if mode == DELIVERY_FIXED:
        if level:
            irq.lapic.lvt[index] |= LVT_REMOTE_IRR
        request_from(irq, entry & LVT_VECTOR, level, False, SOURCE_LOCAL)
        return is_enabled(&irq.lapic)
    if mode == DELIVERY_NMI:
        request_nmi(irq, SOURCE_LOCAL)
        return True
    if mode == DELIVERY_INIT:
        request_init(irq)
        return True
    if mode == DELIVERY_SMI:
        irq.counters.smis_ignored += 1
    return False            # ExtINT is a level that the run loop asks for: takes_external


cdef inline void write_lvt(irq_t *irq, u32 index, u32 value, u64 now) noexcept nogil:
    """Masked as long as the APIC is software-disabled (11.4.7.2). The caller has judged reserved bits."""
    value = (value & lvt_defined(index)) | (irq.lapic.lvt[index] & LVT_REMOTE_IRR)
    if not irq.lapic.svr & SVR_ENABLE:
        value |= LVT_MASKED
    if index == LVT_TIMER:
        write_lvt_timer(irq, value, now)
        return
    irq.lapic.lvt[index] = value
    if index == LVT_LINT0 or index == LVT_LINT1:
        raise_level_pin(irq, index)


cdef inline void raise_level_pin(irq_t *irq, u32 index) noexcept nogil:
    """A level-triggered LINT0 that is still asserted interrupts again, unless the last one has not ended."""
    cdef u32 entry = irq.lapic.lvt[index]
    if index == LVT_LINT0 and irq.lapic.pins & 1 and entry & LVT_LEVEL and not entry & LVT_REMOTE_IRR \
            and entry >> LVT_DELIVERY_SHIFT & 7 == DELIVERY_FIXED:
        local_interrupt(irq, index)


cdef inline void end_level_pin(irq_t *irq, u32 vector) noexcept nogil:
    """An EOI of a level-triggered vector, which may be LINT0's."""
    if irq.lapic.lvt[LVT_LINT0] & LVT_REMOTE_IRR and irq.lapic.lvt[LVT_LINT0] & LVT_VECTOR == vector:
        irq.lapic.lvt[LVT_LINT0] &= ~<u32>LVT_REMOTE_IRR
        raise_level_pin(irq, LVT_LINT0)


cdef inline bint set_local_pin(irq_t *irq, u32 pin, bint asserted) noexcept nogil:
    """LINT0 or LINT1 changes its level; whether that made an interrupt. Polarity does not count: it is asserted or not.
    With the APIC disabled by IA32_APIC_BASE the pins are INTR and NMI (11.4.3).

    Fixed interrupts of LINT1 are edges always, those of LINT0 as its entry says (11.5.1, trigger mode)."""
    cdef u8 bit = <u8>(1 << pin)
    cdef bint was = irq.lapic.pins & bit != 0
    irq.lapic.pins = irq.lapic.pins | bit if asserted else irq.lapic.pins & ~bit
    if was or not asserted:
        return False
    if not irq.lapic.base & BASE_ENABLE:
        if pin == 1:
            request_nmi(irq, SOURCE_LOCAL)
        return pin == 1
    return local_interrupt(irq, LVT_LINT0 + pin)


cdef inline void pulse_local_pin(irq_t *irq, u32 pin) noexcept nogil:
    """LINT0 or LINT1 is asserted for a moment, by a parent (digest 10.2): an ExtINT is remembered."""
    cdef u32 entry = irq.lapic.lvt[LVT_LINT0 + pin]
    cdef bint external = entry >> LVT_DELIVERY_SHIFT & 7 == DELIVERY_EXTERNAL and not entry & LVT_MASKED
    if not irq.lapic.base & BASE_ENABLE:
        external = pin == 0
        if pin == 1:
            request_nmi(irq, SOURCE_LOCAL)
    if external:
        request_external(irq)
    elif irq.lapic.base & BASE_ENABLE:
        local_interrupt(irq, LVT_LINT0 + pin)


cdef inline bint takes_external(const irq_t *irq) noexcept nogil:
    """The processor would now ask the 8259 for a vector: an ExtINT message came, LINT0 is asserted in that mode, or the
    APIC is disabled by IA32_APIC_BASE and the pin is INTR."""
    cdef u32 entry = irq.lapic.lvt[LVT_LINT0]
    if irq.lapic.external_pending:
        return True
    if not irq.lapic.pins & 1 or (irq.fabric.platform != NULL and irq.fabric.platform.intr_since > irq.time):
        return False
    return not irq.lapic.base & BASE_ENABLE or (
        not entry & LVT_MASKED and entry >> LVT_DELIVERY_SHIFT & 7 == DELIVERY_EXTERNAL)


cdef inline void set_external_line(fabric_t *fabric, bint asserted) noexcept nogil:
    """INTR of the 8259 pair: LINT0 of every processor is wired to it, as in a PC."""
    cdef u32 i
    for i in range(fabric.count):
        set_local_pin(fabric.controllers[i], 0, asserted)
