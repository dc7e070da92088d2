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
    vp.halted = vp.exception_passed = False
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


cdef object get_bit(vp_t* vp, const bint* field):
    return int(field[0])


cdef int set_bit(vp_t* vp, bint* field, object value) except -1:
    """ExplicitSuspend; InterceptSuspend can only be cleared (hyperv-abi 7.4)."""
    if value not in (0, 1) or (field == &vp.intercept_suspend and value):
        return INVALID_PARAMETER
    field[0] = value
    return SUCCESS


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


cdef object get_tsc(vp_t* vp, const u64* field):
    return (vp.slice_start + vp.tsc_offset) & WORD64


cdef int set_tsc(vp_t* vp, u64* field, object value) except -1:
    if not fits(value, 64):
        return INVALID_REGISTER_VALUE
    vp.tsc_offset = (value - vp.slice_start) & WORD64
    move_tsc(vp.irq, vp.tsc_offset, vp.slice_start)
    return SUCCESS


cdef object get_interrupt_state(vp_t* vp, const bint* field):
    return vp.shadow | vp.nmi_masked << 1


cdef int set_interrupt_state(vp_t* vp, bint* field, object value) except -1:
    if value & ~3:
        return INVALID_PARAMETER
    vp.shadow, vp.nmi_masked = value & 1, value >> 1
    return SUCCESS


cdef object get_activity(vp_t* vp, const bint* field):
    return vp.startup_suspend | vp.halted << 1


cdef int set_activity(vp_t* vp, bint* field, object value) except -1:
    """Read-only (hyperv-abi 7.1)."""
    return INVALID_PARAMETER
