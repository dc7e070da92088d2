"""Compare-and-exchange and exchange-and-add. One VP runs at a time, so every instruction is atomic."""
from hvcore._native.base.types cimport u64
from hvcore._native.cpu.dispatch cimport committed, next_op, raise_error, stop_before
from hvcore._native.cpu.flags cimport flags_add, flags_arithmetic, flags_load, flags_sub
from hvcore._native.cpu.operand cimport (
    bounced, effective, memory_get, memory_set, register_get, register_set, writable,
)
from hvcore._native.cpu.spec cimport FLAG_ZF, VECTOR_GP
from hvcore._native.cpu.state cimport OP_STACK, RAX, RBX, RCX, RDX, op_t, vp_t
from hvcore._native.sem.muldiv cimport OFFSET_RAX


cdef inline int atomic_cmpxchg(vp_t* vp, const op_t* op, u64 source, int width, bint memory) noexcept nogil:
    """The accumulator is compared; memory is written either way, a register keeps its upper half if unequal."""
    cdef u64 expected = register_get(vp, OFFSET_RAX, width), old
    cdef void* place = NULL
    if memory:
        place = writable(vp, effective(vp, op), width >> 3, op.prefixes & OP_STACK, True)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        old = memory_get(place, width)
        if old == expected:
            memory_set(place, source, width)
    else:
        old = register_get(vp, op.rm, width)
        if old == expected:
            register_set(vp, op.rm, source, width)
    if old != expected:
        register_set(vp, OFFSET_RAX, old, width)
    flags_sub(vp, expected, old, expected - old, width)
    if memory and bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)


cdef inline int atomic_xadd(vp_t* vp, const op_t* op, u64 source, int width, bint memory) noexcept nogil:
    cdef u64 old
    cdef void* place
    if memory:
        place = writable(vp, effective(vp, op), width >> 3, op.prefixes & OP_STACK, True)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        old = memory_get(place, width)
        memory_set(place, old + source, width)
        register_set(vp, op.reg, old, width)
        flags_add(vp, old, source, old + source, width)
        if bounced(vp, place):
            return committed(vp, op)
        return next_op(vp, op)
    old = register_get(vp, op.rm, width)
    register_set(vp, op.reg, old, width)
    register_set(vp, op.rm, old + source, width)
    flags_add(vp, old, source, old + source, width)
    return next_op(vp, op)


cdef inline int compare_exchange_pair(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """rDX:rAX against two words in memory, rCX:rBX to replace them; ZF alone tells."""
    cdef u64* place = <u64*>writable(vp, effective(vp, op), width >> 2, op.prefixes & OP_STACK, True)
    cdef u64 low, high
    cdef bint equal
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    low = memory_get(place, width)
    high = memory_get(<char*>place + (width >> 3), width)
    equal = low == register_get(vp, 8 * RAX, width) and high == register_get(vp, 8 * RDX, width)
    if equal:
        memory_set(place, register_get(vp, 8 * RBX, width), width)
        memory_set(<char*>place + (width >> 3), register_get(vp, 8 * RCX, width), width)
    else:
        register_set(vp, 8 * RAX, low, width)
        register_set(vp, 8 * RDX, high, width)
    flags_load(vp, (flags_arithmetic(vp) & ~<u64>FLAG_ZF) | (FLAG_ZF if equal else 0))
    if bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)


cdef inline int atomic_cmpxchg8b(vp_t* vp, const op_t* op, int width) noexcept nogil:
    return compare_exchange_pair(vp, op, 32)


cdef inline int atomic_cmpxchg16b(vp_t* vp, const op_t* op, int width) noexcept nogil:
    if effective(vp, op) & 15:
        return raise_error(vp, op, VECTOR_GP, 0)
    return compare_exchange_pair(vp, op, 64)
