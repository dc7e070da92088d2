"""Module `facts`: what the table says about each form, as read-only NumPy columns indexed by form; names of numbers.

`facts.flags_read[table.form]` is an array of as many rows as the table has. The columns are views of constant data of
this module: nothing is copied. Columns of operands have the shape (forms, 5).
"""
from enum import IntEnum, IntFlag

import numpy

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from hvcore._native.base.types cimport u8, u16
from hvcore._native.decode.spec cimport (
    ACCESS_ADDRESS, ACCESS_CONDITIONAL, ACCESS_NONE, ACCESS_READ, ACCESS_WRITE, FLOW_BRANCH, FLOW_CALL,
    FLOW_CALL_INDIRECT, FLOW_EXCEPTION, FLOW_INTERRUPT, FLOW_JUMP, FLOW_JUMP_INDIRECT, FLOW_NEXT, FLOW_RETURN,
    FLOW_TRANSACTION, PREFIX_ADDRESS, PREFIX_AMD, PREFIX_EVEX, PREFIX_LOCK, PREFIX_OPERAND, PREFIX_REP,
    PREFIX_REPNE, PREFIX_REX, PREFIX_REX2, PREFIX_SEGMENT, PREFIX_VEX, PREFIX_W, PREFIX_XOP, REGISTER_BOUND,
    REGISTER_BSR0, REGISTER_CONTROL, REGISTER_DEBUG, REGISTER_ES, REGISTER_HIGH, REGISTER_MASK, REGISTER_MMX,
    REGISTER_NONE,
    REGISTER_RIP, REGISTER_TEST, REGISTER_TILE, REGISTER_VECTOR, REGISTER_X87,
)


cdef object column(const void* data, Py_ssize_t count, str kind, int width):
    """A read-only array over constant data; two-dimensional if a form has several values."""
    dtype = numpy.dtype(kind)
    found = numpy.frombuffer(PyMemoryView_FromMemory(<char*>data, count * dtype.itemsize, PyBUF_READ), dtype)
    return found if width == 1 else found.reshape(-1, width)


include "isa/generated/facts.pxi"


class Flow(IntEnum):
    """How control leaves an instruction."""

    NEXT = FLOW_NEXT
    JUMP = FLOW_JUMP
    JUMP_INDIRECT = FLOW_JUMP_INDIRECT
    BRANCH = FLOW_BRANCH
    CALL = FLOW_CALL
    CALL_INDIRECT = FLOW_CALL_INDIRECT
    RETURN = FLOW_RETURN
    INTERRUPT = FLOW_INTERRUPT
    EXCEPTION = FLOW_EXCEPTION
    TRANSACTION = FLOW_TRANSACTION


class OperandKind(IntEnum):
    """What an operand is; REGISTER_OR_MEMORY is a fact of forms, an instruction's operand is one of the two."""

    NONE = 0
    REGISTER = 1
    MEMORY = 2
    IMMEDIATE = 3
    TARGET = 4
    FAR = 5
    REGISTER_OR_MEMORY = 6


class Access(IntFlag):
    """What an instruction does with an operand."""

    READ = ACCESS_READ
    WRITE = ACCESS_WRITE
    ADDRESS = ACCESS_ADDRESS
    CONDITIONAL = ACCESS_CONDITIONAL
    NONE = ACCESS_NONE


class Prefix(IntFlag):
    """Prefixes of an instruction, as the column `prefixes` has them."""

    OPERAND_SIZE = PREFIX_OPERAND
    ADDRESS_SIZE = PREFIX_ADDRESS
    LOCK = PREFIX_LOCK
    REPNE = PREFIX_REPNE
    REP = PREFIX_REP
    REX = PREFIX_REX
    VEX = PREFIX_VEX
    EVEX = PREFIX_EVEX
    XOP = PREFIX_XOP
    REX2 = PREFIX_REX2
    SEGMENT = PREFIX_SEGMENT
    W = PREFIX_W
    AMD = PREFIX_AMD


# Written as a call: Cython takes a name IF for a statement of its own.
Flags = IntFlag("Flags", {
    "CF": 1 << 0, "PF": 1 << 2, "AF": 1 << 4, "ZF": 1 << 6, "SF": 1 << 7, "TF": 1 << 8, "IF": 1 << 9, "DF": 1 << 10,
    "OF": 1 << 11, "NT": 1 << 14, "RF": 1 << 16, "AC": 1 << 18, "C0": 1 << 24, "C1": 1 << 25, "C2": 1 << 26,
    "C3": 1 << 27, "UIF": 1 << 28,
}, module=__name__)
Flags.__doc__ = "Bits of RFLAGS, and from bit 24 on C0 to C3 of the x87 unit's status and the user interrupt flag."

Element = IntEnum("Element", {name.upper(): number for number, name in enumerate(elements)}, module=__name__)
Element.__doc__ = "Types of the elements of memory operands: u8 .. u512, i8 .. i64, f16, bf16, f32, f64, f80, bcd ..."

GENERAL = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_BYTES = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil")
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")


def _register_names():
    """Numbers of all registers with the names of their widest form."""
    names = {number: f"r{GENERAL[number]}" if number < 8 else f"r{number}" for number in range(32)}
    for first, count, stem in ((REGISTER_VECTOR, 32, "v"), (REGISTER_MASK, 8, "k"), (REGISTER_X87, 8, "st"),
                               (REGISTER_MMX, 8, "mm"), (REGISTER_CONTROL, 16, "cr"), (REGISTER_DEBUG, 16, "dr"),
                               (REGISTER_TEST, 8, "tr"), (REGISTER_TILE, 8, "tmm"), (REGISTER_BOUND, 4, "bnd")):
        names.update({first + number: f"{stem}{number}" for number in range(count)})
    names.update({REGISTER_ES + number: name for number, name in enumerate(_SEGMENTS)})
    names.update({REGISTER_HIGH + number: name for number, name in enumerate(("ah", "ch", "dh", "bh"))})
    names[REGISTER_RIP], names[REGISTER_BSR0], names[REGISTER_NONE] = "rip", "bsr0", "none"
    return names


_NAMES = _register_names()
Register = IntEnum("Register", {name.upper(): number for number, name in sorted(_NAMES.items())}, module=__name__)
Register.__doc__ = "Architectural registers: 0-31 general, 32-63 vector, then the others. The width is no part of it."
_VECTORS = {128: "xmm", 256: "ymm", 512: "zmm"}


cdef object register_text(u8 number, int bits):
    """The name of a register at a width."""
    if number < 32:
        if bits == 8:
            return _BYTES[number] if number < 8 else f"r{number}b"
        if number < 8:
            return {16: "", 32: "e"}.get(bits, "r") + GENERAL[number]
        return f"r{number}" + {16: "w", 32: "d"}.get(bits, "")
    if number < REGISTER_MASK:
        return f"{_VECTORS.get(bits, 'xmm')}{number - REGISTER_VECTOR}"
    if number == REGISTER_RIP and bits == 32:
        return "eip"
    return _NAMES.get(number, "none")


def register_name(number, bits=64):
    """The name of an hv.Register at a width in bits: register_name(0, 32) is "eax"; "none" for no register."""
    return register_text(number, bits)


cdef int operand_width(u16 form, int number) noexcept nogil:
    return ISA_FACT_OPERAND_BITS[5 * form + number]


cdef int memory_width(u16 form) noexcept nogil:
    return ISA_FACT_MEMORY_BITS[form]


cdef int index_width(u16 form) noexcept nogil:
    return ISA_FACT_INDEX_BITS[form]


cdef int broadcast_width(u16 form) noexcept nogil:
    return ISA_FACT_BROADCAST_BITS[form]


cdef int element_number(u16 form) noexcept nogil:
    return ISA_FACT_ELEMENT[form]


cdef int group_size(u16 form, int number) noexcept nogil:
    return ISA_FACT_OPERAND_GROUP[5 * form + number]
