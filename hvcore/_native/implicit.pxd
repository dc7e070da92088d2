"""Everything an instruction uses, for the module `instructions`."""
from hvcore._native.base.types cimport u64
from hvcore._native.decode.spec cimport insn_t

cdef object implicit_registers(const insn_t* insn)
cdef object register_uses(const insn_t* insn)
cdef object implicit_memory(const insn_t* insn)
