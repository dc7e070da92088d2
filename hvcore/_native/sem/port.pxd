"""IN, OUT, INS, OUTS. A port of the interrupt platform is served right here; one that is the machine's or a parent's
business leaves the run; any other floats.

IN and OUT have retired when they leave: the answer of an IN is put into the register. INS waits: it runs again with
the answer. OUTS leaves behind each element.
"""
from hvcore._native.base.status cimport REASON_IO_PORT, STOP_EXIT, STOP_NONE
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.cpu.dispatch cimport raise_error, stop_after, stop_before, time_at
from hvcore._native.cpu.operand cimport bounced, memory_get, memory_set, readable, register_get, register_set, writable
from hvcore._native.cpu.segments cimport system_read
from hvcore._native.cpu.spec cimport FLAG_IOPL, SEGMENT_TR, VECTOR_GP
from hvcore._native.cpu.state cimport RAX, RDI, RDX, RSI, SLOT_RIP, op_t, vp_t
from hvcore._native.irq.platform cimport platform_owns_port
from hvcore._native.mem.format cimport RIGHT_READ, RIGHT_WRITE
from hvcore._native.sem.string cimport advance, is_repeated, iterations_left, leave, retire, source_gva, target_gva
from hvcore._native.sem.system cimport leave_for


cdef inline bint may_use_port(vp_t* vp, u16 port, u32 size_bytes) noexcept nogil:
    """CPL <= IOPL, or the I/O permission bitmap of the TSS allows every port of the access (SDM 1, 19.5.2)."""
    cdef u64 base = vp.segments[SEGMENT_TR].base
    cdef u32 limit = vp.segments[SEGMENT_TR].limit, offset
    if vp.cpl <= (vp.rflags_system & FLAG_IOPL) >> 12:
        return True
    if limit < 103 or not system_read(vp, base + 102, 16):
        return False
    offset = <u32>vp.carried + (port >> 3)
    if offset + 1 > limit or not system_read(vp, base + offset, 16):
        return False
    return not (vp.carried >> (port & 7)) & ((1 << size_bytes) - 1)


cdef inline bint is_intercepted(const vp_t* vp, u16 port, u32 size_bytes, u8 access) noexcept nogil:
    """Any byte of the access; the ports of the root are the machine's devices."""
    cdef u32 i, at
    if vp.partition.is_root:
        return True
    if vp.partition.io_intercepts == NULL:
        return False
    for i in range(size_bytes):
        at = <u16>(port + i)
        if (vp.partition.io_intercepts[at >> 2] >> (2 * (at & 3))) & access:
            return True
    return False


cdef inline bint is_virtualized(const vp_t* vp, u16 port) noexcept nogil:
    """The hypervisor's own, before any intercept (hyperv-abi 8.2)."""
    return platform_owns_port(&vp.partition.fabric, port)


cdef inline void note_port(vp_t* vp, u16 port, u32 size_bytes, u8 access, u64 value) noexcept nogil:
    vp.exit.port = port
    vp.exit.size_bytes = <u8>size_bytes
    vp.exit.access = access
    vp.exit.value = value
    vp.exit.string = False
    vp.exit.repeated = False


cdef inline int system_in(vp_t* vp, const op_t* op, u64 port, int width) noexcept nogil:
    cdef int data = 32 if width == 64 else width
    if not may_use_port(vp, <u16>port, data >> 3):
        return raise_error(vp, op, VECTOR_GP, 0)
    if is_virtualized(vp, <u16>port):
        register_set(vp, 8 * RAX, vp.machine.read_port(vp, <u16>port, data >> 3, time_at(vp, op)), data)
        return stop_after(vp, op, STOP_NONE)
    if not is_intercepted(vp, <u16>port, data >> 3, RIGHT_READ):
        register_set(vp, 8 * RAX, <u64>-1, data)
        return stop_after(vp, op, STOP_NONE)
    note_port(vp, <u16>port, data >> 3, RIGHT_READ, 0)
    return leave_for(vp, op, REASON_IO_PORT)


cdef inline int system_out(vp_t* vp, const op_t* op, u64 port, int width) noexcept nogil:
    cdef int data = 32 if width == 64 else width
    if not may_use_port(vp, <u16>port, data >> 3):
        return raise_error(vp, op, VECTOR_GP, 0)
    if is_virtualized(vp, <u16>port):
        vp.machine.write_port(vp, <u16>port, data >> 3, register_get(vp, 8 * RAX, data), time_at(vp, op))
        return stop_after(vp, op, STOP_NONE)
    if not is_intercepted(vp, <u16>port, data >> 3, RIGHT_WRITE):
        return stop_after(vp, op, STOP_NONE)
    note_port(vp, <u16>port, data >> 3, RIGHT_WRITE, register_get(vp, 8 * RAX, data))
    return leave_for(vp, op, REASON_IO_PORT)


cdef inline int system_in8(vp_t* vp, const op_t* op, u64 port) noexcept nogil:
    return system_in(vp, op, port, 8)


cdef inline int system_out8(vp_t* vp, const op_t* op, u64 port) noexcept nogil:
    return system_out(vp, op, port, 8)


cdef inline void note_string(vp_t* vp, const op_t* op, u16 port, u32 size_bytes, u8 access, u64 value) noexcept nogil:
    note_port(vp, port, size_bytes, access, value)
    vp.exit.string = True
    vp.exit.repeated = is_repeated(op)
    vp.exit.reason = REASON_IO_PORT
    vp.exit.rip = vp.registers[SLOT_RIP] + op.offset
    vp.exit.length = op.length


cdef inline int string_ins(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """One element a time: store the answer, or leave to get it. The store is probed before the port is read."""
    cdef int data = 32 if width == 64 else width
    cdef u16 port = <u16>vp.registers[RDX]
    cdef void* target
    cdef u64 value = <u64>-1
    if iterations_left(vp, op) == 0:
        return leave(vp, op, STOP_NONE, False)
    if not may_use_port(vp, port, data >> 3):
        return raise_error(vp, op, VECTOR_GP, 0)
    target = writable(vp, target_gva(vp, op), data >> 3, 0, False)
    if target == NULL:
        return stop_before(vp, op, vp.stop)
    if is_virtualized(vp, port):
        value = vp.machine.read_port(vp, port, data >> 3, time_at(vp, op))
    elif is_intercepted(vp, port, data >> 3, RIGHT_READ):
        if not vp.exit.answered:
            note_string(vp, op, port, data >> 3, RIGHT_READ, 0)
            return stop_before(vp, op, STOP_EXIT)
        vp.exit.answered = False
        value = vp.exit.value
    memory_set(target, value, data)
    advance(vp, op, RDI, 1, data)
    retire(vp, op, 1, 1)
    return leave(vp, op, vp.machine.commit(vp) if bounced(vp, target) else STOP_NONE, True)


cdef inline int string_outs(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef int data = 32 if width == 64 else width
    cdef u16 port = <u16>vp.registers[RDX]
    cdef void* source
    cdef u64 value
    if iterations_left(vp, op) == 0:
        return leave(vp, op, STOP_NONE, False)
    if not may_use_port(vp, port, data >> 3):
        return raise_error(vp, op, VECTOR_GP, 0)
    source = readable(vp, source_gva(vp, op), data >> 3, 0)
    if source == NULL:
        return stop_before(vp, op, vp.stop)
    value = memory_get(source, data)
    if is_virtualized(vp, port):
        vp.machine.write_port(vp, port, data >> 3, value, time_at(vp, op))
        advance(vp, op, RSI, 1, data)
        retire(vp, op, 1, 1)
        return leave(vp, op, STOP_NONE, True)
    advance(vp, op, RSI, 1, data)
    retire(vp, op, 1, 1)
    if not is_intercepted(vp, port, data >> 3, RIGHT_WRITE):
        return leave(vp, op, STOP_NONE, True)
    note_string(vp, op, port, data >> 3, RIGHT_WRITE, value)
    return leave(vp, op, STOP_EXIT, True)


cdef inline int string_ins8(vp_t* vp, const op_t* op) noexcept nogil:
    return string_ins(vp, op, 8)


cdef inline int string_outs8(vp_t* vp, const op_t* op) noexcept nogil:
    return string_outs(vp, op, 8)
