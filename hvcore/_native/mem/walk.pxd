"""One translation from end to end: GVA -> GPA -> SPA, or GVA -> SPA without a second level (SDM 3A 4.5-4.7; TLFS 11).

    63      57 56   48 47   39 38   30 29   21 20   12 11        0
    | sign ... | level5 | level4 | level3 | level2 | level1 |  offset  |     nine bits select one of 512 entries

A walk whose tables lie in a GPA space translates the address of each entry, and its result: with g entries of the
guest's tables and h of the second level's, (g + 1) * (h + 1) - 1 references. Accessed and dirty bits are set when the
access is granted, never for one that faults.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.mem.descend cimport (
    MARK_ACCESSED, MARK_DIRTY, MARK_NONE, WALK_BEYOND, WALK_CHANGED, WALK_NESTED, WALK_NOT_CANONICAL,
    WALK_NOT_PRESENT, WALK_OK, WALK_RESERVED, WALK_RIGHTS, WALK_TABLE, Mark, WalkStatus, cached_p, cached_translate,
    descend, descend_marking, descent_t, lacks_marks, memory_p, space_of, space_translate, tables_t,
)
from hvcore._native.mem.entry cimport page_address
from hvcore._native.mem.format cimport (
    RIGHT_ALL, RIGHT_EXECUTE, RIGHT_READ, RIGHT_USER, RIGHT_USER_EXECUTE, RIGHT_WRITE, page_format_t, path_rights,
)
from hvcore._native.mem.ram cimport PAGE_SHIFT
from hvcore._native.mem.request cimport (
    KEY_SHIFT, PF_KEY, PF_PRESENT, PF_RESERVED, fault_code, is_canonical_in, key_denies, linear_address, need_t,
    needs_of, walk_request_t,
)
from hvcore._native.mem.second_level cimport SECOND_OK, SecondLevelStatus, second_level_t, table_access
from cython cimport unlikely

cdef enum:
    ENTRY_GLOBAL = 1 << 8


cdef struct walk_t:
    WalkStatus status
    SecondLevelStatus nested_status
    u32 error_code          # of the page fault, for NOT_PRESENT, RIGHTS and RESERVED
    u8 rights               # of the path, RIGHT_ bits
    u8 key                  # protection key of the page
    u8 page_shift
    u8 nested_page_shift
    u8 references           # entries of this dimension that were read
    u8 nested_references    # second-level entries that were read for it
    u8 nested_rights        # of the final page at the second level; of the entry's page for TABLE
    u8 nested_access        # what was asked of the second level last
    bint is_global          # the page is in every PCID
    bint overlay            # the final page is an overlay
    u64 address             # where the walk ended: GPA (or SPA, for a flat walk)
    u64 spa


cdef inline u8 nested_access(u64 access, u8 rights) noexcept nogil:
    """What an access to a page needs of the second level: fetches by the mode of the address, not of the processor."""
    cdef u8 need = <u8>access & (RIGHT_READ | RIGHT_WRITE)
    if access & RIGHT_EXECUTE:
        need |= RIGHT_USER_EXECUTE if rights & RIGHT_USER else RIGHT_EXECUTE
    return need


cdef inline void walk_start(walk_t* found) noexcept nogil:
    found.status = WALK_OK
    found.nested_status = SECOND_OK
    found.error_code = 0
    found.rights = RIGHT_ALL
    found.key = 0
    found.page_shift = found.nested_page_shift = PAGE_SHIFT
    found.references = found.nested_references = 0
    found.nested_rights = RIGHT_ALL
    found.nested_access = 0
    found.is_global = found.overlay = False
    found.address = found.spa = 0


cdef inline WalkStatus grant(page_format_t form, const walk_request_t* request, u64 access, need_t need,
                             const descent_t* at, walk_t* found) noexcept nogil:
    """Whether the path allows the access."""
    cdef bint denied = False
    found.rights = path_rights(form, at.path)
    if form.levels >= 4 and request.user_keys | request.supervisor_keys:
        denied = key_denies(request, access, found.rights, at.entry)
    if unlikely(denied or at.path & need.examined != need.wanted):
        found.error_code = fault_code(request, access, PF_PRESENT | (PF_KEY if denied else 0))
        return WALK_RIGHTS
    return WALK_OK


cdef inline void walk_fails(const walk_request_t* request, u64 access, WalkStatus status, const descent_t* at,
                            walk_t* found) noexcept nogil:
    """Why there is no path."""
    found.status = status
    if status == WALK_TABLE:
        found.nested_status = at.where.status
        found.nested_rights = at.where.rights
        found.address = at.slot
    else:
        found.error_code = fault_code(request, access, PF_PRESENT | PF_RESERVED if status == WALK_RESERVED else 0)


cdef inline WalkStatus walk_judged(tables_t tables, page_format_t form, const walk_request_t* request, u64 access,
                                   need_t need, WalkStatus status, Mark mark, const descent_t* at,
                                   walk_t* found) noexcept nogil:
    """What a descent means for the access: the status, and all that `found` says of it but the address."""
    if mark == MARK_NONE:
        found.references = at.references
        found.nested_references = <u8>at.nested_references
    if unlikely(status != WALK_OK):
        if tables_t is not memory_p:
            found.nested_access = RIGHT_READ | RIGHT_WRITE if mark != MARK_NONE else table_access(space_of(tables))
        walk_fails(request, access, status, at, found)
        return status
    status = grant(form, request, access, need, at, found)
    found.status = status
    return status


cdef inline WalkStatus walk_mark(tables_t tables, page_format_t form, const walk_request_t* request, u64 access,
                                 need_t need, u64 table, u64 gva, descent_t* at, walk_t* found) noexcept nogil:
    """Set the marks of an access that was granted. What changes meanwhile is walked and judged anew."""
    cdef WalkStatus status
    cdef Mark wanted = MARK_DIRTY if access & RIGHT_WRITE else MARK_ACCESSED, mark = wanted
    while True:
        status = descend_marking(tables, form, table, request.reserved, request.split_reserved, gva, mark, True, at)
        if status == WALK_CHANGED:
            mark = MARK_NONE
            continue
        status = walk_judged(tables, form, request, access, need, status, mark, at, found)
        if status != WALK_OK or mark == wanted:
            return status
        mark = wanted


cdef inline WalkStatus walk_tables(tables_t tables, page_format_t form, const walk_request_t* request, u64 access,
                                   need_t need, u64 gva, walk_t* found) noexcept nogil:
    """The first level: `found.address`, rights and marks."""
    cdef descent_t at
    cdef WalkStatus status
    cdef u64 table = request.root
    if form.levels == 2 and form.entry_shift == 3:
        table = request.pdptes[(gva >> 30) & 3]
        if not table & 1:
            found.status = WALK_NOT_PRESENT
            found.error_code = fault_code(request, access, 0)
            return found.status
    table &= <u32>0xFFFFF000 if form.entry_shift == 2 else <u64>0x000FFFFFFFFFF000
    status = descend(tables, form, table, request.reserved, request.split_reserved, gva, request.set_marks, &at)
    status = walk_judged(tables, form, request, access, need, status, MARK_NONE, &at, found)
    if unlikely(status == WALK_OK and request.set_marks and lacks_marks(form, &at, access)):
        status = walk_mark(tables, form, request, access, need, table, gva, &at, found)
    if unlikely(status != WALK_OK):
        return status
    found.page_shift = at.shift
    found.key = (at.entry >> KEY_SHIFT) & 15 if form.levels >= 4 else 0
    found.is_global = at.entry & ENTRY_GLOBAL != 0
    found.address = page_address(form, at.shift, at.entry, gva)
    return WALK_OK


cdef inline void walk(tables_t tables, page_format_t form, const walk_request_t* request, u64 access, u64 gva,
                      walk_t* found) noexcept nogil:
    """Translate `gva` for `access` (see request.pxd). `tables` says where tables and result lie: system memory, or
    the GPA space of a partition."""
    walk_needing(tables, form, request, access, needs_of(form, request, access), gva, found)


cdef inline void walk_needing(tables_t tables, page_format_t form, const walk_request_t* request, u64 access,
                              need_t need, u64 gva, walk_t* found) noexcept nogil:
    """`walk` for those who know the access before the address: `need` is that of `access`."""
    if walk_to_gpa(tables, form, request, access, need, gva, found):
        walk_to_spa(tables, request, access, found)


cdef inline bint walk_to_gpa(tables_t tables, page_format_t form, const walk_request_t* request, u64 access,
                             need_t need, u64 gva, walk_t* found) noexcept nogil:
    """The first half: `found.address`, or False with everything said."""
    walk_start(found)
    gva = linear_address(request, access, gva)
    if unlikely(not is_canonical_in(gva, form.linear_bits)):
        found.status = WALK_NOT_CANONICAL
        return False
    if form.levels == 0:
        found.address = gva
        return True
    return walk_tables(tables, form, request, access, need, gva, found) == WALK_OK


cdef inline void walk_to_spa(tables_t tables, const walk_request_t* request, u64 access, walk_t* found) noexcept nogil:
    """The second half, from `found.address` on."""
    cdef second_level_t where
    if tables_t is not memory_p:
        found.nested_access = nested_access(access, found.rights)
        if tables_t is cached_p:
            where = cached_translate(tables, found.address, found.nested_access, request.set_marks)
        else:
            where = space_translate(space_of(tables), found.address, found.nested_access, request.set_marks)
        found.nested_references += where.references
        found.nested_status = where.status
        found.nested_page_shift = where.page_shift
        found.nested_rights = where.rights
        found.overlay = where.overlay
        found.spa = where.spa
        if unlikely(where.status != SECOND_OK):
            found.status = WALK_NESTED
    elif unlikely(found.address >= tables.size_bytes):
        found.status = WALK_BEYOND
    else:
        found.spa = found.address
