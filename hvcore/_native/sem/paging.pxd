"""Instructions that steer translation: INVLPG, INVPCID, protection-key registers, the AC flag of SMAP."""
from hvcore._native.base.status cimport STOP_NONE
from hvcore._native.base.types cimport u16, u32, u64
from hvcore._native.cpu.contexts cimport flush_contexts, flush_page, flush_page_of, flush_pcid, flush_translations
from hvcore._native.cpu.dispatch cimport raise_error, raise_fault, stop_after, stop_before
from hvcore._native.cpu.operand cimport effective, memory_get, readable
from hvcore._native.cpu.spec cimport CR3_PCID, CR4_PCIDE, CR4_PKE, FLAG_AC, VECTOR_GP, VECTOR_UD
from hvcore._native.cpu.state cimport OP_STACK, RAX, RCX, RDX, op_t, vp_t
from hvcore._native.cpu.translation cimport vp_is_canonical

cdef enum InvpcidType:
    INVPCID_ADDRESS
    INVPCID_CONTEXT
    INVPCID_ALL
    INVPCID_ALL_BUT_GLOBAL


cdef inline int system_invlpg(vp_t* vp, const op_t* op, u64 gva) noexcept nogil:
    """Nothing happens for an address that is not canonical (SDM 2A, INVLPG)."""
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    flush_page(vp, gva)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_invpcid(vp_t* vp, const op_t* op, u64 kind) noexcept nogil:
    """The descriptor: a PCID in bits 11:0, then the address (SDM 2A, INVPCID)."""
    cdef void* place
    cdef u64 low, gva
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    place = readable(vp, effective(vp, op), 16, op.prefixes & OP_STACK)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    low = memory_get(place, 64)
    gva = memory_get(<char*>place + 8, 64)
    if kind > INVPCID_ALL_BUT_GLOBAL or low & ~<u64>CR3_PCID:
        return raise_error(vp, op, VECTOR_GP, 0)
    if kind <= INVPCID_CONTEXT and low and not vp.cr4 & CR4_PCIDE:
        return raise_error(vp, op, VECTOR_GP, 0)
    if kind == INVPCID_ADDRESS:
        if not vp_is_canonical(vp, gva):
            return raise_error(vp, op, VECTOR_GP, 0)
        flush_page_of(vp, <u16>low, gva)
    elif kind == INVPCID_CONTEXT:
        flush_pcid(vp, <u16>low)
    else:
        flush_contexts(vp, kind == INVPCID_ALL_BUT_GLOBAL)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_rdpkru(vp_t* vp, const op_t* op) noexcept nogil:
    if not vp.cr4 & CR4_PKE:
        return raise_fault(vp, op, VECTOR_UD)
    if <u32>vp.registers[RCX]:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.registers[RAX] = vp.pkru
    vp.registers[RDX] = 0
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_wrpkru(vp_t* vp, const op_t* op) noexcept nogil:
    """The TLB holds accesses that the old keys allowed, so it goes."""
    if not vp.cr4 & CR4_PKE:
        return raise_fault(vp, op, VECTOR_UD)
    if <u32>vp.registers[RCX] or <u32>vp.registers[RDX]:
        return raise_error(vp, op, VECTOR_GP, 0)
    if vp.pkru != <u32>vp.registers[RAX]:
        vp.pkru = <u32>vp.registers[RAX]
        flush_translations(vp)
    return stop_after(vp, op, STOP_NONE)


cdef inline int change_alignment_check(vp_t* vp, const op_t* op, u64 flag) noexcept nogil:
    """SMAP looks at EFLAGS.AC; the run loop then takes the TLB that belongs to it."""
    if vp.cpl:
        return raise_fault(vp, op, VECTOR_UD)
    vp.rflags_system = (vp.rflags_system & ~<u64>FLAG_AC) | flag
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_stac(vp_t* vp, const op_t* op) noexcept nogil:
    return change_alignment_check(vp, op, FLAG_AC)


cdef inline int system_clac(vp_t* vp, const op_t* op) noexcept nogil:
    return change_alignment_check(vp, op, 0)
