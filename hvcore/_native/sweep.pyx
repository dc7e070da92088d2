"""Module `sweep`: columns of decoded instructions over whole buffers.

The passes are C (batch/*.h): pass 1 finds where instructions begin, pass 2 fills columns. This module owns the tables
of their fast path, which are built when they are first used, and hands buffers over.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer
from hvcore._native.base.types cimport i32, i64, u8, u16, u32, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.decoder cimport decode_one, isa
from libc.stdlib cimport calloc
from libc.string cimport memset

COLUMNS = ("offset", "offset64", "length", "form", "mnemonic", "flow", "operand_kinds", "register", "register0",
           "register1", "register2", "register3", "register4", "base", "index", "scale", "displacement", "segment",
           "immediate", "target", "prefixes", "operand_size", "address_size", "mask", "evex")

cdef enum:
    COLUMN_COUNT = 25
    OPERAND_REGISTER = 1
    OPERAND_MEMORY = 2
    OPERAND_IMMEDIATE = 3
    BATCH_INVALID = 1
    BATCH_CUT_OFF = 2
    ANY_REX = PREFIX_REX | PREFIX_REX2 | PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    static int has_avx512(void) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
               && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
               && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("bmi2");
    }
    #else
    static int has_avx512(void) { return 0; }
    #endif
    """
    bint has_avx512()

cdef extern from "batch/build.h" nogil:
    ctypedef struct batch_row_t:
        i64 immediate
        i32 displacement
        u16 form
        u8 length, status, kinds, reg, base, index, scale
        u8[5] registers
        u8 target_bits, segment, operand_size, address_size, mask, evex
        u16 prefixes

    enum:
        TARGET_ABSOLUTE

    ctypedef void (*batch_slow_t)(const u8*, u32, u32, batch_row_t*) noexcept nogil

    ctypedef struct batch_tables_t:
        u32 options
        batch_slow_t slow
        const u16* mnemonics
        const u8* flows
        const u8* operand_sizes

    int build_tables(batch_tables_t* tables)

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

    ctypedef struct batch_sweep_t:
        const batch_tables_t* tables
        const u8* code
        u64 size, ip
        const batch_columns_t* columns
        u64 row, capacity
        int fast

    ctypedef u64 (*sweep_t)(batch_sweep_t*, u64, int) noexcept nogil
    u64 sweep(batch_sweep_t* s, u64 at, int more)


cdef bint has_immediate(const form_t* form) noexcept nogil:
    cdef u8 i
    for i in range(form.operand_count):
        if form.places[i] == PLACE_IMMEDIATE:
            return True
    return False


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
    row.immediate = 0 if form.flags & FORM_IS4 and not has_immediate(form) else insn.immediate
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
            elif form.flow == FLOW_JUMP and place == PLACE_IMMEDIATE:
                row.target_bits = TARGET_ABSOLUTE       # JMPABS
            continue
        if form.sizes[i] == 0 and 4 <= number < 8 and place != PLACE_FIXED and not insn.prefixes & ANY_REX:
            number += REGISTER_HIGH - 4
        row.kinds |= OPERAND_REGISTER << 2 * i
        row.registers[i] = number
        if row.reg == REGISTER_NONE:
            row.reg = number


cdef enum:
    OPTIONS = 8                 # DecodeOptions are less
    WORTH_TABLES = 4096         # bytes; building the tables of the fast path takes as long as decoding a few hundred KB

cdef batch_tables_t* tables[OPTIONS]
cdef bint[OPTIONS] is_built
cdef u16* mnemonics = <u16*>PyMem_RawMalloc((isa().form_count + 1) * sizeof(u16))
cdef u8* flows = <u8*>PyMem_RawMalloc(isa().form_count + 1)
cdef u8* operand_sizes = <u8*>PyMem_RawMalloc(isa().form_count + 1)
cdef sweep_t avx512 = NULL


def _fill_facts():
    cdef u32 form
    if mnemonics == NULL or flows == NULL or operand_sizes == NULL:
        raise MemoryError
    for form in range(isa().form_count):
        mnemonics[form] = isa().forms[form].mnemonic
        flows[form] = isa().forms[form].flow
        operand_sizes[form] = isa().forms[form].operand_size


_fill_facts()
PATHS = ("portable",)
if has_avx512():
    try:
        from hvcore._native import sweep_avx512
    except ImportError:         # the compiler could not build it
        pass
    else:
        avx512 = <sweep_t>PyCapsule_GetPointer(sweep_avx512.kernel, sweep_avx512.NAME)
        PATHS = ("portable", "avx512")


cdef const batch_tables_t* tables_of(u32 options, bint fast) except NULL:
    """The tables of a mode and vendor; `fast`: with those of the fast path. Made when first asked for, and kept."""
    cdef batch_tables_t* found = tables[options]
    if found == NULL:
        found = tables[options] = <batch_tables_t*>calloc(1, sizeof(batch_tables_t))
        if found == NULL:
            raise MemoryError
        found.slow, found.options = describe, options
        found.mnemonics, found.flows, found.operand_sizes = mnemonics, flows, operand_sizes
    if fast and not is_built[options]:
        if not build_tables(found):
            raise MemoryError
        is_built[options] = True
    return found


def decode_into(code, columns, *, u8 options, u64 ip, u64 at, u64 row, u64 capacity, bint more, str path):
    """Decode `code` from offset `at` into rows `row` up to `capacity` of arrays.

    Parameters
    ----------
    code : buffer of bytes
    columns : sequence
        A writable array for each name in COLUMNS, or None for one that is not wanted. The caller has checked that
        dtypes are right and that there is room for `capacity` rows.
    more : bool
        More bytes follow: stop in front of an instruction that is cut off.
    path : str
        One of PATHS, or "single": nothing but the decoder of single instructions.

    Returns
    -------
    (int, int)
        The row and the offset behind the last one written.
    """
    cdef Py_buffer source
    cdef Py_buffer[COLUMN_COUNT] views
    cdef batch_columns_t pointers
    cdef void** pointer = <void**>&pointers
    cdef batch_sweep_t s
    cdef sweep_t run = avx512 if path == "avx512" else sweep
    cdef int i, taken = 0
    if path not in (*PATHS, "single"):
        raise ValueError(f"path must be one of {', '.join(PATHS)} or single, not {path!r}")
    PyObject_GetBuffer(code, &source, PyBUF_SIMPLE)
    try:
        for i in range(COLUMN_COUNT):
            pointer[i] = NULL
            if columns[i] is not None:
                PyObject_GetBuffer(columns[i], &views[taken], PyBUF_WRITABLE)
                pointer[i] = views[taken].buf
                taken += 1
        s.fast = path != "single" and options & 3 == DECODE_64 and source.len - at >= WORTH_TABLES
        s.tables = tables_of(options, s.fast)
        s.code, s.size, s.ip = <const u8*>source.buf, source.len, ip
        s.columns, s.row, s.capacity = &pointers, row, capacity
        with nogil:
            at = run(&s, at, more)
    finally:
        for i in range(taken):
            PyBuffer_Release(&views[i])
        PyBuffer_Release(&source)
    return s.row, at
