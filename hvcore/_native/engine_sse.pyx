"""Handlers of SSE and SSE2. Generated from isa/x64.txt."""
from hvcore._native.base.types cimport u8, u16, u32, u64, xmm_t
from hvcore._native.cpu.dispatch cimport committed, likely, next_op, raise_error, raise_fault, stop_before, unlikely
from hvcore._native.cpu.flags cimport flags_load
from hvcore._native.cpu.operand cimport (
    bounced, can_read, can_write, effective, effective_plain, memory_get, memory_set, read_place, readable,
    register_get, register_set, writable, write_place, xmm_at,
)
from hvcore._native.cpu.spec cimport VECTOR_GP
from hvcore._native.cpu.state cimport OP_STACK, handler_t, op_t, vp_t
from hvcore._native.sem.sse_float cimport MXCSR_FAULT
from hvcore._native.sem.sse_memory cimport raise_numeric

include "isa/generated/sse.pxi"
