"""Copies between a device's buffer and memory, through the unit: a request for each page.

A block of them is translated ahead and its memory fetched (batch.pxd). A write that lands where the block has read its
tables ends it: those behind it are translated anew.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.batch cimport SHORTEST_WAIT, look_ahead, requester_start, requester_t, serve
from hvcore._native.dma.faults cimport refuse_interrupt
from hvcore._native.dma.flight cimport LANES, NO_LANE, SEEN, flight_t
from hvcore._native.dma.spec cimport DMA_INTERRUPT, DMA_OK
from hvcore._native.dma.state cimport unit_t
from hvcore._native.dma.translate cimport dma_t
from hvcore._native.mem.format cimport RIGHT_WRITE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE, ram_at, ram_written
from cython cimport unlikely
from libc.string cimport memcpy, memset

cdef enum:
    MESSAGE_BYTES = 4

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void* place) noexcept nogil


# Parts of copies, each within one page of 4 KiB; their data lie one behind the other.
cdef struct pieces_t:
    u64[LANES] iovas
    u32[LANES] sizes
    u64 element                     # the first that has not been taken
    u64 offset                      # how much of it has


cdef inline u32 take_pieces(pieces_t* pieces, const u64* iovas, u64 count, u64 size_bytes) noexcept nogil:
    """The next pieces of a batch; `element` and `offset` are moved on."""
    cdef u32 taken = 0
    cdef u64 iova, size
    while taken < LANES and pieces.element < count:
        iova = iovas[pieces.element] + pieces.offset
        size = min(size_bytes - pieces.offset, PAGE_SIZE - (iova & PAGE_OFFSET_MASK))
        pieces.iovas[taken], pieces.sizes[taken] = iova, <u32>size
        taken += 1
        pieces.offset += size
        if pieces.offset == size_bytes:
            pieces.offset = 0
            pieces.element += 1
    return taken


cdef inline void fetch_ahead(unit_t* unit, const flight_t* flight, const u64* iovas, u32 block) noexcept nogil:
    """Have the processor get the memory that a block is about to touch."""
    cdef u64 spa
    cdef u32 place
    for place in range(block):
        if flight.lane_of[place] != NO_LANE:
            spa = flight.table[flight.lane_of[place]] | iovas[place] & PAGE_OFFSET_MASK
            prefetch(ram_at(unit.ram, spa))
            prefetch(&unit.ram.watched[spa >> PAGE_SHIFT])


cdef inline u64 copy_piece(unit_t* unit, const requester_t* who, const dma_t* done, u64 iova, u8* data,
                           u64 size_bytes) noexcept nogil:
    """How many bytes were copied. A refused read is answered with all ones."""
    if unlikely(done.status != DMA_OK):
        if not who.access & RIGHT_WRITE:
            memset(data, 0xFF, size_bytes)
        elif done.status == DMA_INTERRUPT and (size_bytes != MESSAGE_BYTES or iova & (MESSAGE_BYTES - 1)):
            refuse_interrupt(unit, who.source, iova, who.access)
        return 0
    if who.access & RIGHT_WRITE:
        memcpy(ram_at(unit.ram, done.spa), data, size_bytes)
        ram_written(unit.ram, done.spa, size_bytes)
    else:
        memcpy(data, ram_at(unit.ram, done.spa), size_bytes)
    return size_bytes


cdef inline u64 copy_all(unit_t* unit, requester_t* who, const u64* iovas, u64 count, u8* data,
                         u64 size_bytes) noexcept nogil:
    """`size_bytes` for each address, one behind the other in `data`. How many bytes were copied."""
    cdef pieces_t pieces
    cdef flight_t flight
    cdef dma_t done
    cdef u64 copied = 0
    cdef u32 taken, first, block, place
    cdef bint going
    if size_bytes == 0 or count == 0:
        return 0
    pieces.element = pieces.offset = 0
    flight.stamp = 0
    requester_start(unit, who, count)
    while pieces.element < count:
        taken = take_pieces(&pieces, iovas, count, size_bytes)
        first = 0
        while first < taken:
            block = look_ahead(unit, who, pieces.iovas + first, taken - first, &flight)
            if flight.lanes:
                fetch_ahead(unit, &flight, pieces.iovas + first, block)
            for place in range(block):
                going = serve(unit, who, &flight, place, pieces.iovas[first], &done)
                copied += copy_piece(unit, who, &done, pieces.iovas[first], data, pieces.sizes[first])
                data += pieces.sizes[first]
                first += 1
                if unlikely(not going or (flight.lanes and who.access & RIGHT_WRITE and
                                          flight.seen[done.spa >> PAGE_SHIFT & (SEEN - 1)] == flight.stamp)):
                    break
            else:
                who.wait = SHORTEST_WAIT
    return copied
