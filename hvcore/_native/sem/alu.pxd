"""Integer arithmetic and logic: pure functions of operand values that record lazy flags.

Values arrive zero-extended; the caller keeps the low `width` bits of what is returned.
"""
from hvcore._native.base.types cimport u128, u64
from hvcore._native.cpu.flags cimport flag_carry, flag_overflow, flags_add, flags_logic, flags_set_carries, flags_sub
from hvcore._native.cpu.state cimport vp_t


cdef inline u64 alu_add(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    flags_add(vp, a, b, a + b, width)
    return a + b


cdef inline u64 alu_adc(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    cdef u64 result = a + b + flag_carry(vp)
    flags_add(vp, a, b, result, width)
    return result


cdef inline u64 alu_sub(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    flags_sub(vp, a, b, a - b, width)
    return a - b


cdef inline u64 alu_sbb(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    cdef u64 result = a - b - flag_carry(vp)
    flags_sub(vp, a, b, result, width)
    return result


cdef inline void alu_cmp(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    flags_sub(vp, a, b, a - b, width)


cdef inline u64 alu_and(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    flags_logic(vp, a & b, width)
    return a & b


cdef inline u64 alu_or(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    flags_logic(vp, a | b, width)
    return a | b


cdef inline u64 alu_xor(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    flags_logic(vp, a ^ b, width)
    return a ^ b


cdef inline void alu_test(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    flags_logic(vp, a & b, width)


cdef inline u64 alu_inc(vp_t* vp, u64 a, int width) noexcept nogil:
    cdef bint carry = flag_carry(vp)
    flags_add(vp, a, 1, a + 1, width)
    flags_set_carries(vp, carry, flag_overflow(vp))
    return a + 1


cdef inline u64 alu_dec(vp_t* vp, u64 a, int width) noexcept nogil:
    cdef bint carry = flag_carry(vp)
    flags_sub(vp, a, 1, a - 1, width)
    flags_set_carries(vp, carry, flag_overflow(vp))
    return a - 1


cdef inline u64 alu_not(vp_t* vp, u64 a, int width) noexcept nogil:
    return ~a


cdef inline u64 alu_neg(vp_t* vp, u64 a, int width) noexcept nogil:
    flags_sub(vp, 0, a, 0 - a, width)
    return 0 - a


cdef inline u64 alu_adcx(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    cdef u128 total = <u128>a + b + flag_carry(vp)
    flags_set_carries(vp, <bint>((total >> width) & 1), flag_overflow(vp))
    return <u64>total


cdef inline u64 alu_adox(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    cdef u128 total = <u128>a + b + flag_overflow(vp)
    flags_set_carries(vp, flag_carry(vp), <bint>((total >> width) & 1))
    return <u64>total
