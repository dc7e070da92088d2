"""How one handler passes to the next, and how a block passes to the next block.

A handler ends in `return next_op(vp, op)`: an indirect jump, not a call. It may also end a block: `go`, `go_linked`;
or leave the threaded code: `stop_before` with the instruction undone, `stop_after` with it done.
"""
from hvcore._native.base.status cimport STOP_BUDGET, STOP_FAULT, STOP_NONE
from hvcore._native.base.types cimport i64, u32, u64, u8
from hvcore._native.cpu.state cimport DIRECT_SIZE, SLOT_RIP, block_t, direct_t, link_t, op_t, vp_t
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK

cdef extern from *:
    bint likely(bint) noexcept nogil
    bint unlikely(bint) noexcept nogil


cdef inline int next_op(vp_t* vp, const op_t* op) noexcept nogil:
    return op[1].run(vp, op + 1)


cdef inline u64 next_rip(const vp_t* vp, const op_t* op) noexcept nogil:
    return vp.registers[SLOT_RIP] + op.offset + op.length


cdef inline i64 not_run(const vp_t* vp, const op_t* op) noexcept nogil:
    """Instructions of the running block from `op` on."""
    return vp.block.count - op.position


cdef inline u64 time_at(const vp_t* vp, const op_t* op) noexcept nogil:
    """Virtual time when the instruction of `op` starts."""
    return vp.slice_end - <u64>(vp.remaining + not_run(vp, op))


cdef inline int stop_before(vp_t* vp, const op_t* op, int stop) noexcept nogil:
    """Leave with the instruction of `op` not done; what the block was charged for it and the rest is given back."""
    return vp.machine.unwind(vp, op, False, stop)


cdef inline int stop_after(vp_t* vp, const op_t* op, int stop) noexcept nogil:
    """Leave with the instruction of `op` done."""
    return vp.machine.unwind(vp, op, True, stop)


cdef inline int raise_fault(vp_t* vp, const op_t* op, u8 vector) noexcept nogil:
    """An exception without error code at this instruction."""
    vp.fault.vector = vector
    vp.fault.has_error_code = False
    vp.fault.software = False
    return stop_before(vp, op, STOP_FAULT)


cdef inline int raise_error(vp_t* vp, const op_t* op, u8 vector, u32 error_code) noexcept nogil:
    vp.fault.vector = vector
    vp.fault.has_error_code = True
    vp.fault.software = False
    vp.fault.error_code = error_code
    return stop_before(vp, op, STOP_FAULT)


cdef inline int committed(vp_t* vp, const op_t* op) noexcept nogil:
    """The bounce buffer holds what an instruction stored: bring it home, then go on."""
    cdef int stop = vp.machine.commit(vp)
    if stop != STOP_NONE:
        return stop_after(vp, op, stop)
    return next_op(vp, op)


cdef inline int enter(vp_t* vp, block_t* block) noexcept nogil:
    """Run a block whose first instruction is at `rip`, if it ends before the budget does."""
    if unlikely(block.count > vp.remaining):
        return STOP_BUDGET
    vp.remaining -= block.count
    vp.data_lookups += block.accesses
    vp.block = block
    return block.operations[0].run(vp, &block.operations[0])


cdef inline int go(vp_t* vp, u64 rip) noexcept nogil:
    """Continue at any address."""
    cdef u64 spa
    cdef direct_t* entry
    vp.registers[SLOT_RIP] = rip
    if likely((rip ^ vp.code_gva) <= PAGE_OFFSET_MASK):
        spa = vp.code_spa | (rip & PAGE_OFFSET_MASK)
        entry = &vp.direct[spa & (DIRECT_SIZE - 1)]
        if likely(entry.spa == spa):
            return enter(vp, entry.block)
    return vp.machine.enter_found(vp)


cdef inline int go_linked(vp_t* vp, const op_t* op, i64 target, bint fallen) noexcept nogil:
    """Continue at a target known when the block was built; the link behind `op` remembers a block of the same page.

    Such a block lives as long as this one: blocks of a page are dropped together."""
    cdef const link_t* link = <const link_t*>(op + 1)
    cdef block_t* block = link.fallen if fallen else link.taken
    vp.registers[SLOT_RIP] += <u64>target
    if unlikely(block == NULL):
        return vp.machine.enter_linked(vp, op + 1, fallen)
    return enter(vp, block)
