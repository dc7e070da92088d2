"""Decoded blocks: straight runs of operations, kept by the system address that they were decoded from.

A block ends at a branch, at an instruction that may change the mode, at the end of its page, or after 64
instructions. Its code's granules are watched (mem/ram.pxd); all blocks of a written frame go together, which is what
makes links between blocks of one page safe. An instruction that crosses a page is decoded each time it runs.
"""
from hvcore._native.base.status cimport REASON_UNSUPPORTED, STOP_EXIT, STOP_FAULT, STOP_NONE, STOP_STALE
from hvcore._native.base.types cimport i32, i64, u8, u16, u32, u64
from hvcore._native.cpu.access cimport reach
from hvcore._native.cpu.dispatch cimport go_linked, next_op, raise_error, raise_fault
from hvcore._native.cpu.operand cimport register_get
from hvcore._native.cpu.segments cimport runs_64bit
from hvcore._native.cpu.state cimport (
    DIRECT_SIZE, OP_LOOKUP, OP_STACK, OP_STACK_LOOKUP, RBP, RSP, SEGMENT_FS, SEGMENT_GS, SLOT_ADDRESS,
    SLOT_RIP, SLOT_ZERO, VECTOR_GP, VECTOR_UD, block_t, direct_t, handler_t, link_t, machine_t, op_t, vp_t,
)
from hvcore._native.decode.decode cimport decode
from hvcore._native.decode.spec cimport (
    DECODE_OK, DECODE_TOO_LONG, DECODE_TRUNCATED, FLOW_NEXT, FORM_REP, FORM_STACK_READ, FORM_STACK_WRITE, KIND_A,
    KIND_B, KIND_C, KIND_D, KIND_E, KIND_FS, KIND_G, KIND_GS, KIND_I, KIND_J, KIND_S, KIND_V, KIND_W, KIND_Z,
    MAXIMUM_LENGTH, PREFIX_ADDRESS, PREFIX_REP, PREFIX_REPNE, PREFIX_REX, PREFIX_VEX, REGISTER_NONE, REGISTER_RIP,
    WIDTH_B, form_t, insn_t, isa_t,
)
from hvcore._native.mem.format cimport RIGHT_EXECUTE
from hvcore._native.mem.ram cimport (
    PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE, STALE_CAPACITY, granule_mask, ram_at, ram_t,
)
from hvcore._native.mem.tlb cimport tlb_code_slot, tlb_guard_frame
from hvcore._native.mem.walk cimport walk_t
from libc.string cimport memcpy, memset

cdef enum:
    BLOCK_INSTRUCTIONS = 64
    OPERATIONS_MAXIMUM = 2 * BLOCK_INSTRUCTIONS + 4     # a preparing operation each, an end, its link
    BLOCK_BYTES_MAXIMUM = 64 + 32 * OPERATIONS_MAXIMUM      # block_t and its operations (engine.pyx checks)
    BUCKETS = 65536
    CODE_FRAMES = 65536
    ARENA_BYTES = 48 << 20


cdef struct block_cache_t:
    machine_t machine           # first: machine_t* and block_cache_t* are the same address
    const isa_t* isa
    const handler_t* handlers
    handler_t prepare           # the four operations that no row of the table names
    handler_t fall_through
    handler_t invalid
    handler_t unimplemented
    handler_t head_end
    block_t** buckets
    block_t** frames            # the blocks of each frame
    u64* code_frames            # frames that have blocks, or had: who verifies code looks here
    u32 code_frame_count
    u8* arena
    u64 used
    bint full
    u64 generation              # grows when a frame becomes watched: write TLBs must look
    vp_t** vps
    u32 vp_count
    u8[BLOCK_BYTES_MAXIMUM] crossing    # an instruction over a page end
    u8[BLOCK_BYTES_MAXIMUM] head        # the first instructions of a block


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


cdef inline u8 register_offset(u8 number, bint is_byte, u8 prefixes) noexcept nogil:
    """Byte offset of a general register in vp_t; without REX, byte registers 4 to 7 are AH CH DH BH."""
    if is_byte and 4 <= number < 8 and not prefixes & (PREFIX_REX | PREFIX_VEX):
        return (number - 4) * 8 + 1
    return number * 8


cdef inline void place_operands(const form_t* form, const insn_t* insn, op_t* op, u16 end) noexcept nogil:
    """Registers and immediates into the fields that handlers expect them in."""
    cdef bint is_byte
    cdef u8 kind, i
    op.third = insn.segment
    for i in range(form.operand_count):
        kind = form.kinds[i]
        is_byte = form.widths[i] == WIDTH_B
        if kind == KIND_E or kind == KIND_Z:
            op.rm = register_offset(insn.rm, is_byte, insn.prefixes)
        elif kind == KIND_W:
            op.rm = insn.rm
        elif kind == KIND_G:
            op.reg = register_offset(insn.reg, is_byte, insn.prefixes)
        elif kind == KIND_V:
            op.reg = insn.reg
        elif kind == KIND_B:
            op.third = insn.vvvv * 8
        elif kind == KIND_S or kind == KIND_C or kind == KIND_D:
            op.third = insn.reg
        elif kind == KIND_FS:
            op.third = SEGMENT_FS
        elif kind == KIND_GS:
            op.third = SEGMENT_GS
        elif kind == KIND_J:
            op.immediate = insn.immediate + end
            op.displacement = end
        elif kind == KIND_I and i > 0 and form.kinds[i - 1] == KIND_I:
            op.third = insn.immediate2
        elif kind == KIND_I:
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


cdef inline u32 emit(block_cache_t* cache, block_t* block, const insn_t* insn, u16 offset) noexcept nogil:
    """Append one instruction to a block."""
    cdef const form_t* form = &cache.isa.forms[insn.form]
    cdef op_t* op = &block.operations[block.operation_count]
    cdef op_t* prepared
    cdef handler_t run
    cdef u16 end = offset + insn.length
    cdef u8 size = 3 if insn.width == 64 else 2 if insn.width == 32 else 1 if insn.width == 16 else 0
    memset(op, 0, sizeof(op_t))
    op.offset = offset
    op.length = insn.length
    op.position = <u8>block.count
    op.base = op.index = SLOT_ZERO * 8
    op.prefixes = insn.prefixes & (PREFIX_ADDRESS | PREFIX_REP | PREFIX_REPNE)
    block.count += 1
    block.operation_count += 1
    if insn.status != DECODE_OK:
        op.run = cache.invalid
        op.third = VECTOR_GP if insn.status == DECODE_TOO_LONG else VECTOR_UD
        return FLOW_NEXT + 1
    run = cache.handlers[<u32>insn.form * 12 + handler_column(insn) + size]
    if run == NULL:
        op.run = cache.unimplemented
        return FLOW_NEXT + 1
    if insn.is_memory and place_memory(insn, op, end):
        prepared = op + 1
        prepared[0] = op[0]
        op.run = cache.prepare
        op.immediate = insn.displacement + (end if insn.base == REGISTER_RIP else 0)
        op.third = insn.segment
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
    if form.flags & (FORM_STACK_READ | FORM_STACK_WRITE):
        op.prefixes |= OP_STACK_LOOKUP
    block.accesses += lookups_of(op)
    return form.flow


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


cdef inline block_t* build(block_cache_t* cache, u64 spa) noexcept nogil:
    """Decode from `spa` to the end of a block; NULL when its first instruction crosses the page."""
    cdef block_t* block = <block_t*>(cache.arena + cache.used)
    cdef const u8* code = ram_at(cache.machine.ram, spa)
    cdef u32 available = PAGE_SIZE - <u32>(spa & PAGE_OFFSET_MASK), at = 0, flow = FLOW_NEXT
    cdef insn_t insn
    memset(block, 0, sizeof(block_t))
    block.spa = spa
    while flow == FLOW_NEXT and block.count < BLOCK_INSTRUCTIONS and at < available:
        decode(cache.isa, code + at, available - at, &insn)
        if insn.status == DECODE_TRUNCATED:
            if at == 0:
                return NULL
            break
        flow = emit(cache, block, &insn, <u16>at)
        at += insn.length
    emit_end(cache, block, <u16>at, flow == FLOW_NEXT)
    block.bytes = at
    cache.used += sizeof(block_t) + block.operation_count * sizeof(op_t)
    return block


cdef inline void watch(block_cache_t* cache, u64 spa, u32 size_bytes) noexcept nogil:
    """From now on writes to this code are noticed: take its frame out of every fast write TLB, once."""
    cdef u64 frame = spa >> PAGE_SHIFT
    cdef u32 i
    if cache.frames[frame] == NULL:
        if cache.code_frame_count == CODE_FRAMES:
            cache.full = True       # all blocks go before the next one runs, and the list with them
        else:
            cache.code_frames[cache.code_frame_count] = frame
            cache.code_frame_count += 1
    if cache.machine.ram.watched[frame] == 0:
        for i in range(cache.vp_count):
            tlb_guard_frame(&cache.vps[i].tlbs[0], frame << PAGE_SHIFT)
            tlb_guard_frame(&cache.vps[i].tlbs[1], frame << PAGE_SHIFT)
    cache.machine.ram.watched[frame] |= granule_mask(spa, size_bytes)


cdef inline block_t* add_block(block_cache_t* cache, u64 spa) noexcept nogil:
    cdef block_t* block = build(cache, spa)
    cdef block_t** bucket = &cache.buckets[(spa ^ spa >> 16) & (BUCKETS - 1)]
    if block == NULL:
        return NULL
    watch(cache, spa, block.bytes)
    block.next_in_bucket = bucket[0]
    bucket[0] = block
    block.next_in_frame = cache.frames[spa >> PAGE_SHIFT]
    cache.frames[spa >> PAGE_SHIFT] = block
    return block


cdef inline block_t* lookup_block(block_cache_t* cache, u64 spa) noexcept nogil:
    cdef block_t* block = cache.buckets[(spa ^ spa >> 16) & (BUCKETS - 1)]
    while block != NULL and block.spa != spa:
        block = block.next_in_bucket
    return block


cdef inline void drop_frame(block_cache_t* cache, u64 frame) noexcept nogil:
    """Forget all blocks of a frame; their storage is reused when the arena is emptied."""
    cdef block_t* block = cache.frames[frame]
    cdef block_t** place
    while block != NULL:
        place = &cache.buckets[(block.spa ^ block.spa >> 16) & (BUCKETS - 1)]
        while place[0] != block:
            place = &place[0].next_in_bucket
        place[0] = block.next_in_bucket
        if cache.machine.direct[block.spa & (DIRECT_SIZE - 1)].block == block:
            cache.machine.direct[block.spa & (DIRECT_SIZE - 1)].spa = <u64>-1
        block = block.next_in_frame
    cache.frames[frame] = NULL
    cache.machine.ram.watched[frame] = 0


cdef inline void drop_all(block_cache_t* cache) noexcept nogil:
    cdef u64 i
    for i in range(cache.machine.ram.size_bytes >> PAGE_SHIFT):
        cache.frames[i] = NULL
        cache.machine.ram.watched[i] = 0
    memset(cache.buckets, 0, BUCKETS * sizeof(block_t*))
    for i in range(DIRECT_SIZE):
        cache.machine.direct[i].spa = <u64>-1
    cache.used = 0
    cache.code_frame_count = 0
    cache.full = False


cdef inline void drop_range(block_cache_t* cache, u64 spa, u64 size_bytes) noexcept nogil:
    """Forget the blocks of a range: somebody may have written there unseen."""
    cdef u64 frame
    cdef u32 i, kept = 0
    for i in range(cache.code_frame_count):
        frame = cache.code_frames[i]
        if spa >> PAGE_SHIFT <= frame <= (spa + size_bytes - 1) >> PAGE_SHIFT:
            drop_frame(cache, frame)
        if cache.frames[frame] != NULL:
            cache.code_frames[kept] = frame
            kept += 1
    cache.code_frame_count = kept


cdef inline void drop_stale(block_cache_t* cache) noexcept nogil:
    """Take what was written since the last time into account. Only between blocks."""
    cdef ram_t* ram = cache.machine.ram
    cdef u32 i
    if ram.stale_overflow or cache.full:
        drop_all(cache)
    else:
        for i in range(ram.stale_count):
            drop_frame(cache, ram.stale[i])
    ram.stale_count = 0
    ram.stale_overflow = False


cdef inline bint reach_code(vp_t* vp, u64 gva, u64* spa_page) noexcept nogil:
    """The frame that instructions at `gva` come from, by the code TLB."""
    cdef u64 slot = tlb_code_slot(gva), page = gva & ~<u64>PAGE_OFFSET_MASK
    cdef walk_t found
    vp.counters.tlb_lookups += 1
    if vp.tlb.code[slot].tag != page:
        if not reach(vp, gva, RIGHT_EXECUTE, 1, 0, &found):
            return False
        vp.tlb.code[slot].tag = page
        vp.tlb.code[slot].spa = found.spa & ~<u64>PAGE_OFFSET_MASK
    spa_page[0] = vp.tlb.code[slot].spa
    return True


cdef inline block_t* build_crossing(vp_t* vp, block_cache_t* cache, u64 spa) noexcept nogil:
    """One instruction that crosses into the next page: its bytes depend on two frames, so it is not kept."""
    cdef block_t* block = <block_t*>cache.crossing
    cdef u8[MAXIMUM_LENGTH] code
    cdef u32 first = PAGE_SIZE - <u32>(spa & PAGE_OFFSET_MASK)
    cdef u64 next_page = 0
    cdef insn_t insn
    if not reach_code(vp, vp.registers[SLOT_RIP] + first, &next_page):
        return NULL
    memcpy(code, ram_at(cache.machine.ram, spa), first)
    memcpy(code + first, ram_at(cache.machine.ram, next_page), MAXIMUM_LENGTH - first)
    decode(cache.isa, code, MAXIMUM_LENGTH, &insn)
    memset(block, 0, sizeof(block_t))
    block.spa = <u64>-1
    emit_end(cache, block, insn.length, emit(cache, block, &insn, 0) == FLOW_NEXT)
    return block


cdef inline block_t* find(vp_t* vp, block_cache_t* cache) noexcept nogil:
    """The block at `rip`, decoded if need be; NULL: vp.stop says why."""
    cdef u64 rip = vp.registers[SLOT_RIP], spa
    cdef block_t* block
    if not runs_64bit(vp):
        vp.exit.reason = REASON_UNSUPPORTED
        vp.exit.rip = rip
        vp.stop = STOP_EXIT
        return NULL
    if (rip ^ vp.code_gva) > PAGE_OFFSET_MASK:
        if not reach_code(vp, rip, &vp.code_spa):
            return NULL
        vp.code_gva = rip & ~<u64>PAGE_OFFSET_MASK
    spa = vp.code_spa | (rip & PAGE_OFFSET_MASK)
    block = lookup_block(cache, spa)
    if block == NULL:
        if cache.used + sizeof(cache.head) > ARENA_BYTES:
            cache.full = True
            vp.stop = STOP_STALE
            return NULL
        block = add_block(cache, spa)
        if block == NULL:
            return build_crossing(vp, cache, spa)
    cache.machine.direct[spa & (DIRECT_SIZE - 1)].spa = spa
    cache.machine.direct[spa & (DIRECT_SIZE - 1)].block = block
    return block


cdef inline block_t* link(vp_t* vp, block_cache_t* cache, const op_t* slot, bint fallen) noexcept nogil:
    """Find a branch target, and remember it behind the branch if both lie in one page, by GVA and by SPA."""
    cdef u64 from_page = vp.block.spa >> PAGE_SHIFT
    cdef bint leaves_page = (vp.registers[SLOT_RIP] ^ vp.code_gva) > PAGE_OFFSET_MASK
    cdef block_t* block = find(vp, cache)
    if block == NULL or leaves_page or block.spa >> PAGE_SHIFT != from_page:
        return block
    if fallen:
        (<link_t*>slot).fallen = block
    else:
        (<link_t*>slot).taken = block
    return block


cdef inline block_t* build_head(block_cache_t* cache, const block_t* block, i32 count) noexcept nogil:
    """A copy of the first `count` instructions of a block, which then stops: for a budget that ends inside."""
    cdef block_t* head = <block_t*>cache.head
    cdef const op_t* op = &block.operations[0]
    cdef op_t* end
    head[0] = block[0]
    head.count = count
    head.operation_count = 0
    head.accesses = 0
    while op.position < count:
        head.operations[head.operation_count] = op[0]
        head.operation_count += 1
        head.accesses += lookups_of(op)
        op += 1
    end = &head.operations[head.operation_count]
    memset(end, 0, sizeof(op_t))
    end.run = cache.head_end
    end.offset = op.offset
    return head
