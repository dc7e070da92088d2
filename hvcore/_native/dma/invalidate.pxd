"""Invalidation of what a unit remembers, by kind and granularity (VT-d: invalidation of translation caches).

A request that the unit cannot do as narrowly as it is asked is done more widely, and says so.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.dma.cache cimport cache_clear, cache_drop, cache_key_at, forget_translations, tag_of_key
from hvcore._native.dma.spec cimport (
    CAP_PSI_SHIFT, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_SELECTIVE, NO_PASID, TYPE_FIRST, TYPE_PASS,
)
from hvcore._native.dma.state cimport WALK_LEVELS, cache_t, context_t, tag_t, unit_t
from hvcore._native.mem.ram cimport PAGE_SHIFT
from hvcore._native.model.structure cimport EMPTY, KEY_PAGE_SHIFT

cdef enum:
    ALL_PAGES = 64                      # of a range's log2


# What is to go.
cdef struct victims_t:
    bint by_pasid                       # those of this PASID alone
    u16 did
    u32 pasid
    u64 address
    u8 shift                            # log2 of the range that starts there, aligned; ALL_PAGES: everything
    bint leaves_only                    # IH: paging-structure caches keep what the tables of the invalidation are


cdef inline u32 source_mask(u32 function_mask) noexcept nogil:
    """The bits of a source that FM leaves to be compared."""
    return 0xFFFF & ~(((<u32>1 << function_mask) - 1) << (3 - function_mask))


cdef inline void invalidate_contexts(unit_t* unit, u32 granularity, u32 did, u32 source,
                                     u32 function_mask) noexcept nogil:
    cdef u64 entry, key, width = unit.contexts.width
    cdef const context_t* context
    if not unit.contexts.exists:
        return
    if granularity == GRANULARITY_GLOBAL:
        cache_clear(&unit.contexts)
        return
    for entry in range(unit.contexts.entries):
        key = cache_key_at(&unit.contexts, entry)
        if key == <u64>EMPTY:
            continue
        context = <const context_t*>(unit.contexts.words + entry * width)
        # Contexts of scalable mode have no domain: their PASIDs have. A refused one has none that can be relied on.
        if not context.scalable and context.reason == 0 and context.did != did:
            continue
        if granularity == GRANULARITY_DOMAIN or not ((key >> KEY_PAGE_SHIFT) ^ source) & source_mask(function_mask):
            cache_drop(&unit.contexts, key)


cdef inline void invalidate_pasids(unit_t* unit, u32 granularity, u32 did, u32 pasid) noexcept nogil:
    """G of a PASID-cache descriptor: 0 of a domain, 1 of a PASID in it, 3 all."""
    cdef u64 entry, key, width = unit.pasids.width
    cdef const context_t* context
    if not unit.pasids.exists:
        return
    if granularity == 3:
        cache_clear(&unit.pasids)
        return
    for entry in range(unit.pasids.entries):
        key = cache_key_at(&unit.pasids, entry)
        if key == <u64>EMPTY:
            continue
        context = <const context_t*>(unit.pasids.words + entry * width)
        if (context.did == did or context.reason) and (granularity == 0 or key >> KEY_PAGE_SHIFT == pasid):
            cache_drop(&unit.pasids, key)


cdef inline bint is_victim(const unit_t* unit, const victims_t* victims, u64 key, u8 shift, bint kept) noexcept nogil:
    """Whether an entry that covers 1 << shift bytes has to go. `kept`: it is one that IH speaks of."""
    cdef const tag_t* tag = &unit.tags[tag_of_key(key)]
    cdef u64 covered = key >> KEY_PAGE_SHIFT << shift
    if tag.did != victims.did:
        return False
    if kept and (victims.by_pasid or not tag.kind & TYPE_FIRST or tag.kind == TYPE_PASS):
        return False
    if victims.by_pasid:
        # Second-level and pass-through translations have no PASID of their own: all of the domain go (table 24).
        if tag.pasid == NO_PASID:
            return victims.shift == ALL_PAGES
        if tag.pasid != victims.pasid:
            return False
    elif victims.shift != ALL_PAGES and tag.kind & TYPE_FIRST and tag.kind != TYPE_PASS:
        # An address of the second level: nothing is known of which addresses of a first level lead there (table 23).
        return True
    # Keys have 46 bits of a page number: addresses are compared as far as that.
    return victims.shift == ALL_PAGES or (
        ((covered ^ victims.address) << 7) >> 7 >> max(shift, victims.shift)) == 0


cdef inline void invalidate_cache(unit_t* unit, cache_t* cache, const victims_t* victims, u8 shift,
                                  bint by_size) noexcept nogil:
    """`shift`: what an entry covers; with `by_size` its key says how much more."""
    cdef u64 entry, key
    if not cache.exists:
        return
    for entry in range(cache.entries):
        key = cache_key_at(cache, entry)
        if key != <u64>EMPTY and is_victim(unit, victims, key, shift + (9 * (key & 3) if by_size else 0),
                                           victims.leaves_only and not by_size):
            cache_drop(cache, key)


cdef inline void invalidate_translations(unit_t* unit, const victims_t* victims) noexcept nogil:
    cdef u32 table
    invalidate_cache(unit, &unit.iotlb, victims, PAGE_SHIFT, True)
    for table in range(2, <u32>WALK_LEVELS):
        invalidate_cache(unit, &unit.walks[table], victims, PAGE_SHIFT + 9 * (table - 1), False)


cdef inline u32 invalidate_iotlb(unit_t* unit, u32 granularity, u32 did, u64 address, u32 mask,
                                 bint leaves_only) noexcept nogil:
    """IOTLB invalidation by domain; the granularity at which it was done."""
    cdef victims_t victims
    if granularity == GRANULARITY_GLOBAL:
        forget_translations(unit)
        return granularity
    if granularity == GRANULARITY_SELECTIVE and not unit.cap >> CAP_PSI_SHIFT & 1:
        granularity = GRANULARITY_DOMAIN
    victims.by_pasid = False
    victims.did, victims.pasid = <u16>did, NO_PASID
    victims.address = address
    victims.shift = <u8>min(PAGE_SHIFT + mask, <u32>63) if granularity == GRANULARITY_SELECTIVE else ALL_PAGES
    victims.leaves_only = leaves_only and granularity == GRANULARITY_SELECTIVE
    invalidate_translations(unit, &victims)
    return granularity


cdef inline void invalidate_pasid_iotlb(unit_t* unit, u32 granularity, u32 did, u32 pasid, u64 address, u32 mask,
                                        bint leaves_only) noexcept nogil:
    """PASID-based: 2 all of a PASID, 3 pages of it."""
    cdef victims_t victims
    victims.by_pasid = True
    victims.did, victims.pasid = <u16>did, pasid
    victims.address = address
    victims.shift = <u8>min(PAGE_SHIFT + mask, <u32>63) if granularity == GRANULARITY_SELECTIVE else ALL_PAGES
    victims.leaves_only = leaves_only and granularity == GRANULARITY_SELECTIVE
    invalidate_translations(unit, &victims)


cdef inline void invalidate_interrupts(unit_t* unit, bint by_index, u32 index, u32 mask) noexcept nogil:
    """The interrupt entry cache: all of it, or 2^mask entries."""
    cdef u64 entry, key
    if not unit.interrupts.exists:
        return
    if not by_index:
        cache_clear(&unit.interrupts)
        return
    for entry in range(unit.interrupts.entries):
        key = cache_key_at(&unit.interrupts, entry)
        if key != <u64>EMPTY and ((key >> KEY_PAGE_SHIFT) ^ index) >> mask == 0:
            cache_drop(&unit.interrupts, key)
