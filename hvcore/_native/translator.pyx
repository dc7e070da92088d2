"""Module `translator`: page tables built by hand, and translation of arrays of addresses.

Contract: whatever comes from Python is checked here and names itself in the exception. A batch releases the GIL once.
"""
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock,
    WAIT_LOCK,
)
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.mem.builder cimport (
    BUILD_FULL, build_at, builder_allocate, builder_t, mapping_find, mapping_t, mapping_target, refill,
)
from hvcore._native.mem.permutation cimport unpermuted
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE
from hvcore._native.space cimport GpaSpace, SystemMemory
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memmove

include "translator_builder.pxi"
