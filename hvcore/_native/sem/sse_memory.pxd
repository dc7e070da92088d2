"""SSE instructions that reach memory no operand names, and the exception that all SSE arithmetic may raise."""
from hvcore._native.base.types cimport u32, xmm_t
from hvcore._native.cpu.dispatch cimport committed, next_op, raise_fault, stop_before
from hvcore._native.cpu.operand cimport bounced, implicit_gva, writable, xmm_at
from hvcore._native.cpu.spec cimport CR4_OSXMMEXCPT, VECTOR_UD, VECTOR_XM
from hvcore._native.cpu.state cimport RDI, op_t, vp_t
from hvcore._native.sem.sse_float cimport MXCSR_FAULT
from hvcore._native.sem.sse_move cimport sse_maskmovdqu


cdef inline int raise_numeric(vp_t* vp, const op_t* op) noexcept nogil:
    """An unmasked SIMD exception: #XM, or #UD if the system software does not know it (SDM 3A 6.15)."""
    vp.mxcsr &= ~<u32>MXCSR_FAULT
    return raise_fault(vp, op, VECTOR_XM if vp.cr4 & CR4_OSXMMEXCPT else VECTOR_UD)


cdef inline int sse_mask_store(vp_t* vp, const op_t* op) noexcept nogil:
    """MASKMOVDQU: the bytes of one register that the other selects, to [rDI]."""
    cdef void* place
    if vp.sse_vector:
        return raise_fault(vp, op, vp.sse_vector)
    place = writable(vp, implicit_gva(vp, op, vp.registers[RDI]), 16, 0, True)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    sse_maskmovdqu(<xmm_t*>place, xmm_at(vp, op.reg), xmm_at(vp, op.rm))
    if bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)
