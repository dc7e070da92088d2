"""The walker: down the tables of any format, one entry a level (SDM 3A 4.5.4, 3C 29.3.2).

`descend` is written once and compiled twice: for tables in system memory, and for tables in a GPA space, where the
address of each entry is translated by a descent of its own. Tables may hold anything: an entry outside memory is
never read, and no descent is longer than its format has levels.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.mem.descent cimport (
    MARK_ACCESSED, MARK_DIRTY, MARK_NONE, WALK_BEYOND, WALK_CHANGED, WALK_DEEPER, WALK_NOT_PRESENT, WALK_OK,
    WALK_RESERVED, WALK_RIGHTS, WALK_TABLE, Mark, WalkStatus, descent_t, lacks_marks, second_level_grants,
)
from hvcore._native.mem.entry cimport forbidden_bits, is_usable, load_entry, maps_page, mark_entry, page_address
from hvcore._native.mem.format cimport (
    ENTRY_ADDRESS, LARGE_SHIFTS, RIGHT_ALL, RIGHT_READ, RIGHT_WRITE, page_format_t, remapping_format,
    second_level_format,
)
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, ram_t
from hvcore._native.mem.second_level cimport (
    NESTED_OVERLAY, NESTED_SHIFT, SECOND_OK, SECOND_OVERLAY, SECOND_RIGHTS, SECOND_UNMAPPED, cached_space_t,
    nested_entry_t, overlay_t, remapped_space_t, second_level_t, space_t, table_access,
)
from cython cimport likely, unlikely

cdef extern from *:
    """
    #ifndef HVCORE_UNROLL
    #define HVCORE_UNROLL 0
    #endif
    """
    # Set for modules that are compiled with everything in line (setup.py). Elsewhere a descent is a loop: level by
    # level it would be a call a level, and a TLB miss of a processor twice as dear.
    bint UNROLL "HVCORE_UNROLL"

ctypedef ram_t* memory_p
ctypedef space_t* space_p
ctypedef cached_space_t* cached_p
ctypedef remapped_space_t* remapped_p

# Where tables lie: in system memory, in the GPA space of a partition, or behind an IOMMU's second level.
ctypedef fused tables_t:
    memory_p
    space_p
    cached_p
    remapped_p

cdef inline space_t* space_of(tables_t tables) noexcept nogil:
    """The GPA space of tables that lie in one."""
    if tables_t is space_p:
        return tables
    elif tables_t is cached_p:
        return tables.space
    elif tables_t is remapped_p:
        return tables.view.space
    else:
        return NULL


cdef inline second_level_t reach_space(cached_space_t* cached, u64 gpa, u8 access, bint set_marks) noexcept nogil:
    """Past the cache. Where nothing is unrolled, misses are rare and a descent in line would only be in the way."""
    if UNROLL:
        return space_translate(cached.space, gpa, access, set_marks)
    return cached.reach(cached.space, gpa, access, set_marks)


cdef inline second_level_t cached_translate(cached_space_t* cached, u64 gpa, u8 access, bint set_marks) noexcept nogil:
    """`space_translate` by way of a cache, which is right as long as no second-level entry that it has seen changes."""
    cdef nested_entry_t* entry = &cached.entries[(gpa >> PAGE_SHIFT) & cached.mask]
    cdef second_level_t found
    if gpa - cached.same_from < cached.same_bytes:
        return second_level_t(status=SECOND_OK, rights=RIGHT_ALL, page_shift=PAGE_SHIFT, references=0, overlay=False,
                              spa=gpa)
    if likely(entry.tag == gpa | PAGE_OFFSET_MASK and entry.found & access == access):
        found.status = SECOND_OK
        found.rights = <u8>entry.found & RIGHT_ALL
        found.page_shift = <u8>(entry.found >> NESTED_SHIFT) & 63
        found.references = 0
        found.overlay = entry.found & NESTED_OVERLAY != 0
        found.spa = (entry.found & ENTRY_ADDRESS) | (gpa & PAGE_OFFSET_MASK)
        return found
    found = reach_space(cached, gpa, access, set_marks)
    if likely(found.status == SECOND_OK):
        entry.tag = gpa | PAGE_OFFSET_MASK
        entry.found = ((found.spa & ENTRY_ADDRESS) | found.rights | <u64>found.page_shift << NESTED_SHIFT
                       | (NESTED_OVERLAY if found.overlay else 0))
        if set_marks and cached.space.marks and not access & RIGHT_WRITE:
            entry.found &= ~<u64>RIGHT_WRITE        # the first write has a dirty bit to set
    return found


cdef inline WalkStatus descend_one(tables_t tables, page_format_t form, u8 level, u64 table, u64 reserved,
                                   u64 split_reserved, u64 address, Mark mark, bint set_nested_marks,
                                   descent_t* at) noexcept nogil:
    """The entry of one level; WALK_DEEPER if it names the next table. With a constant level everything folds."""
    cdef ram_t* ram
    cdef u64 entry, spa, marks
    cdef u8 shift = PAGE_SHIFT + form.index_bits * (level - 1)
    cdef bint leaf
    at.shift = shift
    at.slot = spa = table + (((address >> shift) & ((1 << form.index_bits) - 1)) << form.entry_shift)
    if tables_t is not memory_p:
        ram = space_of(tables).ram
        if tables_t is cached_p:
            at.where = cached_translate(tables, spa, table_access(tables.space), set_nested_marks)
        elif tables_t is remapped_p:
            at.where = remapped_translate(tables, spa, RIGHT_READ, set_nested_marks)
            if unlikely(tables.marks and tables.cause == WALK_OK and not at.where.rights & RIGHT_WRITE):
                # With accessed and dirty bits of its own, tables have to be writable (VT-d 3.8.1), and that is known
                # before anything is read there.
                tables.cause, at.where.status = WALK_RIGHTS, SECOND_RIGHTS
        else:
            at.where = space_translate(tables, spa, table_access(tables), set_nested_marks)
        at.nested_references += at.where.references
        if unlikely(at.where.status != SECOND_OK):
            at.references = form.levels - level
            return WALK_TABLE
        spa = at.where.spa
    else:
        ram = tables
        if unlikely(spa >= ram.size_bytes):
            at.references = form.levels - level
            return WALK_BEYOND
    at.references = form.levels - level + 1
    at.entry = entry = load_entry(ram, form, spa)
    if unlikely(not is_usable(form, entry)):
        return WALK_RESERVED if entry & form.present else WALK_NOT_PRESENT
    leaf = maps_page(form, shift, entry)
    if unlikely(entry & (reserved | forbidden_bits(form, leaf, shift, split_reserved))
                or (leaf and form.types_reserved >> ((entry >> 3) & 7) & 1)):
        return WALK_RESERVED
    if mark != MARK_NONE:
        marks = form.accessed | (form.dirty if leaf and mark == MARK_DIRTY else 0)
        if marks & ~entry:
            if tables_t is not memory_p:
                if tables_t is remapped_p:
                    at.where = remapped_translate(tables, at.slot, RIGHT_READ | RIGHT_WRITE, set_nested_marks)
                elif tables_t is cached_p:
                    at.where = reach_space(tables, at.slot, RIGHT_READ | RIGHT_WRITE, set_nested_marks)
                else:
                    at.where = space_translate(tables, at.slot, RIGHT_READ | RIGHT_WRITE, set_nested_marks)
                if at.where.status != SECOND_OK:
                    return WALK_TABLE
            if not mark_entry(ram, form, spa, entry, marks):
                return WALK_CHANGED
    at.path &= entry ^ form.inverted
    return WALK_OK if leaf else WALK_DEEPER


cdef inline WalkStatus descend(tables_t tables, page_format_t form, u64 table, u64 reserved, u64 split_reserved,
                               u64 address, bint set_nested_marks, descent_t* at) noexcept nogil:
    """From the top table at `table` to the entry that maps `address`; rights are the caller's to judge.

    Unrolled, what an entry of each level may be is known when this is compiled."""
    cdef WalkStatus status
    if not UNROLL:
        return descend_marking(tables, form, table, reserved, split_reserved, address, MARK_NONE, set_nested_marks,
                               at)
    at.path = <u64>-1
    at.nested_references = 0
    at.entry = table
    if form.levels >= 5:
        status = descend_one(tables, form, 5, table, reserved, split_reserved, address, MARK_NONE, set_nested_marks,
                             at)
        if status != WALK_DEEPER:
            return status
    if form.levels >= 4:
        status = descend_one(tables, form, 4, at.entry & ENTRY_ADDRESS, reserved, split_reserved, address,
                             MARK_NONE, set_nested_marks, at)
        if status != WALK_DEEPER:
            return status
    if form.levels >= 3:
        status = descend_one(tables, form, 3, at.entry & ENTRY_ADDRESS, reserved, split_reserved, address,
                             MARK_NONE, set_nested_marks, at)
        if status != WALK_DEEPER:
            return status
    if form.levels >= 2:
        status = descend_one(tables, form, 2, at.entry & ENTRY_ADDRESS, reserved, split_reserved, address,
                             MARK_NONE, set_nested_marks, at)
        if status != WALK_DEEPER:
            return status
    return descend_one(tables, form, 1, at.entry & ENTRY_ADDRESS, reserved, split_reserved, address, MARK_NONE,
                       set_nested_marks, at)


cdef inline WalkStatus descend_marking(tables_t tables, page_format_t form, u64 table, u64 reserved,
                                       u64 split_reserved, u64 address, Mark mark, bint set_nested_marks,
                                       descent_t* at) noexcept nogil:
    """`descend` in short code; with `mark` each entry is marked on the way, in a second pass, which is rare."""
    cdef u8 level = form.levels
    cdef WalkStatus status
    at.path = <u64>-1
    at.nested_references = 0
    at.entry = table
    while True:
        status = descend_one(tables, form, level, at.entry & ENTRY_ADDRESS, reserved, split_reserved, address, mark,
                             set_nested_marks, at)
        if status != WALK_DEEPER:
            return status
        level -= 1


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


cdef inline bint second_level_mark(space_t* space, page_format_t form, u64 gpa, u8 access, descent_t* at,
                                   second_level_t* found) noexcept nogil:
    """Set the marks of an access that was granted; False if it is not granted any more."""
    cdef WalkStatus status
    cdef Mark wanted = MARK_DIRTY if access & RIGHT_WRITE else MARK_ACCESSED, mark = wanted
    while True:
        status = descend_marking(<memory_p>space.ram, form, space.root_spa, space.reserved, 0, gpa, mark, False, at)
        if status == WALK_CHANGED:
            mark = MARK_NONE
        elif not second_level_grants(form, status, at, access, found):
            return False
        elif mark == wanted:
            return True
        else:
            mark = wanted


cdef inline second_level_t remapped_translate(remapped_space_t* domain, u64 gpa, u8 access,
                                              bint set_marks) noexcept nogil:
    """The same by the second level of an IOMMU, and by the GPA space that its tables and its results lie in."""
    if likely(domain.plain):
        return remapped_walk(domain, remapping_format(4, False, LARGE_SHIFTS), gpa, access, set_marks)
    return remapped_walk(domain, remapping_format(domain.levels, domain.marks, domain.large_shifts), gpa, access,
                         set_marks)


cdef inline second_level_t remapped_walk(remapped_space_t* domain, page_format_t form, u64 gpa, u8 access,
                                         bint set_marks) noexcept nogil:
    cdef second_level_t found, where
    cdef descent_t at
    cdef WalkStatus status = WALK_NOT_PRESENT
    cdef Mark mark = MARK_NONE
    cdef u8 counted = 0
    found = second_level_t(status=SECOND_UNMAPPED, rights=0, page_shift=PAGE_SHIFT, references=0, overlay=False, spa=0)
    domain.beyond = gpa >= domain.limit
    domain.output = 0
    while not domain.beyond:
        status = descend_marking(<cached_p>domain.view, form, domain.root, domain.reserved, 0, gpa, mark, True, &at)
        if unlikely(status == WALK_CHANGED):
            mark = MARK_NONE
            continue
        counted = at.references if mark == MARK_NONE else counted
        if unlikely(not second_level_grants(form, status, &at, access, &found)):
            status = WALK_RIGHTS if status == WALK_OK else status
            break
        if likely(mark != MARK_NONE or not set_marks or not lacks_marks(form, &at, access)):
            domain.output = page_address(form, at.shift, at.entry, gpa)
            where = cached_translate(domain.view, domain.output, access, True)
            found.status, found.spa = where.status, where.spa
            break
        mark = MARK_DIRTY if access & RIGHT_WRITE else MARK_ACCESSED
    domain.cause = status
    found.references = counted
    return found


cdef inline second_level_t second_level_walk(space_t* space, u64 gpa, u8 access, bint set_marks) noexcept nogil:
    """GPA -> SPA by the tables alone."""
    cdef page_format_t form = second_level_format(space.levels, space.marks, space.mode_based_execute)
    cdef second_level_t found
    cdef descent_t at
    cdef WalkStatus status
    found.overlay = False
    found.references = 0
    found.rights = 0
    found.page_shift = PAGE_SHIFT
    found.spa = 0
    found.status = SECOND_UNMAPPED
    if unlikely(gpa >= space.gpa_limit or space.root_spa == 0):
        return found
    status = descend(<memory_p>space.ram, form, space.root_spa, space.reserved, 0, gpa, False, &at)
    if unlikely(not second_level_grants(form, status, &at, access, &found)):
        return found
    if unlikely(set_marks and lacks_marks(form, &at, access)):
        if not second_level_mark(space, form, gpa, access, &at, &found):
            return found
    found.spa = page_address(form, at.shift, at.entry, gpa)
    if unlikely(found.spa >= space.ram.size_bytes):
        return found
    found.status = SECOND_OK
    return found
