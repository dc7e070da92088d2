"""Handlers of system instructions. Generated from isa/x64.txt."""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.cpu.dispatch cimport committed, likely, next_op, raise_error, stop_before, unlikely
from hvcore._native.cpu.operand cimport (
    bounced, can_read, can_write, effective, effective_plain, memory_get, memory_set, read_place, readable,
    register_get, register_set, writable, write_place,
)
from hvcore._native.cpu.spec cimport VECTOR_GP
from hvcore._native.cpu.state cimport OP_STACK, handler_t, op_t, vp_t

include "isa/generated/system.pxi"
