"""Text of instructions for other modules: a free function that fills a buffer of LINE_MAXIMUM bytes."""
from hvcore._native.base.types cimport u8, u64
from hvcore._native.decode.spec cimport insn_t

cdef int format_line(const insn_t* insn, const u8* code, u64 ip, u8 syntax, char* out) noexcept nogil
cdef int syntax_number(object name) except -1
