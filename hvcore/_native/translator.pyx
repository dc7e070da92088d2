"""Module `translator`: page tables built by hand, and translation of arrays of addresses.

Contract: whatever comes from Python is checked here and names itself in the exception. A batch releases the GIL once.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pythread cimport (
    WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
)
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.cpu.spec cimport FLAG_AC
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.translation cimport refresh_request
from hvcore._native.mem.batch cimport batch_t, translate_each
from hvcore._native.mem.builder cimport (
    BUILD_DONE, BUILD_FULL, build_at, builder_allocate, mapping_find, mapping_t, mapping_target, refill,
)
from hvcore._native.mem.descend cimport (
    WALK_NESTED, WALK_NOT_PRESENT, WALK_TABLE, memory_p, space_p, space_translate,
)
from hvcore._native.mem.format cimport (
    PAGING_4LEVEL, PAGING_5LEVEL, PAGING_PAE, RIGHT_READ, RIGHT_USER, PagingMode, paging_format,
)
from hvcore._native.mem.permutation cimport unpermuted
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE, ram_at
from hvcore._native.mem.request cimport ACCESS_ALIGNMENT, ACCESS_IMPLICIT, PAE_ENTRIES
from hvcore._native.mem.second_level cimport SECOND_OK, SECOND_UNMAPPED, second_level_t
from hvcore._native.mem.walk cimport walk, walk_t
from hvcore._native.space cimport GpaSpace, SystemMemory
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset


cdef u64 translate_from(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    """`translate_each` for the format of `mode`: long mode has copies of its own."""
    if batch.space == NULL:
        if mode == PAGING_4LEVEL:
            if not all_columns:
                return translate_each(<memory_p>batch.ram, paging_format(PAGING_4LEVEL), batch, False, first)
            return translate_each(<memory_p>batch.ram, paging_format(PAGING_4LEVEL), batch, True, first)
        if mode == PAGING_5LEVEL:
            return translate_each(<memory_p>batch.ram, paging_format(PAGING_5LEVEL), batch, all_columns, first)
        return translate_each(<memory_p>batch.ram, paging_format(mode), batch, all_columns, first)
    if mode == PAGING_4LEVEL:
        if not all_columns:
            return translate_each(<space_p>batch.space, paging_format(PAGING_4LEVEL), batch, False, first)
        return translate_each(<space_p>batch.space, paging_format(PAGING_4LEVEL), batch, True, first)
    if mode == PAGING_5LEVEL:
        return translate_each(<space_p>batch.space, paging_format(PAGING_5LEVEL), batch, all_columns, first)
    return translate_each(<space_p>batch.space, paging_format(mode), batch, all_columns, first)


cdef void vp_translate_for(const batch_t* batch, PagingMode mode, u64 gva, walk_t* found) noexcept nogil:
    """One translation without marks and rights: what exists."""
    cdef batch_t one = batch[0]
    one.request.set_marks = False
    one.request.ignore_rights = True
    if one.space == NULL:
        walk(<memory_p>one.ram, paging_format(mode), &one.request, RIGHT_READ, gva, found)
    else:
        walk(<space_p>one.space, paging_format(mode), &one.request, RIGHT_READ, gva, found)


include "translator_builder.pxi"
include "translator_batch.pxi"
