"""Control and debug registers: what may be written, and what a write entails (SDM 3A 2.5, 17.2)."""
from hvcore._native.base.status cimport STOP_NONE
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.contexts cimport flush_translations, switch_address_space
from hvcore._native.cpu.dispatch cimport raise_error, raise_fault, stop_after
from hvcore._native.cpu.operand cimport register_set
from hvcore._native.cpu.spec cimport (
    CR0_AM, CR0_CD, CR0_EM, CR0_ET, CR0_MP, CR0_NE, CR0_NW, CR0_PE, CR0_PG, CR0_TS, CR0_WP, CR3_KEEP, CR3_LAM_U48,
    CR3_LAM_U57, CR3_PCID, CR4_DE, CR4_LA57, CR4_LAM_SUP, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE, CR4_PCE, CR4_PCIDE,
    CR4_PGE, CR4_PKE, CR4_PKS, CR4_PSE, CR4_SMAP, CR4_SMEP, CR4_TSD, EFER_LMA, EFER_LME, SEGMENT_CS, VECTOR_GP,
    VECTOR_NM, VECTOR_UD,
)
from hvcore._native.cpu.state cimport op_t, vp_t
from hvcore._native.irq.lapic cimport irq_cr8, irq_set_cr8

cdef enum:
    CR0_WRITABLE = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG
    CR4_WRITABLE = (CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_LA57
                    | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS | CR4_LAM_SUP)
    # Of CR4: what translations, or rights that the TLB has judged, depend on.
    CR4_TRANSLATION = (CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS
                       | CR4_LAM_SUP)
    DR6_FIXED = 0xFFFF0FF0
    DR7_FIXED = 0x400


cdef inline void update_sse(vp_t* vp) noexcept nogil:
    """What an SSE instruction meets first (SDM 3A table 13-1)."""
    vp.sse_vector = (VECTOR_UD if vp.cr0 & CR0_EM or not vp.cr4 & CR4_OSFXSR else
                     VECTOR_NM if vp.cr0 & CR0_TS else 0)


cdef inline bint write_cr0(vp_t* vp, u64 value) noexcept nogil:
    """False: #GP. Leaving protected mode or paging is accepted; what runs then is not 64-bit code any more."""
    cdef u64 changed
    if value >> 32 or (value & CR0_PG and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
        return False
    if value & CR0_PG and not vp.cr0 & CR0_PG and vp.efer & EFER_LME:
        if not vp.cr4 & CR4_PAE:
            return False
        vp.efer |= EFER_LMA
    if not value & CR0_PG and vp.cr0 & CR0_PG:
        if vp.segments[SEGMENT_CS].attributes & 0x2000 or vp.cr4 & CR4_PCIDE:
            return False
        vp.efer &= ~<u64>EFER_LMA
    changed = (value ^ vp.cr0) & (CR0_PG | CR0_WP)
    vp.cr0 = (value & CR0_WRITABLE) | CR0_ET
    if changed:
        flush_translations(vp)
    update_sse(vp)
    return True


cdef inline bint cr3_is_valid(const vp_t* vp, u64 value, bint may_keep) noexcept nogil:
    """Address bits that do not exist must be zero; the highest three have meanings of their own (SDM 3A 2.5)."""
    cdef u64 others = CR3_LAM_U48 | CR3_LAM_U57 | (CR3_KEEP if may_keep else 0)
    return value & ~others & ~((<u64>1 << vp.partition.physical_bits) - 1) == 0


cdef inline bint write_cr3(vp_t* vp, u64 value) noexcept nogil:
    if not cr3_is_valid(vp, value, vp.cr4 & CR4_PCIDE != 0):
        return False
    vp.cr3 = value & ~<u64>CR3_KEEP
    switch_address_space(vp, value & CR3_KEEP != 0)
    return True


cdef inline bint write_cr4(vp_t* vp, u64 value) noexcept nogil:
    cdef u64 changed = value ^ vp.cr4
    if value & ~<u64>CR4_WRITABLE:
        return False
    if vp.efer & EFER_LMA:
        if not value & CR4_PAE or changed & CR4_LA57:
            return False
    elif changed & value & CR4_PCIDE:
        return False
    if changed & value & CR4_PCIDE and vp.cr3 & CR3_PCID:
        return False
    vp.cr4 = value
    if changed & CR4_TRANSLATION:
        flush_translations(vp)
    update_sse(vp)
    return True


cdef inline bint write_cr8(vp_t* vp, u64 value) noexcept nogil:
    if value > 15:
        return False
    irq_set_cr8(vp.irq, <u32>value)
    return True


cdef inline bint is_control_register(u8 number) noexcept nogil:
    """The others are #UD at every privilege level."""
    return number == 0 or 2 <= number <= 4 or number == 8


cdef inline int system_write_control(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    cdef bint done = False
    if not is_control_register(op.third):
        return raise_fault(vp, op, VECTOR_UD)
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    if op.third == 0:
        done = write_cr0(vp, value)
    elif op.third == 2:
        vp.cr2 = value
        done = True
    elif op.third == 3:
        done = write_cr3(vp, value)
    elif op.third == 4:
        done = write_cr4(vp, value)
    else:
        done = write_cr8(vp, value)
    if not done:
        return raise_error(vp, op, VECTOR_GP, 0)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_read_control(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u64 value
    if not is_control_register(op.third):
        return raise_fault(vp, op, VECTOR_UD)
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    if op.third == 0:
        value = vp.cr0
    elif op.third == 2:
        value = vp.cr2
    elif op.third == 3:
        value = vp.cr3
    elif op.third == 4:
        value = vp.cr4
    else:
        value = irq_cr8(vp.irq)
    register_set(vp, op.rm, value, 64)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_clts(vp_t* vp, const op_t* op) noexcept nogil:
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.cr0 &= ~<u64>CR0_TS
    update_sse(vp)
    return stop_after(vp, op, STOP_NONE)


cdef inline u64 system_smsw(vp_t* vp, int width) noexcept nogil:
    return vp.cr0


cdef inline int system_lmsw(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    """The low four bits of CR0; PE can be set, not cleared."""
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    write_cr0(vp, (vp.cr0 & ~<u64>(CR0_MP | CR0_EM | CR0_TS)) | (value & 15))
    return stop_after(vp, op, STOP_NONE)


cdef inline u8 debug_number(const vp_t* vp, const op_t* op) noexcept nogil:
    """DR4 and DR5 are DR6 and DR7 while CR4.DE is 0; 0xFF: #UD."""
    if op.third > 7 or (op.third in (4, 5) and vp.cr4 & CR4_DE):
        return 0xFF
    return op.third + 2 if op.third in (4, 5) else op.third


cdef inline int system_read_debug(vp_t* vp, const op_t* op) noexcept nogil:
    if debug_number(vp, op) == 0xFF:
        return raise_fault(vp, op, VECTOR_UD)
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    register_set(vp, op.rm, vp.dr[debug_number(vp, op)], 64)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_write_debug(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    """Breakpoints are kept, not watched for."""
    cdef u8 number = debug_number(vp, op)
    if number == 0xFF:
        return raise_fault(vp, op, VECTOR_UD)
    if vp.cpl or (number >= 6 and value >> 32):
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.dr[number] = value | DR6_FIXED if number == 6 else value | DR7_FIXED if number == 7 else value
    return stop_after(vp, op, STOP_NONE)
