"""The object over page tables that are built by hand."""
from hvcore._native.base.types cimport u64
from hvcore._native.mem.builder cimport builder_t
from hvcore._native.space cimport SystemMemory


cdef class TableBuilder:
    cdef builder_t builder
    cdef SystemMemory memory
    cdef u64 capacity               # mappings that there is room for
    cdef int reserve_mappings(self, u64 more) except -1
    cdef void split(self, u64 address) noexcept
