"""One modelled structure: sets of ways that hold keys, with a replacement policy. A TLB, or one page-walk cache.

Up to 16 ways a set is a row: one word of replacement state and a word a way, so that a small set is one cache line.
For LRU and FIFO the word is the ways in order, four bits each, the next victim on top: a use or a fill moves a way to
the bottom, and empty ways stay above all others. More ways than that are found by a hash (wide.pxd).

Key: page number << 18 | address space << 2 | page size. Its set is the page number modulo the sets.
"""
from hvcore._native.base.types cimport u32, u64, u8

cdef enum Policy:
    POLICY_LRU
    POLICY_FIFO
    POLICY_TREE_PLRU
    POLICY_NRU
    POLICY_SRRIP
    POLICY_RANDOM

cdef enum:
    ROW_WAYS = 16
    KEY_PAGE_SHIFT = 18
    KEY_ASID_SHIFT = 2
    SRRIP_DISTANT = 3           # two bits: 0 is about to be used again, 3 is the victim ...
    SRRIP_FILLED = 2            # ... and this is how an entry comes in (SRRIP-HP, ISCA'10)
    FILLED_SHIFT = 56           # where the policies that are no order count the filled ways of a row
    NIBBLES = 0x1111111111111111
    EMPTY = -1


cdef extern from *:
    int __builtin_ctzll(u64) noexcept nogil


cdef struct structure_t:
    u64 last_key            # a look-up of it hits and changes nothing
    u64 set_mask            # sets - 1, for a power of two ...
    u64 sets
    u64* rows
    u64 row_words
    u32 ways
    u8 policy
    bint is_masked          # ... which they are
    bint is_wide
    bint is_nested          # of the second dimension: no flush of the first reaches it
    u64 first_order         # of the ways of an empty row
    u64 random
    u64 seed
    # What happened:
    u64 misses
    u64 lookups             # of the first level: counted by the model, per kind
    u64 evictions
    u64 invalidations
    u64 prefetches          # entries that a prefetch brought in
    # Wide structures:
    u64* keys               # of each entry; set * ways + way
    u32* next_entry         # per set a circle in order of recency ...
    u32* previous_entry
    u32* head               # ... and its youngest; the oldest is before it
    u8* state               # per entry: reference bit, re-reference value, or node of the tree (node 1 is the root)
    u32* filled             # per set
    u64* slot_keys          # the hash: open addressing, at most half full
    u32* slot_entries
    u64 slot_mask
    u32 slot_shift


cdef inline u64 set_of(const structure_t* s, u64 key) noexcept nogil:
    return key >> KEY_PAGE_SHIFT & s.set_mask if s.is_masked else (key >> KEY_PAGE_SHIFT) % s.sets


cdef inline u64 next_random(structure_t* s) noexcept nogil:
    """xorshift64*: the same sequence for the same seed, on every host."""
    s.random ^= s.random >> 12
    s.random ^= s.random << 25
    s.random ^= s.random >> 27
    return s.random * <u64>0x2545F4914F6CDD1D >> 32


cdef inline u64 low_nibbles(u32 count) noexcept nogil:
    return <u64>-1 if count == 16 else (<u64>1 << 4 * count) - 1


cdef inline int find_way(const u64* row, u32 ways, u64 key) noexcept nogil:
    """The way of a row that holds `key`, or -1."""
    cdef u32 way
    for way in range(ways):
        if row[1 + way] == key:
            return <int>way
    return -1


cdef inline u32 place_of(u64 order, u32 way) noexcept nogil:
    """Where in an order a way is: the lowest nibble that equals it."""
    cdef u64 differs = order ^ way * <u64>NIBBLES
    return <u32>__builtin_ctzll((differs - <u64>NIBBLES) & ~differs & <u64>8 * NIBBLES) >> 2


cdef inline u64 to_bottom(u64 order, u32 way) noexcept nogil:
    """The order with `way` as the youngest."""
    cdef u64 below
    if order & 15 == way:
        return order
    below = low_nibbles(place_of(order, way))
    return order & ~(below << 4 | 15) | (order & below) << 4 | way


cdef inline u64 to_top(u64 order, u32 way, u32 ways) noexcept nogil:
    """The order with `way` as the next victim."""
    cdef u64 below = low_nibbles(place_of(order, way))
    return order & below | (order >> 4 & ~below) & low_nibbles(ways - 1) | <u64>way << 4 * (ways - 1)


cdef inline u64 tree_after(u64 tree, u32 way, u32 ways) noexcept nogil:
    """Tree bits after a use of `way`: every node on the way to it points to its other half."""
    cdef u32 node = 1, half = ways >> 1
    while half:
        if way & half:
            tree &= ~(<u64>1 << node)
        else:
            tree |= <u64>1 << node
        node = 2 * node + (way & half != 0)
        half >>= 1
    return tree


cdef inline u32 tree_victim(u64 tree, u32 ways) noexcept nogil:
    cdef u32 node = 1
    while node < ways:
        node = 2 * node + <u32>(tree >> node & 1)
    return node - ways


cdef inline u64 marked(u64 bits, u32 way, u32 ways) noexcept nogil:
    """NRU bits after a use: when all would be set, the others are cleared."""
    cdef u64 all_ways = (<u64>1 << ways) - 1
    if (bits | <u64>1 << way) & all_ways == all_ways:
        return bits & ~all_ways | <u64>1 << way
    return bits | <u64>1 << way


cdef inline u32 first_unmarked(u64 bits) noexcept nogil:
    cdef u32 way = 0
    while bits >> way & 1:
        way += 1
    return way


cdef inline u32 srrip_victim(u64* word, u32 ways) noexcept nogil:
    """The first way at the distant value; all grow older until there is one."""
    cdef u32 way
    while True:
        for way in range(ways):
            if word[0] >> 2 * way & 3 == SRRIP_DISTANT:
                return way
        for way in range(ways):
            word[0] += <u64>1 << 2 * way


cdef inline void use_way(const structure_t* s, u64* row, u32 way) noexcept nogil:
    """Replacement state after a hit."""
    if s.policy == POLICY_LRU:
        row[0] = to_bottom(row[0], way)
    elif s.policy == POLICY_TREE_PLRU:
        row[0] = tree_after(row[0], way, s.ways)
    elif s.policy == POLICY_NRU:
        row[0] = marked(row[0], way, s.ways)
    elif s.policy == POLICY_SRRIP:
        row[0] &= ~(<u64>3 << 2 * way)


cdef inline u32 victim_of(structure_t* s, u64* row) noexcept nogil:
    """The way to fill, for a policy that is no order: an empty one if there is one."""
    if row[0] >> FILLED_SHIFT < s.ways:
        row[0] += <u64>1 << FILLED_SHIFT
        return <u32>find_way(row, s.ways, <u64>EMPTY)
    if s.policy == POLICY_TREE_PLRU:
        return tree_victim(row[0], s.ways)
    if s.policy == POLICY_NRU:
        return first_unmarked(row[0])
    if s.policy == POLICY_SRRIP:
        return srrip_victim(row, s.ways)
    return <u32>(next_random(s) % s.ways)


cdef inline void fill_row(structure_t* s, u64* row, u64 key) noexcept nogil:
    cdef u32 way
    if s.policy <= POLICY_FIFO:
        way = <u32>(row[0] >> 4 * (s.ways - 1))
        row[0] = (row[0] << 4 | way) & low_nibbles(s.ways)
    else:
        way = victim_of(s, row)
        if s.policy == POLICY_SRRIP:
            row[0] = row[0] & ~(<u64>3 << 2 * way) | <u64>SRRIP_FILLED << 2 * way
        else:
            use_way(s, row, way)
    s.evictions += row[1 + way] != <u64>EMPTY
    row[1 + way] = key


cdef inline bint touch_row(structure_t* s, u64 key) noexcept nogil:
    """Look up, and fill on a miss. True: a hit."""
    cdef u64* row = s.rows + set_of(s, key) * s.row_words
    cdef int way = find_way(row, s.ways, key)
    if way >= 0:
        use_way(s, row, <u32>way)
        return True
    fill_row(s, row, key)
    return False


cdef inline void drop_row(structure_t* s, u64 key) noexcept nogil:
    cdef u64* row = s.rows + set_of(s, key) * s.row_words
    cdef int way = find_way(row, s.ways, key)
    if way < 0:
        return
    row[1 + way] = <u64>EMPTY
    s.invalidations += 1
    if s.policy <= POLICY_FIFO:
        row[0] = to_top(row[0], <u32>way, s.ways)
        return
    row[0] -= <u64>1 << FILLED_SHIFT
    if s.policy == POLICY_NRU:
        row[0] &= ~(<u64>1 << way)
    elif s.policy == POLICY_SRRIP:
        row[0] |= <u64>SRRIP_DISTANT << 2 * way


cdef inline void clear_rows(structure_t* s) noexcept nogil:
    cdef u64 i, way
    for i in range(s.sets):
        s.rows[i * s.row_words] = s.first_order
        for way in range(s.ways):
            s.invalidations += s.rows[i * s.row_words + 1 + way] != <u64>EMPTY
            s.rows[i * s.row_words + 1 + way] = <u64>EMPTY


cdef inline u64 first_order_of(u8 policy, u32 ways) noexcept nogil:
    """So that the first fills go to way 0, 1, 2 ..."""
    cdef u64 order = 0
    cdef u32 way
    if policy <= POLICY_FIFO:
        for way in range(ways):
            order |= <u64>way << 4 * (ways - 1 - way)
    elif policy == POLICY_SRRIP:
        for way in range(ways):
            order |= <u64>SRRIP_DISTANT << 2 * way
    return order
