"""The decoder for downstream Cython: a free function on a plain struct.

    from hvcore._native.decoder cimport decode_one
    from hvcore._native.decode.spec cimport insn_t, DECODE_64, DECODE_OK

The function is not inline, so that table layouts do not freeze into other people's wheels. `options` is a mode,
DECODE_16, DECODE_32 or DECODE_64, with DECODE_AMD where the vendor's reading is wanted.
"""
from hvcore._native.base.types cimport u8, u32
from hvcore._native.decode.spec cimport insn_t, isa_t

cdef const isa_t* isa() noexcept nogil
cdef u8 options_of(int bits, object vendor) except 255
cdef void decode_one(const u8* code, u32 available, u8 options, insn_t* insn) noexcept nogil
