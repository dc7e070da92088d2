"""MXCSR, the FXSAVE area, and CLFLUSH (SDM 2A, FXSAVE: table of the 512 bytes in 64-bit format)."""
from hvcore._native.base.inexact cimport forget_inexact, host_inexact
from hvcore._native.base.status cimport STOP_NONE
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.cpu.dispatch cimport next_op, raise_error, raise_fault, stop_after, stop_before
from hvcore._native.cpu.operand cimport bounced, effective, readable, writable
from hvcore._native.cpu.spec cimport CR0_EM, CR0_TS, VECTOR_GP, VECTOR_NM
from hvcore._native.cpu.state cimport OP_STACK, op_t, vp_t
from libc.string cimport memcpy, memset

cdef enum:
    MXCSR_MASK = 0xFFFF
    MXCSR_PE = 0x20
    AREA_BYTES = 512
    CHUNK_BYTES = 16
    WRITTEN_CHUNKS = 26         # the last 96 bytes are the system software's


cdef inline void collect_inexact(vp_t* vp) noexcept nogil:
    """Make MXCSR say what the host has noticed (base/inexact.pxd)."""
    if host_inexact():
        vp.mxcsr |= MXCSR_PE


cdef inline int system_ldmxcsr(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    if vp.sse_vector:
        return raise_fault(vp, op, vp.sse_vector)
    if value & ~<u64>MXCSR_MASK:
        return raise_error(vp, op, VECTOR_GP, 0)
    vp.mxcsr = <u32>value
    forget_inexact()
    return next_op(vp, op)


cdef inline int system_stmxcsr(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u32* place
    if vp.sse_vector:
        return raise_fault(vp, op, vp.sse_vector)
    place = <u32*>writable(vp, effective(vp, op), 4, op.prefixes & OP_STACK, False)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    collect_inexact(vp)
    place[0] = vp.mxcsr
    if bounced(vp, place):
        return stop_after(vp, op, vp.machine.commit(vp))
    return next_op(vp, op)


cdef inline void pack_chunk(const vp_t* vp, int number, u8* chunk) noexcept nogil:
    memset(chunk, 0, CHUNK_BYTES)
    if number == 0:
        (<u16*>chunk)[0] = vp.fcw
        (<u16*>chunk)[1] = vp.fsw
        chunk[4] = vp.ftw
        (<u16*>chunk)[3] = vp.fop
        (<u64*>chunk)[1] = vp.fip
    elif number == 1:
        (<u64*>chunk)[0] = vp.fdp
        (<u32*>chunk)[2] = vp.mxcsr
        (<u32*>chunk)[3] = MXCSR_MASK
    elif number < 10:
        memcpy(chunk, &vp.st[number - 2], 10)
    else:
        memcpy(chunk, &vp.xmm[number - 10], CHUNK_BYTES)


cdef inline void unpack_chunk(vp_t* vp, int number, const u8* chunk) noexcept nogil:
    if number == 0:
        vp.fcw = (<const u16*>chunk)[0]
        vp.fsw = (<const u16*>chunk)[1]
        vp.ftw = chunk[4]
        vp.fop = (<const u16*>chunk)[3]
        vp.fip = (<const u64*>chunk)[1]
    elif number == 1:
        vp.fdp = (<const u64*>chunk)[0]
        vp.mxcsr = (<const u32*>chunk)[2]
    elif number < 10:
        memcpy(&vp.st[number - 2], chunk, 10)
    else:
        memcpy(&vp.xmm[number - 10], chunk, CHUNK_BYTES)


cdef inline int system_fxsave(vp_t* vp, const op_t* op) noexcept nogil:
    """The last chunk is probed first, so a fault leaves memory as it was."""
    cdef u64 gva = effective(vp, op)
    cdef u8* place
    cdef int i
    if vp.cr0 & (CR0_EM | CR0_TS):
        return raise_fault(vp, op, VECTOR_NM)
    if gva & 15:
        return raise_error(vp, op, VECTOR_GP, 0)
    if writable(vp, gva, CHUNK_BYTES, op.prefixes & OP_STACK, True) == NULL \
            or writable(vp, gva + AREA_BYTES - CHUNK_BYTES, CHUNK_BYTES, op.prefixes & OP_STACK, True) == NULL:
        return stop_before(vp, op, vp.stop)
    collect_inexact(vp)
    for i in range(WRITTEN_CHUNKS):
        place = <u8*>writable(vp, gva + i * CHUNK_BYTES, CHUNK_BYTES, op.prefixes & OP_STACK, False)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        pack_chunk(vp, i, place)
        if bounced(vp, place):
            vp.machine.commit(vp)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_fxrstor(vp_t* vp, const op_t* op) noexcept nogil:
    cdef u64 gva = effective(vp, op)
    cdef u8* place
    cdef int i
    if vp.cr0 & (CR0_EM | CR0_TS):
        return raise_fault(vp, op, VECTOR_NM)
    if gva & 15:
        return raise_error(vp, op, VECTOR_GP, 0)
    place = <u8*>readable(vp, gva + CHUNK_BYTES, CHUNK_BYTES, op.prefixes & OP_STACK)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    if (<u32*>place)[2] & ~<u32>MXCSR_MASK:
        return raise_error(vp, op, VECTOR_GP, 0)
    if readable(vp, gva + AREA_BYTES - CHUNK_BYTES, CHUNK_BYTES, op.prefixes & OP_STACK) == NULL:
        return stop_before(vp, op, vp.stop)
    for i in range(WRITTEN_CHUNKS):
        place = <u8*>readable(vp, gva + i * CHUNK_BYTES, CHUNK_BYTES, op.prefixes & OP_STACK)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        unpack_chunk(vp, i, place)
    forget_inexact()
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_clflush(vp_t* vp, const op_t* op) noexcept nogil:
    """There is no cache to flush, but the address must be readable."""
    if readable(vp, effective(vp, op), 1, op.prefixes & OP_STACK) == NULL:
        return stop_before(vp, op, vp.stop)
    return next_op(vp, op)
