"""Modelled translation hardware and stack distances as objects. Not for downstream."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.model.stack cimport stacks_t
from hvcore._native.model.structure cimport structure_t
from hvcore._native.model.translation cimport dimension_t, model_t


cdef class ModelCore:
    cdef model_t model
    cdef u64* arena                 # rows, keys, lists and hashes of all structures
    cdef u64 arena_words
    cdef readonly bint busy         # a batch is running
    cdef readonly tuple names
    cdef int lay_out(self, list layouts) except -1
    cdef u64 place(self, structure_t* s, u64 at) noexcept
    cdef int place_dimension(self, dimension_t* d, object facts) except -1
    cdef structure_t* named(self, object name) except? NULL


cdef class StackCore:
    cdef stacks_t stacks
    cdef readonly bint busy
