"""The columns of a batch: where its results go."""
from hvcore._native.base.types cimport u8, u64
from hvcore._native.dma.translate cimport dma_t
from libc.string cimport memset


# Where results go; NULL: not asked for.
cdef struct dma_columns_t:
    u64* gpa
    u64* spa
    u8* page_shift
    u8* nested_page_shift
    u8* status
    u8* reason
    u8* table_references
    u8* references
    u8* nested_references


cdef inline void store_columns(const dma_columns_t* out, u64 i, const dma_t* done) noexcept nogil:
    if out.gpa != NULL:
        out.gpa[i] = done.output
    if out.spa != NULL:
        out.spa[i] = done.spa
    if out.page_shift != NULL:
        out.page_shift[i] = done.first_shift
    if out.nested_page_shift != NULL:
        out.nested_page_shift[i] = done.second_shift
    if out.status != NULL:
        out.status[i] = done.status
    if out.reason != NULL:
        out.reason[i] = done.reason
    if out.table_references != NULL:
        out.table_references[i] = done.table_references
    if out.references != NULL:
        out.references[i] = done.first_references
    if out.nested_references != NULL:
        out.nested_references[i] = done.second_references


cdef inline void clear_columns(const dma_columns_t* out, u64 count) noexcept nogil:
    """Those that are zero for a hit."""
    if out.status != NULL:
        memset(out.status, 0, count)
    if out.reason != NULL:
        memset(out.reason, 0, count)
    if out.table_references != NULL:
        memset(out.table_references, 0, count)
    if out.references != NULL:
        memset(out.references, 0, count)
    if out.nested_references != NULL:
        memset(out.nested_references, 0, count)
