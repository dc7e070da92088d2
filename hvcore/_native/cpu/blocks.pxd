"""Decoded blocks: straight runs of operations, kept by the system address that they were decoded from.

A block ends at a branch, at an instruction that may change the mode, at the end of its page, or after 64
instructions. Its code's granules are watched (mem/ram.pxd); all blocks of a written frame go together, which is what
makes links between blocks of one page safe. An instruction that crosses a page is decoded each time it runs.
"""
from hvcore._native.base.status cimport REASON_UNSUPPORTED, STOP_EXIT, STOP_STALE
from hvcore._native.base.types cimport i32, u16, u32, u64, u8
from hvcore._native.cpu.access cimport is_global, reach
from hvcore._native.cpu.cache cimport ARENA_BYTES, BLOCK_INSTRUCTIONS, BUCKETS, block_cache_t, lookup_block, watch
from hvcore._native.cpu.emit cimport emit, emit_end, lookups_of
from hvcore._native.cpu.segments cimport runs_64bit
from hvcore._native.cpu.state cimport DIRECT_SIZE, SLOT_RIP, block_t, direct_t, link_t, op_t, vp_t
from hvcore._native.decode.decode cimport decode
from hvcore._native.decode.spec cimport DECODE_64, DECODE_TRUNCATED, MAXIMUM_LENGTH, insn_t
from hvcore._native.mem.format cimport RIGHT_EXECUTE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE, ram_at
from hvcore._native.mem.tlb cimport tlb_code_slot, tlb_fill_code
from hvcore._native.mem.walk cimport walk_t
from libc.string cimport memcpy, memset


cdef inline block_t* build(block_cache_t* cache, u64 spa) noexcept nogil:
    """Decode from `spa` to the end of a block; NULL when its first instruction crosses the page."""
    cdef block_t* block = <block_t*>(cache.arena + cache.used)
    cdef const u8* code = ram_at(cache.machine.ram, spa)
    cdef u32 available = PAGE_SIZE - <u32>(spa & PAGE_OFFSET_MASK), at = 0
    cdef bint goes_on = True
    cdef insn_t insn
    memset(block, 0, sizeof(block_t))
    block.spa = spa
    while goes_on and block.count < BLOCK_INSTRUCTIONS and at < available:
        decode(cache.isa, code + at, available - at, DECODE_64, &insn)
        if insn.status == DECODE_TRUNCATED:
            if at == 0:
                return NULL
            break
        goes_on = emit(cache, block, &insn, <u16>at)
        at += insn.length
    emit_end(cache, block, <u16>at, goes_on)
    block.bytes = at
    cache.used += sizeof(block_t) + block.operation_count * sizeof(op_t)
    return block


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


cdef inline bint reach_code(vp_t* vp, u64 gva, u64* spa_page) noexcept nogil:
    """The frame that instructions at `gva` come from, by the code TLB."""
    cdef u64 slot = tlb_code_slot(gva)
    cdef walk_t found
    vp.counters.tlb_lookups += 1
    if vp.own_tlb.code[slot].tag != gva & ~<u64>PAGE_OFFSET_MASK:
        if not reach(vp, gva, RIGHT_EXECUTE, 1, 0, &found):
            return False
        tlb_fill_code(vp.own_tlb, gva, found.spa, found.page_shift, is_global(vp, &found))
    spa_page[0] = vp.own_tlb.code[slot].spa
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
    decode(cache.isa, code, MAXIMUM_LENGTH, DECODE_64, &insn)
    memset(block, 0, sizeof(block_t))
    block.spa = <u64>-1
    emit_end(cache, block, insn.length, emit(cache, block, &insn, 0))
    return block


cdef inline block_t* find(vp_t* vp, block_cache_t* cache) noexcept nogil:
    """The block at `rip`, decoded if need be; NULL: vp.stop says why."""
    cdef u64 rip = vp.registers[SLOT_RIP], spa
    cdef block_t* block
    cdef direct_t* entry
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
    entry = &cache.machine.direct[spa & (DIRECT_SIZE - 1)]
    if entry.spa == spa:                # only the page was another one
        return entry.block
    block = lookup_block(cache, spa)
    if block == NULL:
        if cache.used + sizeof(cache.head) > ARENA_BYTES:
            cache.full = True
            vp.stop = STOP_STALE
            return NULL
        block = add_block(cache, spa)
        if block == NULL:
            return build_crossing(vp, cache, spa)
    entry.spa = spa
    entry.block = block
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
