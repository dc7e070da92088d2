"""Facts of a form for other modules."""
from hvcore._native.base.types cimport u8, u16

cdef int operand_width(u16 form, int number) noexcept nogil
cdef int memory_width(u16 form) noexcept nogil
cdef int index_width(u16 form) noexcept nogil
cdef int broadcast_width(u16 form) noexcept nogil
cdef int element_number(u16 form) noexcept nogil
cdef int group_size(u16 form, int number) noexcept nogil
cdef object register_text(u8 number, int bits)
