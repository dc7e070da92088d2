"""Module `sweep`: columns of decoded instructions over whole buffers.

The passes are C (batch/*.h): pass 1 finds where instructions begin, pass 2 fills columns. This module owns the tables of
their fast path, which are built when they are first used, and hands buffers over.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from hvcore._native.base.types cimport i32, i64, u8, u16, u32, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.decoder cimport decode_one, isa
from libc.string cimport memset

cdef enum:
    OPERAND_REGISTER = 1
    OPERAND_MEMORY = 2
    OPERAND_IMMEDIATE = 3
    BATCH_INVALID = 1
    BATCH_CUT_OFF = 2
    ANY_REX = PREFIX_REX | PREFIX_REX2 | PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP

cdef extern from *:
    """
    #define FILL_OPERANDS fill_operands
    """

cdef extern from "batch/build.h" nogil:
    ctypedef struct batch_row_t:
        i64 immediate
        i32 displacement
        u16 form
        u8 length, status, kinds, reg, base, index, scale
        u8[5] registers
        u8 target_bits, segment, operand_size, address_size, mask, evex
        u16 prefixes

    ctypedef void (*batch_slow_t)(const u8*, u32, u32, batch_row_t*) noexcept nogil

    ctypedef struct batch_tables_t:
        const u16* mnemonics
        const u8* flows
        u32 fast_count, row_count

    batch_tables_t* build_tables(batch_slow_t slow, u32 options)

cdef extern from "batch/sweep.h" nogil:
    ctypedef struct batch_columns_t:
        u32* offset
        u64* wide_offset
        u8* length
        u16* form
        u16* mnemonic
        u8* flow
        u8* kinds
        u8* reg
        u8* registers[5]
        u8* base
        u8* index
        u8* scale
        i32* displacement
        u8* segment
        i64* immediate
        u64* target
        u16* prefixes
        u8* operand_size
        u8* address_size
        u8* mask
        u8* evex

    ctypedef struct batch_scratch_t:
        pass

    ctypedef struct batch_sweep_t:
        const batch_tables_t* tables
        const u8* code
        u64 size, ip
        const batch_columns_t* columns
        u64 row, capacity
        batch_scratch_t* scratch

    u64 sweep(batch_sweep_t* s, u64 at, int more)


cdef void describe(const u8* code, u32 available, u32 options, batch_row_t* row) noexcept nogil:
    """The row of the instruction at `code`: what decode_one says, as columns have it."""
    cdef insn_t insn
    cdef const form_t* form
    cdef u8 i, place, number
    decode_one(code, available, <u8>options, &insn)
    memset(row, 0, sizeof(batch_row_t))
    memset(row.registers, REGISTER_NONE, sizeof(row.registers))
    row.reg = row.base = row.index = row.segment = REGISTER_NONE
    row.length = 1
    if insn.status != DECODE_OK:
        row.status = BATCH_CUT_OFF if insn.status == DECODE_TRUNCATED else BATCH_INVALID
        return
    form = &isa().forms[insn.form]
    row.length = insn.length
    row.form = insn.form
    row.prefixes = insn.prefixes
    row.operand_size = insn.operand_size
    row.address_size = insn.address_size
    row.segment = insn.segment
    row.mask = insn.mask
    row.evex = insn.evex
    row.immediate = insn.immediate
    if insn.is_memory:
        row.base = insn.base
        row.index = insn.index
        row.scale = 1 << insn.scale
        row.displacement = <i32>insn.displacement
        if form.flags & FORM_OFFSET and insn.address_size == 64:
            row.immediate = insn.displacement
            row.displacement = 0
    for i in range(form.operand_count):
        place = form.places[i]
        number = REGISTER_NONE
        if place == PLACE_REG:
            number = form.register_bases[i] + insn.reg
        elif place == PLACE_RM:
            if insn.is_memory:
                row.kinds |= OPERAND_MEMORY << 2 * i
                continue
            number = form.register_bases[i] + insn.rm
        elif place == PLACE_VVVV:
            number = form.register_bases[i] + insn.vvvv
        elif place == PLACE_OPCODE:
            number = form.register_bases[i] + insn.rm
        elif place == PLACE_IS4:
            number = form.register_bases[i] + insn.is4
        elif place == PLACE_FIXED:
            number = form.register_bases[i]
        elif place >= PLACE_OFFSET:
            row.kinds |= OPERAND_MEMORY << 2 * i
            continue
        else:
            row.kinds |= OPERAND_IMMEDIATE << 2 * i
            if place == PLACE_ONE:
                row.immediate = 1
            elif place == PLACE_TARGET:
                row.target_bits = insn.operand_size
                if form.flow == FLOW_TRANSACTION:
                    row.target_bits = 64 if insn.mode == 64 else 32
            continue
        if form.sizes[i] == 0 and 4 <= number < 8 and place != PLACE_FIXED and not insn.prefixes & ANY_REX:
            number += REGISTER_HIGH - 4
        row.kinds |= OPERAND_REGISTER << 2 * i
        row.registers[i] = number
        if row.reg == REGISTER_NONE:
            row.reg = number


cdef batch_tables_t* tables = NULL
cdef u16[8192] mnemonics
cdef u8[8192] flows


def build():
    global tables
    cdef u32 i
    for i in range(isa().form_count + 1):
        mnemonics[i] = isa().forms[i].mnemonic
        flows[i] = isa().forms[i].flow
    tables = build_tables(describe, DECODE_64)
    tables.mnemonics = mnemonics
    tables.flows = flows
    return tables.fast_count, tables.row_count


NAMES = ("offset", "wide_offset", "length", "form", "mnemonic", "flow", "kinds", "reg", "register0", "register1",
         "register2", "register3", "register4", "base", "index", "scale", "displacement", "segment", "immediate", "target",
         "prefixes", "operand_size", "address_size", "mask", "evex")


def run(code, arrays, u64 capacity, bint fast=True, u64 ip=0):
    cdef Py_buffer source, column
    cdef batch_columns_t columns
    cdef batch_sweep_t s
    cdef void** pointers = <void**>&columns
    cdef u64 at
    for i, name in enumerate(NAMES):
        pointers[i] = NULL
        if name in arrays:
            PyObject_GetBuffer(arrays[name], &column, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
            pointers[i] = column.buf
            PyBuffer_Release(&column)
    PyObject_GetBuffer(code, &source, PyBUF_SIMPLE)
    s.tables = tables
    s.code = <const u8*>source.buf
    s.size = source.len
    s.ip = ip
    s.columns = &columns
    s.row = 0
    s.capacity = capacity
    s.scratch = NULL
    if fast:
        s.scratch = <batch_scratch_t*>PyMem_RawMalloc(sizeof(batch_scratch_t))
    with nogil:
        at = sweep(&s, 0, 0)
    PyMem_RawFree(s.scratch)
    PyBuffer_Release(&source)
    return s.row, at

cdef extern from *:
    """
    #define TSIZE sizeof(batch_tables_t)
    """
    size_t TSIZE
def dump():
    return (<u8*>tables)[:TSIZE]
