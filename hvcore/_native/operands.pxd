"""Operand objects for the module `instructions`."""
from hvcore._native.base.types cimport u8, u64
from hvcore._native.decode.spec cimport insn_t

cdef object make_operand(const insn_t* insn, int number, u64 ip)
cdef object register_name(u8 number, int bits)
cdef int operand_total(const insn_t* insn) noexcept nogil
