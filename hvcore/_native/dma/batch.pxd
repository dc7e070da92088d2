"""Many DMA addresses of one source in one call.

Requests are served in their order, each as if it came alone. Those that the IOTLB has nothing for are looked up ahead,
a block at a time (flight.pxd): what that finds is used as long as no table that it read can have changed since.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.cache cimport cache_has, cache_key, cache_peek
from hvcore._native.dma.columns cimport clear_columns, dma_columns_t, store_columns
from hvcore._native.dma.faults cimport register_at
from hvcore._native.dma.flight cimport LANES, NO_LANE, SEEN, STAMPS, can_fly, flight_t
from hvcore._native.dma.hits cimport take_hits
from hvcore._native.dma.memory cimport view_refresh
from hvcore._native.dma.spec cimport ACCESS_PRIVILEGED, DMA_OK, GLOBAL_TE, NO_PASID, REASON_OK, REG_GSTS, TYPE_PASS
from hvcore._native.dma.state cimport CONTEXT_PRIVILEGED, context_t, unit_t
from hvcore._native.dma.translate cimport (
    FOUND_FIRST_SHIFT, FOUND_RIGHTS, FOUND_SECOND_SHIFT, FOUND_SHIFT_MASK, dma_t, iotlb_find, is_interrupt,
    shift_of_code,
)
from hvcore._native.mem.descend cimport cached_translate
from hvcore._native.mem.format cimport ENTRY_ADDRESS, RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT
from hvcore._native.mem.second_level cimport SECOND_OK, second_level_t
from cython cimport likely, unlikely
from libc.string cimport memcpy, memset

cdef enum:
    WORTH_A_FLIGHT = 4              # requests
    SHORTEST_WAIT = 8               # requests that are served alone after a lane that had to be given up ...
    LONGEST_WAIT = 512              # ... twice as many each time that it happens again


# dma_request, out of line: the walks in it are large.
ctypedef void (*request_t)(unit_t* unit, u32 source, u32 pasid, u64 iova, u64 access, u32 at,
                          const context_t* known, dma_t* done) noexcept nogil


# `fly` and `land` of flight.pxd likewise.
ctypedef void (*fly_t)(unit_t* unit, const context_t* context, u64 access, flight_t* flight) noexcept nogil
ctypedef bint (*land_t)(unit_t* unit, const context_t* context, const flight_t* flight, u32 lane, u64 iova,
                        bint remembers, dma_t* done) noexcept nogil


# Who asks, and what a batch may know of it beforehand.
cdef struct requester_t:
    request_t request
    fly_t fly
    land_t land
    u32 source
    u32 pasid
    u32 at
    u64 access
    context_t context
    bint known                      # `context` is what the caches hold: it stays so as long as nothing misses
    bint by_pasid                   # a hit counts in the PASID cache too
    bint flies                      # misses of this context are looked up ahead
    bint remembers                  # there is a paging-structure cache
    u32 alone                       # requests to be served without looking ahead
    u32 wait                        # how many that will be the next time


cdef inline void requester_learn(unit_t* unit, requester_t* who) noexcept nogil:
    """Take the context out of the caches, if it is there and of a kind that the IOTLB alone can serve."""
    cdef u64* found
    who.known = who.flies = False
    if not register_at(unit, REG_GSTS)[0] & <u32>GLOBAL_TE or who.at:
        return
    found = cache_peek(&unit.contexts, cache_key(who.source, 0, 0))
    if found == NULL:
        return
    memcpy(&who.context, found, sizeof(context_t))
    who.by_pasid = who.context.scalable
    if who.context.scalable:
        if who.pasid != NO_PASID or who.context.reason or who.context.flags & CONTEXT_PRIVILEGED:
            return
        found = cache_peek(&unit.pasids, cache_key(who.context.rid_pasid, who.source, 0))
        if found == NULL:
            return
        memcpy(&who.context, found, sizeof(context_t))
    who.known = (who.context.reason == REASON_OK and who.context.kind != TYPE_PASS
                 and not who.access & ACCESS_PRIVILEGED and (who.context.scalable or who.pasid == NO_PASID))
    who.flies = who.known and can_fly(unit, &who.context, who.access)


cdef inline u64 quick_entry(unit_t* unit, const requester_t* who, u64 iova, u32* size) noexcept nogil:
    """The IOTLB's entry if it grants the access, else 0."""
    cdef u64* found
    if unit.iotlb_sizes == 1 and unit.iotlb.structure == NULL:
        # What is most common, without a loop: pages of 4 KiB, one way.
        size[0] = 0
        if unit.iotlb.keys[iova >> PAGE_SHIFT & unit.iotlb.mask] != cache_key(iova >> PAGE_SHIFT, who.context.tag, 0):
            return 0
        found = unit.iotlb.words + (iova >> PAGE_SHIFT & unit.iotlb.mask)
    else:
        found = iotlb_find(unit, who.context.tag, iova, size)
        if found == NULL:
            return 0
    return found[0] if found[0] & FOUND_RIGHTS & who.access == who.access & FOUND_RIGHTS else 0


cdef inline void count_hits(unit_t* unit, const requester_t* who, u64 hits) noexcept nogil:
    unit.iotlb.lookups += hits
    unit.contexts.lookups += hits
    unit.pasids.lookups += hits * who.by_pasid
    unit.counters.requests += hits
    unit.counters.translated += hits


cdef inline bint translate_quickly(unit_t* unit, const requester_t* who, u64 iova, dma_t* done) noexcept nogil:
    """A request that the IOTLB can answer, counted as such."""
    cdef u32 size
    cdef u64 entry = quick_entry(unit, who, iova, &size)
    cdef second_level_t where
    if entry == 0 or is_interrupt(iova):
        return False
    done.output = entry & ENTRY_ADDRESS | iova & ((<u64>1 << (PAGE_SHIFT + 9 * size)) - 1)
    where = cached_translate(&unit.view, done.output, <u8>who.access & (RIGHT_READ | RIGHT_WRITE), True)
    if unlikely(where.status != SECOND_OK or is_interrupt(done.output)):
        return False
    done.spa = where.spa
    done.first_shift = shift_of_code(entry >> FOUND_FIRST_SHIFT & FOUND_SHIFT_MASK)
    done.second_shift = shift_of_code(entry >> FOUND_SECOND_SHIFT & FOUND_SHIFT_MASK)
    done.status, done.reason = DMA_OK, REASON_OK
    done.table_references = done.first_references = done.second_references = 0
    count_hits(unit, who, 1)
    return True


cdef inline bint is_held(unit_t* unit, u32 tag, u64 iova) noexcept nogil:
    """Whether the IOTLB has something for an address; looking changes nothing."""
    cdef u32 code
    for code in range(3):
        if unit.iotlb_sizes >> code & 1 and cache_has(
                &unit.iotlb, cache_key(iova >> (PAGE_SHIFT + 9 * code), tag, code)):
            return True
    return False


cdef inline u32 look_ahead(unit_t* unit, requester_t* who, const u64* iovas, u64 count,
                           flight_t* flight) noexcept nogil:
    """Start on a block of requests; how many it has. `flight.lanes` 0: there is nothing to be looked up."""
    cdef u32 i, lanes = 0, block = <u32>min(count, <u64>LANES)
    cdef u64 page, previous = 1
    flight.lanes = 0
    if not who.flies or who.alone or block < WORTH_A_FLIGHT:
        if who.alone or not who.known:
            block = min(block, max(who.alone, <u32>1))
        who.alone -= min(block, who.alone)
        memset(flight.lane_of, NO_LANE, block)
        return block
    for i in range(block):
        page = iovas[i] & ~<u64>PAGE_OFFSET_MASK
        if page == previous:
            flight.lane_of[i] = flight.lane_of[i - 1]
            continue
        previous = page
        if unit.iotlb.exists and is_held(unit, who.context.tag, page):
            flight.lane_of[i] = NO_LANE
            continue
        flight.lane_of[i] = <u8>lanes
        flight.iova[lanes] = page
        lanes += 1
    if lanes:
        flight.lanes = lanes
        if flight.stamp == 0 or flight.stamp == STAMPS:
            memset(flight.seen, 0, SEEN)
            flight.stamp = 0
        flight.stamp += 1
        who.fly(unit, &who.context, who.access, flight)
    return block


cdef inline bint serve(unit_t* unit, requester_t* who, const flight_t* flight, u32 place, u64 iova,
                       dma_t* done) noexcept nogil:
    """Request number `place` of a block. False: what is known of those behind it may not be true any more."""
    cdef u32 lane = flight.lane_of[place], size
    if likely(who.known and unit.iotlb.exists and translate_quickly(unit, who, iova, done)):
        return True
    if likely(lane != NO_LANE and not (unit.iotlb.exists and quick_entry(unit, who, iova, &size))
              and who.land(unit, &who.context, flight, lane, iova, who.remembers, done)):
        return True
    who.request(unit, who.source, who.pasid, iova, who.access, who.at, &who.context if who.known else NULL, done)
    if not who.known:
        requester_learn(unit, who)
    if flight.lanes == 0:
        return True
    who.alone = who.wait
    who.wait = min(2 * who.wait, <u32>LONGEST_WAIT)
    return False


cdef inline void requester_start(unit_t* unit, requester_t* who, u64 requests) noexcept nogil:
    view_refresh(unit, requests)
    requester_learn(unit, who)
    who.remembers = (unit.walks[2].exists or unit.walks[3].exists or unit.walks[4].exists or unit.walks[5].exists)
    who.alone, who.wait = 0, SHORTEST_WAIT


cdef inline void translate_all(unit_t* unit, requester_t* who, const u64* iovas, u64 count,
                               const dma_columns_t* out) noexcept nogil:
    cdef dma_columns_t columns = out[0]
    cdef dma_t done
    cdef flight_t flight
    cdef u64 i = 0
    cdef u32 place, block
    cdef bint going, quick = out.spa != NULL and unit.iotlb.exists
    cdef u64 hits
    flight.stamp = 0
    requester_start(unit, who, count)
    if quick:
        clear_columns(out, count)
    while i < count:
        if quick and who.known:
            hits = take_hits(unit, who.context.tag, who.access & FOUND_RIGHTS, iovas, i, count, &columns)
            count_hits(unit, who, hits)
            i += hits
            if i == count:
                break
        block = look_ahead(unit, who, iovas + i, count - i, &flight)
        for place in range(block):
            going = serve(unit, who, &flight, place, iovas[i], &done)
            store_columns(&columns, i, &done)
            i += 1
            if unlikely(not going):
                break
        else:
            who.wait = SHORTEST_WAIT
