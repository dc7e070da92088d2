"""Stack distances: how many other pages of its set were used since an access's page was used last.

Under LRU an access hits exactly if its distance is below the number of ways, so one pass gives the misses of every
associativity (Mattson et al., 1970). Each set has its uses in order of time in a Fenwick tree, one bit for the last
use of each page: a distance is a difference of sums, O(log pages). A tree that is full is packed or doubled.
"""
from hvcore._native.base.types cimport i64, u32, u64
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cdef enum:
    COLD = -1               # the distance of a first use
    FIRST_CAPACITY = 64


cdef struct stack_t:
    u32* tree               # Fenwick: sums of the bits of slots that are some page's last use; from 1
    u32* pages              # the page of each slot ...
    u32 capacity
    u32 used                # slots given out
    u32 live                # pages of this set


cdef struct stacks_t:
    stack_t* sets
    u64 set_count
    u64* keys               # hash of pages: page number plus one
    u32* key_pages
    u64 capacity
    u32* slots              # per page: the slot of its last use
    u32 page_count
    u32 page_capacity
    u64* histogram          # uses by distance
    u64 histogram_size
    u64 cold                # first uses
    u64 uses
    u64 last_page           # plus one
    bint failed             # the host had no memory


cdef inline u64 stacks_slot(const stacks_t* s, u64 page) noexcept nogil:
    cdef u64 slot = page * <u64>0x9E3779B97F4A7C15 >> 20 & (s.capacity - 1)
    while s.keys[slot] and s.keys[slot] != page + 1:
        slot = (slot + 1) & (s.capacity - 1)
    return slot


cdef inline void stacks_release(stacks_t* s) noexcept nogil:
    cdef u64 i
    if s.sets != NULL:
        for i in range(s.set_count):
            free(s.sets[i].tree)
            free(s.sets[i].pages)
    free(s.sets)
    free(s.keys)
    free(s.key_pages)
    free(s.slots)
    free(s.histogram)
    memset(s, 0, sizeof(stacks_t))


cdef inline bint grow_pages(stacks_t* s) noexcept nogil:
    cdef u64 capacity = max(<u64>1024, s.capacity * 2), i, slot
    cdef u64* old_keys = s.keys
    cdef u32* old_pages = s.key_pages
    cdef u64 old_capacity = s.capacity
    cdef u64* keys = <u64*>calloc(capacity, 8)
    cdef u32* key_pages = <u32*>calloc(capacity, 4)
    cdef u32* slots = <u32*>realloc(s.slots, capacity * 2)      # four bytes for each of capacity / 2 pages
    if slots != NULL:
        s.slots = slots
    if keys == NULL or key_pages == NULL or slots == NULL or capacity > <u64>1 << 32:
        free(keys)
        free(key_pages)
        s.failed = True
        return False
    s.keys, s.key_pages, s.capacity, s.page_capacity = keys, key_pages, capacity, <u32>(capacity // 2)
    for i in range(old_capacity):
        if old_keys[i]:
            slot = stacks_slot(s, old_keys[i] - 1)
            keys[slot] = old_keys[i]
            key_pages[slot] = old_pages[i]
    free(old_keys)
    free(old_pages)
    return True


cdef inline bint pack_stack(stacks_t* s, stack_t* stack) noexcept nogil:
    """Make room in a full tree: last uses move together, in order, and if they fill half of it it doubles."""
    cdef u32 capacity = max(<u32>FIRST_CAPACITY, stack.capacity), slot, kept = 0, parent
    cdef u32* tree
    cdef u32* pages
    while 2 * stack.live >= capacity:
        capacity *= 2
    tree = <u32*>realloc(stack.tree, (capacity + 1) * sizeof(u32))
    if tree != NULL:
        stack.tree = tree
    pages = <u32*>realloc(stack.pages, (capacity + 1) * sizeof(u32))
    if pages != NULL:
        stack.pages = pages
    if tree == NULL or pages == NULL:
        s.failed = True
        return False
    for slot in range(1, stack.used + 1):
        if s.slots[pages[slot]] == slot:
            kept += 1
            pages[kept] = pages[slot]
            s.slots[pages[kept]] = kept
    stack.used, stack.capacity = kept, capacity
    memset(tree, 0, (capacity + 1) * sizeof(u32))
    for slot in range(1, capacity + 1):
        tree[slot] += slot <= kept
        parent = slot + (slot & (0 - slot))
        if parent <= capacity:
            tree[parent] += tree[slot]
    return True


cdef inline void add_at(stack_t* stack, u32 slot, u32 value) noexcept nogil:
    while slot <= stack.capacity:
        stack.tree[slot] += value
        slot += slot & (0 - slot)


cdef inline u32 sum_to(const stack_t* stack, u32 slot) noexcept nogil:
    cdef u32 total = 0
    while slot:
        total += stack.tree[slot]
        slot &= slot - 1
    return total


cdef inline bint count_distance(stacks_t* s, u64 distance) noexcept nogil:
    cdef u64 size
    cdef u64* grown
    if distance >= s.histogram_size:
        size = max(<u64>256, 2 * distance)
        grown = <u64*>realloc(s.histogram, size * 8)
        if grown == NULL:
            s.failed = True
            return False
        memset(grown + s.histogram_size, 0, (size - s.histogram_size) * 8)
        s.histogram, s.histogram_size = grown, size
    s.histogram[distance] += 1
    return True


cdef inline i64 use_page(stacks_t* s, u64 page) noexcept nogil:
    """Distance of this use of a page; COLD for its first. A failed host leaves `failed` set."""
    cdef stack_t* stack = &s.sets[page % s.set_count]
    cdef u64 slot
    cdef u32 name
    cdef i64 distance
    s.uses += 1
    if page + 1 == s.last_page and s.histogram_size:
        s.histogram[0] += 1
        return 0
    s.last_page = page + 1
    if s.page_count >= s.page_capacity and not grow_pages(s):
        return COLD
    if stack.used >= stack.capacity and not pack_stack(s, stack):
        return COLD
    slot = stacks_slot(s, page)
    stack.used += 1
    if s.keys[slot]:
        name = s.key_pages[slot]
        distance = <i64>(stack.live - sum_to(stack, s.slots[name]))
        add_at(stack, s.slots[name], <u32>-1)
        count_distance(s, <u64>distance)
    else:
        name = s.page_count
        s.page_count += 1
        s.keys[slot] = page + 1
        s.key_pages[slot] = name
        stack.live += 1
        s.cold += 1
        distance = COLD
    stack.pages[stack.used] = name
    s.slots[name] = stack.used
    add_at(stack, stack.used, 1)
    return distance
