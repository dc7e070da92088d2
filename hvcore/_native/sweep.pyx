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


cdef u8 class_base(u8 kind) noexcept nogil:
    if kind == KIND_V or kind == KIND_W: return 32
    if kind == KIND_S: return 88
    if kind == KIND_C: return 96
    if kind == KIND_D: return 112
    return 0


cdef void describe(const u8* code, u32 available, u32 options, batch_row_t* row) noexcept nogil:
    cdef insn_t insn
    cdef const form_t* form
    cdef u8 i, kind, number, wide
    decode_one(code, available, &insn)
    row.immediate = row.displacement = row.form = row.kinds = row.scale = row.target_bits = 0
    row.segment = row.reg = row.base = row.index = 255
    for i in range(5):
        row.registers[i] = 255
    row.operand_size = row.address_size = row.mask = row.evex = row.prefixes = 0
    row.length = 1
    row.status = 1
    if insn.status != DECODE_OK:
        if insn.status == DECODE_TRUNCATED: row.status = 2
        return
    row.status = 0
    row.length = insn.length
    row.form = insn.form
    form = &isa().forms[insn.form]
    row.immediate = insn.immediate
    row.prefixes = insn.prefixes
    row.operand_size = insn.width
    if insn.is_memory:
        row.displacement = <i32>insn.displacement
        row.base = 152 if insn.base == REGISTER_RIP else insn.base
        row.index = insn.index
        row.scale = 1 << insn.scale
    for i in range(form.operand_count):
        kind = form.kinds[i]
        number = 255
        if kind == KIND_E and not insn.is_memory: number = insn.rm
        elif kind == KIND_G: number = insn.reg
        elif kind == KIND_Z: number = insn.rm
        elif kind == KIND_B: number = insn.vvvv
        elif kind == KIND_V: number = insn.reg + 32
        elif kind == KIND_W and not insn.is_memory: number = insn.rm + 32
        elif kind == KIND_S: number = insn.reg + 88
        elif kind == KIND_C: number = insn.reg + 96
        elif kind == KIND_D: number = insn.reg + 112
        elif kind == KIND_A: number = 0
        elif kind == KIND_CL: number = 1
        elif kind == KIND_DX: number = 2
        elif kind == KIND_FS: number = 92
        elif kind == KIND_GS: number = 93
        if number != 255:
            if form.widths[i] == WIDTH_B and not insn.prefixes & PREFIX_REX and 4 <= number < 8: number += 144
            row.kinds |= 1 << 2 * i
            row.registers[i] = number
            if row.reg == 255: row.reg = number
        elif kind == KIND_I or kind == KIND_J:
            row.kinds |= 3 << 2 * i
            if kind == KIND_J: row.target_bits = 64
        elif kind != KIND_ONE and kind != KIND_NONE:
            row.kinds |= 2 << 2 * i


cdef batch_tables_t* tables = NULL
cdef u16[8192] mnemonics
cdef u8[8192] flows


def build():
    global tables
    cdef u32 i
    for i in range(isa().form_count + 1):
        mnemonics[i] = isa().forms[i].mnemonic
        flows[i] = isa().forms[i].flow
    tables = build_tables(describe, 0)
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
