"""Requests in a row that the IOTLB has the answers for: what a batch mostly consists of, and nothing else.

All of it ends at the first request that needs more: one that misses, that is refused, whose GPA is not its own SPA.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.cache cimport cache_key
from hvcore._native.dma.columns cimport dma_columns_t
from hvcore._native.dma.state cimport unit_t
from hvcore._native.dma.translate cimport (
    FOUND_FIRST_SHIFT, FOUND_SECOND_SHIFT, FOUND_SHIFT_MASK, iotlb_find, is_interrupt, shift_of_code,
)
from hvcore._native.mem.format cimport ENTRY_ADDRESS
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT
from cython cimport likely, unlikely
from libc.string cimport memcpy, memset

cdef enum:
    HITS_AT_ONCE = 1024             # elements, whose columns stay in the host's cache meanwhile


cdef inline u64 places_of_hits(unit_t* unit, u32 tag, u64 access, const u64* iovas, u64 i, u64 end, u64* spa,
                               bint comparing, u64* differences) noexcept nogil:
    """Go on from element `i` in an IOTLB that is direct-mapped and has pages of 4 KiB alone; where it ends.

    `differences`: if `comparing`, in which bits the entries are unlike the first one."""
    cdef const u64* keys = unit.iotlb.keys
    cdef const u64* words = unit.iotlb.words
    cdef u64 mask = unit.iotlb.mask, tag_bits = cache_key(0, tag, 0)
    cdef u64 same_from = unit.view.same_from, same_bytes = unit.view.same_bytes, page, found, place
    cdef u64 first = words[iovas[i] >> PAGE_SHIFT & mask], unlike = 0
    while i < end:
        page = iovas[i] >> PAGE_SHIFT
        found = words[page & mask]
        if unlikely(keys[page & mask] != (cache_key(page, 0, 0) | tag_bits) or found & access != access):
            break
        place = found & ENTRY_ADDRESS | iovas[i] & PAGE_OFFSET_MASK
        if unlikely(place - same_from >= same_bytes):
            break
        spa[i] = place
        if comparing:
            unlike |= found ^ first
        i += 1
    differences[0] = unlike
    return i


cdef inline void store_shifts(u8* column, const unit_t* unit, const u64* iovas, u64 first, u64 end, u32 shift,
                              u64 differences) noexcept nogil:
    """The page sizes of hits, which stand from bit `shift` of their entries on."""
    cdef u64 i, mask = unit.iotlb.mask
    if column == NULL:
        return
    if likely(differences >> shift & FOUND_SHIFT_MASK == 0):
        i = unit.iotlb.words[iovas[first] >> PAGE_SHIFT & mask]
        memset(column + first, shift_of_code(i >> shift & FOUND_SHIFT_MASK), end - first)
        return
    for i in range(first, end):
        column[i] = shift_of_code(unit.iotlb.words[iovas[i] >> PAGE_SHIFT & mask] >> shift & FOUND_SHIFT_MASK)


cdef inline u64 direct_hits(unit_t* unit, u32 tag, u64 access, const u64* iovas, u64 first, u64 count,
                            const dma_columns_t* out, bint more) noexcept nogil:
    """`more`: other columns than the SPA and those that are zero for a hit."""
    cdef u64 begin, end = first, last = first, differences
    while end == last and end < count:
        begin, last = end, min(count, end + HITS_AT_ONCE)
        end = places_of_hits(unit, tag, access, iovas, begin, last, out.spa, more, &differences)
        if more and out.gpa != NULL:
            memcpy(out.gpa + begin, out.spa + begin, 8 * (end - begin))
        if more and end > begin:
            store_shifts(out.page_shift, unit, iovas, begin, end, FOUND_FIRST_SHIFT, differences)
            store_shifts(out.nested_page_shift, unit, iovas, begin, end, FOUND_SECOND_SHIFT, differences)
    return end


cdef inline u64 modelled_hits(unit_t* unit, u32 tag, u64 access, const u64* iovas, u64 i, u64 count,
                              const dma_columns_t* out) noexcept nogil:
    """Of any geometry and policy, with pages of any size."""
    cdef u64 same_from = unit.view.same_from, same_bytes = unit.view.same_bytes, entry, place
    cdef u64* found
    cdef u32 size
    while i < count:
        found = iotlb_find(unit, tag, iovas[i], &size)
        if unlikely(found == NULL or found[0] & access != access or is_interrupt(iovas[i])):
            break
        entry = found[0]
        place = entry & ENTRY_ADDRESS | iovas[i] & ((<u64>1 << (PAGE_SHIFT + 9 * size)) - 1)
        if unlikely(place - same_from >= same_bytes):
            break
        out.spa[i] = place
        if out.gpa != NULL:
            out.gpa[i] = place
        if out.page_shift != NULL:
            out.page_shift[i] = shift_of_code(entry >> FOUND_FIRST_SHIFT & FOUND_SHIFT_MASK)
        if out.nested_page_shift != NULL:
            out.nested_page_shift[i] = shift_of_code(entry >> FOUND_SECOND_SHIFT & FOUND_SHIFT_MASK)
        i += 1
    return i


cdef inline u64 take_hits(unit_t* unit, u32 tag, u64 access, const u64* iovas, u64 first, u64 count,
                          const dma_columns_t* out) noexcept nogil:
    """How many requests from `first` on were answered; they are not counted yet."""
    if unit.iotlb.structure != NULL or unit.iotlb_sizes != 1:
        return modelled_hits(unit, tag, access, iovas, first, count, out) - first
    if out.gpa != NULL or out.page_shift != NULL or out.nested_page_shift != NULL:
        return direct_hits(unit, tag, access, iovas, first, count, out, True) - first
    return direct_hits(unit, tag, access, iovas, first, count, out, False) - first
