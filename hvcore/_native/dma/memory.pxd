"""Guest physical memory as a remapping unit reaches it: through the space of the partition that owns the unit.

A table that this partition does not have cannot be read, however the registers and entries that name it came about.
"""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.state cimport VIEW_ENTRIES, unit_t
from hvcore._native.mem.descend cimport cached_translate, space_translate
from hvcore._native.mem.format cimport RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SIZE, ram_at, ram_written
from hvcore._native.mem.second_level cimport SECOND_OK, nested_entry_t, second_level_t
from libc.string cimport memset

cdef enum:
    SCAN_STEPS = 64


cdef inline void view_scan(unit_t* unit, u64 steps) noexcept nogil:
    """Go on with the search for the largest range in which every GPA is its own SPA. As much of it as there is work
    to be done with it, so that a change of the space never costs more than what follows it."""
    cdef second_level_t where
    cdef u64 gpa = unit.scan_at, bytes_found
    while steps and gpa < unit.ram.size_bytes:
        where = space_translate(unit.view.space, gpa, RIGHT_READ | RIGHT_WRITE, False)
        if where.status == SECOND_OK and where.spa == gpa and not where.overlay and not unit.view.space.marks:
            bytes_found = (<u64>1 << where.page_shift) - (gpa & ((<u64>1 << where.page_shift) - 1))
            if unit.view.space.overlay_count:
                bytes_found = PAGE_SIZE
            gpa += bytes_found
        else:
            gpa += PAGE_SIZE
            unit.run_from = gpa
        if gpa - unit.run_from > unit.view.same_bytes:
            unit.view.same_from, unit.view.same_bytes = unit.run_from, gpa - unit.run_from
        steps -= 1
    unit.scan_at = gpa


cdef inline void view_refresh(unit_t* unit, u64 requests) noexcept nogil:
    """To be called before `requests` look at memory: what the view remembers is of the space as it is now."""
    if unit.view_generation != unit.view.space.generation:
        unit.view_generation = unit.view.space.generation
        memset(unit.view.entries, 0, VIEW_ENTRIES * sizeof(nested_entry_t))
        unit.view.same_from = unit.view.same_bytes = unit.scan_at = unit.run_from = 0
    if unit.scan_at < unit.ram.size_bytes:
        view_scan(unit, SCAN_STEPS + requests)


cdef inline u8* view_at(unit_t* unit, u64 gpa, u8 access) noexcept nogil:
    """Host address of `gpa`, good up to the end of its page; NULL: the partition has no such memory."""
    cdef second_level_t where = cached_translate(&unit.view, gpa, access, True)
    return ram_at(unit.ram, where.spa) if where.status == SECOND_OK else NULL


cdef inline const u64* view_words(unit_t* unit, u64 gpa) noexcept nogil:
    """A structure of the unit's tables, which never crosses a page; NULL: it cannot be read."""
    return <const u64*>view_at(unit, gpa, RIGHT_READ)


cdef inline bint view_write32(unit_t* unit, u64 gpa, u32 value) noexcept nogil:
    """A status word, at an address that is a multiple of 4."""
    cdef u8* place = view_at(unit, gpa, RIGHT_WRITE)
    if place == NULL:
        return False
    (<u32*>place)[0] = value
    ram_written(unit.ram, <u64>(place - unit.ram.host), 4)
    return True
