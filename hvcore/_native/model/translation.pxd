"""A model of a processor's address translation: TLBs of two levels, page-walk caches, and their nested counterparts.

Every access looks up the first-level TLB of its kind and page size, and fills it on a miss; a miss looks up and fills
the second level; a miss there is a walk. A walk looks up the page-walk caches from the lowest table upward, filling
those that miss, and reads the entries that are left. With a second dimension each table of the guest, and the result,
lies at a guest-physical address that is translated by a nested TLB or a nested walk, which has caches of its own.

The model is hardware, not software: it holds keys and no translations. See docs/models.md.
"""
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.model.record cimport ASID_ALL, KIND_FLUSH, KIND_INVALIDATE, KIND_WORD_SHIFT, SELECTOR_MASK
from hvcore._native.model.state cimport (
    ADDRESS_MASK, GROUPS, LEVELS, NO_SELECTOR, SIZES, latest_t, model_t, outcome_t,
)
from hvcore._native.model.structure cimport POLICY_SRRIP, structure_t
from hvcore._native.model.walks cimport make_key, size_code, walk_model
from hvcore._native.model.wide cimport clear, drop_key, drop_space

cdef extern from *:
    bint likely(bint) noexcept nogil
    bint unlikely(bint) noexcept nogil


cdef inline void prefetch(model_t* m, structure_t* second, u64 page, u16 asid, u8 page_shift, u8 nested_page_shift,
                          const u64* gpa) noexcept nogil:
    """Bring the following pages into the second level. Their walks are counted apart from those of accesses."""
    cdef u64 next_page
    cdef outcome_t walked
    for next_page in range(page + 1, page + 1 + m.prefetch_pages):
        if next_page << page_shift > <u64>ADDRESS_MASK:
            return
        if second.touch(second, make_key(next_page, asid, size_code(page_shift))):
            continue
        second.prefetches += 1
        walked = walk_model(m, next_page << page_shift, asid, page_shift, nested_page_shift, gpa, False)
        m.prefetch_walks += 1
        m.prefetch_references += walked.guest_references + walked.nested_references


cdef inline outcome_t miss(model_t* m, u64 key, u64 address, u16 asid, u8 kind, u8 page_shift, u8 nested_page_shift,
                           const u64* gpa, bint is_flat) noexcept nogil:
    """What happens behind a miss of the first level."""
    cdef u32 size = size_code(page_shift)
    cdef structure_t* second = m.second[kind][size]
    cdef outcome_t result
    if second != NULL:
        second.lookups += 1
        if second.touch(second, key):
            result.level = 1
            result.guest_references = 0
            result.nested_references = 0
            result.cycles = m.second_latencies[kind][size]
            m.cycles_of_walks += result.cycles
            return result
        second.misses += 1
    result = walk_model(m, address, asid, page_shift, nested_page_shift, gpa, is_flat)
    result.cycles += m.second_latencies[kind][size]
    m.walks += 1
    m.cycles_of_walks += result.cycles
    if not is_flat and m.prefetch_pages and second != NULL:
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
        for size in range(<u32>SIZES):
            if m.first[kind][size] != NULL:
                drop_key(m.first[kind][size], make_key(address >> (12 + 9 * size), asid, size))
            if m.second[kind][size] != NULL:
                drop_key(m.second[kind][size], make_key(address >> (12 + 9 * size), asid, size))
    for table in range(<u32>LEVELS):
        if m.guest.caches[table] != NULL:
            drop_space(m.guest.caches[table], asid)


cdef inline u8 known_shift(u8 page_shift, u8 usual) noexcept nogil:
    """A page size that exists, whatever a trace says; `usual` where it says nothing."""
    if page_shift == 0:
        return usual
    return 12 if page_shift < 21 else page_shift if page_shift <= 22 else 30


cdef inline void forget_latest(model_t* m) noexcept nogil:
    cdef u32 group
    for group in range(<u32>GROUPS):
        m.latest[group].selector = <u64>NO_SELECTOR


cdef inline void spend_tally(model_t* m) noexcept nogil:
    """Count what was tallied, with the page sizes that are the latest."""
    cdef u32 kind
    for kind in range(4):
        m.accesses[kind][m.latest[m.groups[kind]].size] += m.tally >> 16 * kind & 0xFFFF
    m.tally = 0


cdef inline void set_latest(model_t* m, u32 group, u64 address, u64 word, u8 page_shift, u32 size) noexcept nogil:
    cdef latest_t* latest = &m.latest[group]
    cdef u32 other
    if size != latest.size:
        spend_tally(m)
        latest.size = size
    latest.offset_mask = (<u64>1 << page_shift) - 1
    latest.base = address & ~latest.offset_mask
    latest.selector = word & <u64>SELECTOR_MASK
    if m.groups_overlap:
        for other in range(<u32>GROUPS):
            if other != group:
                m.latest[other].selector = <u64>NO_SELECTOR


cdef inline void change_space(model_t* m, u16 asid) noexcept nogil:
    m.asid = asid
    if not m.is_tagged:
        flush_model(m)
        forget_latest(m)


cdef inline void take_event(model_t* m, u64 address, u64 word) noexcept nogil:
    """A record that is no access. A kind that nobody knows does nothing; it is counted with the invalidations. Of an
    untagged model's entries all are of the address space that it is in."""
    cdef u8 kind = kind_of(word)
    cdef u16 asid = <u16>(word >> 16)
    m.accesses[min(kind, <u8>KIND_INVALIDATE)][0] += 1
    if kind == KIND_FLUSH and asid == ASID_ALL:
        flush_model(m)
    elif m.is_tagged or asid == m.asid:
        if kind == KIND_FLUSH:
            flush_space(m, asid)
        elif kind == KIND_INVALIDATE:
            invalidate_model(m, address & <u64>ADDRESS_MASK, asid if m.is_tagged else 0)
    forget_latest(m)


cdef inline u8 kind_of(u64 word) noexcept nogil:
    return <u8>(word >> KIND_WORD_SHIFT)


cdef inline u8 page_shift_of(const model_t* m, u64 word) noexcept nogil:
    cdef u8 page_shift = <u8>(word >> 40)
    return page_shift if page_shift == 12 else known_shift(page_shift, m.page_shift)


cdef inline u16 asid_of(const model_t* m, u64 word) noexcept nogil:
    return <u16>(word >> 16) if m.is_tagged else 0


cdef inline bint take_record(model_t* m, u64 address, u64 word) noexcept nogil:
    """Any record that is not the same page again. True: done, a hit of the first level or no access; else
    `finish_miss` comes next."""
    cdef u8 kind = kind_of(word), page_shift
    cdef u32 size, group
    cdef structure_t* first
    if unlikely(kind >= KIND_FLUSH):
        take_event(m, address, word)
        return True
    if unlikely(<u16>(word >> 16) != m.asid):
        change_space(m, <u16>(word >> 16))
    page_shift = page_shift_of(m, word)
    size = size_code(page_shift)
    group = m.groups[kind]
    set_latest(m, group, address, word, page_shift, size)
    m.accesses[kind][size] += 1
    first = m.first[kind][size]
    if first != NULL:
        if first.touch(first, make_key((address & <u64>ADDRESS_MASK) >> page_shift, asid_of(m, word), size)):
            return True
        first.misses += 1
    if first == NULL or first.policy == POLICY_SRRIP:
        m.latest[group].selector = <u64>NO_SELECTOR         # the same page again does change something
    return False


cdef inline outcome_t finish_miss(model_t* m, u64 address, u64 word, const u64* gpa, bint is_flat) noexcept nogil:
    """What comes behind a miss of the first level. `is_flat`, a constant: no second dimension, no prefetching."""
    cdef u8 kind = kind_of(word), page_shift = page_shift_of(m, word)
    cdef u16 asid = asid_of(m, word)
    cdef u32 size = size_code(page_shift)
    cdef outcome_t outcome
    address &= <u64>ADDRESS_MASK
    outcome = miss(m, make_key(address >> page_shift, asid, size), address, asid, kind, page_shift,
                   known_shift(<u8>(word >> 48), m.nested_page_shift), gpa, is_flat)
    outcome.cycles += m.first_latencies[kind][size]
    return outcome


cdef inline outcome_t hit_outcome(const model_t* m, u64 word) noexcept nogil:
    """Of a record that is done."""
    cdef u8 kind = kind_of(word)
    return outcome_t(level=0, guest_references=0, nested_references=0,
                     cycles=m.first_latencies[kind][size_code(page_shift_of(m, word))] if kind < KIND_FLUSH else 0)


cdef inline bint is_latest(const model_t* m, u64 address, u64 word) noexcept nogil:
    """The page that the last access of this group went to, in the same address space: a hit that changes nothing."""
    cdef const latest_t* latest = &m.latest[m.groups[<u8>(word >> KIND_WORD_SHIFT)]]
    return (address ^ latest.base) <= latest.offset_mask and word & <u64>SELECTOR_MASK == latest.selector


cdef inline u64 weight_of(const model_t* m, u64 word) noexcept nogil:
    return m.weights[<u8>(word >> KIND_WORD_SHIFT)]
