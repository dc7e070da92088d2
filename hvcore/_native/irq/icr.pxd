"""The interrupt command register: what a write of it sends (SDM 3A 11.6)."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.apic_spec cimport (
    DELIVERY_FIXED, DELIVERY_LOWEST_PRIORITY, ERROR_SEND_VECTOR, ICR_ASSERT, ICR_DEFINED, ICR_LEVEL, ICR_LOGICAL,
    ICR_SHORTHAND_SHIFT, ICR_STATUS,
)
from hvcore._native.irq.destination cimport is_x2apic, widen_destination
from hvcore._native.irq.fabric cimport fabric_send
from hvcore._native.irq.lapic cimport record_error
from hvcore._native.irq.spec cimport LOWEST_VECTOR
from hvcore._native.irq.state cimport interrupt_message_t, irq_t


cdef inline void send_ipi(irq_t *irq) noexcept nogil:
    """Send what the ICR says. A software-disabled APIC sends too (11.4.7.2).

    A combination of shorthand and mode that table 11-3 calls invalid is sent as it reads (an NMI to oneself, say).
    The level bit makes no IPI level-triggered but INIT, whose de-assertion has no effect."""
    cdef u64 icr = irq.lapic.icr
    cdef interrupt_message_t message
    message.destination = <u32>(icr >> 32) if is_x2apic(&irq.lapic) else widen_destination(<u32>(icr >> 56))
    message.source = 0
    message.vector = <u8>icr
    message.delivery_mode = (icr >> 8) & 7
    message.shorthand = (icr >> ICR_SHORTHAND_SHIFT) & 3
    message.logical = icr & ICR_LOGICAL != 0
    message.level = icr & ICR_LEVEL != 0
    message.asserted = icr & ICR_ASSERT != 0
    message.redirection_hint = False
    irq.counters.ipis_sent += 1
    if message.delivery_mode == DELIVERY_FIXED or message.delivery_mode == DELIVERY_LOWEST_PRIORITY:
        message.level = False
        if message.vector < LOWEST_VECTOR:
            record_error(irq, ERROR_SEND_VECTOR)
            return
    if fabric_send(irq.fabric, irq, &message) == 0:
        irq.counters.ipis_unanswered += 1


cdef inline void write_icr(irq_t *irq, u64 value) noexcept nogil:
    """Both halves at once, as x2APIC and MSR 40000071 have it. Reserved bits are dropped."""
    cdef u64 destinations = <u64>0xFFFFFFFF << 32 if is_x2apic(&irq.lapic) else <u64>0xFF << 56
    irq.lapic.icr = value & (destinations | ICR_DEFINED) & ~<u64>ICR_STATUS
    send_ipi(irq)
