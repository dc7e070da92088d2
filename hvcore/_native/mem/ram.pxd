"""System memory as the native rooms see it: one host mapping that starts at SPA 0.

RAM of the machine comes first, the hypervisor's reserve follows. Every frame has a word of *watched* granules
(64 bytes each): those from which instructions were decoded. Whoever writes memory, guest or host, calls
`ram_written`; a write to a watched granule puts the frame on the stale list, which the engine drains before it
runs decoded code again. This room knows nothing of blocks.
"""
from hvcore._native.base.types cimport u8, u32, u64

cdef enum:
    PAGE_SHIFT = 12
    PAGE_SIZE = 4096
    PAGE_OFFSET_MASK = 4095
    GRANULE_SHIFT = 6
    STALE_CAPACITY = 4096


cdef struct ram_t:
    u8* host                # host address of SPA 0
    u64 size_bytes          # RAM and reserve
    u64 ram_bytes           # RAM alone: the reserve starts here
    u64* watched            # one word a frame, one bit a granule
    u64* stale              # frames whose watched granules were written
    u32 stale_count
    bint stale_overflow     # more frames went stale than the list holds: all of them are suspect


cdef inline u8* ram_at(const ram_t* ram, u64 spa) noexcept nogil:
    return ram.host + spa


cdef inline void ram_stale(ram_t* ram, u64 frame) noexcept nogil:
    """Forget the watch on a frame and report it to the engine."""
    ram.watched[frame] = 0
    if ram.stale_count < STALE_CAPACITY:
        ram.stale[ram.stale_count] = frame
        ram.stale_count += 1
    else:
        ram.stale_overflow = True


cdef inline u64 granule_mask(u64 spa, u64 size_bytes) noexcept nogil:
    """The granules of one frame that [spa, spa + size_bytes) touches; the range must not leave the frame."""
    cdef u64 first = (spa & PAGE_OFFSET_MASK) >> GRANULE_SHIFT
    cdef u64 last = ((spa & PAGE_OFFSET_MASK) + size_bytes - 1) >> GRANULE_SHIFT
    return (<u64>-1 << first) & (<u64>-1 >> (63 - last))


cdef inline bint ram_written(ram_t* ram, u64 spa, u64 size_bytes) noexcept nogil:
    """Note a write of any length; True when it hit watched code."""
    cdef u64 end = spa + size_bytes, chunk
    cdef bint hit = False
    while spa < end:
        chunk = min(end - spa, PAGE_SIZE - (spa & PAGE_OFFSET_MASK))
        if ram.watched[spa >> PAGE_SHIFT] & granule_mask(spa, chunk):
            ram_stale(ram, spa >> PAGE_SHIFT)
            hit = True
        spa += chunk
    return hit
