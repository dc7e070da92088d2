"""Walks of a modelled processor: page-walk caches from the lowest table upward, then the entries that are left, each
of which lies at a guest-physical address that a second dimension translates in the same way.

A page size whose table a walk of few levels has not got ends at its lowest table.
"""
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.model.frames cimport FRAME_TABLES, frame_of
from hvcore._native.model.state cimport LEVELS, SIZE_UNUSED, dimension_t, model_t, outcome_t
from hvcore._native.model.structure cimport KEY_ASID_SHIFT, KEY_PAGE_SHIFT, structure_t


cdef inline u32 size_code(u8 page_shift) noexcept nogil:
    return (page_shift >= 21) + (page_shift >= 30)


cdef inline u64 make_key(u64 page, u16 asid, u32 size) noexcept nogil:
    return page << KEY_PAGE_SHIFT | <u64>asid << KEY_ASID_SHIFT | size


cdef inline u32 walk_entries(dimension_t* d, u64 address, u16 asid, u32 leaf, u32* cycles) noexcept nogil:
    """Look up the page-walk caches of one dimension. Returns the highest table that must be read; `leaf` is the last.

    The cache of table n holds entries of table n, each of which covers 12 + 9 * (n - 1) bits of address."""
    cdef u32 table
    d.walks += 1
    for table in range(leaf + 1, d.levels + 1):
        if d.caches[table] == NULL:
            continue
        cycles[0] += d.latencies[table]
        d.caches[table].lookups += 1
        if d.caches[table].touch(d.caches[table], make_key(address >> (12 + 9 * (table - 1)), asid, SIZE_UNUSED)):
            return table - 1
        d.caches[table].misses += 1
    return d.levels


cdef inline void read_entries(dimension_t* d, u32 top, u32 leaf, u32* cycles) noexcept nogil:
    cdef u32 table
    for table in range(leaf, top + 1):
        d.references[table] += 1
    cycles[0] += (top - leaf + 1) * d.reference_latency


cdef inline u32 translate_nested(model_t* m, u64 gpa, u8 page_shift, u32* cycles) noexcept nogil:
    """Entries of the second dimension that one guest-physical address costs; zero for a hit of the nested TLB."""
    cdef u32 size = size_code(page_shift), leaf = min(size + 1, m.nested.levels), top
    cdef structure_t* tlb = m.nested_tlb[size]
    if tlb != NULL:
        cycles[0] += m.nested_tlb_latencies[size]
        tlb.lookups += 1
        if tlb.touch(tlb, make_key(gpa >> page_shift, 0, size)):
            return 0
        tlb.misses += 1
    top = walk_entries(&m.nested, gpa, 0, leaf, cycles)
    read_entries(&m.nested, top, leaf, cycles)
    return top - leaf + 1


cdef inline u64 table_gpa(model_t* m, u64 address, u16 asid, u32 table) noexcept nogil:
    """Guest-physical address of the entry of one table that a walk of `address` reads."""
    cdef u64 covered = address >> (12 + 9 * table)
    return frame_of(&m.frames, (covered << 16 | asid) << 3 | table, FRAME_TABLES, 12) \
        | (address >> (12 + 9 * (table - 1)) & 511) << 3


cdef inline u64 page_gpa(model_t* m, u64 address, u16 asid, u8 page_shift) noexcept nogil:
    """Guest-physical address that the page of `address` was handed."""
    cdef u32 size = size_code(page_shift)
    cdef u64 key = (address >> page_shift << 16 | asid) << 3 | (LEVELS - 1 + size if size else 0)
    return frame_of(&m.frames, key, size, page_shift) | (address & ((<u64>1 << page_shift) - 1))


cdef inline outcome_t walk_model(model_t* m, u64 address, u16 asid, u8 page_shift, u8 nested_page_shift,
                                 const u64* gpa, bint is_flat) noexcept nogil:
    """A walk: references of both dimensions, and the cycles of everything that it looks up and reads.
    `is_flat`, a constant: there is no second one."""
    cdef outcome_t result
    cdef u32 leaf = min(size_code(page_shift) + 1, m.guest.levels), top, table
    cdef u32 cycles = 0, nested = 0
    cdef u8 table_shift = m.table_page_shift if m.places_tables else nested_page_shift
    top = walk_entries(&m.guest, address, asid, leaf, &cycles)
    if not is_flat and m.nested.levels:
        table = top
        while table >= leaf:
            nested += translate_nested(m, table_gpa(m, address, asid, table), table_shift, &cycles)
            table -= 1
        nested += translate_nested(m, gpa[0] if gpa != NULL else page_gpa(m, address, asid, page_shift),
                                   nested_page_shift, &cycles)
    read_entries(&m.guest, top, leaf, &cycles)
    result.level = 2
    result.guest_references = <u8>(top - leaf + 1)
    result.nested_references = <u16>nested
    result.cycles = cycles
    return result
