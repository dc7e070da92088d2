"""From a decoded instruction to operations: which handler, which fields; and the operations that no row names.

Called by blocks.pxd while it builds a block; knows nothing of where blocks are kept.
"""
from hvcore._native.base.status cimport STOP_NONE
from hvcore._native.base.types cimport i32, i64, u16, u32, u64, u8
from hvcore._native.cpu.cache cimport block_cache_t
from hvcore._native.cpu.dispatch cimport go_linked, next_op, raise_error, raise_fault
from hvcore._native.cpu.operand cimport register_get
from hvcore._native.cpu.spec cimport VECTOR_GP, VECTOR_UD
from hvcore._native.cpu.state cimport (
    OP_LOOKUP, OP_STACK, OP_STACK_LOOKUP, RBP, RSP, SLOT_ADDRESS, SLOT_RIP, SLOT_ZERO, block_t, handler_t, op_t, vp_t,
)
from hvcore._native.decode.spec cimport (
    DECODE_OK, DECODE_TOO_LONG, FORM_ENDS_BLOCK, FORM_STACK, PLACE_FIXED, PLACE_IMMEDIATE, PLACE_IMMEDIATE2,
    PLACE_OPCODE, PLACE_REG, PLACE_RM, PLACE_TARGET, PLACE_VVVV, PREFIX_ADDRESS, PREFIX_REP, PREFIX_REPNE, PREFIX_REX,
    PREFIX_REX2, PREFIX_VEX, REGISTER_CONTROL, REGISTER_GENERAL, REGISTER_NONE, REGISTER_RIP, REGISTER_SEGMENT,
    REGISTER_VECTOR,
    form_t, insn_t,
)
from libc.string cimport memset


cdef inline i32 lookups_of(const op_t* op) noexcept nogil:
    return (op.prefixes & OP_LOOKUP != 0) + (op.prefixes & OP_STACK_LOOKUP != 0)


cdef inline void unwind_block(vp_t* vp, const op_t* op, bint done) noexcept nogil:
    """Leave a block at `op`, before or behind its instruction, as if only the part before had been entered."""
    cdef const op_t* rest = op + 1 if done else op
    cdef const op_t* end = &vp.block.operations[vp.block.operation_count]
    while rest < end:
        vp.data_lookups -= <u64>lookups_of(rest)
        rest += 1
    vp.remaining += vp.block.count - op.position - done
    vp.retired_length = op.length if done else 0
    vp.registers[SLOT_RIP] += op.offset + vp.retired_length


cdef inline int op_prepare(vp_t* vp, const op_t* op) noexcept nogil:
    """Compute an address that the plain sum cannot: FS or GS base, 32-bit address size, a long displacement."""
    cdef u64 gva = (register_get(vp, op.base, 64) + (register_get(vp, op.index, 64) << op.scale)
                    + <u64>op.immediate)
    if op.prefixes & PREFIX_ADDRESS:
        gva = <u32>gva
    if op.third != REGISTER_NONE:
        gva += vp.segments[op.third].base
    vp.registers[SLOT_ADDRESS] = gva
    return next_op(vp, op)


cdef inline int op_fall_through(vp_t* vp, const op_t* op) noexcept nogil:
    return go_linked(vp, op, op.offset, True)


cdef inline int op_head_end(vp_t* vp, const op_t* op) noexcept nogil:
    vp.registers[SLOT_RIP] += op.offset
    return STOP_NONE


cdef inline int op_invalid(vp_t* vp, const op_t* op) noexcept nogil:
    """No instruction; a vector in `third` (#GP for more than 15 bytes)."""
    vp.counters.invalid += 1
    if op.third == VECTOR_GP:
        return raise_error(vp, op, VECTOR_GP, 0)
    return raise_fault(vp, op, VECTOR_UD)


cdef inline int op_unimplemented(vp_t* vp, const op_t* op) noexcept nogil:
    vp.counters.unimplemented += 1
    return raise_fault(vp, op, VECTOR_UD)


cdef inline u8 register_offset(u8 number, bint is_byte, u16 prefixes) noexcept nogil:
    """Byte offset of a general register in vp_t; without REX, byte registers 4 to 7 are AH CH DH BH."""
    if is_byte and 4 <= number < 8 and not prefixes & (PREFIX_REX | PREFIX_VEX):
        return (number - 4) * 8 + 1
    return number * 8


cdef inline u8 segment_number(u8 register) noexcept nogil:
    return REGISTER_NONE if register == REGISTER_NONE else register - REGISTER_SEGMENT


cdef inline void place_operands(const form_t* form, const insn_t* insn, op_t* op, u16 end) noexcept nogil:
    """Registers and immediates into the fields that handlers expect them in."""
    cdef bint is_byte
    cdef u8 place, base, i
    op.third = segment_number(insn.segment)
    for i in range(form.operand_count):
        place = form.places[i]
        base = form.register_bases[i]
        is_byte = form.sizes[i] == 0
        if place == PLACE_RM or place == PLACE_OPCODE:
            op.rm = register_offset(insn.rm, is_byte, insn.prefixes) if base == REGISTER_GENERAL else insn.rm
        elif place == PLACE_REG:
            if base == REGISTER_GENERAL:
                op.reg = register_offset(insn.reg, is_byte, insn.prefixes)
            elif base == REGISTER_VECTOR:
                op.reg = insn.reg
            else:
                op.third = insn.reg
        elif place == PLACE_VVVV:
            op.third = insn.vvvv * 8
        elif place == PLACE_FIXED and REGISTER_SEGMENT <= base < REGISTER_CONTROL:
            op.third = segment_number(base)
        elif place == PLACE_TARGET:
            op.immediate = insn.immediate + end
            op.displacement = end
        elif place == PLACE_IMMEDIATE2:
            op.third = <u8>insn.immediate2
        elif place == PLACE_IMMEDIATE:
            op.immediate = insn.immediate


cdef inline u8 address_register(u8 number) noexcept nogil:
    if number == REGISTER_NONE:
        return SLOT_ZERO * 8
    return SLOT_RIP * 8 if number == REGISTER_RIP else number * 8


cdef inline bint place_memory(const insn_t* insn, op_t* op, u16 end) noexcept nogil:
    """The memory operand into the fields of `op`; True if an operation before it has to compute the address."""
    cdef i64 displacement = insn.displacement
    if insn.base == REGISTER_RIP:
        displacement += end
    op.base = address_register(insn.base)
    op.index = address_register(insn.index)
    op.scale = insn.scale
    op.displacement = <i32>displacement
    if insn.segment == REGISTER_NONE and (insn.base == RSP or insn.base == RBP):
        op.prefixes |= OP_STACK
    return (insn.segment != REGISTER_NONE or insn.prefixes & PREFIX_ADDRESS != 0
            or displacement != <i32>displacement)


cdef inline u32 handler_column(const insn_t* insn) noexcept nogil:
    """Register, memory, or memory that no index register takes part in (isa/generate.py, VARIANTS)."""
    if not insn.is_memory:
        return 0
    return 8 if insn.index == REGISTER_NONE else 4


cdef inline bint emit(block_cache_t* cache, block_t* block, const insn_t* insn, u16 offset) noexcept nogil:
    """Append one instruction to a block; whether the block goes on behind it."""
    cdef const form_t* form = &cache.isa.forms[insn.form]
    cdef op_t* op = &block.operations[block.operation_count]
    cdef op_t* prepared
    cdef handler_t run
    cdef u16 end = offset + insn.length
    memset(op, 0, sizeof(op_t))
    op.offset = offset
    op.length = insn.length
    op.position = <u8>block.count
    op.base = op.index = SLOT_ZERO * 8
    op.prefixes = <u8>insn.prefixes & (PREFIX_ADDRESS | PREFIX_REP | PREFIX_REPNE)
    block.count += 1
    block.operation_count += 1
    if insn.status != DECODE_OK:
        op.run = cache.invalid
        op.third = VECTOR_GP if insn.status == DECODE_TOO_LONG else VECTOR_UD
        return False
    run = cache.handlers[form.handler + handler_column(insn)]
    if run == NULL or insn.prefixes & PREFIX_REX2:      # there are sixteen registers, not thirty-two
        op.run = cache.unimplemented
        return False
    if insn.is_memory and place_memory(insn, op, end):
        prepared = op + 1
        prepared[0] = op[0]
        op.run = cache.prepare
        op.immediate = insn.displacement + (end if insn.base == REGISTER_RIP else 0)
        op.third = segment_number(insn.segment)
        op = prepared
        op.base = SLOT_ADDRESS * 8
        op.index = SLOT_ZERO * 8
        op.scale = 0
        op.displacement = 0
        block.operation_count += 1
    op.run = run
    place_operands(form, insn, op, end)
    if form.memory_access & 3 and insn.is_memory:
        op.prefixes |= OP_LOOKUP
    if form.flags & FORM_STACK:
        op.prefixes |= OP_STACK_LOOKUP
    block.accesses += lookups_of(op)
    return not form.flags & FORM_ENDS_BLOCK


cdef inline void emit_end(block_cache_t* cache, block_t* block, u16 offset, bint falls) noexcept nogil:
    """Close a block: an operation that goes on behind it, if it can be reached, and the link."""
    cdef op_t* op = &block.operations[block.operation_count]
    memset(op, 0, 2 * sizeof(op_t))
    if falls:
        op.run = cache.fall_through
        op.offset = offset
        op.position = <u8>block.count
        block.operation_count += 1
    block.operation_count += 1
