"""Module `formatter`: instructions as lines of text, one or a whole buffer of them.

Contract: `format_line` of the .pxd writes at most LINE_MAXIMUM bytes; the bytes of the instruction are only looked at
for prefixes. The tables are generated from isa/x64.txt and the rules in isa/syntaxes.py.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.unicode cimport PyUnicode_DecodeASCII
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.decoder cimport decode_one, options_of
from hvcore._native.text.line cimport put_line
from hvcore._native.text.spec cimport *
from hvcore._native.text.write cimport put_character, put_text

cdef extern from "isa/generated/text.h" nogil:
    const u32[1] ISA_WORDS
    const u32[1] ISA_REGISTERS
    const u32[1] ISA_CONDITIONS
    const u32[1] ISA_LAYOUTS
    const u32[1] ISA_TEXTS
    const u32 ISA_TEXT_FORMS

cdef text_tables_t tables
tables.words = <const word_t*>ISA_WORDS
tables.registers = <const word_t*>ISA_REGISTERS
tables.conditions = <const word_t*>ISA_CONDITIONS
tables.layouts = <const layout_t*>ISA_LAYOUTS
tables.texts = <const text_t*>ISA_TEXTS
tables.form_count = ISA_TEXT_FORMS
assert sizeof(word_t) == 24 and sizeof(layout_t) == 52 and sizeof(text_t) == 8

SYNTAXES = ("intel", "att", "nasm")

cdef enum:
    TILE_LINES = 1024           # lines that are made without the GIL in one go
    LISTING_MAXIMUM = LINE_MAXIMUM + 64     # of an address and 15 bytes in front


cdef int format_line(const insn_t* insn, const u8* code, u64 ip, u8 syntax, char* out) noexcept nogil:
    return put_line(&tables, syntax, insn, code, ip, out)


cdef int syntax_number(object name) except -1:
    for number in range(SYNTAX_COUNT):
        if name == SYNTAXES[number]:
            return number
    raise ValueError(f"syntax must be one of {', '.join(map(repr, SYNTAXES))}, not {name!r}")


cdef inline char* put_bytes_column(const u8* code, u8 length, char* out) noexcept nogil:
    """Two digits a byte, and blanks up to the place of ten."""
    cdef u8 at, digit
    cdef int half
    for at in range(length):
        for half in range(2):
            digit = code[at] >> 4 if half == 0 else code[at] & 0xF
            out = put_character(out, <char>(digit + (48 if digit < 10 else 87)))
    for at in range(length, 10):
        out = put_text(out, b"  ", 2)
    return out


cdef inline char* put_address_column(u64 address, int digits, char* out) noexcept nogil:
    cdef int at
    cdef u8 digit
    for at in range(digits):
        digit = address >> 4 * (digits - 1 - at) & 0xF
        out = put_character(out, <char>(digit + (48 if digit < 10 else 87)))
    return out


cdef class _Lines:
    """Room for a tile of lines."""
    cdef char* text
    cdef u32[TILE_LINES] ends

    def __cinit__(self):
        self.text = <char*>PyMem_Malloc(TILE_LINES * LISTING_MAXIMUM)
        if self.text == NULL:
            raise MemoryError("no memory for lines of text")

    def __dealloc__(self):
        PyMem_Free(self.text)


cdef inline u64 offset_at(const void* offsets, Py_ssize_t item_size, Py_ssize_t index) noexcept nogil:
    return (<const u32*>offsets)[index] if item_size == 4 else (<const u64*>offsets)[index]


cdef u32 fill(_Lines lines, const Py_buffer* code, const Py_buffer* offsets, Py_ssize_t first, u32 count, u64 ip,
              u8 options, u8 syntax) noexcept nogil:
    """Lines of `count` instructions from the first on, one behind the other; each one's end is in `lines.ends`."""
    cdef insn_t insn
    cdef u64 at
    cdef u32 index
    cdef char* out = lines.text
    for index in range(count):
        at = offset_at(offsets.buf, offsets.itemsize, first + index)
        decode_one(<const u8*>code.buf + at, <u32>min(code.len - at, <u64>64), options, &insn)
        out += put_line(&tables, syntax, &insn, <const u8*>code.buf + at, ip + at, out)
        lines.ends[index] = <u32>(out - lines.text)
    return count


cdef bint are_inside(const Py_buffer* code, const Py_buffer* offsets) noexcept nogil:
    cdef Py_ssize_t index
    for index in range(offsets.len // offsets.itemsize):
        if offset_at(offsets.buf, offsets.itemsize, index) >= <u64>code.len:
            return False
    return True


cdef int get_buffers(object code, object offsets, Py_buffer* source, Py_buffer* places) except -1:
    """Both buffers, checked: offsets are unsigned numbers of 4 or 8 bytes, and inside the code."""
    PyObject_GetBuffer(code, source, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(offsets, places, PyBUF_SIMPLE)
    except BaseException:
        PyBuffer_Release(source)
        raise
    if places.itemsize in (4, 8) and are_inside(source, places):
        return 0
    size = places.itemsize
    PyBuffer_Release(places)
    PyBuffer_Release(source)
    raise ValueError("offsets must be a contiguous array of uint32 or uint64" if size not in (4, 8) else
                     "an offset is outside the code")


def format_code(code, offsets, *, u64 ip=0, bits=64, vendor="intel", syntax="intel"):
    """The lines of the instructions at these offsets of a buffer, as a list of str.

    Parameters
    ----------
    code : buffer of bytes
    offsets : array of uint32 or uint64, contiguous
        Where instructions start; `InstructionTable.offset` is such.
    ip : int
        Address of the first byte of `code`.
    bits : 16, 32 or 64
    vendor : "intel" or "amd"
    syntax : "intel", "att" or "nasm"

    Raises
    ------
    ValueError
        An argument is none of those, or an offset is outside `code`.
    """
    cdef Py_buffer source, places
    cdef u8 options = options_of(bits, vendor)
    cdef u8 number = syntax_number(syntax)
    cdef _Lines lines = _Lines()
    cdef Py_ssize_t first = 0, total
    cdef u32 count, index, start
    get_buffers(code, offsets, &source, &places)
    try:
        total = places.len // places.itemsize
        found = [None] * total
        while first < total:
            count = <u32>min(total - first, <Py_ssize_t>TILE_LINES)
            with nogil:
                fill(lines, &source, &places, first, count, ip, options, number)
            start = 0
            for index in range(count):
                found[first + index] = PyUnicode_DecodeASCII(lines.text + start, lines.ends[index] - start, NULL)
                start = lines.ends[index]
            first += count
    finally:
        PyBuffer_Release(&places)
        PyBuffer_Release(&source)
    return found


def listing(code, offsets, *, u64 ip=0, bits=64, vendor="intel", syntax="intel", int digits=16):
    """A listing of the instructions at these offsets: address, bytes and text, a line each, as bytes.

    The parameters are those of `format_code`; `digits` is the width of the addresses.
    """
    cdef Py_buffer source, places
    cdef u8 options = options_of(bits, vendor)
    cdef u8 number = syntax_number(syntax)
    cdef _Lines lines = _Lines()
    cdef Py_ssize_t first = 0, total
    cdef u32 count, index
    cdef u64 at
    cdef char* out
    cdef insn_t insn
    chunks = []
    if not 1 <= digits <= 16:
        raise ValueError(f"digits must be 1 to 16, not {digits}")
    get_buffers(code, offsets, &source, &places)
    try:
        total = places.len // places.itemsize
        while first < total:
            count = <u32>min(total - first, <Py_ssize_t>TILE_LINES)
            with nogil:
                out = lines.text
                for index in range(count):
                    at = offset_at(places.buf, places.itemsize, first + index)
                    decode_one(<const u8*>source.buf + at, <u32>min(source.len - at, <u64>64), options, &insn)
                    out = put_text(put_address_column(ip + at, digits, out), b"  ", 2)
                    out = put_bytes_column(<const u8*>source.buf + at,
                                           insn.length if insn.status == DECODE_OK else 1, out)
                    out = put_text(out, b"  ", 2)
                    out += put_line(&tables, number, &insn, <const u8*>source.buf + at, ip + at, out)
                    out = put_character(out, c"\n")
            chunks.append(PyBytes_FromStringAndSize(lines.text, out - lines.text))
            first += count
    finally:
        PyBuffer_Release(&places)
        PyBuffer_Release(&source)
    return b"".join(chunks)
