# Chapter of translator.pyx: the loop over a batch, for each format and kind of tables.
#
# What is most common, four levels over a plain second level or none, has a function of its own each; all other cases
# share one a kind. They are functions and not branches of one: the compiler gives up on larger ones.

cdef u64 translate_flat(const batch_t* batch, u64 first) noexcept nogil:
    return translate_each(<memory_p>batch.ram, paging_format(PAGING_4LEVEL), batch, True, False, first)


cdef u64 translate_flat_any(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    return translate_each(<memory_p>batch.ram, paging_format(mode), batch, True, all_columns, first)


cdef u64 translate_nested(const batch_t* batch, u64 first) noexcept nogil:
    return translate_each(<space_p>batch.space, paging_format(PAGING_4LEVEL), batch, True, False, first)


cdef u64 translate_nested_any(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    return translate_each(<space_p>batch.space, paging_format(mode), batch, False, all_columns, first)


cdef u64 translate_cached(const batch_t* batch, u64 first) noexcept nogil:
    return translate_each(<cached_p>&batch.cached, paging_format(PAGING_4LEVEL), batch, True, False, first)


cdef u64 translate_cached_any(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    return translate_each(<cached_p>&batch.cached, paging_format(mode), batch, False, all_columns, first)


cdef u64 translate_from(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    """`translate_each` for the tables, the format and the columns of a batch."""
    cdef bint common = mode == PAGING_4LEVEL and not all_columns
    if batch.space == NULL:
        return translate_flat(batch, first) if common else translate_flat_any(batch, mode, all_columns, first)
    common = common and is_plain(batch.space)
    if batch.cached.entries != NULL:
        return translate_cached(batch, first) if common else translate_cached_any(batch, mode, all_columns, first)
    return translate_nested(batch, first) if common else translate_nested_any(batch, mode, all_columns, first)
