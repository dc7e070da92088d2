"""Counts instructions: one free function of hvcore on one plain struct, no Python object in the loop."""
cimport cython
from hvcore._native.base.types cimport u8, u32
from hvcore._native.decode.spec cimport DECODE_64, DECODE_OK, insn_t
from hvcore._native.decoder cimport decode_one


@cython.boundscheck(False)
@cython.wraparound(False)
def count(const u8[::1] code):
    """(instructions, bytes that start none) of a buffer, by linear sweep."""
    cdef Py_ssize_t at = 0, size = code.shape[0], instructions = 0, bad = 0
    cdef insn_t insn
    with nogil:
        while at < size:
            decode_one(&code[at], <u32>min(size - at, 64), DECODE_64, &insn)
            if insn.status == DECODE_OK:
                instructions += 1
                at += insn.length
            else:
                bad += 1
                at += 1
    return instructions, bad
