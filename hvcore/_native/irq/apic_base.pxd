"""IA32_APIC_BASE: the modes of the local APIC, and where its page is (SDM 3A 11.4.3-5, 11.12.1, 11.12.5)."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.apic_spec cimport BASE_BSP, BASE_ENABLE, BASE_PAGE_MASK, BASE_X2APIC
from hvcore._native.irq.lapic cimport lapic_init
from hvcore._native.irq.state cimport irq_t


cdef inline bint is_apic_page(const irq_t *irq, u64 gpa) noexcept nogil:
    """Whether the register page is at `gpa`: only in xAPIC mode is there one."""
    return irq.lapic.base & ~<u64>BASE_BSP == (gpa & <u64>BASE_PAGE_MASK | BASE_ENABLE)


cdef inline bint is_mode_change_legal(u64 old, u64 new) noexcept nogil:
    """Figure 11-27: x2APIC only from xAPIC, and out of it only by disabling."""
    if new & BASE_X2APIC:
        return new & BASE_ENABLE != 0 and old & BASE_ENABLE != 0
    return not old & BASE_X2APIC or not new & BASE_ENABLE


cdef inline bint write_apic_base(irq_t *irq, u64 value, u32 physical_bits) noexcept nogil:
    """False: #GP, nothing changed. A disabled APIC forgets its registers; the BSP flag can be written, as the SDM has
    it. The caller drops translations, for the page may be elsewhere now."""
    cdef u64 defined = (((<u64>1 << physical_bits) - 1) & <u64>BASE_PAGE_MASK) | BASE_BSP | BASE_X2APIC | BASE_ENABLE
    cdef u8 nmi = irq.lapic.nmi_pending, init = irq.lapic.init_pending
    if value & ~defined or not is_mode_change_legal(irq.lapic.base, value):
        return False
    irq.lapic.base = value
    if not value & BASE_ENABLE:
        lapic_init(irq)
        irq.lapic.nmi_pending, irq.lapic.init_pending = nmi, init
    return True
