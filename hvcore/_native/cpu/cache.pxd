"""The cache of decoded blocks: where they are kept, how they are found, and when they are forgotten.

Blocks are kept by the system address that they were decoded from. Their code's granules are watched (mem/ram.pxd);
all blocks of a written frame go together. What a block consists of is emit.pxd's and blocks.pxd's business.
"""
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.state cimport DIRECT_SIZE, block_t, handler_t, machine_t, vp_t
from hvcore._native.decode.spec cimport isa_t
from hvcore._native.mem.ram cimport PAGE_SHIFT, granule_mask, ram_t
from hvcore._native.mem.tlb cimport TLB_CONTEXTS, TLB_MODES, tlb_guard_frame
from libc.string cimport memset

cdef enum:
    BLOCK_INSTRUCTIONS = 64
    OPERATIONS_MAXIMUM = 3 * BLOCK_INSTRUCTIONS + 4     # one that notes and one that prepares each, an end, its link
    BLOCK_BYTES_MAXIMUM = 64 + 32 * OPERATIONS_MAXIMUM      # block_t and its operations (engine.pyx checks)
    BUCKETS = 65536
    CODE_FRAMES = 65536
    ARENA_BYTES = 48 << 20


cdef struct block_cache_t:
    machine_t machine           # first: machine_t* and block_cache_t* are the same address
    const isa_t* isa
    const handler_t* handlers
    handler_t prepare           # the five operations that no row of the table names
    handler_t fall_through
    handler_t invalid
    handler_t unimplemented
    handler_t head_end
    handler_t note_fetch
    bint notes_fetches          # blocks are built with an operation that notes the fetch of each instruction
    block_t** buckets
    block_t** frames            # the blocks of each frame
    u64* code_frames            # frames that have blocks, or had: who verifies code looks here
    u32 code_frame_count
    u8* arena
    u64 used
    bint full
    vp_t** vps
    u32 vp_count
    u8[BLOCK_BYTES_MAXIMUM] crossing    # an instruction over a page end
    u8[BLOCK_BYTES_MAXIMUM] head        # the first instructions of a block


cdef inline void watch(block_cache_t* cache, u64 spa, u32 size_bytes) noexcept nogil:
    """From now on writes to this code are noticed: take its frame out of every fast write TLB, once."""
    cdef u64 frame = spa >> PAGE_SHIFT
    cdef u32 i, k
    if cache.frames[frame] == NULL:
        if cache.code_frame_count == CODE_FRAMES:
            cache.full = True       # all blocks go before the next one runs, and the list with them
        else:
            cache.code_frames[cache.code_frame_count] = frame
            cache.code_frame_count += 1
    if cache.machine.ram.watched[frame] == 0:
        for i in range(cache.vp_count):
            for k in range(<u32>TLB_CONTEXTS * TLB_MODES):
                tlb_guard_frame(&cache.vps[i].contexts[k // TLB_MODES].tlbs[k % TLB_MODES], frame << PAGE_SHIFT)
    cache.machine.ram.watched[frame] |= granule_mask(spa, size_bytes)


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
    for i in range(<u32>DIRECT_SIZE):
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
