"""The end of an interrupt, and who is told of it (SDM 3A 11.8.5)."""
from hvcore._native.base.types cimport u32
from hvcore._native.irq.apic_spec cimport SVR_NO_EOI_BROADCAST
from hvcore._native.irq.lapic cimport retire_interrupt
from hvcore._native.irq.lvt cimport end_level_pin
from hvcore._native.irq.platform cimport platform_eoi
from hvcore._native.irq.state cimport irq_t


cdef inline void end_interrupt(irq_t *irq) noexcept nogil:
    """The highest vector in service ends; the I/O APIC hears of a level-triggered one, unless SVR says no."""
    cdef int vector = retire_interrupt(irq)
    if vector < 0:
        return
    end_level_pin(irq, <u32>vector)
    if not irq.lapic.svr & SVR_NO_EOI_BROADCAST:
        platform_eoi(irq.fabric, <u32>vector)
