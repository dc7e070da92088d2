"""System instructions: control and debug registers, MSRs, CPUID, interrupts flags, HLT, hypercalls, SYSCALL.

Each ends its block. An instruction that the Python layer has to finish (hypercall, deferred MSR) retires first and
leaves the facts in vp.exit; the answer only sets registers.
"""
from hvcore._native.base.bits cimport is_canonical
from hvcore._native.base.status cimport (
    REASON_CPUID, REASON_HALT, REASON_HYPERCALL, REASON_MSR, STOP_EXIT, STOP_FAULT, STOP_NONE,
)
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.cpu.dispatch cimport next_rip, raise_error, raise_fault, stop_after, stop_before, time_at
from hvcore._native.cpu.flags cimport flags_load, rflags_read
from hvcore._native.cpu.operand cimport effective, register_get, register_set
from hvcore._native.cpu.segments cimport forget_code_page, set_privilege
from hvcore._native.cpu.state cimport (
    CR0_AM, CR0_CD, CR0_EM, CR0_ET, CR0_MP, CR0_NE, CR0_NW, CR0_PE, CR0_PG, CR0_TS, CR0_WP, CR4_DE, CR4_OSFXSR,
    CR4_OSXMMEXCPT, CR4_PAE, CR4_PCE, CR4_PGE, CR4_PSE, CR4_TSD, EFER_LMA, EFER_LME, EFER_SCE, FLAG_IF, FLAG_RF,
    FLAG_VM, FLAGS_SYSTEM, FLAG_IOPL, RAX, RBX, RCX, RDX, RSP, R11, SEGMENT_CS, SEGMENT_GS, SEGMENT_SS, SLOT_RIP,
    VECTOR_BP, VECTOR_DB, VECTOR_GP, VECTOR_NM, VECTOR_UD, op_t, segment_t, vp_t,
)
from hvcore._native.mem.format cimport RIGHT_EXECUTE, RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.tlb cimport tlb_flush, tlb_flush_page
from hvcore._native.sem.cpuid cimport cpuid
from hvcore._native.sem.msr cimport MSR_DEFERRED, MSR_DONE, MSR_FAULT, msr_read, msr_write

cdef enum:
    CR0_WRITABLE = CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG
    CR4_WRITABLE = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT
    DR6_FIXED = 0xFFFF0FF0
    DR7_FIXED = 0x400


cdef inline void flush_translations(vp_t* vp) noexcept nogil:
    tlb_flush(&vp.tlbs[0])
    tlb_flush(&vp.tlbs[1])
    forget_code_page(vp)


cdef inline void update_sse(vp_t* vp) noexcept nogil:
    """What an SSE instruction meets first (SDM 3A table 13-1)."""
    vp.sse_vector = (VECTOR_UD if vp.cr0 & CR0_EM or not vp.cr4 & CR4_OSFXSR else
                     VECTOR_NM if vp.cr0 & CR0_TS else 0)


cdef inline bint write_cr0(vp_t* vp, u64 value) noexcept nogil:
    """False: #GP. Leaving protected mode or paging is accepted; what runs then is not 64-bit code any more."""
    if value >> 32 or (value & CR0_PG and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
        return False
    if value & CR0_PG and not vp.cr0 & CR0_PG and vp.efer & EFER_LME:
        if not vp.cr4 & CR4_PAE:
            return False
        vp.efer |= EFER_LMA
    if not value & CR0_PG and vp.cr0 & CR0_PG:
        if vp.segments[SEGMENT_CS].attributes & 0x2000:
            return False
        vp.efer &= ~<u64>EFER_LMA
    if (value ^ vp.cr0) & (CR0_PG | CR0_WP):
        flush_translations(vp)
    vp.cr0 = (value & CR0_WRITABLE) | CR0_ET
    update_sse(vp)
    return True


cdef inline bint write_cr3(vp_t* vp, u64 value) noexcept nogil:
    if value & vp.partition.gpa_reserved:
        return False
    vp.cr3 = value
    flush_translations(vp)
    return True


cdef inline bint write_cr4(vp_t* vp, u64 value) noexcept nogil:
    if value & ~<u64>CR4_WRITABLE or (vp.efer & EFER_LMA and not value & CR4_PAE):
        return False
    if (value ^ vp.cr4) & (CR4_PAE | CR4_PSE | CR4_PGE):
        flush_translations(vp)
    vp.cr4 = value
    update_sse(vp)
    return True


cdef inline bint write_cr8(vp_t* vp, u64 value) noexcept nogil:
    if value > 15:
        return False
    vp.cr8 = value
    vp.cr8_changed = True
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
        value = vp.cr8
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


cdef inline int system_invlpg(vp_t* vp, const op_t* op, u64 gva) noexcept nogil:
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    tlb_flush_page(&vp.tlbs[0], gva)
    tlb_flush_page(&vp.tlbs[1], gva)
    forget_code_page(vp)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_cache(vp_t* vp, const op_t* op) noexcept nogil:
    """INVD, WBINVD: there is no cache to write back."""
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    return stop_after(vp, op, STOP_NONE)


cdef inline int leave_for(vp_t* vp, const op_t* op, u32 reason) noexcept nogil:
    """End the block behind this instruction with an exit."""
    vp.exit.reason = reason
    vp.exit.rip = vp.registers[SLOT_RIP] + op.offset
    vp.exit.length = op.length
    return stop_after(vp, op, STOP_EXIT)


cdef inline int system_cpuid(vp_t* vp, const op_t* op) noexcept nogil:
    cpuid(vp, <u32>vp.registers[RAX], <u32>vp.registers[RCX])
    if vp.partition.cpuid_intercept:
        vp.exit.index = <u32>vp.registers[RAX]
        return leave_for(vp, op, REASON_CPUID)
    vp.registers[RAX] = vp.cpuid[0]
    vp.registers[RBX] = vp.cpuid[1]
    vp.registers[RCX] = vp.cpuid[2]
    vp.registers[RDX] = vp.cpuid[3]
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_rdmsr(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u32 index = <u32>vp.registers[RCX]
    cdef int outcome
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    outcome = msr_read(vp, index, time_at(vp, op))
    if outcome == MSR_DEFERRED:
        vp.exit.index = index
        vp.exit.access = RIGHT_READ
        return leave_for(vp, op, REASON_MSR)
    if outcome == MSR_FAULT:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.registers[RAX] = <u32>vp.carried
    vp.registers[RDX] = vp.carried >> 32
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_wrmsr(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u32 index = <u32>vp.registers[RCX]
    cdef u64 value = vp.registers[RDX] << 32 | <u32>vp.registers[RAX]
    cdef int outcome
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    outcome = msr_write(vp, index, value, time_at(vp, op))
    if outcome == MSR_FAULT:
        return raise_error(vp, op, VECTOR_GP, 0)
    if outcome == MSR_DONE:
        return stop_after(vp, op, STOP_NONE)
    vp.exit.index = index
    vp.exit.value = value
    vp.exit.access = RIGHT_WRITE
    return leave_for(vp, op, REASON_MSR)


cdef inline int system_rdtsc(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u64 value = time_at(vp, op) + vp.tsc_offset
    if vp.cr4 & CR4_TSD and vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.registers[RAX] = <u32>value
    vp.registers[RDX] = value >> 32
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_rdtscp(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u64 value = time_at(vp, op) + vp.tsc_offset
    if vp.cr4 & CR4_TSD and vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.registers[RAX] = <u32>value
    vp.registers[RDX] = value >> 32
    vp.registers[RCX] = vp.tsc_aux
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_vmcall(vp_t* vp, const op_t* op) noexcept nogil:
    """#UD outside CPL 0 and before the guest has enabled the interface (TLFS 3.7; hyperv-abi 3.3)."""
    if vp.cpl or vp.partition.guest_os_id == 0 or not vp.partition.hypercall_msr & 1:
        return raise_fault(vp, op, VECTOR_UD)
    return leave_for(vp, op, REASON_HYPERCALL)


cdef inline int system_hlt(vp_t* vp, const op_t* op) noexcept nogil:
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.halted = True
    vp.counters.halts += 1
    return leave_for(vp, op, REASON_HALT)


cdef inline bint may_change_interrupt_flag(const vp_t* vp) noexcept nogil:
    return vp.cpl <= (vp.rflags_system & FLAG_IOPL) >> 12


cdef inline int system_cli(vp_t* vp, const op_t* op) noexcept nogil:
    if not may_change_interrupt_flag(vp):
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.rflags_system &= ~<u64>FLAG_IF
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_sti(vp_t* vp, const op_t* op) noexcept nogil:
    """Interrupts wait for one more instruction if they were off."""
    if not may_change_interrupt_flag(vp):
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.shadow = not vp.rflags_system & FLAG_IF
    vp.rflags_system |= FLAG_IF
    return stop_after(vp, op, STOP_NONE)


cdef inline int software_interrupt(vp_t* vp, const op_t* op, u8 vector, bint software) noexcept nogil:
    vp.fault.vector = vector
    vp.fault.has_error_code = False
    vp.fault.software = software
    vp.fault.length = op.length
    return stop_before(vp, op, STOP_FAULT)


cdef inline int system_int(vp_t* vp, const op_t* op) noexcept nogil:
    return software_interrupt(vp, op, <u8>op.immediate, True)


cdef inline int system_int3(vp_t* vp, const op_t* op) noexcept nogil:
    return software_interrupt(vp, op, VECTOR_BP, True)


cdef inline int system_int1(vp_t* vp, const op_t* op) noexcept nogil:
    return software_interrupt(vp, op, VECTOR_DB, True)


cdef inline int system_undefined(vp_t* vp, const op_t* op) noexcept nogil:
    return raise_fault(vp, op, VECTOR_UD)


cdef inline int system_swapgs(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u64 base = vp.segments[SEGMENT_GS].base
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.segments[SEGMENT_GS].base = vp.kernel_gs_base
    vp.kernel_gs_base = base
    return stop_after(vp, op, STOP_NONE)


cdef inline segment_t flat_segment(u16 selector, u16 attributes) noexcept nogil:
    return segment_t(base=0, limit=<u32>0xFFFFFFFF, selector=selector, attributes=attributes)


cdef inline int system_syscall(vp_t* vp, const op_t* op) noexcept nogil:
    if not vp.efer & EFER_SCE:
        return raise_fault(vp, op, VECTOR_UD)
    vp.registers[RCX] = next_rip(vp, op)
    vp.registers[R11] = rflags_read(vp) & ~<u64>FLAG_RF
    stop_after(vp, op, STOP_NONE)
    vp.registers[SLOT_RIP] = vp.lstar
    flags_load(vp, vp.registers[R11] & ~vp.sfmask)
    vp.rflags_system = vp.registers[R11] & ~vp.sfmask & FLAGS_SYSTEM
    vp.segments[SEGMENT_CS] = flat_segment(<u16>(vp.star >> 32) & 0xFFFC, 0xA09B)
    vp.segments[SEGMENT_SS] = flat_segment(<u16>((vp.star >> 32) & 0xFFFC) + 8, 0xC093)
    set_privilege(vp, 0)
    return STOP_NONE


cdef inline int return_from_syscall(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """To 64-bit code by REX.W, else to compatibility mode, which is not executed."""
    cdef u16 selector = <u16>(vp.star >> 48)
    if not vp.efer & EFER_SCE:
        return raise_fault(vp, op, VECTOR_UD)
    if vp.cpl or (width == 64 and not is_canonical(vp.registers[RCX])):
        return raise_error(vp, op, VECTOR_GP, 0)
    stop_after(vp, op, STOP_NONE)
    vp.registers[SLOT_RIP] = vp.registers[RCX] if width == 64 else <u32>vp.registers[RCX]
    flags_load(vp, vp.registers[R11])
    vp.rflags_system = vp.registers[R11] & FLAGS_SYSTEM & ~<u64>(FLAG_RF | FLAG_VM)
    if width == 64:
        vp.segments[SEGMENT_CS] = flat_segment((selector + 16) | 3, 0xA0FB)
    else:
        vp.segments[SEGMENT_CS] = flat_segment(selector | 3, 0xC0FB)
    vp.segments[SEGMENT_SS] = flat_segment((selector + 8) | 3, 0xC0F3)
    set_privilege(vp, 3)
    return STOP_NONE


cdef inline int system_sysretq(vp_t* vp, const op_t* op) noexcept nogil:
    return return_from_syscall(vp, op, 64)


cdef inline int system_sysretd(vp_t* vp, const op_t* op) noexcept nogil:
    return return_from_syscall(vp, op, 32)
