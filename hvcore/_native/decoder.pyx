"""Module `decoder`: the decode tables, generated from isa/x64.txt, and the free function that looks into them.

Contract: `decode_one` of the .pxd reads at most `available` bytes and never fails; what it found is in `insn.status`.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.decode.decode cimport decode
from hvcore._native.decode.spec cimport *

include "isa/generated/names.pxi"

cdef extern from "isa/generated/tables.h" nogil:
    const u32[1] ISA_ENTRIES
    const u32[1] ISA_ROOTS
    const u32[1] ISA_FORMS
    const u8[1] ISA_LEADS

cdef isa_t tables
assert sizeof(form_t) == FORM_BYTES
tables.entries = ISA_ENTRIES
tables.roots = ISA_ROOTS
tables.leads = ISA_LEADS
tables.forms = <const form_t*>ISA_FORMS
tables.form_count, tables.row_count = FORM_TOTAL, ROW_TOTAL

FLOWS = ("next", "jump", "jump_indirect", "branch", "call", "call_indirect", "return", "interrupt", "exception",
         "transaction")
MODES = {16: DECODE_16, 32: DECODE_32, 64: DECODE_64}
VENDORS = {"intel": 0, "amd": DECODE_AMD}


cdef const isa_t* isa() noexcept nogil:
    return &tables


cdef void decode_one(const u8* code, u32 available, u8 options, insn_t* insn) noexcept nogil:
    decode(&tables, code, available, options, insn)


cdef u8 options_of(int bits, vendor) except 255:
    if bits not in MODES:
        raise ValueError(f"bits must be 16, 32 or 64, not {bits}")
    if vendor not in VENDORS:
        raise ValueError(f"vendor must be 'intel' or 'amd', not {vendor!r}")
    return MODES[bits] | VENDORS[vendor]


cdef void decode_at(code, Py_ssize_t offset, u8 options, insn_t* insn) except *:
    cdef Py_buffer source
    PyObject_GetBuffer(code, &source, PyBUF_SIMPLE)
    try:
        if not 0 <= offset < source.len:
            raise ValueError(f"offset {offset} is outside the {source.len} bytes of code")
        decode(&tables, <const u8*>source.buf + offset, <u32>min(source.len - offset, 64), options, insn)
    finally:
        PyBuffer_Release(&source)


def decode_fields(code, *, int bits=64, Py_ssize_t offset=0, str vendor="intel"):
    """The fields of insn_t (decode/spec.pxd) as a dict, as the decoder left them. Raises as decode_instruction."""
    cdef insn_t insn
    decode_at(code, offset, options_of(bits, vendor), &insn)
    return insn


def form_fields(u32 form):
    """The record of a form (form_t of decode/spec.pxd); of each operand (place, register_base, access, size).

    Raises IndexError for a number that is no form's."""
    if form >= FORM_TOTAL:
        raise IndexError(f"there are {FORM_TOTAL} forms, no number {form}")
    cdef const form_t* found = &tables.forms[form]
    return {
        "flags": found.flags, "checks": found.checks, "immediate_bytes": found.immediate_bytes,
        "immediate2_bytes": found.immediate2_bytes, "displacement_shift": found.displacement_shift,
        "broadcast_shift": found.broadcast_shift, "operand_size": found.operand_size, "row": found.row,
        "vector_length": found.vector_length, "mnemonic": found.mnemonic, "flow": found.flow,
        "operands": [(found.places[i], found.register_bases[i], found.access[i], found.sizes[i])
                     for i in range(found.operand_count)],
    }


def sweep(code):
    """Linear sweep: (offset, length, mnemonic) of each instruction; a byte that starts none is skipped as "invalid".

    Yields tuples. The array interface over whole buffers is another matter.
    """
    cdef Py_buffer source
    cdef Py_ssize_t at = 0
    cdef insn_t insn
    PyObject_GetBuffer(code, &source, PyBUF_SIMPLE)
    try:
        while at < source.len:
            decode(&tables, <const u8*>source.buf + at, <u32>min(source.len - at, 64), DECODE_64, &insn)
            if insn.status != DECODE_OK:
                yield at, 1, "invalid"
                at += 1
            else:
                yield at, insn.length, MNEMONICS[tables.forms[insn.form].mnemonic]
                at += insn.length
    finally:
        PyBuffer_Release(&source)
