"""Control flow and the stack in 64-bit mode: operands of 64 bits, or 16 for PUSH, POP and their kin behind 66."""
from hvcore._native.base.bits cimport is_canonical
from hvcore._native.base.status cimport STOP_NONE
from hvcore._native.base.types cimport u32, u64
from hvcore._native.cpu.dispatch cimport (
    committed, go, go_linked, next_op, next_rip, raise_error, stop_after, stop_before, unlikely,
)
from hvcore._native.cpu.flags cimport condition_holds, flag_zero, flags_load, rflags_read
from hvcore._native.cpu.operand cimport (
    bounced, can_read, can_write, effective, memory_get, memory_set, read_place, readable, register_get, register_set,
    writable, write_place,
)
from hvcore._native.cpu.spec cimport (
    FLAGS_SYSTEM, FLAG_AC, FLAG_DF, FLAG_ID, FLAG_IF, FLAG_IOPL, FLAG_NT, FLAG_RF, FLAG_TF, FLAG_VM, VECTOR_GP,
)
from hvcore._native.cpu.state cimport OP_STACK, RBP, RCX, RSP, SLOT_RIP, handler_t, op_t, vp_t
from hvcore._native.cpu.translation cimport vp_is_canonical
from hvcore._native.decode.spec cimport PREFIX_ADDRESS


cdef inline int control_push(vp_t* vp, const op_t* op, u64 value, int width, handler_t retry) noexcept nogil:
    cdef u64 top = vp.registers[RSP] - (width >> 3)
    cdef void* place
    if retry != NULL:
        if unlikely(not can_write(vp, top, width >> 3)):
            return retry(vp, op)
        place = write_place(vp, top)
    else:
        place = writable(vp, top, width >> 3, 1, False)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
    memory_set(place, value, width)
    vp.registers[RSP] = top
    if retry == NULL and bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)


cdef inline int control_pop(vp_t* vp, const op_t* op, int width, handler_t retry) noexcept nogil:
    cdef u64 top = vp.registers[RSP]
    cdef void* place
    if retry != NULL:
        if unlikely(not can_read(vp, top, width >> 3)):
            return retry(vp, op)
        place = read_place(vp, top)
    else:
        place = readable(vp, top, width >> 3, 1)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
    vp.registers[RSP] = top + (width >> 3)
    register_set(vp, op.rm, memory_get(place, width), width)
    return next_op(vp, op)


cdef inline int control_pop_to(vp_t* vp, const op_t* op, int width, bint memory) noexcept nogil:
    """An address based on RSP is formed after the increment; a fault on the store leaves RSP as it was."""
    cdef void* place = readable(vp, vp.registers[RSP], width >> 3, 1)
    cdef u64 value
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    value = memory_get(place, width)
    vp.registers[RSP] += width >> 3
    if not memory:
        register_set(vp, op.rm, value, width)
        return next_op(vp, op)
    place = writable(vp, effective(vp, op), width >> 3, op.prefixes & OP_STACK, False)
    if place == NULL:
        vp.registers[RSP] -= width >> 3
        return stop_before(vp, op, vp.stop)
    memory_set(place, value, width)
    if bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)


cdef inline int control_pushf(vp_t* vp, const op_t* op, int width) noexcept nogil:
    return control_push(vp, op, rflags_read(vp) & ~<u64>(FLAG_RF | FLAG_VM), width, NULL)


cdef inline int control_popf(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """IOPL changes at CPL 0 only, IF at CPL <= IOPL; VM stays, RF is cleared (SDM 2B, POPF)."""
    cdef void* place = readable(vp, vp.registers[RSP], width >> 3, 1)
    cdef u64 value, changeable = FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    value = memory_get(place, width)
    if vp.cpl == 0:
        changeable |= FLAG_IOPL
    if vp.cpl <= (vp.rflags_system & FLAG_IOPL) >> 12:
        changeable |= FLAG_IF
    if width == 16:
        changeable &= 0xFFFF
    vp.registers[RSP] += width >> 3
    flags_load(vp, value)
    vp.rflags_system = ((vp.rflags_system & ~changeable) | (value & changeable)) & FLAGS_SYSTEM & ~<u64>FLAG_RF
    return stop_after(vp, op, STOP_NONE)


cdef inline int control_enter(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """Frame pointers of outer levels are copied as the SDM lists them; the new stack top is probed for writing."""
    cdef u64 bytes = width >> 3, top = vp.registers[RSP] - bytes, frame = top, source = vp.registers[RBP]
    cdef int level = op.third & 31, i
    cdef void* place = writable(vp, top, <u32>bytes, 1, False)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    memory_set(place, source, width)
    if bounced(vp, place):
        vp.machine.commit(vp)
    for i in range(1, level):
        source -= bytes
        top -= bytes
        place = readable(vp, source, <u32>bytes, 1)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        vp.carried = memory_get(place, width)
        place = writable(vp, top, <u32>bytes, 1, False)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        memory_set(place, vp.carried, width)
        if bounced(vp, place):
            vp.machine.commit(vp)
    if level > 0:
        top -= bytes
        place = writable(vp, top, <u32>bytes, 1, False)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        memory_set(place, frame, width)
        if bounced(vp, place):
            vp.machine.commit(vp)
    top -= <u64>op.immediate
    if writable(vp, top, <u32>bytes, 1, True) == NULL:
        return stop_before(vp, op, vp.stop)
    register_set(vp, 8 * RBP, frame, width)
    vp.registers[RSP] = top
    return next_op(vp, op)


cdef inline int control_leave(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef void* place = readable(vp, vp.registers[RBP], width >> 3, 1)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    vp.registers[RSP] = vp.registers[RBP] + (width >> 3)
    register_set(vp, 8 * RBP, memory_get(place, width), width)
    return next_op(vp, op)


cdef inline int control_jump(vp_t* vp, const op_t* op) noexcept nogil:
    return go_linked(vp, op, op.immediate, False)


cdef inline int branch_on(vp_t* vp, const op_t* op, bint taken) noexcept nogil:
    if taken:
        return go_linked(vp, op, op.immediate, False)
    return go_linked(vp, op, op.displacement, True)


cdef inline int control_branch(vp_t* vp, const op_t* op, int condition) noexcept nogil:
    return branch_on(vp, op, condition_holds(vp, condition))


cdef inline u64 count_down(vp_t* vp, const op_t* op) noexcept nogil:
    """rCX - 1; ECX by the 67 prefix."""
    register_set(vp, 8 * RCX, vp.registers[RCX] - 1, 32 if op.prefixes & PREFIX_ADDRESS else 64)
    return vp.registers[RCX]


cdef inline int control_loop(vp_t* vp, const op_t* op) noexcept nogil:
    return branch_on(vp, op, count_down(vp, op) != 0)


cdef inline int control_loope(vp_t* vp, const op_t* op) noexcept nogil:
    return branch_on(vp, op, count_down(vp, op) != 0 and flag_zero(vp))


cdef inline int control_loopne(vp_t* vp, const op_t* op) noexcept nogil:
    return branch_on(vp, op, count_down(vp, op) != 0 and not flag_zero(vp))


cdef inline int control_jrcxz(vp_t* vp, const op_t* op) noexcept nogil:
    return branch_on(vp, op, register_get(vp, 8 * RCX, 32 if op.prefixes & PREFIX_ADDRESS else 64) == 0)


cdef inline bint is_target(const vp_t* vp, u64 target, handler_t retry) noexcept nogil:
    """Whether a branch may go there. The fast twin knows addresses of 48 bits only; longer ones are the slow one's."""
    return is_canonical(target) or (retry == NULL and vp_is_canonical(vp, target))


cdef inline int refuse_target(vp_t* vp, const op_t* op, handler_t retry) noexcept nogil:
    """A target that is not canonical. Only the slow twin raises: the fast one then needs no frame."""
    return retry(vp, op) if retry != NULL else raise_error(vp, op, VECTOR_GP, 0)


cdef inline int control_jump_to(vp_t* vp, const op_t* op, u64 target, handler_t retry) noexcept nogil:
    if unlikely(not is_target(vp, target, retry)):
        return refuse_target(vp, op, retry)
    return go(vp, target)


cdef inline int control_call(vp_t* vp, const op_t* op, handler_t retry) noexcept nogil:
    cdef u64 top = vp.registers[RSP] - 8
    cdef u64* place
    if retry != NULL:
        if unlikely(not can_write(vp, top, 8)):
            return retry(vp, op)
        place = <u64*>write_place(vp, top)
    else:
        place = <u64*>writable(vp, top, 8, 1, False)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
    place[0] = vp.registers[SLOT_RIP] + <u64>op.displacement
    vp.registers[RSP] = top
    if retry == NULL and bounced(vp, place):
        return committed_jump(vp, vp.registers[SLOT_RIP] + <u64>op.immediate)
    return go_linked(vp, op, op.immediate, False)


cdef inline int control_call_to(vp_t* vp, const op_t* op, u64 target, handler_t retry) noexcept nogil:
    cdef u64 top = vp.registers[RSP] - 8
    cdef u64* place
    if unlikely(not is_target(vp, target, retry)):
        return refuse_target(vp, op, retry)
    if retry != NULL:
        if unlikely(not can_write(vp, top, 8)):
            return retry(vp, op)
        place = <u64*>write_place(vp, top)
    else:
        place = <u64*>writable(vp, top, 8, 1, False)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
    place[0] = next_rip(vp, op)
    vp.registers[RSP] = top
    if retry == NULL and bounced(vp, place):
        return committed_jump(vp, target)
    return go(vp, target)


cdef inline int committed_jump(vp_t* vp, u64 target) noexcept nogil:
    """A call whose return address went to the bounce buffer: commit it and leave the block at the target."""
    vp.registers[SLOT_RIP] = target
    return vp.machine.commit(vp)


cdef inline int control_return(vp_t* vp, const op_t* op, handler_t retry) noexcept nogil:
    """`immediate` more bytes are dropped from the stack."""
    cdef u64 top = vp.registers[RSP], target
    cdef u64* place
    if retry != NULL:
        if unlikely(not can_read(vp, top, 8)):
            return retry(vp, op)
        place = <u64*>read_place(vp, top)
    else:
        place = <u64*>readable(vp, top, 8, 1)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
    target = place[0]
    if unlikely(not is_target(vp, target, retry)):
        return refuse_target(vp, op, retry)
    vp.registers[RSP] = top + 8 + <u64>op.immediate
    return go(vp, target)
