"""The MSRs of the interrupt controller: 40000070-72, 40000080-84, 40000090-9F, 400000B0-B7 (digest 2).

The engine calls this for RDMSR and WRMSR, irqchip for register hypercalls. Privilege bits are the caller's to check,
and so are the overlays: SIMP and SIEFP are stored here and the caller moves the page. Reserved bits are kept as written
(13 #16).
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.icr cimport write_icr
from hvcore._native.irq.spec cimport (
    DONE, GENERAL_PROTECTION, LOWEST_VECTOR, MSR_EOI, MSR_EOM, MSR_ICR, MSR_SCONTROL, MSR_SIEFP, MSR_SIMP, MSR_SINT0,
    MSR_SINT15, MSR_STIMER0_CONFIG, MSR_STIMER3_COUNT, MSR_SVERSION, MSR_TPR, NOT_MINE, PAGES_CHANGED, SINT_MASKED,
    SINT_POLLING, SINT_VECTOR, SYNIC_VERSION,
)
from hvcore._native.irq.state cimport irq_t, synthetic_timer_t
from hvcore._native.irq.synic cimport deliver_messages, irq_eoi
from hvcore._native.irq.timer cimport write_timer_config, write_timer_count


cdef inline u64 read_timer(const synthetic_timer_t *timer, bint count) noexcept nogil:
    """A count reads as it was programmed, not as the time that is left (9.7)."""
    return timer.count if count else timer.config


cdef inline int irq_read_msr(irq_t *irq, u32 index, u64 now, u64 *value) noexcept nogil:
    """DONE and the value; GENERAL_PROTECTION; NOT_MINE. `value` is written only with DONE."""
    irq.now = now
    if MSR_SINT0 <= index <= MSR_SINT15:
        value[0] = irq.synic.sints[index - MSR_SINT0]
    elif MSR_STIMER0_CONFIG <= index <= MSR_STIMER3_COUNT:
        value[0] = read_timer(&irq.timers[(index - MSR_STIMER0_CONFIG) >> 1], index & 1)
    elif index == MSR_TPR:
        value[0] = irq.lapic.tpr
    elif index == MSR_ICR:
        value[0] = irq.lapic.icr
    elif index == MSR_EOI:
        return GENERAL_PROTECTION
    elif index == MSR_SCONTROL:
        value[0] = irq.synic.control
    elif index == MSR_SVERSION:
        value[0] = SYNIC_VERSION
    elif index == MSR_SIEFP:
        value[0] = irq.synic.siefp
    elif index == MSR_SIMP:
        value[0] = irq.synic.simp
    elif index == MSR_EOM:
        value[0] = 0
    else:
        return NOT_MINE
    return DONE


cdef inline int write_sint(irq_t *irq, u32 sint, u64 value) noexcept nogil:
    """A vector below 16 faults only where it could be raised: unmasked and not polling (13 #15)."""
    if value & SINT_VECTOR < LOWEST_VECTOR and not value & (SINT_MASKED | SINT_POLLING):
        return GENERAL_PROTECTION
    irq.synic.sints[sint] = value
    return DONE


cdef inline int irq_write_msr(irq_t *irq, u32 index, u64 value, u64 now) noexcept nogil:
    """DONE; GENERAL_PROTECTION (nothing changed); NOT_MINE; PAGES_CHANGED (done, the caller moves the overlay)."""
    irq.now = now
    if MSR_SINT0 <= index <= MSR_SINT15:
        return write_sint(irq, index - MSR_SINT0, value)
    if MSR_STIMER0_CONFIG <= index <= MSR_STIMER3_COUNT:
        if not index & 1:
            return write_timer_config(irq, (index - MSR_STIMER0_CONFIG) >> 1, value, now)
        write_timer_count(irq, (index - MSR_STIMER0_CONFIG) >> 1, value, now)
    elif index == MSR_EOI:
        irq_eoi(irq, now)
    elif index == MSR_TPR:
        if value >> 8:
            return GENERAL_PROTECTION
        irq.lapic.tpr = <u8>value
    elif index == MSR_ICR:
        write_icr(irq, value)
    elif index == MSR_EOM:
        deliver_messages(irq)
    elif index == MSR_SCONTROL:
        irq.synic.control = value
        deliver_messages(irq)
    elif index == MSR_SIEFP:
        irq.synic.siefp = value
        return PAGES_CHANGED
    elif index == MSR_SIMP:
        irq.synic.simp = value
        deliver_messages(irq)
        return PAGES_CHANGED
    elif index == MSR_SVERSION:
        return GENERAL_PROTECTION
    else:
        return NOT_MINE
    return DONE
