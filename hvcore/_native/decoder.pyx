"""Module `decoder`: the decode tables, generated from isa/x64.txt, and one instruction at a time for Python.

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
tables.entries, tables.roots, tables.leads = ISA_ENTRIES, ISA_ROOTS, ISA_LEADS
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


cdef class Instruction:
    """One decoded instruction. `valid` is False for bytes that are none; then only `length` means something."""
    cdef insn_t insn
    cdef readonly u64 ip

    @property
    def valid(self):
        return self.insn.status == DECODE_OK

    @property
    def truncated(self):
        """More bytes are needed than were given."""
        return self.insn.status == DECODE_TRUNCATED

    @property
    def length(self):
        """Bytes."""
        return self.insn.length

    @property
    def form(self):
        """Index of the row of x64.txt that it matched."""
        return self.insn.form

    @property
    def mnemonic(self):
        """Name as in the table; "invalid" if it is no instruction."""
        return MNEMONICS[tables.forms[self.insn.form].mnemonic if self.valid else 0]

    @property
    def flow(self):
        """How control leaves: one of FLOWS."""
        return FLOWS[tables.forms[self.insn.form].flow]

    @property
    def operand_size(self):
        """Bits; 0 where the form has none."""
        return self.insn.operand_size

    @property
    def features(self):
        """CPUID features that bring it, separated by blanks."""
        return FORM_FEATURES[self.insn.form]

    @property
    def table_line(self):
        """Line of isa/x64.txt."""
        return FORM_LINES[self.insn.form]

    @property
    def target(self):
        """Where a direct branch goes; None for anything else."""
        cdef const form_t* form = &tables.forms[self.insn.form]
        if not self.valid or form.operand_count == 0 or form.places[0] != PLACE_TARGET:
            return None
        return (self.ip + self.insn.length + <u64>self.insn.immediate) & 0xFFFFFFFFFFFFFFFF

    def __repr__(self):
        return f"<Instruction {self.mnemonic} at {self.ip:#x}, {self.length} bytes>"


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


def decode_instruction(code, *, u64 ip=0, int bits=64, Py_ssize_t offset=0, str vendor="intel"):
    """Decode the instruction at `offset` of a buffer.

    Parameters
    ----------
    code : buffer of bytes
    ip : int
        Address of the instruction, for branch targets.
    bits : int
        16, 32 or 64: the mode.
    offset : int
        Where it starts in `code`.
    vendor : str
        "intel" or "amd", for the few bytes that they read differently.

    Raises
    ------
    ValueError
        `offset` is outside `code`, or there is no such mode or vendor.
    """
    cdef Instruction instruction = Instruction.__new__(Instruction)
    decode_at(code, offset, options_of(bits, vendor), &instruction.insn)
    instruction.ip = ip
    return instruction


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
