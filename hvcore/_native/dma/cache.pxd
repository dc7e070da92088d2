"""What a remapping unit remembers of its tables: modelled structures with what their entries stand for.

Nothing is right because of them: with none of them every request reads its tables. With them a change of a table is
seen when software has invalidated what was remembered, as VT-d has it, or when the geometry has evicted it.
"""
from hvcore._native.base.types cimport i64, u8, u16, u32, u64
from hvcore._native.dma.state cimport TAG_COUNT, WALK_LEVELS, cache_t, tag_t, unit_t
from hvcore._native.model.structure cimport (
    EMPTY, KEY_ASID_SHIFT, KEY_PAGE_SHIFT, POLICY_FIFO, POLICY_LRU, find_way, set_of, structure_t, to_bottom,
    touch_ordered, touch_row, use_way,
)
from hvcore._native.model.wide cimport clear, drop_key, find_slot, key_at, touch_wide, use_entry
from cython cimport likely
from libc.string cimport memset

cdef enum:
    KEY_PAGE_MASK = 0x3FFFFFFFFFFF


cdef inline u64 cache_key(u64 page, u32 tag, u32 size) noexcept nogil:
    return (page & <u64>KEY_PAGE_MASK) << KEY_PAGE_SHIFT | <u64>tag << KEY_ASID_SHIFT | size


cdef inline u32 tag_of_key(u64 key) noexcept nogil:
    return <u32>(key >> KEY_ASID_SHIFT) & 0xFFFF


cdef inline i64 structure_find(const structure_t* s, u64 key) noexcept nogil:
    """The entry that holds `key`, or -1; it is not used by this."""
    cdef u64 row_number, slot
    cdef int way
    if s.is_wide:
        slot = find_slot(s, key)
        return <i64>s.slots[slot].entry if s.slots[slot].key == key else -1
    row_number = set_of(s, key)
    way = find_way(s.rows + row_number * s.row_words, s.key_word, key)
    return <i64>(row_number * s.ways + way) if way >= 0 else -1


cdef inline void structure_use(structure_t* s, u64 key, u64 entry) noexcept nogil:
    """Tell the policy that a request has hit the entry of `key`."""
    cdef u64 row_number = set_of(s, key)
    cdef u64* row
    cdef u32 way
    if s.is_wide:
        if s.policy != POLICY_FIFO:
            use_entry(s, row_number, <u32>entry)
        return
    row = s.rows + row_number * s.row_words
    way = <u32>(entry - row_number * s.ways)
    if s.policy > POLICY_FIFO:
        use_way(s, row, way)
    elif s.policy == POLICY_LRU and row[0] & 15 != way:
        row[0] = to_bottom(row[0], way)


cdef inline void structure_fill(structure_t* s, u64 key) noexcept nogil:
    """Bring in a key that is not there."""
    if s.is_wide:
        touch_wide(s, key)
    elif s.policy > POLICY_FIFO:
        touch_row(s, key)
    else:
        touch_ordered(s, key, s.key_word)


cdef inline u64* cache_peek(cache_t* cache, u64 key) noexcept nogil:
    """What goes with `key`, or NULL; used by this, but not counted."""
    cdef i64 entry
    if likely(cache.structure == NULL):
        entry = <i64>(key >> KEY_PAGE_SHIFT & cache.mask)
        return cache.words + <u64>entry * cache.width if cache.exists and cache.keys[entry] == key else NULL
    entry = structure_find(cache.structure, key)
    if entry < 0:
        return NULL
    structure_use(cache.structure, key, <u64>entry)
    return cache.words + <u64>entry * cache.width


cdef inline bint cache_has(const cache_t* cache, u64 key) noexcept nogil:
    """Whether a key is there; it is not used by this."""
    if likely(cache.structure == NULL):
        return cache.exists and cache.keys[key >> KEY_PAGE_SHIFT & cache.mask] == key
    return structure_find(cache.structure, key) >= 0


cdef inline u64* cache_find(cache_t* cache, u64 key) noexcept nogil:
    cdef u64* found
    if not cache.exists:
        return NULL
    found = cache_peek(cache, key)
    cache.lookups += 1
    cache.misses += found == NULL
    return found


cdef inline u64* cache_fill(cache_t* cache, u64 key) noexcept nogil:
    """Where to write what goes with `key`: in its entry if it has one, else in a victim's. The cache must exist."""
    cdef u64* found = cache_peek(cache, key)
    cdef u64 entry
    if found != NULL:
        return found
    cache.fills += 1
    if cache.structure == NULL:
        entry = key >> KEY_PAGE_SHIFT & cache.mask
        cache.keys[entry] = key
        return cache.words + entry * cache.width
    structure_fill(cache.structure, key)
    return cache.words + <u64>structure_find(cache.structure, key) * cache.width


cdef inline u64 cache_key_at(const cache_t* cache, u64 entry) noexcept nogil:
    if cache.structure == NULL:
        return cache.keys[entry]
    return key_at(cache.structure, entry // cache.structure.ways, entry % cache.structure.ways)


cdef inline void cache_drop(cache_t* cache, u64 key) noexcept nogil:
    """Forget a key that is there."""
    cache.invalidations += 1
    if cache.structure == NULL:
        cache.keys[key >> KEY_PAGE_SHIFT & cache.mask] = <u64>EMPTY
    else:
        drop_key(cache.structure, key)


cdef inline u64 cache_held(const cache_t* cache) noexcept nogil:
    cdef u64 entry, held = 0
    for entry in range(cache.entries):
        held += cache_key_at(cache, entry) != <u64>EMPTY
    return held


cdef inline void cache_clear(cache_t* cache) noexcept nogil:
    if not cache.exists:
        return
    cache.invalidations += cache_held(cache)
    if cache.structure == NULL:
        memset(cache.keys, 0xFF, cache.entries * 8)
    else:
        clear(cache.structure)


cdef inline void forget_translations(unit_t* unit) noexcept nogil:
    """IOTLB and paging-structure caches."""
    cdef u32 table
    cache_clear(&unit.iotlb)
    unit.iotlb_sizes = 0
    for table in range(2, <u32>WALK_LEVELS):
        cache_clear(&unit.walks[table])


cdef inline void forget_all(unit_t* unit) noexcept nogil:
    """What a global invalidation of contexts, PASIDs and translations leaves."""
    cache_clear(&unit.contexts)
    cache_clear(&unit.pasids)
    forget_translations(unit)
    memset(unit.tags, 0, TAG_COUNT * sizeof(tag_t))
    unit.tag_count = 0


cdef inline u16 tag_for(unit_t* unit, u16 did, u32 pasid, u8 kind, bint privileged) noexcept nogil:
    """The number that keys of translations have for a domain and PASID; a new one if there is none yet. Keys have 16
    bits for it, so after many domains everything is forgotten."""
    cdef u64 slot
    cdef tag_t* tag
    if unit.tag_count > TAG_COUNT * 3 // 4:
        forget_all(unit)
    slot = ((<u64>did << 22 ^ <u64>pasid << 2 ^ kind << 1 ^ privileged) * <u64>0x9E3779B97F4A7C15) >> 48
    while True:
        tag = &unit.tags[slot]
        if tag.kind == 0:
            unit.tag_count += 1
            tag.did, tag.pasid, tag.kind, tag.privileged = did, pasid, kind, privileged
            return <u16>slot
        if tag.did == did and tag.pasid == pasid and tag.kind == kind and tag.privileged == privileged:
            return <u16>slot
        slot = (slot + 1) & (TAG_COUNT - 1)
