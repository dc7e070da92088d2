"""Structures with more ways than fit a row: keys are found by a hash, whatever the sets, recency is a linked list.

The cost of a look-up and of a fill does not grow with the ways, except that NRU and SRRIP search for their victim.
"""
from hvcore._native.base.types cimport u16, u32, u64
from hvcore._native.model.structure cimport (
    EMPTY, KEY_ASID_SHIFT, POLICY_FIFO, POLICY_LRU, POLICY_NRU, POLICY_SRRIP, POLICY_TREE_PLRU, SRRIP_DISTANT,
    SRRIP_FILLED, clear_rows, drop_row, next_random, set_of, structure_t,
)
from libc.string cimport memset


cdef inline u64 slot_of(const structure_t* s, u64 key) noexcept nogil:
    """Fibonacci hashing: the top bits of a product."""
    return key * <u64>0x9E3779B97F4A7C15 >> s.slot_shift


cdef inline u64 find_slot(const structure_t* s, u64 key) noexcept nogil:
    """The slot that holds `key`, or the free one where it belongs."""
    cdef u64 slot = slot_of(s, key)
    while s.slots[slot].key != key and s.slots[slot].key != <u64>EMPTY:
        slot = (slot + 1) & s.slot_mask
    return slot


cdef inline void empty_slot(structure_t* s, u64 slot) noexcept nogil:
    """Free a slot, and move back what had been pushed on by it."""
    cdef u64 gap = slot, home
    while True:
        slot = (slot + 1) & s.slot_mask
        if s.slots[slot].key == <u64>EMPTY:
            break
        home = slot_of(s, s.slots[slot].key)
        if (slot - home & s.slot_mask) >= (slot - gap & s.slot_mask):
            s.slots[gap] = s.slots[slot]
            gap = slot
    s.slots[gap].key = <u64>EMPTY


cdef inline void move_to_head(structure_t* s, u64 row, u32 entry) noexcept nogil:
    """Make an entry the youngest of its set; the oldest becomes it by turning the circle."""
    cdef u32 head = s.head[row], before, behind
    if entry == head:
        return
    if entry != s.entries[head].previous:
        before, behind = s.entries[entry].previous, s.entries[entry].next
        s.entries[before].next = behind
        s.entries[behind].previous = before
        before = s.entries[head].previous
        s.entries[before].next = entry
        s.entries[entry].previous = before
        s.entries[entry].next = head
        s.entries[head].previous = entry
    s.head[row] = entry


cdef inline void use_node(structure_t* s, u64 row, u32 way) noexcept nogil:
    """structure.pxd's tree_after, a byte a node."""
    cdef u32 node = 1, half = s.ways >> 1
    while half:
        s.state[row * s.ways + node] = way & half == 0
        node = 2 * node + (way & half != 0)
        half >>= 1


cdef inline void mark_entry(structure_t* s, u64 row, u64 entry) noexcept nogil:
    cdef u64 other, first = row * s.ways
    s.state[entry] = 1
    for other in range(first, first + s.ways):
        if not s.state[other]:
            return
    memset(s.state + first, 0, s.ways)
    s.state[entry] = 1


cdef inline void use_entry(structure_t* s, u64 row, u32 entry) noexcept nogil:
    if s.policy == POLICY_LRU:
        move_to_head(s, row, entry)
    elif s.policy == POLICY_TREE_PLRU:
        use_node(s, row, <u32>(entry - row * s.ways))
    elif s.policy == POLICY_NRU:
        if not s.state[entry]:
            mark_entry(s, row, entry)
    elif s.policy == POLICY_SRRIP:
        s.state[entry] = 0


cdef inline u64 search_state(const structure_t* s, u64 row, u32 value) noexcept nogil:
    """The first entry of a set with this state; behind the set if none has it."""
    cdef u64 entry = row * s.ways, end = entry + s.ways
    while entry < end and s.state[entry] != value:
        entry += 1
    return entry


cdef inline u64 empty_entry(const structure_t* s, u64 row) noexcept nogil:
    cdef u64 entry = row * s.ways
    while s.entries[entry].key != <u64>EMPTY:
        entry += 1
    return entry


cdef inline u64 victim_entry(structure_t* s, u64 row) noexcept nogil:
    """For the policies that are no order."""
    cdef u64 first = row * s.ways, entry, node = 1
    if s.filled[row] < s.ways:
        s.filled[row] += 1
        return empty_entry(s, row)
    if s.policy == POLICY_TREE_PLRU:
        while node < s.ways:
            node = 2 * node + s.state[first + node]
        return first + node - s.ways
    if s.policy == POLICY_NRU:
        return search_state(s, row, 0)
    if s.policy != POLICY_SRRIP:
        return first + next_random(s) % s.ways
    while True:
        entry = search_state(s, row, SRRIP_DISTANT)
        if entry < first + s.ways:
            return entry
        for entry in range(first, first + s.ways):
            s.state[entry] += 1


cdef inline void fill_wide(structure_t* s, u64 key, u64 slot) noexcept nogil:
    """`slot` is free, and where `key` belongs."""
    cdef u64 row = set_of(s, key), entry
    if s.policy <= POLICY_FIFO:
        entry = s.entries[s.head[row]].previous
        s.head[row] = <u32>entry
    else:
        entry = victim_entry(s, row)
        if s.policy == POLICY_SRRIP:
            s.state[entry] = SRRIP_FILLED
        else:
            if s.policy == POLICY_NRU:
                s.state[entry] = 0
            use_entry(s, row, <u32>entry)
    s.slots[slot].key = key
    s.slots[slot].entry = entry
    if s.entries[entry].key != <u64>EMPTY:
        empty_slot(s, find_slot(s, s.entries[entry].key))
    s.entries[entry].key = key


cdef inline bint touch_wide(structure_t* s, u64 key) noexcept nogil:
    cdef u64 slot = find_slot(s, key)
    if s.slots[slot].key == key:
        if s.policy != POLICY_FIFO:
            use_entry(s, set_of(s, key), <u32>s.slots[slot].entry)
        return True
    fill_wide(s, key, slot)
    return False


cdef inline void drop_wide(structure_t* s, u64 key) noexcept nogil:
    cdef u64 slot = find_slot(s, key), row = set_of(s, key)
    cdef u32 entry
    if s.slots[slot].key != key:
        return
    entry = <u32>s.slots[slot].entry
    empty_slot(s, slot)
    s.entries[entry].key = <u64>EMPTY
    s.invalidations += 1
    if s.policy <= POLICY_FIFO:
        move_to_head(s, row, entry)
        s.head[row] = s.entries[entry].next       # one turn of the circle: the youngest becomes the oldest
        return
    s.filled[row] -= 1
    if s.policy == POLICY_NRU:
        s.state[entry] = 0
    elif s.policy == POLICY_SRRIP:
        s.state[entry] = SRRIP_DISTANT


cdef inline void clear_wide(structure_t* s) noexcept nogil:
    cdef u64 entry, row, first, way
    for entry in range(s.sets * s.ways):
        s.invalidations += s.entries[entry].key != <u64>EMPTY
        s.entries[entry].key = <u64>EMPTY
        s.state[entry] = SRRIP_DISTANT if s.policy == POLICY_SRRIP else 0
    for row in range(s.sets):
        first = row * s.ways
        s.filled[row] = 0
        s.head[row] = <u32>(first + s.ways - 1)
        for way in range(s.ways):               # from the head on: last way, ..., way 0, which is filled first
            s.entries[first + way].next = <u32>(first + (way - 1 if way else s.ways - 1))
            s.entries[first + way].previous = <u32>(first + (way + 1 if way + 1 < s.ways else 0))
    for entry in range(s.slot_mask + 1):
        s.slots[entry].key = <u64>EMPTY


cdef inline u64 held_by(const structure_t* s) noexcept nogil:
    """Entries that are not empty."""
    cdef u64 row, way, held = 0
    for row in range(s.sets):
        for way in range(s.ways):
            held += key_at(s, row, way) != <u64>EMPTY
    return held


cdef inline u64 key_at(const structure_t* s, u64 row, u64 way) noexcept nogil:
    return s.entries[row * s.ways + way].key if s.is_wide else s.rows[row * s.row_words + s.key_word + way]


cdef inline void drop_key(structure_t* s, u64 key) noexcept nogil:
    if s.is_wide:
        drop_wide(s, key)
    else:
        drop_row(s, key)


cdef inline void clear(structure_t* s) noexcept nogil:
    """Forget everything that is held; what was counted stays."""
    if s.is_wide:
        clear_wide(s)
    else:
        clear_rows(s)


cdef inline void drop_space(structure_t* s, u16 asid) noexcept nogil:
    """Forget the entries of one address space."""
    cdef u64 row, way, key
    for row in range(s.sets):
        for way in range(s.ways):
            key = key_at(s, row, way)
            if key != <u64>EMPTY and <u16>(key >> KEY_ASID_SHIFT) == asid:
                drop_key(s, key)
