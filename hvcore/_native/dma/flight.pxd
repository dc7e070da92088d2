"""Walks in flight: many DMA addresses of one context go down its tables together, a level at a time.

One walk alone waits for each entry before it can ask for the next; side by side the waits overlap. Here are only the
tables that most have: four levels of the second level, alone or below four of the first, all in the part of memory
where a GPA is its own SPA. What an entry may be is asked of mem/entry.pxd, as the walker does. A lane in which anything
is out of the ordinary (a fault, a mark to set, a large page of the first level) is given up, and its request served by
dma_request. Nothing is counted or remembered until `land`, which comes in the order of the requests.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.cache cimport cache_key, cache_peek
from hvcore._native.dma.spec cimport CAP_CM, DMA_OK, REASON_OK, TYPE_NESTED, TYPE_SECOND
from hvcore._native.dma.state cimport CONTEXT_EAFE, CONTEXT_MARKS, context_t, unit_t
from hvcore._native.dma.translate cimport dma_t, iotlb_fill, is_interrupt
from hvcore._native.dma.walk cimport dma_walk_t, first_refused, remember, second_limit
from hvcore._native.mem.descent cimport descent_t
from hvcore._native.mem.entry cimport forbidden_bits, is_usable, maps_page, page_address
from hvcore._native.mem.format cimport (
    ENTRY_ADDRESS, LARGE_SHIFTS, RIGHT_READ, RIGHT_WRITE, long_mode_format, page_format_t, remapping_format,
)
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE
from hvcore._native.mem.request cimport is_canonical_in
from cython cimport unlikely

cdef enum:
    LANES = 32
    NO_LANE = 255
    SEEN = 1 << 14
    STAMPS = 255
    LEVELS = 4
    OUTPUT = 0                  # of `references`: those for what the first level says


cdef struct flight_t:
    u32 lanes
    u8 stamp
    u8 lane_of[LANES]           # by request; those of one page in a row share a lane
    u8 good[LANES]
    u8 shift[LANES]             # of the second level's page; 0: not found yet
    u64 iova[LANES]
    u64 gpa[LANES]              # what goes down the second level
    u64 table[LANES]            # where to read next; at the end the page of the result
    u64 rights[LANES]           # the second level's path
    u64 entries[LEVELS + 1][LANES]      # of the level that paging-structure caches hold, by table
    u64 paths[LEVELS + 2][LANES]        # the last: of no entry
    u8 references[LEVELS + 1][LANES]    # of the second level, for each entry of the first
    u8 allowed[LANES]           # rights to remember
    u8 seen[SEEN]               # by frame: `stamp` if tables that were read may lie there


# Where the lanes go down, in locals of each loop.
cdef struct beneath_t:
    const u8* host
    u64 same_from
    u64 room                    # of the identical range, less a page
    u64 root
    u64 limit
    u64 reserved


cdef inline bint lies_beneath(const unit_t* unit, u64 page) noexcept nogil:
    return page - unit.view.same_from <= unit.view.same_bytes - PAGE_SIZE


cdef inline bint can_fly(const unit_t* unit, const context_t* context, u64 access) noexcept nogil:
    """Whether requests of a context that is known may fly. Caching mode remembers refusals, and is left alone."""
    if (access & ~<u64>(RIGHT_READ | RIGHT_WRITE) or unit.cap & CAP_CM or unit.view.same_bytes < PAGE_SIZE
            or context.second_levels != LEVELS or context.flags & CONTEXT_MARKS or unit.second_large != LARGE_SHIFTS
            or not lies_beneath(unit, context.second)):
        return False
    if context.kind == TYPE_SECOND:
        return True
    return (context.kind == TYPE_NESTED and context.first_levels == LEVELS and unit.first_large == LARGE_SHIFTS
            and not context.flags & CONTEXT_EAFE)


cdef inline void step_second(const beneath_t* where, flight_t* f, u32 lanes, u8 level, bint keeps) noexcept nogil:
    """One level of the second level in all lanes; `level` and `keeps` (for the caches) are constants."""
    cdef page_format_t form = remapping_format(LEVELS, False, LARGE_SHIFTS)
    cdef beneath_t beneath = where[0]
    cdef u8 shift = PAGE_SHIFT + 9 * (level - 1), stamp = f.stamp
    cdef u64 entry, address, table, gpa, path
    cdef u32 j
    cdef bint leaf
    for j in range(lanes):
        if unlikely(level < LEVELS and f.shift[j]):
            continue
        gpa = f.gpa[j]
        table = f.table[j] if level < LEVELS else beneath.root
        entry = (<const u64*>(beneath.host + table + (gpa >> (shift - 3) & 0xFF8)))[0]
        if level < LEVELS:
            f.seen[table >> PAGE_SHIFT & (SEEN - 1)] = stamp
        leaf = maps_page(form, shift, entry)
        address = entry & ENTRY_ADDRESS
        if unlikely(level > 1 and leaf):
            address = page_address(form, shift, entry, gpa) & ~<u64>PAGE_OFFSET_MASK
        path = (f.rights[j] if level < LEVELS else <u64>-1) & entry
        if unlikely(not is_usable(form, entry) or entry & (beneath.reserved | forbidden_bits(form, leaf, shift, 0))
                    or address - beneath.same_from > beneath.room or (level == LEVELS and gpa >= beneath.limit)):
            f.good[j] = False
            address = beneath.root
        f.rights[j] = path
        f.table[j] = address
        if keeps and level > 1:
            f.entries[level][j], f.paths[level][j] = entry, path
        if level == LEVELS:
            f.shift[j] = 0
        elif leaf:
            f.shift[j] = shift


cdef inline void down_second(const beneath_t* beneath, flight_t* f, u32 lanes, bint keeps) noexcept nogil:
    """`gpa` of each lane to the page that it lies in, in `table`."""
    step_second(beneath, f, lanes, 4, keeps)
    step_second(beneath, f, lanes, 3, keeps)
    step_second(beneath, f, lanes, 2, keeps)
    step_second(beneath, f, lanes, 1, keeps)


cdef inline u8 second_references(u8 shift) noexcept nogil:
    return LEVELS - (shift - PAGE_SHIFT) // 9


cdef inline void step_first(const beneath_t* where, u64 reserved, flight_t* f, u32 lanes, u8 level) noexcept nogil:
    """Read the entries of one table of the first level, which the lanes have been brought to. Above the last table
    `forbidden_bits` has the bit of large pages."""
    cdef page_format_t form = long_mode_format(LEVELS)
    cdef const u8* host = where.host
    cdef u8 shift = PAGE_SHIFT + 9 * (level - 1), stamp = f.stamp
    cdef u64 entry
    cdef u32 j
    reserved |= forbidden_bits(form, level == 1, shift, 0)
    for j in range(lanes):
        entry = (<const u64*>(host + f.table[j] + (f.gpa[j] & 0xFF8)))[0]
        f.seen[f.table[j] >> PAGE_SHIFT & (SEEN - 1)] = stamp
        if unlikely(not is_usable(form, entry) or entry & reserved or not f.rights[j] & RIGHT_READ):
            f.good[j] = False
        f.entries[level][j] = entry
        f.paths[level][j] = f.paths[level + 1][j] & (entry ^ form.inverted)
        f.references[level][j] = second_references(f.shift[j])
        f.gpa[j] = entry & ENTRY_ADDRESS | (f.iova[j] >> (shift - 12) & 0xFF8 if level > 1 else 0)


cdef inline void down_both(const beneath_t* beneath, unit_t* unit, const context_t* context, flight_t* f, u32 lanes,
                           u64 access) noexcept nogil:
    cdef page_format_t form = long_mode_format(LEVELS)
    cdef u64 entry, path
    cdef u32 j
    cdef u8 level
    for j in range(lanes):
        f.gpa[j] = context.first + (f.iova[j] >> 36 & 0xFF8)
        f.paths[LEVELS + 1][j] = <u64>-1
        f.good[j] = is_canonical_in(f.iova[j], form.linear_bits)
    for level in range(LEVELS, -1, -1):
        down_second(beneath, f, lanes, False)
        if level != OUTPUT:
            step_first(beneath, unit.first_reserved, f, lanes, level)
    for j in range(lanes):
        entry, path = f.entries[1][j], f.paths[1][j]
        f.good[j] &= (first_refused(context, access, path) == REASON_OK and path & form.accessed != 0
                      and (not access & RIGHT_WRITE or entry & form.dirty != 0))
        f.allowed[j] = RIGHT_READ
        if first_refused(context, access | RIGHT_WRITE, path) == REASON_OK and entry & form.dirty:
            f.allowed[j] |= RIGHT_WRITE
        f.references[OUTPUT][j] = second_references(f.shift[j])


cdef inline void fly(unit_t* unit, const context_t* context, u64 access, flight_t* f) noexcept nogil:
    """All lanes from `iova` to their results."""
    cdef beneath_t beneath
    cdef u32 j, lanes = f.lanes
    beneath.host = unit.ram.host
    beneath.same_from, beneath.room = unit.view.same_from, unit.view.same_bytes - PAGE_SIZE
    beneath.root, beneath.limit, beneath.reserved = context.second, second_limit(unit, context), unit.second_reserved
    f.seen[beneath.root >> PAGE_SHIFT & (SEEN - 1)] = f.stamp
    if context.kind == TYPE_NESTED:
        down_both(&beneath, unit, context, f, lanes, access)
    else:
        for j in range(lanes):
            f.gpa[j] = f.iova[j]
            f.good[j] = True
            f.allowed[j] = RIGHT_READ | RIGHT_WRITE
        down_second(&beneath, f, lanes, True)
    for j in range(lanes):
        f.allowed[j] &= <u8>f.rights[j]
        f.good[j] &= (f.rights[j] & access == access and not is_interrupt(f.table[j]) and not is_interrupt(f.iova[j]))


cdef inline bint resume_lane(unit_t* unit, u32 tag, u64 iova, const flight_t* f, u32 lane, u8 last,
                             u8* first) noexcept nogil:
    """The table from which the walk goes on, by the paging-structure caches. False: one holds something else than its
    table says, so the walk is another one. Looking twice at what is there changes nothing, so nothing is lost then."""
    cdef u8 table
    cdef u64* known
    first[0] = LEVELS
    for table in range(2, LEVELS + 1):
        if not unit.walks[table].exists:
            continue
        known = cache_peek(&unit.walks[table], cache_key(iova >> (PAGE_SHIFT + 9 * (table - 1)), tag, 0))
        if known == NULL:
            continue
        if table <= last or known[0] != f.entries[table][lane] or known[1] != f.paths[table][lane]:
            return False
        first[0] = table - 1
        break
    for table in range(2, LEVELS + 1):
        if table > first[0] + 1:
            break
        unit.walks[table].lookups += unit.walks[table].exists
        unit.walks[table].misses += unit.walks[table].exists and table <= first[0]
    return True


cdef inline bint land(unit_t* unit, const context_t* context, const flight_t* f, u32 lane, u64 iova, bint remembers,
                      dma_t* done) noexcept nogil:
    """The request of a lane as dma_request would have served it, after the IOTLB had nothing for it; False: it has to.
    """
    cdef dma_walk_t found
    cdef descent_t at
    cdef u8 first = LEVELS, table, last = 1
    if unlikely(not f.good[lane]):
        return False
    found.first_references = found.second_references = 0
    if context.kind == TYPE_SECOND:
        last = <u8>(LEVELS + 1 - second_references(f.shift[lane]))
    if remembers:
        if not resume_lane(unit, context.tag, iova, f, lane, last, &first):
            return False
        for table in range(first, last, -1):
            at.entry, at.path = f.entries[table][lane], f.paths[table][lane]
            remember(unit, context.tag, iova, table, &at)
    found.reason = REASON_OK
    found.output = f.table[lane] | iova & PAGE_OFFSET_MASK
    found.rights = f.allowed[lane]
    found.second_shift = f.shift[lane]
    if context.kind == TYPE_SECOND:
        found.first_shift = 0
        found.second_references = first - last + 1
    else:
        found.first_shift = PAGE_SHIFT
        found.first_references = first
        found.second_references = f.references[OUTPUT][lane]
        for table in range(1, first + 1):
            found.second_references += f.references[table][lane]
    unit.counters.requests += 1
    unit.counters.translated += 1
    unit.counters.first_level_references += found.first_references
    unit.counters.second_level_references += found.second_references
    unit.contexts.lookups += 1
    unit.pasids.lookups += context.scalable
    if unit.iotlb.exists:
        unit.iotlb.lookups += 1
        unit.iotlb.misses += 1
        iotlb_fill(unit, context.tag, iova, 0, &found)
    done.status, done.reason = DMA_OK, REASON_OK
    done.first_shift, done.second_shift = found.first_shift, found.second_shift
    done.table_references = 0
    done.first_references, done.second_references = <u8>found.first_references, <u8>found.second_references
    done.output = done.spa = found.output
    return True
