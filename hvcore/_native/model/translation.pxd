"""A model of a processor's address translation: TLBs of two levels, page-walk caches, and their nested counterparts.

Every access looks up the first-level TLB of its kind and page size, and fills it on a miss; a miss looks up and fills
the second level; a miss there is a walk. A walk looks up the page-walk caches from the lowest table upward, filling
those that miss, and reads the entries that are left. With a second dimension each table of the guest, and the result,
lies at a guest-physical address that is translated by a nested TLB or a nested walk, which has caches of its own.

The model is hardware, not software: it holds keys and no translations. See docs/models.md.
"""
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.model.frames cimport FRAME_TABLES, frame_of, frames_t
from hvcore._native.model.record cimport KIND_COUNT, KIND_FLUSH, KIND_INVALIDATE, columns_t
from hvcore._native.model.structure cimport EMPTY, KEY_ASID_SHIFT, KEY_PAGE_SHIFT, POLICY_SRRIP, structure_t
from hvcore._native.model.wide cimport clear, drop_key, drop_space, touch

cdef extern from *:
    bint likely(bint) noexcept nogil
    bint unlikely(bint) noexcept nogil

cdef enum:
    SIZES = 3                   # 4 KiB, 2 MiB (or 4 MiB), 1 GiB
    LEVELS = 6                  # tables are numbered 1 (page table) to 5 (PML5)
    ADDRESS_MASK = 0x01FFFFFFFFFFFFFF
    SIZE_UNUSED = 3             # in keys of page-walk caches


cdef struct outcome_t:
    u8 level                # 0: found in the first level, 1: in the second, 2: a walk
    u8 guest_references
    u16 nested_references
    u32 cycles


cdef struct dimension_t:
    structure_t* caches[LEVELS]     # by the table whose entry they hold: 2 is the PDE cache; NULL: none
    u32[LEVELS] latencies
    u64[LEVELS] references          # entries read, by table
    u32 levels
    u32 reference_latency
    u64 walks


cdef struct model_t:
    structure_t* first[4][SIZES]    # by kind and page size; NULL: there is none
    u32 first_latencies[4][SIZES]
    structure_t* second[4][SIZES]
    u32 second_latencies[4][SIZES]
    structure_t* nested_tlb[SIZES]  # by page size of the second dimension
    u32[SIZES] nested_tlb_latencies
    dimension_t guest
    dimension_t nested              # levels 0: there is none
    structure_t* structures         # all of them
    u32 structure_count
    u32 prefetch_pages              # how many pages behind one that was walked for are fetched too
    bint is_tagged                  # keys hold the address space; else a switch empties everything
    bint places_tables              # page sizes of tables follow `table_page_shift`, not the access
    u8 table_page_shift
    u8 page_shift                   # where the trace says nothing
    u8 nested_page_shift
    u16 asid
    frames_t frames
    # What happened beside the structures:
    u64 accesses[KIND_COUNT][SIZES]
    u64 walks
    u64 prefetch_walks
    u64 prefetch_references
    u64 cycles_of_walks             # latencies of everything behind a miss of the first level


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
        if touch(d.caches[table], make_key(address >> (12 + 9 * (table - 1)), asid, SIZE_UNUSED)):
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
    cdef u32 size = size_code(page_shift), top
    cdef structure_t* tlb = m.nested_tlb[size]
    if tlb != NULL:
        cycles[0] += m.nested_tlb_latencies[size]
        tlb.lookups += 1
        if touch(tlb, make_key(gpa >> page_shift, 0, size)):
            return 0
        tlb.misses += 1
    top = walk_entries(&m.nested, gpa, 0, size + 1, cycles)
    read_entries(&m.nested, top, size + 1, cycles)
    return top - size


cdef inline u64 table_gpa(model_t* m, u64 address, u16 asid, u32 table) noexcept nogil:
    """Guest-physical address of the entry of one table that a walk of `address` reads."""
    cdef u64 covered = address >> (12 + 9 * table)
    return frame_of(&m.frames, (covered << 16 | asid) << 3 | table, FRAME_TABLES, 12) \
        | (address >> (12 + 9 * (table - 1)) & 511) << 3


cdef inline u64 page_gpa(model_t* m, u64 address, u16 asid, u8 page_shift) noexcept nogil:
    """Guest-physical address that the page of `address` was handed."""
    return frame_of(&m.frames, (address >> page_shift << 16 | asid) << 3, size_code(page_shift), page_shift) \
        | (address & ((<u64>1 << page_shift) - 1))


cdef inline outcome_t walk_model(model_t* m, u64 address, u16 asid, u8 page_shift, u8 nested_page_shift,
                                 const u64* gpa) noexcept nogil:
    """A walk: references of both dimensions, and the cycles of everything that it looks up and reads."""
    cdef outcome_t result
    cdef u32 leaf = size_code(page_shift) + 1, top, table
    cdef u32 cycles = 0, nested = 0
    cdef u8 table_shift = m.table_page_shift if m.places_tables else nested_page_shift
    top = walk_entries(&m.guest, address, asid, leaf, &cycles)
    if m.nested.levels:
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


cdef inline void prefetch(model_t* m, structure_t* second, u64 page, u16 asid, u8 page_shift, u8 nested_page_shift,
                          const u64* gpa) noexcept nogil:
    """Bring the following pages into the second level. Their walks are counted apart from those of accesses."""
    cdef u64 next_page
    cdef outcome_t walked
    for next_page in range(page + 1, page + 1 + m.prefetch_pages):
        if next_page << page_shift > <u64>ADDRESS_MASK:
            return
        if touch(second, make_key(next_page, asid, size_code(page_shift))):
            continue
        second.prefetches += 1
        walked = walk_model(m, next_page << page_shift, asid, page_shift, nested_page_shift, gpa)
        m.prefetch_walks += 1
        m.prefetch_references += walked.guest_references + walked.nested_references


cdef inline outcome_t miss(model_t* m, u64 key, u64 address, u16 asid, u8 kind, u8 page_shift, u8 nested_page_shift,
                           const u64* gpa) noexcept nogil:
    """What happens behind a miss of the first level."""
    cdef u32 size = size_code(page_shift)
    cdef structure_t* second = m.second[kind][size]
    cdef outcome_t result
    if second != NULL:
        second.lookups += 1
        if touch(second, key):
            result.level = 1
            result.guest_references = 0
            result.nested_references = 0
            result.cycles = m.second_latencies[kind][size]
            m.cycles_of_walks += result.cycles
            return result
        second.misses += 1
    result = walk_model(m, address, asid, page_shift, nested_page_shift, gpa)
    result.cycles += m.second_latencies[kind][size]
    m.walks += 1
    m.cycles_of_walks += result.cycles
    if m.prefetch_pages and second != NULL:
        prefetch(m, second, address >> page_shift, asid, page_shift, nested_page_shift, gpa)
    return result


cdef inline void flush_model(model_t* m) noexcept nogil:
    """Forget everything that the first dimension holds; the second knows nothing of address spaces."""
    cdef u32 i
    for i in range(m.structure_count):
        if not m.structures[i].is_nested:
            clear(&m.structures[i])


cdef inline void flush_space(model_t* m, u16 asid) noexcept nogil:
    """Forget one address space."""
    cdef u32 i
    if not m.is_tagged:
        flush_model(m)
        return
    for i in range(m.structure_count):
        if not m.structures[i].is_nested:
            drop_space(&m.structures[i], asid)


cdef inline void invalidate_model(model_t* m, u64 address, u16 asid) noexcept nogil:
    """INVLPG: the page's entries of every size, and all of the space that page-walk caches hold (SDM 3A 4.10.4.1)."""
    cdef u32 kind, size, table
    for kind in range(4):
        for size in range(SIZES):
            if m.first[kind][size] != NULL:
                drop_key(m.first[kind][size], make_key(address >> (12 + 9 * size), asid, size))
            if m.second[kind][size] != NULL:
                drop_key(m.second[kind][size], make_key(address >> (12 + 9 * size), asid, size))
    for table in range(LEVELS):
        if m.guest.caches[table] != NULL:
            drop_space(m.guest.caches[table], asid)


cdef inline void take_event(model_t* m, u8 kind, u64 address, u16 asid) noexcept nogil:
    """A record that is no access. A kind that nobody knows does nothing; it is counted with the invalidations."""
    if kind == KIND_FLUSH:
        flush_space(m, asid)
    elif kind == KIND_INVALIDATE:
        invalidate_model(m, address, asid)


cdef inline bint find_first(structure_t* first, u64 key) noexcept nogil:
    """Look up a first-level TLB for another key than last time."""
    first.last_key = key
    if touch(first, key):
        return True
    if first.policy == POLICY_SRRIP:
        first.last_key = <u64>EMPTY             # its next look-up is a hit that does change something
    first.misses += 1
    return False


cdef inline u8 known_shift(u8 page_shift, u8 usual) noexcept nogil:
    """A page size that exists, whatever a trace says; `usual` where it says nothing."""
    if page_shift == 0:
        return usual
    return 12 if page_shift < 21 else page_shift if page_shift <= 22 else 30


cdef inline void run_model(model_t* m, const columns_t* columns, u64 count, outcome_t* outcomes) noexcept nogil:
    """Feed `count` accesses. `outcomes`, unless NULL, gets one for each."""
    cdef columns_t at = columns[0]
    cdef u64 i, key, address, gpa
    cdef u32 size
    cdef u16 asid
    cdef u8 kind, page_shift
    cdef structure_t* first
    cdef outcome_t outcome
    for i in range(count):
        address = (<const u64*>at.address)[0] & <u64>ADDRESS_MASK
        asid = (<const u16*>at.asid)[0]
        kind = at.kind[0]
        page_shift = at.page_shift[0]
        if unlikely(page_shift != 12):
            page_shift = known_shift(page_shift, m.page_shift)
        if unlikely(asid != m.asid):
            if not m.is_tagged:
                flush_model(m)
            m.asid = asid
        if not m.is_tagged:
            asid = 0
        outcome = outcome_t(level=0, guest_references=0, nested_references=0, cycles=0)
        if likely(kind < KIND_FLUSH):
            size = size_code(page_shift)
            m.accesses[kind][size] += 1
            key = make_key(address >> page_shift, asid, size)
            first = m.first[kind][size]
            if first == NULL or (key != first.last_key and not find_first(first, key)):
                gpa = (<const u64*>at.gpa)[0] if at.gpa != NULL else 0
                outcome = miss(m, key, address, asid, kind, page_shift,
                               known_shift(at.nested_page_shift[0], m.nested_page_shift),
                               &gpa if at.gpa != NULL else NULL)
            outcome.cycles += m.first_latencies[kind][size]
        else:
            m.accesses[min(kind, <u8>KIND_INVALIDATE)][0] += 1
            take_event(m, kind, address, asid)
        if outcomes != NULL:
            outcomes[i] = outcome
        at.address += at.address_stride
        at.asid += at.asid_stride
        at.kind += at.kind_stride
        at.page_shift += at.page_shift_stride
        at.nested_page_shift += at.nested_page_shift_stride
        at.gpa += at.gpa_stride
