"""Page tables built by hand, for address spaces without a guest: mappings as runs, tables when they are first needed.

A mapping of a terabyte is one record. The table that holds an address is made when somebody asks for the address, and
is filled from every mapping that reaches into it, so a table that exists is always complete: whoever changes a mapping
changes the tables that exist and nothing else. Callers hold the lock of the builder's owner.

The tables lie in [root, tables_end) of system memory; if they are a guest's, their GPAs are the same numbers.
"""
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.mem.permutation cimport permuted
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE, ram_at, ram_t
from libc.string cimport memset

cdef extern from *:
    """
    #define hv_publish(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
    """
    void publish "hv_publish"(u64* place, u64 value) noexcept nogil
    void publish32 "hv_publish"(u32* place, u32 value) noexcept nogil

cdef enum:
    BUILDER_ADDRESS = 0x000FFFFFFFFFF000
    BUILDER_LARGE = 1 << 7


cdef struct mapping_t:
    u64 start
    u64 size_bytes
    u64 target              # where page `origin` goes, or the run that is permuted begins
    u64 origin              # address of page 0 of the permutation: a piece that was split off keeps its whole's
    u64 pages               # of the permutation
    u64 seed                # zero: page i goes to frame i
    u64 bits                # the entry without its address
    u8 page_shift


cdef struct builder_t:
    ram_t* ram
    mapping_t* mappings     # in order of `start`, none overlapping
    u64 count
    u64 root
    u64 tables_end
    u8* used                # one byte a table of [root, tables_end): kept where no table entry can write
    u64 lowest_free         # no table before this number is free
    u64 tables              # in use
    u64 present             # any of these bits: the entry is in use
    u64 table_bits          # of an entry that points to a table ...
    u64 top_bits            # ... and of one in the top table
    u8 levels
    u8 index_bits           # of a table: 9, or 10 where entries have 4 bytes


cdef inline u8 level_shift(const builder_t* builder, int level) noexcept nogil:
    return PAGE_SHIFT + builder.index_bits * (level - 1)


cdef inline u64 span_of(const builder_t* builder, int level) noexcept nogil:
    """Bytes under one entry of this level, less one."""
    return ((<u64>1 << level_shift(builder, level)) - 1)


cdef inline u64 table_mask(const builder_t* builder) noexcept nogil:
    """The bits of an address that the tables translate."""
    return ((<u64>1 << level_shift(builder, builder.levels + 1)) - 1)


cdef inline u64 entry_get(const builder_t* builder, u64 table, u64 index) noexcept nogil:
    cdef u8* place = ram_at(builder.ram, table)
    return (<u64*>place)[index] if builder.index_bits == 9 else (<u32*>place)[index]


cdef inline void entry_set(const builder_t* builder, u64 table, u64 index, u64 entry) noexcept nogil:
    """Whoever sees the entry sees the table that it points to."""
    cdef u8* place = ram_at(builder.ram, table)
    if builder.index_bits == 9:
        publish(<u64*>place + index, entry)
    else:
        publish32(<u32*>place + index, <u32>entry)


cdef inline u64 entry_index(const builder_t* builder, u64 address, int level) noexcept nogil:
    return (address >> level_shift(builder, level)) & ((<u64>1 << builder.index_bits) - 1)


cdef inline u64 mapping_target(const mapping_t* mapping, u64 address) noexcept nogil:
    """The frame that the page of `address` goes to."""
    cdef u64 page = (address - mapping.origin) >> mapping.page_shift
    if mapping.seed:
        page = permuted(page, mapping.pages, mapping.seed)
    return mapping.target + (page << mapping.page_shift)


cdef inline u64 leaf_entry(const builder_t* builder, const mapping_t* mapping, u64 address) noexcept nogil:
    cdef u64 frame = mapping_target(mapping, address)
    if builder.index_bits == 10 and mapping.page_shift > PAGE_SHIFT:
        frame = (frame & <u64>0xFFFFFFFF) | ((frame >> 32) << 13)        # PSE-36 (SDM 3A table 4-4)
    return frame | mapping.bits


cdef inline u64 mapping_find(const builder_t* builder, u64 address) noexcept nogil:
    """The first mapping that ends behind `address`; `count` without one."""
    cdef u64 low = 0, high = builder.count, middle
    while low < high:
        middle = (low + high) // 2
        # By its last byte: a mapping may end where 64 bits end.
        if builder.mappings[middle].start + (builder.mappings[middle].size_bytes - 1) < address:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline bint needs_table(const builder_t* builder, int level, u64 address) noexcept nogil:
    """Whether anything that is mapped below the entry of `level` for `address` is smaller than the entry's span."""
    cdef u64 number = mapping_find(builder, address & ~span_of(builder, level))
    while number < builder.count and builder.mappings[number].start <= address | span_of(builder, level):
        if builder.mappings[number].page_shift < level_shift(builder, level):
            return True
        number += 1
    return False


cdef inline void table_fill(const builder_t* builder, u64 table, int level, u64 first, u64 last) noexcept nogil:
    """Enter the pages of this level's size that lie in [first, last], addresses under this table, from the mappings."""
    cdef u64 number = mapping_find(builder, first), address, end, step = <u64>1 << level_shift(builder, level)
    cdef const mapping_t* mapping
    while number < builder.count and builder.mappings[number].start <= last:
        mapping = &builder.mappings[number]
        number += 1
        if mapping.page_shift != level_shift(builder, level):
            continue
        address = max(mapping.start, first)
        end = min(mapping.start + (mapping.size_bytes - 1), last)
        while True:
            entry_set(builder, table, entry_index(builder, address, level), leaf_entry(builder, mapping, address))
            if end - address < step:
                break
            address += step


cdef inline u64 builder_allocate(builder_t* builder) noexcept nogil:
    """A zeroed table, or 0 when the area is full."""
    cdef u64 capacity = (builder.tables_end - builder.root) >> PAGE_SHIFT, table
    while builder.lowest_free < capacity and builder.used[builder.lowest_free]:
        builder.lowest_free += 1
    if builder.lowest_free == capacity:
        return 0
    builder.used[builder.lowest_free] = 1
    builder.tables += 1
    table = builder.root + (builder.lowest_free << PAGE_SHIFT)
    memset(ram_at(builder.ram, table), 0, PAGE_SIZE)
    return table


cdef inline bint builder_release(builder_t* builder, u64 table) noexcept nogil:
    """Take a table out of use; False if it is none, or was before: then an entry was written by hand."""
    cdef u64 number = (table - builder.root) >> PAGE_SHIFT
    if table <= builder.root or table >= builder.tables_end or not builder.used[number]:
        return False
    builder.used[number] = 0
    builder.lowest_free = min(builder.lowest_free, number)
    builder.tables -= 1
    return True


cdef enum Build:
    BUILD_NOTHING               # every table that the address needs exists
    BUILD_DONE
    BUILD_FULL                  # the area of the tables is full


cdef inline bint inside_tables(const builder_t* builder, u64 table) noexcept nogil:
    return table >= builder.root and table < builder.tables_end


cdef inline Build build_at(builder_t* builder, u64 address) noexcept nogil:
    """Make the tables on the way to `address` that do not exist, as deep as the mappings around it need them: a walk
    reads as many entries, whether it finds a page or not, as if all tables had been there from the beginning."""
    cdef u64 table = builder.root, entry, below
    cdef int level = builder.levels
    cdef Build done = BUILD_NOTHING
    while level > 1:
        entry = entry_get(builder, table, entry_index(builder, address, level))
        below = entry & BUILDER_ADDRESS
        if not entry & builder.present:
            if not needs_table(builder, level, address):
                return done
            below = builder_allocate(builder)
            if below == 0:
                return BUILD_FULL
            table_fill(builder, below, level - 1, address & ~span_of(builder, level), address | span_of(builder, level))
            entry_set(builder, table, entry_index(builder, address, level),
                      below | (builder.top_bits if level == builder.levels else builder.table_bits))
            done = BUILD_DONE
        elif entry & BUILDER_LARGE or not inside_tables(builder, below):
            return done                 # a page, or written by hand
        table = below
        level -= 1
    return done


cdef inline void release_tables(builder_t* builder, u64 table, int level) noexcept nogil:
    """Give a table and those below it back, each once, however its entries were written."""
    cdef u64 index, entry
    if builder_release(builder, table) and level > 1:
        for index in range(<u64>1 << builder.index_bits):
            entry = entry_get(builder, table, index)
            if entry & builder.present and not entry & BUILDER_LARGE:
                release_tables(builder, entry & BUILDER_ADDRESS, level - 1)


cdef inline void refill(builder_t* builder, u64 table, int level, u64 base, u64 first, u64 last) noexcept nogil:
    """Bring what exists of [first, last] in line with the mappings; tables that nothing needs are given back.

    `base` is the address of the table's first entry.
    """
    cdef u64 size = (<u64>1 << builder.index_bits), span = span_of(builder, level), entry, start, below
    cdef u64 index = 0, stop = size - 1
    if first > base:
        index = (first - base) >> level_shift(builder, level)
    if (last - base) >> level_shift(builder, level) < stop:
        stop = (last - base) >> level_shift(builder, level)
    while index <= stop:
        start = base + (index << level_shift(builder, level))
        entry = entry_get(builder, table, index)
        below = entry & BUILDER_ADDRESS
        if not entry & builder.present:
            pass
        elif level == 1 or entry & BUILDER_LARGE:
            entry_set(builder, table, index, 0)
        elif inside_tables(builder, below):
            if not needs_table(builder, level, start):
                entry_set(builder, table, index, 0)
                release_tables(builder, below, level - 1)
            else:
                refill(builder, below, level - 1, start, first, last)
        index += 1
    table_fill(builder, table, level, max(first, base), min(last, base + (size << level_shift(builder, level)) - 1))
