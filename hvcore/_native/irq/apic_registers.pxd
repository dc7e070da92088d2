"""The registers of the local APIC, by number: offset in the page / 16, MSR - 800h (SDM 3A tables 11-1 and 11-6).

`now` is in ticks. Both faces, the page of xAPIC and the MSRs of x2APIC, come down to read_apic and write_apic.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.apic_spec cimport *
from hvcore._native.irq.apic_timer cimport current_count, write_divide, write_initial_count
from hvcore._native.irq.assist cimport settle_eoi
from hvcore._native.irq.clock cimport reference_time
from hvcore._native.irq.destination cimport arbitration_priority, is_x2apic, x2apic_ldr
from hvcore._native.irq.icr cimport send_ipi, write_icr
from hvcore._native.irq.lapic cimport irq_priority, record_error
from hvcore._native.irq.lvt cimport lvt_defined, lvt_index, write_lvt
from hvcore._native.irq.state cimport irq_t, lapic_t
from hvcore._native.irq.synic cimport irq_eoi

cdef enum:
    NO_REGISTER = 0
    READABLE = 1
    WRITABLE = 2


cdef inline u32 apic_access(u32 register, bint x2apic) noexcept nogil:
    """What may be done with a register; NO_REGISTER if there is none."""
    if APIC_ISR <= register < APIC_ESR or register in (APIC_ID, APIC_VERSION, APIC_PPR, APIC_CURRENT_COUNT):
        return READABLE
    if register in (APIC_TPR, APIC_SVR, APIC_ESR, APIC_LVT_CMCI, APIC_ICR, APIC_INITIAL_COUNT, APIC_DIVIDE) \
            or APIC_LVT_TIMER <= register <= APIC_LVT_ERROR:
        return READABLE | WRITABLE
    if register == APIC_EOI:
        return WRITABLE
    if register == APIC_LDR:
        return READABLE if x2apic else READABLE | WRITABLE
    if register == APIC_SELF_IPI:
        return WRITABLE if x2apic else NO_REGISTER
    if x2apic:
        return NO_REGISTER
    if register in (APIC_APR, APIC_REMOTE_READ):
        return READABLE
    return READABLE | WRITABLE if register in (APIC_DFR, APIC_ICR_HIGH) else NO_REGISTER


cdef inline u32 read_vectors(const u64 *vectors, u32 part) noexcept nogil:
    """One of the eight registers of a vector set."""
    return <u32>(vectors[part >> 1] >> (32 * (part & 1)))


cdef inline u64 read_apic(irq_t *irq, u32 register, u64 now) noexcept nogil:
    """A register that is readable. A remote read register reads 0: there are no remote reads."""
    cdef lapic_t *lapic = &irq.lapic
    settle_eoi(irq)
    if APIC_IRR <= register < APIC_ESR:
        return read_vectors(lapic.irr, register - APIC_IRR)
    if APIC_TMR <= register < APIC_IRR:
        return read_vectors(lapic.tmr, register - APIC_TMR)
    if APIC_ISR <= register < APIC_TMR:
        return read_vectors(lapic.isr, register - APIC_ISR)
    if register == APIC_ICR:
        return lapic.icr if is_x2apic(lapic) else <u32>lapic.icr
    if APIC_LVT_TIMER <= register <= APIC_LVT_ERROR or register == APIC_LVT_CMCI:
        return lapic.lvt[lvt_index(register)]
    if register == APIC_TPR:
        return lapic.tpr
    if register == APIC_PPR:
        return irq_priority(irq)
    if register == APIC_ID:
        return lapic.apic_id if is_x2apic(lapic) else lapic.apic_id << 24
    if register == APIC_VERSION:
        return VERSION_VALUE
    if register == APIC_APR:
        return arbitration_priority(irq)
    if register == APIC_LDR:
        return x2apic_ldr(lapic) if is_x2apic(lapic) else lapic.ldr
    if register == APIC_DFR:
        return lapic.dfr
    if register == APIC_SVR:
        return lapic.svr
    if register == APIC_ESR:
        return lapic.esr
    if register == APIC_ICR_HIGH:
        return lapic.icr >> 32
    if register == APIC_INITIAL_COUNT:
        return lapic.initial_count
    if register == APIC_CURRENT_COUNT:
        return current_count(irq, now)
    if register == APIC_DIVIDE:
        return lapic.divide
    return 0


cdef inline void write_svr(irq_t *irq, u32 value, u64 now) noexcept nogil:
    """Software-disabling masks the whole LVT (11.4.7.2); requests that are there already stay."""
    cdef u32 i
    irq.lapic.svr = value & SVR_DEFINED
    if not value & SVR_ENABLE:
        for i in range(<u32>LVT_COUNT):
            write_lvt(irq, i, irq.lapic.lvt[i] | LVT_MASKED, now)


cdef inline void write_apic(irq_t *irq, u32 register, u64 value, u64 now) noexcept nogil:
    """A register that is writable; bits that it has not are dropped."""
    cdef lapic_t *lapic = &irq.lapic
    if register == APIC_EOI:
        irq_eoi(irq, reference_time(&irq.fabric.timebase, now))
    elif register == APIC_ICR:
        if is_x2apic(lapic):
            write_icr(irq, value)
        else:
            write_icr(irq, lapic.icr & <u64>0xFFFFFFFF << 32 | <u32>value)
    elif register == APIC_SELF_IPI:
        write_self_ipi(irq, <u8>value)
    elif register == APIC_TPR:
        lapic.tpr = <u8>value
    elif register == APIC_ICR_HIGH:
        lapic.icr = <u32>lapic.icr | (value & <u32>0xFF000000) << 32
    elif APIC_LVT_TIMER <= register <= APIC_LVT_ERROR or register == APIC_LVT_CMCI:
        write_lvt(irq, lvt_index(register), <u32>value, now)
    elif register == APIC_INITIAL_COUNT:
        write_initial_count(irq, <u32>value, now)
    elif register == APIC_DIVIDE:
        write_divide(irq, value & DIVIDE_DEFINED, now)
    elif register == APIC_SVR:
        write_svr(irq, <u32>value, now)
    elif register == APIC_ESR:
        lapic.esr = lapic.errors
        lapic.errors = 0
    elif register == APIC_LDR:
        lapic.ldr = value & <u32>0xFF000000
    elif register == APIC_DFR:
        lapic.dfr = <u32>value | 0x0FFFFFFF


cdef inline void write_self_ipi(irq_t *irq, u8 vector) noexcept nogil:
    """As an ICR write of fixed mode to oneself; the ICR itself stays (11.12.11)."""
    cdef u64 icr = irq.lapic.icr
    irq.lapic.icr = SHORTHAND_SELF << ICR_SHORTHAND_SHIFT | vector
    send_ipi(irq)
    irq.lapic.icr = icr


cdef inline u64 x2apic_defined(u32 register) noexcept nogil:
    """Bits that may be written through an MSR; read-only ones are among them, reserved ones are #GP (11.12.1.3)."""
    if register == APIC_ICR:
        return <u64>0xFFFFFFFF << 32 | ICR_DEFINED
    if APIC_LVT_TIMER <= register <= APIC_LVT_ERROR or register == APIC_LVT_CMCI:
        return lvt_defined(lvt_index(register)) | LVT_STATUS | (
            LVT_REMOTE_IRR if APIC_LVT_LINT0 <= register <= APIC_LVT_LINT1 else 0)
    if register == APIC_TPR or register == APIC_SELF_IPI:
        return 0xFF
    if register == APIC_SVR:
        return SVR_DEFINED
    if register == APIC_INITIAL_COUNT:
        return 0xFFFFFFFF
    return DIVIDE_DEFINED if register == APIC_DIVIDE else 0     # EOI and ESR take nothing but 0


cdef inline bint read_x2apic(irq_t *irq, u32 register, u64 now, u64 *value) noexcept nogil:
    """RDMSR 800h + register. False: #GP."""
    if not is_x2apic(&irq.lapic) or register > APIC_SELF_IPI or not apic_access(register, True) & READABLE:
        return False
    value[0] = read_apic(irq, register, now)
    return True


cdef inline bint write_x2apic(irq_t *irq, u32 register, u64 value, u64 now) noexcept nogil:
    """WRMSR 800h + register. False: #GP, nothing changed."""
    if not is_x2apic(&irq.lapic) or register > APIC_SELF_IPI or not apic_access(register, True) & WRITABLE \
            or value & ~x2apic_defined(register):
        return False
    write_apic(irq, register, value, now)
    return True


cdef inline u32 read_xapic(irq_t *irq, u32 register, u64 now) noexcept nogil:
    """Four bytes at register * 16 of the page. What does not exist reads 0 and is an error (11.5.3, bit 7)."""
    if apic_access(register, False) == NO_REGISTER:
        record_error(irq, ERROR_REGISTER)
        return 0
    return <u32>read_apic(irq, register, now)


cdef inline void write_xapic(irq_t *irq, u32 register, u32 value, u64 now) noexcept nogil:
    """Writes to read-only registers have no effect."""
    cdef u32 access = apic_access(register, False)
    if access == NO_REGISTER:
        record_error(irq, ERROR_REGISTER)
    elif access & WRITABLE:
        write_apic(irq, register, value, now)
