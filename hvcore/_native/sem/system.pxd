"""System instructions: control and debug registers, MSRs, CPUID, interrupts flags, HLT, hypercalls, SYSCALL.

Each ends its block. An instruction that the Python layer has to finish (hypercall, deferred MSR) retires first and
leaves the facts in vp.exit; the answer only sets registers.
"""
from hvcore._native.base.status cimport (
    REASON_CPUID, REASON_HALT, REASON_HYPERCALL, REASON_MSR, STOP_EXIT, STOP_FAULT, STOP_NEW_FLAGS, STOP_NONE,
)
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.cpu.dispatch cimport go, next_rip, raise_error, raise_fault, stop_after, stop_before, time_at
from hvcore._native.cpu.flags cimport flags_load, rflags_read
from hvcore._native.cpu.segments cimport set_privilege
from hvcore._native.cpu.spec cimport (
    CR4_TSD, EFER_SCE, FLAGS_SYSTEM, FLAG_IF, FLAG_IOPL, FLAG_RF, FLAG_VM, SEGMENT_CS, SEGMENT_GS, SEGMENT_SS,
    SOFTWARE_EXCEPTION, SOFTWARE_INTERRUPT, SOFTWARE_PRIVILEGED, VECTOR_BP, VECTOR_DB, VECTOR_GP, VECTOR_UD,
)
from hvcore._native.cpu.state cimport R11, RAX, RBX, RCX, RDX, SLOT_RIP, op_t, segment_t, vp_t
from hvcore._native.cpu.translation cimport vp_is_canonical
from hvcore._native.cpu.tsc cimport read_tsc
from hvcore._native.mem.format cimport RIGHT_READ, RIGHT_WRITE
from hvcore._native.hv.hypercall cimport CALL_AGAIN, CALL_DEFERRED, CALL_DONE
from hvcore._native.sem.cpuid cimport cpuid
from hvcore._native.sem.msr cimport MSR_DEFERRED, MSR_DONE, MSR_FAULT

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
    outcome = vp.machine.read_msr(vp, index, time_at(vp, op))
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
    outcome = vp.machine.write_msr(vp, index, value, time_at(vp, op))
    if outcome == MSR_FAULT:
        return raise_error(vp, op, VECTOR_GP, 0)
    if outcome == MSR_DONE:
        return stop_after(vp, op, STOP_NONE)
    vp.exit.index = index
    vp.exit.value = value
    vp.exit.access = RIGHT_WRITE
    return leave_for(vp, op, REASON_MSR)


cdef inline int system_rdtsc(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u64 value = read_tsc(vp, time_at(vp, op))
    if vp.cr4 & CR4_TSD and vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.registers[RAX] = <u32>value
    vp.registers[RDX] = value >> 32
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_rdtscp(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u64 value = read_tsc(vp, time_at(vp, op))
    if vp.cr4 & CR4_TSD and vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.registers[RAX] = <u32>value
    vp.registers[RDX] = value >> 32
    vp.registers[RCX] = vp.tsc_aux
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_vmcall(vp_t* vp, const op_t* op) noexcept nogil:
    """#UD outside CPL 0 and before the guest has enabled the interface (TLFS 3.7; hyperv-abi 3.3).

    An entry of a call that must be entered again takes its tick, too."""
    cdef int outcome
    if vp.cpl or vp.partition.guest_os_id == 0 or not vp.partition.hypercall_msr & 1:
        return raise_fault(vp, op, VECTOR_UD)
    outcome = vp.machine.hypercall(vp, time_at(vp, op))
    if outcome == CALL_DONE:
        return go(vp, next_rip(vp, op))
    if outcome == CALL_DEFERRED:
        return leave_for(vp, op, REASON_HYPERCALL)
    stop_after(vp, op, STOP_NONE)
    if outcome == CALL_AGAIN:
        vp.registers[SLOT_RIP] -= op.length
    return STOP_NONE


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


cdef inline int software_interrupt(vp_t* vp, const op_t* op, u8 vector, int software) noexcept nogil:
    vp.fault.vector = vector
    vp.fault.has_error_code = False
    vp.fault.software = software
    vp.fault.length = op.length
    return stop_before(vp, op, STOP_FAULT)


cdef inline int system_int(vp_t* vp, const op_t* op) noexcept nogil:
    return software_interrupt(vp, op, <u8>op.immediate, SOFTWARE_INTERRUPT)


cdef inline int system_int3(vp_t* vp, const op_t* op) noexcept nogil:
    return software_interrupt(vp, op, VECTOR_BP, SOFTWARE_EXCEPTION)


cdef inline int system_int1(vp_t* vp, const op_t* op) noexcept nogil:
    return software_interrupt(vp, op, VECTOR_DB, SOFTWARE_PRIVILEGED)


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
    return STOP_NEW_FLAGS


cdef inline int return_from_syscall(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """To 64-bit code by REX.W, else to compatibility mode, which is not executed."""
    cdef u16 selector = <u16>(vp.star >> 48)
    if not vp.efer & EFER_SCE:
        return raise_fault(vp, op, VECTOR_UD)
    if vp.cpl or (width == 64 and not vp_is_canonical(vp, vp.registers[RCX])):
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
    return STOP_NEW_FLAGS


cdef inline int system_sysretq(vp_t* vp, const op_t* op) noexcept nogil:
    return return_from_syscall(vp, op, 64)


cdef inline int system_sysretd(vp_t* vp, const op_t* op) noexcept nogil:
    return return_from_syscall(vp, op, 32)
