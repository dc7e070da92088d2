"""Target of libFuzzer for the decoder of one instruction, built and run by tools/fuzz_decoder.sh.

The first byte chooses mode and vendor, the others are code; libFuzzer's buffer ends with them, so AddressSanitizer sees
a byte read too many. What must hold for any bytes is below; abort() reports what does not.
"""
from hvcore._native.base.types cimport u32, u8
from hvcore._native.decode.decode cimport decode
from hvcore._native.decode.spec cimport (
    DECODE_AMD, DECODE_INVALID, DECODE_OK, DECODE_TRUNCATED, MAXIMUM_LENGTH, REGISTER_NONE, REGISTER_RIP, form_t, insn_t,
    isa_t,
)
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy

cdef extern from "hvcore/_native/isa/generated/tables.h" nogil:
    const u32[1] ISA_ENTRIES
    const u32[1] ISA_ROOTS
    const u32[1] ISA_FORMS
    const u8[1] ISA_LEADS


cdef void check(bint holds) noexcept nogil:
    if not holds:
        abort()


cdef void decode_part(const isa_t* isa, const u8* code, u32 size, u8 options, insn_t* insn) noexcept nogil:
    """Decode the first bytes as a buffer of their own, which nothing follows."""
    cdef u8* part = <u8*>malloc(size)
    memcpy(part, code, size)
    decode(isa, part, size, options, insn)
    free(part)


cdef public int LLVMFuzzerTestOneInput(const u8* data, size_t size) noexcept nogil:
    cdef isa_t isa
    cdef insn_t insn, other
    cdef u8 options
    cdef u32 available, cut
    if size < 2:
        return 0
    isa.entries, isa.roots, isa.leads = ISA_ENTRIES, ISA_ROOTS, ISA_LEADS
    isa.forms = <const form_t*>ISA_FORMS
    options = data[0] % 3 | (DECODE_AMD if data[0] & 0x80 else 0)
    data, available = data + 1, <u32>(size - 1)
    decode(&isa, data, available, options, &insn)

    check(0 < insn.length and insn.length <= MAXIMUM_LENGTH and insn.length <= available)
    decode_part(&isa, data, insn.length, options, &other)
    if insn.status == DECODE_TRUNCATED:
        check(insn.length == available)
        return 0
    if insn.status != DECODE_OK:
        check(insn.status == DECODE_INVALID or insn.length == MAXIMUM_LENGTH)
        check(other.status == insn.status)
        return 0
    check(memcmp(&insn, &other, sizeof(insn_t)) == 0)
    check(0 < insn.form and insn.form < sizeof(ISA_FORMS) / sizeof(form_t))
    check(insn.reg < 32 and insn.rm < 32 and insn.vvvv < 32 and insn.scale < 4 and insn.mask < 8)
    check(insn.base < 32 or insn.base == REGISTER_RIP or insn.base == REGISTER_NONE)
    check(insn.index < 64 or insn.index == REGISTER_NONE)
    check(insn.displacement_offset + insn.displacement_size <= insn.length)
    check(insn.immediate_offset + insn.immediate_size + insn.immediate2_size <= insn.length)
    for cut in range(1, insn.length):
        decode_part(&isa, data, cut, options, &other)
        check(other.status == DECODE_TRUNCATED)
    return 0
