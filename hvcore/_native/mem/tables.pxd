"""Building second-level tables out of a partition's own pages.

The pool is the partition's deposit: a table that is needed is taken from it, a table that falls empty goes back.
Functions return False, or a count that is too small, when the pool ran out; nothing is half done then.
"""
from hvcore._native.base.types cimport u64
from hvcore._native.mem.format cimport ENTRY_ADDRESS, RIGHT_USER_EXECUTE
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE, ram_at, ram_t
from hvcore._native.mem.second_level cimport space_t
from libc.string cimport memset

cdef enum:
    ENTRY_USER_EXECUTE = 1 << 10    # with mode-based execute; ignored without
    ENTRY_RIGHTS = 7 | ENTRY_USER_EXECUTE
    ENTRY_LARGE = 1 << 7


cdef struct pool_t:
    ram_t* ram
    u64* free_pages         # stack of page numbers
    u64 available
    u64 in_use
    u64 capacity


cdef inline u64 pool_allocate(pool_t* pool) noexcept nogil:
    """A zeroed page as SPA, or 0: SPA 0 is the root's and never deposited."""
    cdef u64 spa
    if pool.available == 0:
        return 0
    pool.available -= 1
    pool.in_use += 1
    spa = pool.free_pages[pool.available] << PAGE_SHIFT
    memset(ram_at(pool.ram, spa), 0, PAGE_SIZE)
    return spa


cdef inline void pool_release(pool_t* pool, u64 spa) noexcept nogil:
    pool.free_pages[pool.available] = spa >> PAGE_SHIFT
    pool.available += 1
    pool.in_use -= 1


cdef inline u64 entry_rights(u64 rights) noexcept nogil:
    """RIGHT_ bits as an entry has them."""
    return (rights & 7) | (ENTRY_USER_EXECUTE if rights & RIGHT_USER_EXECUTE else 0)


cdef inline bint entry_is_table(u64 entry, int level) noexcept nogil:
    return level > 1 and entry & ENTRY_RIGHTS and not entry & ENTRY_LARGE


cdef inline u64* table_entry(ram_t* ram, u64 table_spa, u64 gpa, int level) noexcept nogil:
    return <u64*>ram_at(ram, table_spa) + ((gpa >> (PAGE_SHIFT + 9 * (level - 1))) & 511)


cdef inline u64 table_split(space_t* space, pool_t* pool, u64* entry, int level) noexcept nogil:
    """Replace a large page by a table of the next smaller ones; the table's SPA, or 0 without a page for it."""
    cdef u64 table = pool_allocate(pool), step = <u64>1 << (PAGE_SHIFT + 9 * (level - 2)), i
    cdef u64 small = entry[0] if level > 2 else entry[0] & ~<u64>ENTRY_LARGE
    if table == 0:
        return 0
    for i in range(512):
        (<u64*>ram_at(space.ram, table))[i] = small + i * step
    entry[0] = table | ENTRY_RIGHTS
    return table


cdef inline u64* table_reach(space_t* space, pool_t* pool, u64 gpa, int level) noexcept nogil:
    """The entry for `gpa` at `level` (1: 4 KiB, 2: 2 MiB, 3: 1 GiB), with every table above it; NULL without pages."""
    cdef u64 table = space.root_spa
    cdef u64* entry
    cdef int at = space.levels
    while at > level:
        entry = table_entry(space.ram, table, gpa, at)
        if not entry[0] & ENTRY_RIGHTS:
            table = pool_allocate(pool)
            if table == 0:
                return NULL
            entry[0] = table | ENTRY_RIGHTS
        elif entry[0] & ENTRY_LARGE:
            table = table_split(space, pool, entry, at)
            if table == 0:
                return NULL
        else:
            table = entry[0] & ENTRY_ADDRESS
        at -= 1
    return table_entry(space.ram, table, gpa, level)


cdef inline void table_free(space_t* space, pool_t* pool, u64 table, int level) noexcept nogil:
    """Give a table and all tables below it back to the pool."""
    cdef u64 i, entry
    if level > 1:
        for i in range(512):
            entry = (<u64*>ram_at(space.ram, table))[i]
            if entry_is_table(entry, level):
                table_free(space, pool, entry & ENTRY_ADDRESS, level - 1)
    pool_release(pool, table)


cdef inline bint table_is_empty(space_t* space, u64 table) noexcept nogil:
    cdef u64 i
    for i in range(512):
        if (<u64*>ram_at(space.ram, table))[i]:
            return False
    return True


cdef inline void table_prune(space_t* space, pool_t* pool, u64 gpa) noexcept nogil:
    """Free the tables on the path to `gpa` that hold no entry any more, from the lowest up; the root stays."""
    cdef u64[6] tables
    cdef u64* entry
    cdef int level = space.levels
    tables[level] = space.root_spa
    while level > 1:
        entry = table_entry(space.ram, tables[level], gpa, level)
        if not entry[0] & ENTRY_RIGHTS or entry[0] & ENTRY_LARGE:
            break
        level -= 1
        tables[level] = entry[0] & ENTRY_ADDRESS
    while level < space.levels and table_is_empty(space, tables[level]):
        table_entry(space.ram, tables[level + 1], gpa, level + 1)[0] = 0
        pool_release(pool, tables[level])
        level += 1


cdef inline bint space_map_page(space_t* space, pool_t* pool, u64 gpa, u64 spa, u64 rights, int level) noexcept nogil:
    """Map one page; a page without rights stays unmapped, as `unmapped` and `no access` cannot be told apart."""
    cdef u64* entry = table_reach(space, pool, gpa, level)
    if entry == NULL:
        table_prune(space, pool, gpa)
        return False
    if entry_is_table(entry[0], level):
        table_free(space, pool, entry[0] & ENTRY_ADDRESS, level - 1)
    entry[0] = spa | entry_rights(rights) | (ENTRY_LARGE if level > 1 else 0) if rights else 0
    return True


cdef inline u64* table_descend(space_t* space, pool_t* pool, u64 gpa, int level, bint* starved) noexcept nogil:
    """The present entry for `gpa` at `level`; NULL if nothing is mapped there, or `starved` of a page to split with."""
    cdef u64 table = space.root_spa
    cdef u64* entry
    cdef int at = space.levels
    starved[0] = False
    while True:
        entry = table_entry(space.ram, table, gpa, at)
        if not entry[0] & ENTRY_RIGHTS:
            return NULL
        if at == level:
            return entry
        table = table_split(space, pool, entry, at) if entry[0] & ENTRY_LARGE else entry[0] & ENTRY_ADDRESS
        if table == 0:
            starved[0] = True
            return NULL
        at -= 1


cdef inline bint space_unmap_page(space_t* space, pool_t* pool, u64 gpa, int level) noexcept nogil:
    """Unmap one page if it is mapped; False when a large page had to be split and no page was there for it."""
    cdef bint starved
    cdef u64* entry = table_descend(space, pool, gpa, level, &starved)
    if entry == NULL:
        return not starved
    if entry_is_table(entry[0], level):
        table_free(space, pool, entry[0] & ENTRY_ADDRESS, level - 1)
    entry[0] = 0
    table_prune(space, pool, gpa)
    return True


cdef inline void change_rights(space_t* space, u64* entry, u64 rights, int level) noexcept nogil:
    """Of a page, or of every page under a table."""
    cdef u64 i
    if entry_is_table(entry[0], level):
        for i in range(512):
            change_rights(space, <u64*>ram_at(space.ram, entry[0] & ENTRY_ADDRESS) + i, rights, level - 1)
    elif entry[0] & ENTRY_RIGHTS:
        entry[0] = (entry[0] & ~<u64>ENTRY_RIGHTS) | entry_rights(rights)


cdef inline bint space_protect_page(space_t* space, pool_t* pool, u64 gpa, u64 rights, int level) noexcept nogil:
    """Change the rights of a mapped page; an unmapped one stays so, and none unmaps it."""
    cdef bint starved
    cdef u64* entry
    if rights == 0:
        return space_unmap_page(space, pool, gpa, level)
    entry = table_descend(space, pool, gpa, level, &starved)
    if entry == NULL:
        return not starved
    change_rights(space, entry, rights, level)
    return True
