"""Instruction objects for other modules."""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.decode.spec cimport insn_t


cdef class Instruction:
    cdef insn_t insn
    cdef u8[16] code
    cdef readonly u64 ip
    cdef u16 form_number(self) noexcept


cdef Instruction make_instruction(const u8* code, u32 available, u8 options, u64 ip)
