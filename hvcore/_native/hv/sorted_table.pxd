"""Things by number: an array in ascending order, found by halving. Whoever inserts keeps the things alive."""
from libc.stdlib cimport realloc
from libc.string cimport memmove

from hvcore._native.base.types cimport u32, u64


cdef struct sorted_entry_t:
    u64 key
    void* item


cdef struct sorted_table_t:
    sorted_entry_t* entries
    u32 count
    u32 capacity


cdef inline u32 table_position(const sorted_table_t* table, u64 key) noexcept nogil:
    """Of the first entry whose key is not less; their count if there is none."""
    cdef u32 low = 0, high = table.count, middle
    while low < high:
        middle = (low + high) >> 1
        if table.entries[middle].key < key:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline void* table_find(const sorted_table_t* table, u64 key) noexcept nogil:
    """The first thing with this key, or NULL."""
    cdef u32 position = table_position(table, key)
    if position == table.count or table.entries[position].key != key:
        return NULL
    return table.entries[position].item


cdef inline bint table_insert(sorted_table_t* table, u64 key, void* item) noexcept nogil:
    """False: the host has no memory. Several things may have one key."""
    cdef u32 position = table_position(table, key)
    cdef sorted_entry_t* grown
    if table.count == table.capacity:
        grown = <sorted_entry_t*>realloc(table.entries, (2 * table.capacity + 4) * sizeof(sorted_entry_t))
        if grown is NULL:
            return False
        table.entries = grown
        table.capacity = 2 * table.capacity + 4
    memmove(&table.entries[position + 1], &table.entries[position], (table.count - position) * sizeof(sorted_entry_t))
    table.entries[position].key = key
    table.entries[position].item = item
    table.count += 1
    return True


cdef inline void table_remove(sorted_table_t* table, u64 key, const void* item) noexcept nogil:
    """Take one thing out; nothing happens if it is not there."""
    cdef u32 position = table_position(table, key)
    while position < table.count and table.entries[position].key == key:
        if table.entries[position].item == item:
            table.count -= 1
            memmove(&table.entries[position], &table.entries[position + 1],
                    (table.count - position) * sizeof(sorted_entry_t))
            return
        position += 1
