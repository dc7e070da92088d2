# Reading and writing each kind of register of cpu/registers.txt. Included by engine.pyx.
#
# get_KIND(vp, field) gives the value as an int of up to 128 bits, set_KIND an HV_STATUS: 0, 5 for a reserved bit,
# 0x50 for a value that the register cannot hold. Setting has no side effects in the guest (TLFS 7.9.2).

Segment = namedtuple("Segment", ("base", "limit", "selector", "attributes"))
Table = namedtuple("Table", ("base", "limit"))

cdef enum:
    SUCCESS = 0
    INVALID_PARAMETER = 5
    INVALID_REGISTER_VALUE = 0x50
    UNKNOWN_REGISTER_NAME = 0x87

cdef guard_t* guard_of(const vp_t* vp) noexcept:
    """Of the machine that has this processor; NULL: none."""
    return vp.irq.fabric.clock.guard if vp.irq != NULL else NULL


cdef object segment_of(object packed):
    return Segment(packed & WORD64, packed >> 64 & 0xFFFFFFFF, packed >> 96 & 0xFFFF, packed >> 112)


cdef object table_of(object packed):
    return Table(packed >> 64, packed >> 48 & 0xFFFF)


cdef object pack_segment(object value):
    base, limit, selector, attributes = value
    return base | limit << 64 | selector << 96 | attributes << 112


cdef object pack_table(object value):
    base, limit = value
    return limit << 48 | base << 64


cdef int check_set(str name, int status, object value) except -1:
    """The funnel for attribute assignments."""
    if status != SUCCESS:
        raise ValueError(f"{name} cannot hold {value!r}")
    return 0


cdef bint fits(object value, int bits) except -1:
    return 0 <= value < (<object>1) << bits


cdef object get_u64(vp_t* vp, const u64* field):
    return field[0]


cdef int set_u64(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    field[0] = value
    return SUCCESS


cdef object get_rip(vp_t* vp, const u64* field):
    return field[0]


cdef int set_rip(vp_t* vp, u64* field, object value) except -1:
    """A halted VP that is given a new RIP goes on there; an exception that was let through belonged to the old one.
    No processor can be at an address that is not canonical."""
    if not fits(value, 64) or not vp_is_canonical(vp, value):
        return INVALID_REGISTER_VALUE
    vp.halted = vp.guest_idle = vp.exception_passed = False
    field[0] = value
    return SUCCESS


cdef object get_u32(vp_t* vp, const u32* field):
    return field[0]


cdef int set_u32(vp_t* vp, u32* field, object value) except -1:
    if not fits(value, 32):
        return INVALID_REGISTER_VALUE
    field[0] = value
    return SUCCESS


cdef object get_u128(vp_t* vp, const xmm_t* field):
    return field.u64s[0] | <object>field.u64s[1] << 64


cdef int set_u128(vp_t* vp, xmm_t* field, object value) except -1:
    if not fits(value, 128):
        return INVALID_REGISTER_VALUE
    field.u64s[0] = value & WORD64
    field.u64s[1] = value >> 64
    return SUCCESS


cdef object get_suspension(vp_t* vp, const bint* field):
    """InterceptSuspend, and TlbFlushInhibit in bit 1."""
    return int(field[0]) | int(vp.tlb_flush_inhibit) << 1


cdef int set_suspension(vp_t* vp, bint* field, object value) except -1:
    """Both can only be cleared (hyperv-abi 7.4). Who waits to flush this TLB tries again."""
    cdef int known = get_suspension(vp, field)
    if not 0 <= value <= 3 or value & ~known:
        return INVALID_PARAMETER
    field[0] = value & 1
    if vp.tlb_flush_inhibit and not value & 2:
        vp.tlb_flush_inhibit = False
        vp.partition.flush_generation += 1
    return SUCCESS


cdef object get_bit(vp_t* vp, const bint* field):
    return int(field[0])


cdef int set_bit(vp_t* vp, bint* field, object value) except -1:
    """ExplicitSuspend."""
    if value not in (0, 1):
        return INVALID_PARAMETER
    if field == &vp.explicit_suspend:
        set_suspended(vp, value)
    else:
        field[0] = value
    return SUCCESS


cdef void set_suspended(vp_t* vp, bint suspended) noexcept:
    """ExplicitSuspend: reference time stands still while all processors of a partition are (hyperv-abi 9.6)."""
    if vp.explicit_suspend != suspended:
        vp.explicit_suspend = suspended
        vp.irq.fabric.timebase.running_count += -1 if suspended else 1
        follow_time(vp.irq.fabric, vp.irq.fabric.clock.now)


cdef object get_flags(vp_t* vp, const u64* field):
    return rflags_read(vp)


cdef int set_flags(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    if value & ~<u64>(FLAGS_ARITHMETIC | FLAGS_SYSTEM | FLAG_FIXED):
        return INVALID_PARAMETER
    rflags_write(vp, value)
    return SUCCESS


cdef object get_cr0(vp_t* vp, const u64* field):
    return vp.cr0


cdef int set_cr0(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 32) or value & ~<u64>CR0_WRITABLE:
        return INVALID_PARAMETER
    vp.cr0 = value | CR0_ET
    update_sse(vp)
    flush_translations(vp)
    return SUCCESS


cdef object get_cr3(vp_t* vp, const u64* field):
    return vp.cr3


cdef int set_cr3(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 64) or not cr3_is_valid(vp, value, False):
        return INVALID_PARAMETER
    vp.cr3 = value
    flush_translations(vp)
    return SUCCESS


cdef object get_cr4(vp_t* vp, const u64* field):
    return vp.cr4


cdef int set_cr4(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 32) or value & ~<u64>CR4_WRITABLE:
        return INVALID_PARAMETER
    vp.cr4 = value
    update_sse(vp)
    flush_translations(vp)
    return SUCCESS


cdef object get_cr8(vp_t* vp, irq_t* const* field):
    return irq_cr8(vp.irq)


cdef int set_cr8(vp_t* vp, irq_t** field, object value) except -1:
    return SUCCESS if fits(value, 64) and write_cr8(vp, value) else INVALID_REGISTER_VALUE


cdef object get_apic_base(vp_t* vp, irq_t* const* field):
    return vp.irq.lapic.base


cdef int set_apic_base(vp_t* vp, irq_t** field, object value) except -1:
    """Under the rules of the MSR: a mode that cannot be reached from the present one is refused."""
    if not fits(value, 64) or not write_apic_base(vp.irq, value, vp.partition.physical_bits):
        return INVALID_REGISTER_VALUE
    flush_translations(vp)
    return SUCCESS


cdef object get_apic_id(vp_t* vp, irq_t* const* field):
    return vp.irq.lapic.apic_id


cdef int set_apic_id(vp_t* vp, irq_t** field, object value) except -1:
    if not fits(value, 32):
        return INVALID_REGISTER_VALUE
    vp.irq.lapic.apic_id = value
    return SUCCESS


cdef object get_efer(vp_t* vp, const u64* field):
    return vp.efer


cdef int set_efer(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 32) or value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE):
        return INVALID_PARAMETER
    vp.efer = value
    flush_translations(vp)
    return SUCCESS


cdef object get_segment(vp_t* vp, const segment_t* field):
    return field.base | <object>field.limit << 64 | <object>field.selector << 96 | <object>field.attributes << 112


cdef int set_segment(vp_t* vp, segment_t* field, object value) except -1:
    if not fits(value, 128):
        return INVALID_REGISTER_VALUE
    if value >> 112 & 0xF00:
        return INVALID_PARAMETER
    field.base = value & WORD64
    field.limit = value >> 64 & 0xFFFFFFFF
    field.selector = value >> 96 & 0xFFFF
    field.attributes = value >> 112
    if field == &vp.segments[SEGMENT_SS]:
        set_privilege(vp, (field.attributes >> 5) & 3)
    forget_code_page(vp)
    return SUCCESS


cdef object get_table(vp_t* vp, const table_t* field):
    return <object>field.limit << 48 | <object>field.base << 64


cdef int set_table(vp_t* vp, table_t* field, object value) except -1:
    if not fits(value, 128):
        return INVALID_REGISTER_VALUE
    field.limit = value >> 48 & 0xFFFF
    field.base = value >> 64
    return SUCCESS


cdef object get_fp(vp_t* vp, const u16* field):
    """Control, status, abridged tag, opcode, last RIP (hyperv-abi 7.3)."""
    return vp.fcw | vp.fsw << 16 | <object>vp.ftw << 32 | <object>vp.fop << 48 | <object>vp.fip << 64


cdef int set_fp(vp_t* vp, u16* field, object value) except -1:
    if not fits(value, 128):
        return INVALID_REGISTER_VALUE
    vp.fcw, vp.fsw, vp.ftw = value & 0xFFFF, value >> 16 & 0xFFFF, value >> 32 & 0xFF
    vp.fop, vp.fip = value >> 48 & 0xFFFF, value >> 64
    return SUCCESS


cdef object get_xmm_control(vp_t* vp, const u64* field):
    """Last data pointer, MXCSR, MXCSR mask."""
    return vp.fdp | <object>vp.mxcsr << 64 | <object>MXCSR_MASK << 96


cdef int set_xmm_control(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 128):
        return INVALID_REGISTER_VALUE
    if value >> 64 & 0xFFFFFFFF & ~MXCSR_MASK:
        return INVALID_PARAMETER
    vp.fdp, vp.mxcsr = value & WORD64, value >> 64 & 0xFFFFFFFF
    return SUCCESS


cdef object get_tsc(vp_t* vp, irq_t* const* field):
    return read_tsc(vp, vp.slice_start)


cdef int set_tsc(vp_t* vp, irq_t** field, object value) except -1:
    """Moves the counter under the guest: IA32_TSC_ADJUST does not follow."""
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    set_tsc_offset(vp, vp.irq.tsc_offset + <u64>value - read_tsc(vp, vp.slice_start), vp.slice_start)
    return SUCCESS


cdef object get_tsc_virtual_offset(vp_t* vp, irq_t* const* field):
    return vp.irq.tsc_offset


cdef int set_tsc_virtual_offset(vp_t* vp, irq_t** field, object value) except -1:
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    set_tsc_offset(vp, value, vp.slice_start)
    return SUCCESS


cdef object get_tsc_adjust(vp_t* vp, const u64* field):
    return field[0]


cdef int set_tsc_adjust(vp_t* vp, u64* field, object value) except -1:
    """As IA32_TSC_ADJUST: the counter moves with it."""
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    adjust_tsc(vp, value, vp.slice_start)
    return SUCCESS


cdef object get_interrupt_state(vp_t* vp, const bint* field):
    return vp.shadow | vp.nmi_masked << 1


cdef int set_interrupt_state(vp_t* vp, bint* field, object value) except -1:
    if value & ~3:
        return INVALID_PARAMETER
    vp.shadow, vp.nmi_masked = value & 1, value >> 1
    return SUCCESS


cdef object get_notifications(vp_t* vp, const u64* field):
    return field[0]


cdef int set_notifications(vp_t* vp, u64* field, object value) except -1:
    """NMI, interrupt with its priority (hyperv-abi 7.4). Those of SINTs are refused, as the reserved bits are."""
    if not 0 <= value <= 0x3F:
        return INVALID_PARAMETER
    field[0] = value
    return SUCCESS


cdef object get_tsc_deadline(vp_t* vp, irq_t* const* field):
    return vp.irq.lapic.tsc_deadline


cdef int set_tsc_deadline(vp_t* vp, irq_t** field, object value) except -1:
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    write_tsc_deadline(vp.irq, value, vp.slice_start)
    return SUCCESS


cdef object read_apic_name(vp_t* vp, u32 register):
    """The image of an APIC register in the present mode; None if there is none. EOI and self-IPI read 0."""
    cdef u32 access = apic_access(register, True)
    if access == NO_REGISTER:
        return None
    if register == APIC_ICR:
        return vp.irq.lapic.icr         # one register of 64 bits by its name, also in xAPIC mode
    return read_apic(vp.irq, register, vp.slice_start) if access & READABLE else 0


cdef int write_apic_name(vp_t* vp, u32 register, object value) except -1:
    """Without side effects (TLFS 7.9.2): an ICR sends nothing, and what is nothing but an effect cannot be set."""
    cdef lapic_t* lapic = &vp.irq.lapic
    if apic_access(register, True) == NO_REGISTER:
        return UNKNOWN_REGISTER_NAME
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    if register == APIC_ID:
        lapic.apic_id = value if is_x2apic(lapic) else value >> 24
    elif register == APIC_ICR:
        lapic.icr = value & ~<u64>ICR_STATUS
    elif register == APIC_ESR:
        lapic.esr = value
    elif register == APIC_LDR and not is_x2apic(lapic):
        lapic.ldr = value & 0xFF000000
    elif not apic_access(register, True) & WRITABLE or register in (APIC_EOI, APIC_SELF_IPI):
        return INVALID_PARAMETER
    elif value & ~x2apic_defined(register):
        return INVALID_REGISTER_VALUE
    else:
        write_apic(vp.irq, register, value, vp.slice_start)
    return SUCCESS


cdef object get_activity(vp_t* vp, const bint* field):
    return vp.startup_suspend | (vp.halted and not vp.guest_idle) << 1 | vp.guest_idle << 2


cdef int set_activity(vp_t* vp, bint* field, object value) except -1:
    """Read-only (hyperv-abi 7.1)."""
    return INVALID_PARAMETER
