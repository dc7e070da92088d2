"""The walker: down the tables of any format, one entry a level (SDM 3A 4.5.4, 3C 29.3.2).

`descend` is written once and compiled twice: for tables in system memory, and for tables in a GPA space, where the
address of each entry is translated by a descent of its own. Tables may hold anything: an entry outside memory is
never read, and no descent is longer than its format has levels.
"""
from hvcore._native.base.atomic cimport swap_u32, swap_u64
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.mem.format cimport (
    ENTRY_ADDRESS, RIGHT_READ, RIGHT_WRITE, page_format_t, path_rights, second_level_format,
)
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, ram_at, ram_t, ram_written
from hvcore._native.mem.second_level cimport (
    SECOND_MISCONFIGURED, SECOND_OK, SECOND_OVERLAY, SECOND_RIGHTS, SECOND_UNMAPPED, overlay_t, second_level_t,
    space_t, table_access,
)
from cython cimport unlikely

ctypedef ram_t* memory_p
ctypedef space_t* space_p

# Where tables lie: in system memory, or in the GPA space of a partition.
ctypedef fused tables_t:
    memory_p
    space_p

cdef enum WalkStatus:
    WALK_OK
    WALK_NOT_PRESENT        # an entry of this dimension is not present
    WALK_RIGHTS             # present, but the rights do not allow the access
    WALK_RESERVED           # a reserved bit is set in a present entry
    WALK_NOT_CANONICAL
    WALK_TABLE              # an entry could not be reached: see `nested_status`, `address` is its GPA
    WALK_NESTED             # translated, but the second level refuses: `address` is the GPA
    WALK_BEYOND             # without a second level: a table or the result lies outside system memory
    WALK_CHANGED            # never a result: an entry changed while it was marked, the walk starts again

cdef enum Mark:
    MARK_NONE
    MARK_ACCESSED           # every entry of the path
    MARK_DIRTY              # and the one that maps the page


cdef struct descent_t:
    u64 slot                # where the last entry lies, in the dimension of the tables
    u64 entry               # that entry
    u64 path                # the AND of all entries, `inverted` bits turned over
    u8 shift                # log2 of what that entry maps
    u8 references           # entries that were read
    u32 nested_references   # second-level entries that were read for them
    second_level_t where    # of the last entry


cdef inline u64 load_entry(const ram_t* ram, page_format_t form, u64 spa) noexcept nogil:
    if form.entry_shift == 2:
        return (<u32*>ram_at(ram, spa))[0]
    return (<u64*>ram_at(ram, spa))[0]


cdef inline bint mark_entry(ram_t* ram, page_format_t form, u64 spa, u64 entry, u64 marks) noexcept nogil:
    """Set marks in an entry that was read as `entry`; False: it is not that any more."""
    if form.entry_shift == 2:
        if not swap_u32(<u32*>ram_at(ram, spa), <u32>entry, <u32>(entry | marks)):
            return False
    elif not swap_u64(<u64*>ram_at(ram, spa), entry, entry | marks):
        return False
    ram_written(ram, spa, 1 << form.entry_shift)
    return True


cdef inline bint maps_page(page_format_t form, u8 shift, u64 entry) noexcept nogil:
    return shift == PAGE_SHIFT or (entry & form.large and form.large_shifts >> shift & 1)


cdef inline u64 forbidden_bits(page_format_t form, bint leaf, u8 shift, u64 split_reserved) noexcept nogil:
    """What must be zero in an entry of this shape, apart from what must be in all. Bit 12 of a large page is PAT."""
    if not leaf:
        return form.table_reserved | (form.large if form.large_reserved else 0)
    if form.large_split and shift > PAGE_SHIFT:
        return split_reserved
    if form.is_second_level:
        return ((<u64>1 << shift) - 1) & ~<u64>PAGE_OFFSET_MASK
    return ((<u64>1 << shift) - 1) & ~<u64>(2 * PAGE_OFFSET_MASK + 1)


cdef inline bint is_malformed(page_format_t form, bint leaf, u64 entry) noexcept nogil:
    """Second level: writable without being readable, or of a memory type that does not exist (SDM 3C 29.3.3.1)."""
    return form.is_second_level and (entry & 3 == 2 or (leaf and form.types_reserved >> ((entry >> 3) & 7) & 1))


cdef inline u64 page_address(page_format_t form, u8 shift, u64 entry, u64 address) noexcept nogil:
    """Where `address` lies, by the entry that maps its page."""
    cdef u64 offset = (<u64>1 << shift) - 1
    if form.large_split and shift > PAGE_SHIFT:
        return (entry & <u32>0xFFC00000) | ((entry >> 13) & 0xFF) << 32 | (address & offset)
    return (entry & ENTRY_ADDRESS & ~offset) | (address & offset)


cdef inline bint lacks_marks(page_format_t form, const descent_t* at, u64 access) noexcept nogil:
    """Whether an access that was granted still has marks to set."""
    return form.accessed and not (at.path & form.accessed and (not access & RIGHT_WRITE or at.entry & form.dirty))


cdef inline WalkStatus descend(tables_t tables, page_format_t form, u64 table, u64 reserved, u64 split_reserved,
                               u64 address, Mark mark, bint set_nested_marks, descent_t* at) noexcept nogil:
    """From the top table at `table` to the entry that maps `address`; rights are the caller's to judge.

    With `mark` each entry is marked on the way: a second pass, of a path that has been granted."""
    cdef ram_t* ram
    cdef u64 entry, spa, marks
    cdef bint leaf
    at.shift = PAGE_SHIFT + form.index_bits * (form.levels - 1)
    at.path = <u64>-1
    at.references = 0
    at.nested_references = 0
    while True:
        at.slot = spa = table + (((address >> at.shift) & ((1 << form.index_bits) - 1)) << form.entry_shift)
        if tables_t is space_p:
            ram = tables.ram
            at.where = space_translate(tables, at.slot, table_access(tables), set_nested_marks)
            at.nested_references += at.where.references
            if unlikely(at.where.status != SECOND_OK):
                return WALK_TABLE
            spa = at.where.spa
        else:
            ram = tables
            if unlikely(spa >= ram.size_bytes):
                return WALK_BEYOND
        at.entry = entry = load_entry(ram, form, spa)
        at.references += 1
        if unlikely(not entry & form.present):
            return WALK_NOT_PRESENT
        leaf = maps_page(form, at.shift, entry)
        if unlikely(entry & (reserved | forbidden_bits(form, leaf, at.shift, split_reserved))
                    or is_malformed(form, leaf, entry)):
            return WALK_RESERVED
        marks = 0 if mark == MARK_NONE else form.accessed | (form.dirty if leaf and mark == MARK_DIRTY else 0)
        if unlikely(marks & ~entry):
            if tables_t is space_p:
                at.where = space_translate(tables, at.slot, RIGHT_READ | RIGHT_WRITE, set_nested_marks)
                if at.where.status != SECOND_OK:
                    return WALK_TABLE
            if not mark_entry(ram, form, spa, entry, marks):
                return WALK_CHANGED
        at.path &= entry ^ form.inverted
        if leaf:
            return WALK_OK
        table = entry & ENTRY_ADDRESS
        at.shift -= form.index_bits


cdef inline second_level_t space_translate(space_t* space, u64 gpa, u8 access, bint set_marks) noexcept nogil:
    """GPA -> SPA: an overlay if one lies there, else the tables. `access` zero asks for presence only."""
    cdef second_level_t found
    cdef overlay_t* overlay
    cdef u32 i
    for i in range(space.overlay_count):
        overlay = &space.overlays[i]
        if overlay.gpn == gpa >> PAGE_SHIFT:
            found.status = SECOND_OK if overlay.rights & access == access else SECOND_OVERLAY
            found.rights = overlay.rights
            found.page_shift = PAGE_SHIFT
            found.references = 0
            found.overlay = True
            found.spa = overlay.spa | (gpa & PAGE_OFFSET_MASK)
            return found
    return second_level_walk(space, gpa, access, set_marks)


cdef inline second_level_t second_level_walk(space_t* space, u64 gpa, u8 access, bint set_marks) noexcept nogil:
    """GPA -> SPA by the tables alone."""
    cdef page_format_t form = second_level_format(space.levels, space.marks, space.mode_based_execute)
    cdef second_level_t found
    cdef descent_t at
    cdef WalkStatus status
    cdef Mark mark = MARK_NONE
    found.overlay = False
    found.references = 0
    found.rights = 0
    found.page_shift = PAGE_SHIFT
    found.spa = 0
    found.status = SECOND_UNMAPPED
    if unlikely(gpa >= space.gpa_limit or space.root_spa == 0):
        return found
    while True:
        status = descend(<memory_p>space.ram, form, space.root_spa, space.reserved, 0, gpa, mark, False, &at)
        if unlikely(status == WALK_CHANGED):
            mark = MARK_NONE
            continue
        found.references = at.references
        if unlikely(status != WALK_OK):
            found.status = SECOND_MISCONFIGURED if status == WALK_RESERVED else SECOND_UNMAPPED
            return found
        found.rights = path_rights(form, at.path)
        found.page_shift = at.shift
        if unlikely(found.rights & access != access):
            found.status = SECOND_RIGHTS
            return found
        if not set_marks or mark != MARK_NONE or not lacks_marks(form, &at, access):
            break
        mark = MARK_DIRTY if access & RIGHT_WRITE else MARK_ACCESSED
    found.spa = page_address(form, at.shift, at.entry, gpa)
    if unlikely(found.spa >= space.ram.size_bytes):
        return found
    found.status = SECOND_OK
    return found
