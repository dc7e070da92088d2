"""Where a guest's pages and tables lie in guest-physical space, when nobody says: handed out by first touch.

A fresh guest gets its frames in the order in which it touches them. Here every page size, and the tables, have a
region of their own, and a page's number there is how many of its kind came before it. A growing hash remembers them.
"""
from hvcore._native.base.types cimport u32, u64
from libc.stdlib cimport calloc, free

cdef enum:
    FRAME_REGION_SHIFT = 46         # of four, in 48 bits of guest-physical addresses
    FRAME_TABLES = 3                # the region behind those of the three page sizes


cdef struct frames_t:
    u64* keys               # plus one; zero: free
    u64* numbers
    u64 capacity            # a power of two, at least twice `count`
    u64 count
    u64[4] used             # per region
    bint failed             # the host had no memory: the numbers are wrong from here on


cdef inline u64 frames_slot(const frames_t* frames, u64 key) noexcept nogil:
    cdef u64 slot = key * <u64>0x9E3779B97F4A7C15 >> 20 & (frames.capacity - 1)
    while frames.keys[slot] and frames.keys[slot] != key + 1:
        slot = (slot + 1) & (frames.capacity - 1)
    return slot


cdef inline void frames_release(frames_t* frames) noexcept nogil:
    free(frames.keys)
    free(frames.numbers)
    frames.keys = frames.numbers = NULL
    frames.capacity = frames.count = 0
    frames.used[0] = frames.used[1] = frames.used[2] = frames.used[3] = 0


cdef inline bint frames_grow(frames_t* frames) noexcept nogil:
    cdef frames_t old = frames[0]
    cdef u64 i, slot
    frames.capacity = max(<u64>1024, old.capacity * 2)
    frames.keys = <u64*>calloc(frames.capacity, 8)
    frames.numbers = <u64*>calloc(frames.capacity, 8)
    if frames.keys == NULL or frames.numbers == NULL:
        free(frames.keys)
        free(frames.numbers)
        frames[0] = old
        frames.failed = True
        return False
    for i in range(old.capacity):
        if old.keys[i]:
            slot = frames_slot(frames, old.keys[i] - 1)
            frames.keys[slot] = old.keys[i]
            frames.numbers[slot] = old.numbers[i]
    free(old.keys)
    free(old.numbers)
    return True


cdef inline u64 frame_of(frames_t* frames, u64 key, u32 region, u32 shift) noexcept nogil:
    """Guest-physical address of the page that `key` names, in its region; the first one asked for lies at its start."""
    cdef u64 slot
    if 2 * frames.count >= frames.capacity and not frames_grow(frames):
        return 0
    slot = frames_slot(frames, key)
    if not frames.keys[slot]:
        frames.keys[slot] = key + 1
        frames.numbers[slot] = frames.used[region]
        frames.used[region] += 1
        frames.count += 1
    return <u64>region << FRAME_REGION_SHIFT | (frames.numbers[slot] << shift & ((<u64>1 << FRAME_REGION_SHIFT) - 1))
