"""Multiplication and division. The wide ones name RAX and RDX (or AX) themselves.

Undefined flags after a multiplication: SF, ZF, PF from the low half, AF clear; a division leaves all as they were.
"""
from hvcore._native.base.bits cimport sign_extend
from hvcore._native.base.types cimport i128, u128, u64
from hvcore._native.cpu.dispatch cimport next_op, raise_fault
from hvcore._native.cpu.flags cimport flags_logic, flags_set_carries
from hvcore._native.cpu.operand cimport register_get, register_set
from hvcore._native.cpu.spec cimport VECTOR_DE
from hvcore._native.cpu.state cimport RAX, RDX, op_t, vp_t

cdef enum:
    OFFSET_RAX = 0
    OFFSET_AH = 1
    OFFSET_RDX = 16


cdef inline void wide_store(vp_t* vp, u64 low, u64 high, int width) noexcept nogil:
    """AX for bytes, else rDX:rAX."""
    if width == 8:
        register_set(vp, OFFSET_RAX, low, 8)
        register_set(vp, OFFSET_AH, high, 8)
    else:
        register_set(vp, OFFSET_RAX, low, width)
        register_set(vp, OFFSET_RDX, high, width)


cdef inline u64 wide_high(const vp_t* vp, int width) noexcept nogil:
    return register_get(vp, OFFSET_AH, 8) if width == 8 else register_get(vp, OFFSET_RDX, width)


cdef inline void muldiv_mul(vp_t* vp, u64 b, int width) noexcept nogil:
    cdef u128 product = <u128>register_get(vp, OFFSET_RAX, width) * b
    cdef bint wide = <u64>(product >> width) != 0
    wide_store(vp, <u64>product, <u64>(product >> width), width)
    flags_logic(vp, <u64>product, width)
    flags_set_carries(vp, wide, wide)


cdef inline void muldiv_imul(vp_t* vp, u64 b, int width) noexcept nogil:
    cdef i128 product = <i128>sign_extend(register_get(vp, OFFSET_RAX, width), width) * sign_extend(b, width)
    cdef bint wide = product != sign_extend(<u64>product, width)
    wide_store(vp, <u64>product, <u64>(product >> width), width)
    flags_logic(vp, <u64>product, width)
    flags_set_carries(vp, wide, wide)


cdef inline u64 muldiv_imul2(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    cdef i128 product = <i128>sign_extend(a, width) * sign_extend(b, width)
    cdef bint wide = product != sign_extend(<u64>product, width)
    flags_logic(vp, <u64>product, width)
    flags_set_carries(vp, wide, wide)
    return <u64>product


cdef inline int muldiv_div(vp_t* vp, const op_t* op, u64 divisor, int width) noexcept nogil:
    cdef u128 dividend = <u128>wide_high(vp, width) << width | register_get(vp, OFFSET_RAX, width)
    if divisor == 0 or wide_high(vp, width) >= divisor:
        return raise_fault(vp, op, VECTOR_DE)
    if width == 64:         # u128 by u128: Cython believes that u128 has 64 bits, and would divide in the other type
        wide_store(vp, <u64>(dividend / <u128>divisor), <u64>(dividend % <u128>divisor), 64)
    else:
        wide_store(vp, <u64>dividend / divisor, <u64>dividend % divisor, width)
    return next_op(vp, op)


cdef inline int muldiv_idiv(vp_t* vp, const op_t* op, u64 divisor, int width) noexcept nogil:
    cdef u128 dividend = <u128>wide_high(vp, width) << width | register_get(vp, OFFSET_RAX, width)
    cdef bint negative = <bint>(wide_high(vp, width) >> (width - 1) & 1), other = sign_extend(divisor, width) < 0
    cdef u128 magnitude = dividend
    cdef u64 by = <u64>sign_extend(divisor, width), limit = <u64>1 << (width - 1), remainder
    cdef u128 quotient
    if negative:
        magnitude = ~dividend + 1
        if width < 64:
            magnitude &= (<u128>1 << (2 * width)) - 1
    if other:
        by = 0 - by
    if divisor == 0 or <u64>(magnitude >> width) >= by:
        return raise_fault(vp, op, VECTOR_DE)
    quotient = magnitude / <u128>by
    remainder = <u64>(magnitude % <u128>by)
    if quotient > limit or (quotient == limit and negative == other):
        return raise_fault(vp, op, VECTOR_DE)
    wide_store(vp, 0 - <u64>quotient if negative != other else <u64>quotient,
               0 - remainder if negative else remainder, width)
    return next_op(vp, op)


cdef inline int muldiv_mulx(vp_t* vp, const op_t* op, u64 b, int width) noexcept nogil:
    """No flags; the high half wins if both targets are one register."""
    cdef u128 product = <u128>register_get(vp, OFFSET_RDX, width) * b
    register_set(vp, op.third, <u64>product, width)
    register_set(vp, op.reg, <u64>(product >> width), width)
    return next_op(vp, op)
