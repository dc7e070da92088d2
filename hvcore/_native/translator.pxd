"""The objects that translate arrays of addresses."""
from cpython.pythread cimport PyThread_type_lock
from hvcore._native.base.types cimport u64
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.hv.state cimport partition_t
from hvcore._native.mem.batch cimport batch_t
from hvcore._native.mem.format cimport page_format_t
from hvcore._native.mem.ram cimport ram_t
from hvcore._native.mem.reverse cimport reverse_t
from hvcore._native.mem.runs cimport runs_t
from hvcore._native.mem.second_level cimport space_t
from hvcore._native.space cimport GpaSpace
from hvcore._native.table_builder cimport TableBuilder


cdef class MemoryImage:
    cdef ram_t ram
    cdef Py_buffer buffer
    cdef bint held


cdef class TableTranslator:
    cdef vp_t* vp                   # holds registers, and what follows from them; it never runs
    cdef partition_t partition
    cdef readonly object memory     # SystemMemory or MemoryImage
    cdef ram_t* ram
    cdef space_t own_space
    cdef space_t* space
    cdef GpaSpace gpa_space
    cdef TableBuilder guest
    cdef TableBuilder second
    cdef PyThread_type_lock lock    # of the builders
    cdef int users                  # batches that are under way
    cdef void load_pdptes(self) noexcept nogil
    cdef bint build_for(self, const batch_t* batch, u64 gva) noexcept nogil
    cdef u64 access_bits(self, u64 access, int privilege) noexcept
    cdef void refresh_pdptes(self) noexcept
    cdef void start_batch(self, batch_t* batch, u64 access, int privilege, bint set_marks) noexcept
    cdef void note_built(self, batch_t* batch) noexcept nogil
    cdef bint extend_runs(self, batch_t* batch, runs_t* runs, u64* gva, u64* size) noexcept nogil
    cdef int run_batch(self, batch_t* batch, bint all_columns) except -1
    cdef void scan_guest(self, reverse_t* reverse) noexcept nogil
    cdef void scan_table(self, page_format_t form, u64 root, u64 base, reverse_t* reverse) noexcept nogil
    cdef void scan_second(self, reverse_t* reverse) noexcept nogil
