"""Tables read backwards: which addresses lead to given places. Every entry is looked at, none is believed.

Tables that lead into each other could be entered 512 ** levels times. So a table below which nothing was found is
remembered, for each level that it is used at, and is not entered again; what is found is bounded by its room.
"""
from hvcore._native.base.types cimport u8, u64
from hvcore._native.mem.descend cimport memory_p, space_of, space_translate, tables_t
from hvcore._native.mem.entry cimport forbidden_bits, is_usable, load_entry, maps_page, page_address
from hvcore._native.mem.format cimport ENTRY_ADDRESS, RIGHT_READ, page_format_t
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE, ram_t
from hvcore._native.mem.second_level cimport SECOND_OK, second_level_t

cdef enum:
    REVERSE_LEVELS = 6
    NO_TABLE = -1


cdef struct reverse_t:
    const u64* targets              # ascending
    u64 count
    u64* which                      # of each hit: the number of its target ...
    u64* addresses                  # ... and the address that leads there
    u64 found
    u64 room
    bint overflow                   # there were more
    u8* barren[REVERSE_LEVELS]      # by level: a bit a page of system memory


# One table that is being read.
cdef struct reading_t:
    u64 table                       # SPA
    u64 base                        # address of its first entry
    u64 next                        # entry
    u64 found_before


cdef inline void take_hits(reverse_t* reverse, u64 base, u64 frame, u64 span) noexcept nogil:
    """Note the targets in [frame, frame + span), which `base` and what follows it lead to."""
    cdef u64 low = 0, high = reverse.count, middle
    while low < high:
        middle = (low + high) // 2
        if reverse.targets[middle] < frame:
            low = middle + 1
        else:
            high = middle
    while low < reverse.count and reverse.targets[low] - frame < span:
        if reverse.found == reverse.room:
            reverse.overflow = True
            return
        reverse.which[reverse.found] = low
        reverse.addresses[reverse.found] = base + (reverse.targets[low] - frame)
        reverse.found += 1
        low += 1


cdef inline u64 table_place(tables_t tables, ram_t* ram, u64 table) noexcept nogil:
    """SPA of a table, or NO_TABLE if it cannot be reached."""
    cdef second_level_t where
    if tables_t is not memory_p:
        where = space_translate(space_of(tables), table, RIGHT_READ, False)
        if where.status != SECOND_OK:
            return <u64>NO_TABLE
        table = where.spa
    return table if table <= ram.size_bytes - PAGE_SIZE else <u64>NO_TABLE


cdef inline bint is_barren(const reverse_t* reverse, int level, u64 table) noexcept nogil:
    return reverse.barren[level][table >> (PAGE_SHIFT + 3)] >> ((table >> PAGE_SHIFT) & 7) & 1


cdef inline void reverse_scan(tables_t tables, ram_t* ram, page_format_t form, u64 root, u64 base, u64 reserved,
                              u64 split_reserved, reverse_t* reverse) noexcept nogil:
    """Read all tables below `root`, whose first entry stands for address `base`."""
    cdef reading_t[REVERSE_LEVELS] readings
    cdef reading_t* at
    cdef int level = form.levels
    cdef u64 entry, table
    cdef u8 shift
    cdef bint leaf
    table = table_place(tables, ram, root)
    if table == <u64>NO_TABLE or is_barren(reverse, level, table):
        return
    readings[level] = reading_t(table=table, base=base, next=0, found_before=reverse.found)
    while level <= form.levels and not reverse.overflow:
        at = &readings[level]
        if at.next >> form.index_bits:
            if at.found_before == reverse.found:
                reverse.barren[level][at.table >> (PAGE_SHIFT + 3)] |= <u8>(1 << ((at.table >> PAGE_SHIFT) & 7))
            level += 1
            continue
        shift = PAGE_SHIFT + form.index_bits * (level - 1)
        base = at.base + (at.next << shift)
        entry = load_entry(ram, form, at.table + (at.next << form.entry_shift))
        at.next += 1
        if not is_usable(form, entry):
            continue
        leaf = maps_page(form, shift, entry)
        if entry & (reserved | forbidden_bits(form, leaf, shift, split_reserved)) or (
                leaf and form.types_reserved >> ((entry >> 3) & 7) & 1):
            continue
        if leaf:
            take_hits(reverse, base, page_address(form, shift, entry, 0), <u64>1 << shift)
            continue
        table = table_place(tables, ram, entry & ENTRY_ADDRESS)
        if table != <u64>NO_TABLE and not is_barren(reverse, level - 1, table):
            level -= 1
            readings[level] = reading_t(table=table, base=base, next=0, found_before=reverse.found)
