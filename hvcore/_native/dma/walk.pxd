"""One DMA address through the page tables of a context: first level, second level, both, or neither.

The steps down the tables are those of the processor's walker (mem/descend.pxd) with the formats of mem/format.pxd; what
they mean here, and how the faults are called, is VT-d's.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.cache cimport cache_fill, cache_find, cache_key
from hvcore._native.dma.spec cimport (
    ACCESS_PRIVILEGED, ACCESS_ZERO_LENGTH, CAP_ZLR, ECAP_SMPWC_SHIFT, REASON_BEYOND, REASON_CONTEXT_INVALID,
    REASON_ENTRY_RESERVED, REASON_ENTRY_UNREADABLE,
    REASON_FIRST_ABSENT, REASON_FIRST_BEYOND, REASON_FIRST_NO_READ, REASON_FIRST_NO_WRITE, REASON_FIRST_NOT_SNOOPED,
    REASON_FIRST_POINTER, REASON_FIRST_RESERVED, REASON_FIRST_TOP_NO_READ, REASON_FIRST_UNREADABLE,
    REASON_FIRST_UPDATE, REASON_NO_READ, REASON_NO_WRITE, REASON_OK, REASON_SECOND_ABSENT, REASON_SECOND_POINTER,
    REASON_SECOND_RESERVED, REASON_SECOND_UNREADABLE, REASON_SM_BEYOND, REASON_SM_NO_READ, REASON_SM_NO_WRITE,
    REASON_SM_NOT_CANONICAL, REASON_SM_USER,
)
from hvcore._native.dma.tables cimport second_limit
from hvcore._native.dma.state cimport CONTEXT_EAFE, CONTEXT_MARKS, CONTEXT_WPE, context_t, unit_t
from hvcore._native.mem.descend cimport cached_p, descend_marking, descend_one, remapped_p, remapped_translate
from hvcore._native.mem.descent cimport (
    MARK_ACCESSED, MARK_DIRTY, MARK_NONE, WALK_DEEPER, WALK_NOT_PRESENT, WALK_OK, WALK_RESERVED, WALK_RIGHTS,
    WALK_TABLE, Mark, WalkStatus, descent_t, lacks_marks,
)
from hvcore._native.mem.entry cimport page_address
from hvcore._native.mem.format cimport ENTRY_ADDRESS, LARGE_SHIFTS, RIGHT_READ, RIGHT_WRITE, page_format_t
from hvcore._native.mem.ram cimport PAGE_SHIFT
from hvcore._native.mem.request cimport is_canonical_in
from hvcore._native.mem.second_level cimport SECOND_OK, SECOND_RIGHTS, remapped_space_t, second_level_t
from cython cimport likely, unlikely

cdef enum:
    FIRST_WRITE = 2
    FIRST_USER = 4
    FIRST_EXTENDED_ACCESSED = 1 << 10

# Where the tables lie that are gone down: in the partition's memory, or behind the second level of a nested one.
ctypedef fused beneath_t:
    cached_p
    remapped_p


cdef struct dma_walk_t:
    u8 reason
    u8 rights                   # RIGHT_READ and RIGHT_WRITE that may be remembered
    u8 first_shift              # log2 of the page at each level; 0: there is no such level
    u8 second_shift
    u32 first_references
    u32 second_references
    u64 output                  # a GPA


cdef inline u8 resume(unit_t* unit, u32 tag, u64 iova, u8 levels, descent_t* at) noexcept nogil:
    """The level to go on from: below the deepest entry that a paging-structure cache has."""
    cdef u8 table
    cdef u64* known
    for table in range(2, levels + 1):
        known = cache_find(&unit.walks[table], cache_key(iova >> (PAGE_SHIFT + 9 * (table - 1)), tag, 0))
        if known != NULL:
            at.entry, at.path = known[0], known[1]
            return table - 1
    return levels


cdef inline void remember(unit_t* unit, u32 tag, u64 iova, u8 table, const descent_t* at) noexcept nogil:
    cdef u64* place
    if unit.walks[table].exists:
        place = cache_fill(&unit.walks[table], cache_key(iova >> (PAGE_SHIFT + 9 * (table - 1)), tag, 0))
        place[0], place[1] = at.entry, at.path


cdef inline WalkStatus go_down(beneath_t tables, page_format_t form, unit_t* unit, u32 tag, u64 top, u64 reserved,
                               u64 iova, bint remembers, u32* references, descent_t* at) noexcept nogil:
    """`descend`, by way of the paging-structure caches if there are any."""
    cdef u8 level = form.levels
    cdef u32 skipped
    cdef WalkStatus status
    at.path = <u64>-1
    at.nested_references = 0
    at.entry = top
    if remembers:
        level = resume(unit, tag, iova, form.levels, at)
    skipped = form.levels - level
    while True:
        status = descend_one(tables, form, level, at.entry & ENTRY_ADDRESS, reserved, 0, iova, MARK_NONE, True, at)
        if status != WALK_DEEPER:
            break
        if remembers:
            remember(unit, tag, iova, level, at)
        level -= 1
    references[0] = at.references - skipped
    return status


cdef inline u8 refused(const unit_t* unit, const context_t* context, u64 access, u64 rights) noexcept nogil:
    """Whether rights of the second level forbid an access. A read of no bytes needs none with ZLR."""
    if context.scalable and not rights & (RIGHT_READ | RIGHT_WRITE):
        return REASON_SECOND_ABSENT
    if access & RIGHT_WRITE and not rights & RIGHT_WRITE:
        return REASON_SM_NO_WRITE if context.scalable else REASON_NO_WRITE
    if access & RIGHT_READ and not rights & RIGHT_READ and not (
            access & ACCESS_ZERO_LENGTH and unit.cap & CAP_ZLR and rights & RIGHT_WRITE):
        return REASON_SM_NO_READ if context.scalable else REASON_NO_READ
    return REASON_OK


cdef inline u8 second_level_reason(const context_t* context, WalkStatus status, u64 access, bint top) noexcept nogil:
    """Why a second level has no page for an address; `top`: not even the first entry could be read."""
    if status == WALK_RESERVED:
        return REASON_SECOND_RESERVED if context.scalable else REASON_ENTRY_RESERVED
    if status == WALK_NOT_PRESENT:
        if context.scalable:
            return REASON_SECOND_ABSENT
        return REASON_NO_WRITE if access & RIGHT_WRITE else REASON_NO_READ
    if context.scalable:
        return REASON_SECOND_POINTER if top else REASON_SECOND_UNREADABLE
    return REASON_CONTEXT_INVALID if top else REASON_ENTRY_UNREADABLE


cdef inline void walk_second(unit_t* unit, const context_t* context, page_format_t form, u64 iova, u64 access,
                             bint remembers, dma_walk_t* found) noexcept nogil:
    """Second level alone."""
    cdef descent_t at
    cdef WalkStatus status
    cdef Mark mark
    if unlikely(iova >= second_limit(unit, context)):
        found.reason = REASON_SM_BEYOND if context.scalable else REASON_BEYOND
        return
    while True:
        status = go_down(<cached_p>&unit.view, form, unit, context.tag, context.second, unit.second_reserved, iova,
                         remembers, &found.second_references, &at)
        if unlikely(status != WALK_OK):
            found.reason = second_level_reason(context, status, access, at.references == 0)
            return
        found.reason = refused(unit, context, access, at.path)
        if unlikely(found.reason != REASON_OK):
            return
        if likely(not lacks_marks(form, &at, access)):
            break
        mark = MARK_DIRTY if access & RIGHT_WRITE else MARK_ACCESSED
        status = descend_marking(<cached_p>&unit.view, form, context.second, unit.second_reserved, 0, iova, mark, True,
                                 &at)
        if status == WALK_OK and refused(unit, context, access, at.path) == REASON_OK:
            at.entry |= form.dirty if mark == MARK_DIRTY else 0
            break
        if status == WALK_TABLE:
            found.reason = second_level_reason(context, status, access, False)
            return
        remembers = False                       # the tables changed meanwhile: all of it again, from memory
    found.second_shift = at.shift
    found.rights = <u8>at.path & (RIGHT_READ | RIGHT_WRITE)
    if form.dirty and not at.entry & form.dirty:
        found.rights &= ~RIGHT_WRITE            # the first write has a bit to set
    found.output = page_address(form, at.shift, at.entry, iova)


cdef inline u8 first_level_reason(const context_t* context, WalkStatus status, const remapped_space_t* second,
                                  const descent_t* at, bint marking) noexcept nogil:
    """Why a first level has no page for an address; `second`: NULL without one, else what it said last."""
    cdef u8 references = at.references
    if status == WALK_NOT_PRESENT:
        return REASON_FIRST_ABSENT
    if status == WALK_RESERVED:
        return REASON_FIRST_RESERVED
    if marking and (second == NULL or second.cause == WALK_OK):
        return REASON_FIRST_UPDATE
    if second == NULL:
        return REASON_FIRST_UNREADABLE if references else REASON_FIRST_POINTER
    if second.beyond:
        return REASON_FIRST_BEYOND
    if second.cause == WALK_RESERVED:
        return REASON_SECOND_RESERVED
    if second.cause == WALK_NOT_PRESENT or (second.cause == WALK_RIGHTS
                                            and not at.where.rights & (RIGHT_READ | RIGHT_WRITE)):
        return REASON_SECOND_ABSENT
    if second.cause == WALK_RIGHTS:
        if at.where.rights & RIGHT_READ:
            return REASON_FIRST_NO_WRITE
        return REASON_FIRST_NO_READ if references else REASON_FIRST_TOP_NO_READ
    if second.cause == WALK_OK:
        return REASON_FIRST_UNREADABLE if references else REASON_FIRST_POINTER
    return REASON_SECOND_UNREADABLE if at.where.references else REASON_SECOND_POINTER


cdef inline u8 first_refused(const context_t* context, u64 access, u64 path) noexcept nogil:
    """Rights of the first level: requests are those of a user unless they are privileged."""
    if not access & ACCESS_PRIVILEGED and not path & FIRST_USER:
        return REASON_SM_USER
    if access & RIGHT_WRITE and not path & FIRST_WRITE and not (
            access & ACCESS_PRIVILEGED and not context.flags & CONTEXT_WPE):
        return REASON_SM_NO_WRITE
    return REASON_OK


cdef inline void walk_first(beneath_t tables, unit_t* unit, const context_t* context, page_format_t form, u64 iova,
                            u64 access, bint remembers, dma_walk_t* found) noexcept nogil:
    """First level, and through `tables` what may be beneath it. The output is what the first level says."""
    cdef page_format_t marked = form
    cdef descent_t at
    cdef WalkStatus status
    cdef Mark mark
    cdef const remapped_space_t* second = NULL
    if beneath_t is remapped_p:
        second = tables
    if unlikely(not is_canonical_in(iova, form.linear_bits)):
        found.reason = REASON_SM_NOT_CANONICAL
        return
    while True:
        status = go_down(tables, form, unit, context.tag, context.first, unit.first_reserved, iova, remembers,
                         &found.first_references, &at)
        if beneath_t is remapped_p:
            found.second_references = at.nested_references
        if unlikely(status != WALK_OK):
            found.reason = first_level_reason(context, status, second, &at, False)
            return
        found.reason = first_refused(context, access, at.path)
        if unlikely(found.reason != REASON_OK):
            return
        if likely(not lacks_marks(form, &at, access)
                  and (not context.flags & CONTEXT_EAFE or at.path & FIRST_EXTENDED_ACCESSED)):
            break
        if unlikely(not unit.ecap >> ECAP_SMPWC_SHIFT & 1):
            found.reason = REASON_FIRST_NOT_SNOOPED
            return
        if context.flags & CONTEXT_EAFE:
            marked.accessed |= FIRST_EXTENDED_ACCESSED
        mark = MARK_DIRTY if access & RIGHT_WRITE else MARK_ACCESSED
        status = descend_marking(tables, marked, context.first, unit.first_reserved, 0, iova, mark, True, &at)
        if status == WALK_OK and first_refused(context, access, at.path) == REASON_OK:
            at.entry |= form.dirty if mark == MARK_DIRTY else 0
            break
        if status == WALK_TABLE:
            found.reason = first_level_reason(context, status, second, &at, True)
            return
        remembers = False
    found.first_shift = at.shift
    found.rights = RIGHT_READ
    if first_refused(context, access | RIGHT_WRITE, at.path) == REASON_OK and at.entry & form.dirty:
        found.rights |= RIGHT_WRITE
    found.output = page_address(form, at.shift, at.entry, iova)


cdef inline void second_of(unit_t* unit, const context_t* context, remapped_space_t* second) noexcept nogil:
    """The second level of a nested context as the walker wants it."""
    second.view = &unit.view
    second.root = context.second
    second.limit = second_limit(unit, context)
    second.reserved = unit.second_reserved
    second.large_shifts = unit.second_large
    second.levels = context.second_levels
    second.marks = context.flags & CONTEXT_MARKS != 0
    second.plain = second.levels == 4 and not second.marks and second.large_shifts == LARGE_SHIFTS
    second.cause = WALK_OK
    second.beyond = False
    second.output = 0


cdef inline void finish_nested(unit_t* unit, const context_t* context, remapped_space_t* second, u64 access,
                               dma_walk_t* found) noexcept nogil:
    """The result of a first level through the second."""
    cdef u8 needed = <u8>access & (RIGHT_READ | RIGHT_WRITE)
    cdef second_level_t where
    if access & ACCESS_ZERO_LENGTH and unit.cap & CAP_ZLR:
        needed &= ~RIGHT_READ
    where = remapped_translate(second, found.output, needed, True)
    found.second_references += where.references
    if second.cause == WALK_OK and not second.beyond and refused(unit, context, access, where.rights) != REASON_OK:
        second.cause = WALK_RIGHTS              # a read of no bytes, where there is no right at all
        where.status = SECOND_RIGHTS
    found.second_shift = where.page_shift
    if where.status != SECOND_OK and second.cause != WALK_OK or second.beyond:
        found.reason = REASON_FIRST_BEYOND if second.beyond else (
            refused(unit, context, access, where.rights) if second.cause == WALK_RIGHTS else
            second_level_reason(context, <WalkStatus>second.cause, access, where.references == 0))
        return
    # Where the second level keeps marks, a write has bits to set that a read has left alone.
    found.rights &= where.rights if not (second.marks and not access & RIGHT_WRITE) else where.rights & ~RIGHT_WRITE
    found.output = second.output
