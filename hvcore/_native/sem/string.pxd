"""String instructions. REP MOVS and REP STOS move runs, not elements; every iteration counts as an instruction.

A string instruction is the last of its block. It may run for as many iterations as the budget still holds, then
stops at itself with the registers advanced, exactly as an interrupted one does; so do faults in its midst.
"""
from hvcore._native.base.status cimport STOP_BUDGET, STOP_NONE
from hvcore._native.base.types cimport i64, u32, u64, u8
from hvcore._native.cpu.dispatch cimport stop_after, stop_before
from hvcore._native.cpu.flags cimport flag_zero, flags_sub
from hvcore._native.cpu.operand cimport (
    bounced, can_read, can_write, implicit_gva, memory_get, memory_set, readable, register_get, register_set, writable,
)
from hvcore._native.cpu.spec cimport FLAG_DF
from hvcore._native.cpu.state cimport RAX, RCX, RDI, RSI, op_t, vp_t
from hvcore._native.decode.spec cimport PREFIX_ADDRESS, PREFIX_REP, PREFIX_REPNE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SIZE
from libc.string cimport memmove, memset


cdef inline int address_width(const op_t* op) noexcept nogil:
    return 32 if op.prefixes & PREFIX_ADDRESS else 64


cdef inline bint is_repeated(const op_t* op) noexcept nogil:
    return op.prefixes & (PREFIX_REP | PREFIX_REPNE) != 0


cdef inline u64 source_gva(const vp_t* vp, const op_t* op) noexcept nogil:
    return implicit_gva(vp, op, vp.registers[RSI])


cdef inline u64 target_gva(const vp_t* vp, const op_t* op) noexcept nogil:
    """ES:rDI: no segment prefix applies."""
    return register_get(vp, 8 * RDI, address_width(op))


cdef inline void advance(vp_t* vp, const op_t* op, int register, i64 count, int width) noexcept nogil:
    cdef i64 step = -(width >> 3) if vp.rflags_system & FLAG_DF else width >> 3
    register_set(vp, <u8>(8 * register), vp.registers[register] + <u64>(count * step), address_width(op))


cdef inline u64 iterations_left(const vp_t* vp, const op_t* op) noexcept nogil:
    """How many iterations may run now: the count register's, within the budget (one is already paid for)."""
    cdef u64 count
    if not is_repeated(op):
        return 1
    count = register_get(vp, 8 * RCX, address_width(op))
    return min(count, <u64>vp.remaining + 1)


cdef inline void retire(vp_t* vp, const op_t* op, u64 iterations, int lookups) noexcept nogil:
    """Iterations done: take them from the count register and from the budget, and count their look-ups."""
    if is_repeated(op):
        register_set(vp, 8 * RCX, vp.registers[RCX] - iterations, address_width(op))
    vp.remaining -= <i64>iterations
    vp.data_lookups += iterations * lookups


cdef inline int finish(vp_t* vp, const op_t* op, int stop, bint ended, bint ran) noexcept nogil:
    """Leave a string instruction. `ended`: nothing is left to do; `ran`: at least one iteration was retired."""
    if stop != STOP_NONE or not ended:
        return stop_before(vp, op, stop if stop != STOP_NONE else STOP_BUDGET)
    if ran:
        vp.remaining += 1           # the first iteration was paid for on entry to the block
    return stop_after(vp, op, STOP_NONE)


cdef inline bint has_ended(const vp_t* vp, const op_t* op) noexcept nogil:
    return not is_repeated(op) or register_get(vp, 8 * RCX, address_width(op)) == 0


cdef inline u64 run_length(u64 gva, u64 count, int width) noexcept nogil:
    """Elements from `gva` upward that lie in its page."""
    return min(count, (PAGE_SIZE - (gva & PAGE_OFFSET_MASK)) // <u64>(width >> 3))


cdef inline void copy_run(u8* target, const u8* source, u64 bytes, int width) noexcept nogil:
    """As if element by element upward: a target that overlaps the end of its source repeats it."""
    cdef u64 i = 0
    if source < target and target < source + bytes:
        while i < bytes:
            memory_set(target + i, memory_get(source + i, width), width)
            i += width >> 3
    else:
        memmove(target, source, bytes)


cdef inline int string_movs(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 left = iterations_left(vp, op), source_at, target_at, run
    cdef void* source
    cdef void* target
    cdef int stop = STOP_NONE
    cdef bint ran = left != 0
    while left and stop == STOP_NONE:
        source_at = source_gva(vp, op)
        target_at = target_gva(vp, op)
        run = 1
        if not vp.rflags_system & FLAG_DF:
            run = max(<u64>1, run_length(target_at, run_length(source_at, left, width), width))
        if run > 1 and not (can_read(vp, source_at, <u32>run * (width >> 3))
                            and can_write(vp, target_at, <u32>run * (width >> 3))):
            run = 1                 # what takes a walk or is device memory goes an element at a time, however it is cut
        source = readable(vp, source_at, <u32>run * (width >> 3), 0)
        if source == NULL:
            return finish(vp, op, vp.stop, False, ran)
        if bounced(vp, source):
            vp.carried = memory_get(source, width)
            source = &vp.carried
        target = writable(vp, target_at, <u32>run * (width >> 3), 0, False)
        if target == NULL:
            return finish(vp, op, vp.stop, False, ran)
        copy_run(<u8*>target, <u8*>source, run * (width >> 3), width)
        if bounced(vp, target):
            stop = vp.machine.commit(vp)
        advance(vp, op, RSI, run, width)
        advance(vp, op, RDI, run, width)
        retire(vp, op, run, 2)
        left -= run
    return leave(vp, op, stop, ran)


cdef inline int leave(vp_t* vp, const op_t* op, int stop, bint ran) noexcept nogil:
    """Leave after whole iterations; a stop that a store asked for keeps its reason."""
    if stop == STOP_NONE or not has_ended(vp, op):
        return finish(vp, op, stop, has_ended(vp, op), ran)
    vp.remaining += 1
    return stop_after(vp, op, stop)


cdef inline void fill_run(u8* target, u64 value, u64 bytes, int width) noexcept nogil:
    cdef u64 i = 0
    if width == 8:
        memset(target, <int>(value & 0xFF), bytes)
        return
    while i < bytes:
        memory_set(target + i, value, width)
        i += width >> 3


cdef inline int string_stos(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 left = iterations_left(vp, op), target_at, run
    cdef void* target
    cdef int stop = STOP_NONE
    cdef bint ran = left != 0
    while left and stop == STOP_NONE:
        target_at = target_gva(vp, op)
        run = 1 if vp.rflags_system & FLAG_DF else max(<u64>1, run_length(target_at, left, width))
        if run > 1 and not can_write(vp, target_at, <u32>run * (width >> 3)):
            run = 1                 # as above; pages with decoded code too
        target = writable(vp, target_at, <u32>run * (width >> 3), 0, False)
        if target == NULL:
            return finish(vp, op, vp.stop, False, ran)
        fill_run(<u8*>target, vp.registers[RAX], run * (width >> 3), width)
        if bounced(vp, target):
            stop = vp.machine.commit(vp)
        advance(vp, op, RDI, run, width)
        retire(vp, op, run, 1)
        left -= run
    return leave(vp, op, stop, ran)


cdef inline int string_lods(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 left = iterations_left(vp, op)
    cdef void* source
    cdef bint ran = left != 0
    while left:
        source = readable(vp, source_gva(vp, op), width >> 3, 0)
        if source == NULL:
            return finish(vp, op, vp.stop, False, ran)
        register_set(vp, 8 * RAX, memory_get(source, width), width)
        advance(vp, op, RSI, 1, width)
        retire(vp, op, 1, 1)
        left -= 1
    return leave(vp, op, STOP_NONE, ran)


cdef inline bint goes_on(const vp_t* vp, const op_t* op) noexcept nogil:
    """REPE goes on while equal, REPNE while not."""
    return flag_zero(vp) == (op.prefixes & PREFIX_REP != 0)


cdef inline int string_scas(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 left = iterations_left(vp, op), a = register_get(vp, 8 * RAX, width), b
    cdef void* target
    cdef bint ran = left != 0, ended = False
    while left and not ended:
        target = readable(vp, target_gva(vp, op), width >> 3, 0)
        if target == NULL:
            return finish(vp, op, vp.stop, False, ran)
        b = memory_get(target, width)
        flags_sub(vp, a, b, a - b, width)
        advance(vp, op, RDI, 1, width)
        retire(vp, op, 1, 1)
        left -= 1
        ended = not goes_on(vp, op)
    return finish(vp, op, STOP_NONE, ended or has_ended(vp, op), ran)


cdef inline int string_cmps(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 left = iterations_left(vp, op), a, b
    cdef void* place
    cdef bint ran = left != 0, ended = False
    while left and not ended:
        place = readable(vp, source_gva(vp, op), width >> 3, 0)
        if place == NULL:
            return finish(vp, op, vp.stop, False, ran)
        a = memory_get(place, width)
        place = readable(vp, target_gva(vp, op), width >> 3, 0)
        if place == NULL:
            return finish(vp, op, vp.stop, False, ran)
        b = memory_get(place, width)
        flags_sub(vp, a, b, a - b, width)
        advance(vp, op, RSI, 1, width)
        advance(vp, op, RDI, 1, width)
        retire(vp, op, 1, 2)
        left -= 1
        ended = not goes_on(vp, op)
    return finish(vp, op, STOP_NONE, ended or has_ended(vp, op), ran)


cdef inline int string_movs8(vp_t* vp, const op_t* op) noexcept nogil:
    return string_movs(vp, op, 8)


cdef inline int string_stos8(vp_t* vp, const op_t* op) noexcept nogil:
    return string_stos(vp, op, 8)


cdef inline int string_lods8(vp_t* vp, const op_t* op) noexcept nogil:
    return string_lods(vp, op, 8)


cdef inline int string_scas8(vp_t* vp, const op_t* op) noexcept nogil:
    return string_scas(vp, op, 8)


cdef inline int string_cmps8(vp_t* vp, const op_t* op) noexcept nogil:
    return string_cmps(vp, op, 8)
