"""Moves, exchanges, conversions of width, and the flag instructions."""
from hvcore._native.base.bits cimport sign_extend
from hvcore._native.base.types cimport u64
from hvcore._native.cpu.dispatch cimport committed, next_op, stop_before
from hvcore._native.cpu.flags cimport (
    condition_holds, flag_carry, flag_overflow, flags_arithmetic, flags_load, flags_set_carries,
)
from hvcore._native.cpu.operand cimport (
    bounced, effective, implicit_gva, memory_get, memory_set, readable, register_get, register_set, writable,
)
from hvcore._native.cpu.spec cimport FLAG_DF, FLAG_FIXED, FLAG_OF
from hvcore._native.cpu.state cimport OP_STACK, RBX, op_t, vp_t
from hvcore._native.sem.muldiv cimport OFFSET_AH, OFFSET_RAX, OFFSET_RDX


cdef inline u64 move(vp_t* vp, u64 a, int width) noexcept nogil:
    return a


cdef inline u64 move_sign8(vp_t* vp, u64 a, int width) noexcept nogil:
    return <u64>sign_extend(a, 8)


cdef inline u64 move_sign16(vp_t* vp, u64 a, int width) noexcept nogil:
    return <u64>sign_extend(a, 16)


cdef inline u64 move_sign32(vp_t* vp, u64 a, int width) noexcept nogil:
    return <u64>sign_extend(a, 32)


cdef inline u64 move_conditional(vp_t* vp, u64 old, u64 a, int width, int condition) noexcept nogil:
    """The source is read, and may fault, whatever the condition; 32 bits clear the upper half either way."""
    return a if condition_holds(vp, condition) else old


cdef inline u64 move_condition(vp_t* vp, int width, int condition) noexcept nogil:
    return condition_holds(vp, condition)


cdef inline int move_nothing(vp_t* vp, const op_t* op, int width) noexcept nogil:
    return next_op(vp, op)


cdef inline int move_exchange(vp_t* vp, const op_t* op, u64 a, int width, bint memory) noexcept nogil:
    """`a` is the register operand's value; the other operand is memory or a register."""
    cdef void* place
    cdef u64 old
    if not memory:
        old = register_get(vp, op.rm, width)
        register_set(vp, op.rm, a, width)
        register_set(vp, op.reg, old, width)
        return next_op(vp, op)
    place = writable(vp, effective(vp, op), width >> 3, op.prefixes & OP_STACK, True)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    old = memory_get(place, width)
    memory_set(place, a, width)
    register_set(vp, op.reg, old, width)
    if bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)


cdef inline int move_widen(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """CBW, CWDE, CDQE."""
    register_set(vp, OFFSET_RAX, <u64>sign_extend(register_get(vp, OFFSET_RAX, width >> 1), width >> 1), width)
    return next_op(vp, op)


cdef inline int move_spread(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """CWD, CDQ, CQO."""
    register_set(vp, OFFSET_RDX, <u64>(sign_extend(register_get(vp, OFFSET_RAX, width), width) >> 63), width)
    return next_op(vp, op)


cdef inline int move_xlat(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """AL = byte at [rBX + AL]."""
    cdef void* place = readable(vp, implicit_gva(vp, op, vp.registers[RBX] + register_get(vp, OFFSET_RAX, 8)), 1, 0)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    register_set(vp, OFFSET_RAX, memory_get(place, 8), 8)
    return next_op(vp, op)


cdef inline int move_sahf(vp_t* vp, const op_t* op, int width) noexcept nogil:
    flags_load(vp, (flags_arithmetic(vp) & FLAG_OF) | (register_get(vp, OFFSET_AH, 8) & 0xD5))
    return next_op(vp, op)


cdef inline int move_lahf(vp_t* vp, const op_t* op, int width) noexcept nogil:
    register_set(vp, OFFSET_AH, flags_arithmetic(vp) | FLAG_FIXED, 8)
    return next_op(vp, op)


cdef inline int move_cmc(vp_t* vp, const op_t* op, int width) noexcept nogil:
    flags_set_carries(vp, not flag_carry(vp), flag_overflow(vp))
    return next_op(vp, op)


cdef inline int move_clc(vp_t* vp, const op_t* op, int width) noexcept nogil:
    flags_set_carries(vp, False, flag_overflow(vp))
    return next_op(vp, op)


cdef inline int move_stc(vp_t* vp, const op_t* op, int width) noexcept nogil:
    flags_set_carries(vp, True, flag_overflow(vp))
    return next_op(vp, op)


cdef inline int move_cld(vp_t* vp, const op_t* op, int width) noexcept nogil:
    vp.rflags_system &= ~<u64>FLAG_DF
    return next_op(vp, op)


cdef inline int move_std(vp_t* vp, const op_t* op, int width) noexcept nogil:
    vp.rflags_system |= FLAG_DF
    return next_op(vp, op)
