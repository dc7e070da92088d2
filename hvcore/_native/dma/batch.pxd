"""Many DMA addresses of one source in one call, and copies between a device's buffer and memory."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.cache cimport cache_key, cache_peek
from hvcore._native.dma.faults cimport register_at
from hvcore._native.dma.memory cimport view_refresh
from hvcore._native.dma.spec cimport (
    ACCESS_PRIVILEGED, CAP_CM, DMA_OK, GLOBAL_TE, NO_PASID, REASON_OK, REG_GSTS, TYPE_PASS,
)
from hvcore._native.dma.state cimport CONTEXT_PRIVILEGED, context_t, unit_t
from hvcore._native.dma.translate cimport (
    FOUND_FIRST_SHIFT, FOUND_RIGHTS, FOUND_SECOND_SHIFT, FOUND_SHIFT_MASK, dma_request, dma_t, iotlb_find, is_interrupt,
    shift_of_code,
)
from hvcore._native.mem.descend cimport cached_translate
from hvcore._native.mem.format cimport ENTRY_ADDRESS, RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE, ram_at, ram_written
from hvcore._native.mem.second_level cimport SECOND_OK, second_level_t
from cython cimport likely, unlikely
from libc.string cimport memcpy, memset


# Where results go; NULL: not asked for.
cdef struct dma_columns_t:
    u64* gpa
    u64* spa
    u8* page_shift
    u8* nested_page_shift
    u8* status
    u8* reason
    u8* table_references
    u8* references
    u8* nested_references


# Who asks, and what a batch may know of it beforehand.
cdef struct requester_t:
    u32 source
    u32 pasid
    u32 at
    u64 access
    context_t context
    bint known                      # `context` is what the caches hold: it stays so as long as nothing misses
    bint by_pasid                   # a hit counts in the PASID cache too


cdef inline void requester_learn(unit_t* unit, requester_t* who) noexcept nogil:
    """Take the context out of the caches, if it is there and of a kind that the IOTLB alone can serve."""
    cdef u64* found
    who.known = False
    if not register_at(unit, REG_GSTS)[0] & <u32>GLOBAL_TE or not unit.iotlb.exists or who.at:
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
    unit.iotlb.lookups += 1
    unit.contexts.lookups += 1
    unit.pasids.lookups += who.by_pasid
    unit.counters.requests += 1
    unit.counters.translated += 1
    return True


cdef inline void translate_for(unit_t* unit, requester_t* who, u64 iova, dma_t* done) noexcept nogil:
    """One element of a batch."""
    if likely(who.known and translate_quickly(unit, who, iova, done)):
        return
    dma_request(unit, who.source, who.pasid, iova, who.access, who.at, done)
    if not who.known:
        requester_learn(unit, who)


cdef inline void store_columns(const dma_columns_t* out, u64 i, const dma_t* done) noexcept nogil:
    if out.gpa != NULL:
        out.gpa[i] = done.output
    if out.spa != NULL:
        out.spa[i] = done.spa
    if out.page_shift != NULL:
        out.page_shift[i] = done.first_shift
    if out.nested_page_shift != NULL:
        out.nested_page_shift[i] = done.second_shift
    if out.status != NULL:
        out.status[i] = done.status
    if out.reason != NULL:
        out.reason[i] = done.reason
    if out.table_references != NULL:
        out.table_references[i] = done.table_references
    if out.references != NULL:
        out.references[i] = done.first_references
    if out.nested_references != NULL:
        out.nested_references[i] = done.second_references


cdef inline void requester_start(unit_t* unit, requester_t* who, u64 requests) noexcept nogil:
    view_refresh(unit, requests)
    requester_learn(unit, who)


cdef inline void translate_all(unit_t* unit, requester_t* who, const u64* iovas, u64 count,
                               const dma_columns_t* out) noexcept nogil:
    cdef dma_columns_t columns = out[0]
    cdef dma_t done
    cdef u64 i
    requester_start(unit, who, count)
    for i in range(count):
        translate_for(unit, who, iovas[i], &done)
        store_columns(&columns, i, &done)


cdef inline u64 copy_piece(unit_t* unit, requester_t* who, u64 iova, u8* data, u64 size_bytes) noexcept nogil:
    """Within one page of 4 KiB: how many bytes were copied. A refused read is answered with all ones."""
    cdef dma_t done
    translate_for(unit, who, iova, &done)
    if unlikely(done.status != DMA_OK):
        if not who.access & RIGHT_WRITE:
            memset(data, 0xFF, size_bytes)
        return 0
    if who.access & RIGHT_WRITE:
        memcpy(ram_at(unit.ram, done.spa), data, size_bytes)
        ram_written(unit.ram, done.spa, size_bytes)
    else:
        memcpy(data, ram_at(unit.ram, done.spa), size_bytes)
    return size_bytes


cdef inline u64 copy_run(unit_t* unit, requester_t* who, u64 iova, u8* data, u64 size_bytes) noexcept nogil:
    """Any length, a request for each page. How many bytes were copied."""
    cdef u64 copied = 0, piece
    while size_bytes:
        piece = min(size_bytes, PAGE_SIZE - (iova & PAGE_OFFSET_MASK))
        copied += copy_piece(unit, who, iova, data, piece)
        iova += piece
        data += piece
        size_bytes -= piece
    return copied


cdef inline u64 copy_all(unit_t* unit, requester_t* who, const u64* iovas, u64 count, u8* data,
                         u64 size_bytes) noexcept nogil:
    """`size_bytes` for each address, one behind the other in `data`. How many bytes were copied."""
    cdef u64 i, copied = 0
    requester_start(unit, who, count)
    for i in range(count):
        copied += copy_run(unit, who, iovas[i], data + i * size_bytes, size_bytes)
    return copied
