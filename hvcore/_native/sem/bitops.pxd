"""Bit tests, bit scans, byte swaps, BMI1 and BMI2.

BSF and BSR of zero leave the target alone, upper half included, and set ZF, as processors do (SDM 2A, BSF, note 1).
"""
from hvcore._native.base.bits cimport sign_extend
from hvcore._native.base.types cimport i64, u64
from hvcore._native.cpu.dispatch cimport committed, next_op, stop_before
from hvcore._native.cpu.flags cimport flag_overflow, flags_logic, flags_set_carries
from hvcore._native.cpu.operand cimport (
    bounced, effective, implicit_gva, memory_get, memory_set, readable, register_get, register_set, writable,
)
from hvcore._native.cpu.state cimport OP_STACK, op_t, vp_t
from hvcore._native.decode.spec cimport PREFIX_ADDRESS, REGISTER_NONE

cdef extern from *:
    int count_trailing_zeros "__builtin_ctzll"(unsigned long long) noexcept nogil
    int count_leading_zeros "__builtin_clzll"(unsigned long long) noexcept nogil
    int count_ones "__builtin_popcountll"(unsigned long long) noexcept nogil
    u64 swap_bytes64 "__builtin_bswap64"(u64) noexcept nogil

cdef enum BitOperation:
    BIT_TEST
    BIT_SET
    BIT_RESET
    BIT_COMPLEMENT


cdef inline u64 bit_apply(vp_t* vp, u64 a, u64 bit, BitOperation operation, int width) noexcept nogil:
    """CF becomes the bit; ZF and the rest stay."""
    bit &= width - 1
    flags_set_carries(vp, <bint>((a >> bit) & 1), flag_overflow(vp))
    if operation == BIT_SET:
        return a | <u64>1 << bit
    if operation == BIT_RESET:
        return a & ~(<u64>1 << bit)
    if operation == BIT_COMPLEMENT:
        return a ^ <u64>1 << bit
    return a


cdef inline void bit_test(vp_t* vp, u64 a, u64 bit, int width) noexcept nogil:
    bit_apply(vp, a, bit, BIT_TEST, width)


cdef inline u64 bit_set(vp_t* vp, u64 a, u64 bit, int width) noexcept nogil:
    return bit_apply(vp, a, bit, BIT_SET, width)


cdef inline u64 bit_reset(vp_t* vp, u64 a, u64 bit, int width) noexcept nogil:
    return bit_apply(vp, a, bit, BIT_RESET, width)


cdef inline u64 bit_complement(vp_t* vp, u64 a, u64 bit, int width) noexcept nogil:
    return bit_apply(vp, a, bit, BIT_COMPLEMENT, width)


cdef inline u64 bit_string_gva(const vp_t* vp, const op_t* op, i64 distance) noexcept nogil:
    """The distance counts as part of the offset: under a 67 prefix their sum has 32 bits."""
    cdef u64 gva = effective(vp, op) + <u64>distance
    if op.prefixes & PREFIX_ADDRESS:
        return implicit_gva(vp, op, gva - (vp.segments[op.third].base if op.third != REGISTER_NONE else 0))
    return gva


cdef inline int bit_string(vp_t* vp, const op_t* op, u64 bit, BitOperation operation, int width,
                           bint memory) noexcept nogil:
    """Register bit numbers reach beyond a memory operand: the whole bit string is addressed (SDM 2A, BT)."""
    cdef u64 gva
    cdef void* place
    cdef u64 value
    if not memory:
        value = bit_apply(vp, register_get(vp, op.rm, width), bit, operation, width)
        if operation != BIT_TEST:
            register_set(vp, op.rm, value, width)
        return next_op(vp, op)
    gva = bit_string_gva(vp, op, (sign_extend(bit, width) >> (6 if width == 64 else 5 if width == 32 else 4))
                         * (width >> 3))
    if operation == BIT_TEST:
        place = readable(vp, gva, width >> 3, op.prefixes & OP_STACK)
    else:
        place = writable(vp, gva, width >> 3, op.prefixes & OP_STACK, True)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    if operation == BIT_TEST:
        bit_apply(vp, memory_get(place, width), bit, operation, width)
        return next_op(vp, op)
    memory_set(place, bit_apply(vp, memory_get(place, width), bit, operation, width), width)
    if bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)


cdef inline int bit_bt(vp_t* vp, const op_t* op, u64 bit, int width, bint memory) noexcept nogil:
    return bit_string(vp, op, bit, BIT_TEST, width, memory)


cdef inline int bit_bts(vp_t* vp, const op_t* op, u64 bit, int width, bint memory) noexcept nogil:
    return bit_string(vp, op, bit, BIT_SET, width, memory)


cdef inline int bit_btr(vp_t* vp, const op_t* op, u64 bit, int width, bint memory) noexcept nogil:
    return bit_string(vp, op, bit, BIT_RESET, width, memory)


cdef inline int bit_btc(vp_t* vp, const op_t* op, u64 bit, int width, bint memory) noexcept nogil:
    return bit_string(vp, op, bit, BIT_COMPLEMENT, width, memory)


cdef inline u64 trailing_zeros(u64 a, int width) noexcept nogil:
    return count_trailing_zeros(a) if a else width


cdef inline u64 leading_zeros(u64 a, int width) noexcept nogil:
    return count_leading_zeros(a) - (64 - width) if a else width


cdef inline u64 bit_tzcnt(vp_t* vp, u64 a, int width) noexcept nogil:
    cdef u64 result = trailing_zeros(a, width)
    flags_logic(vp, result, width)
    flags_set_carries(vp, a == 0, False)
    return result


cdef inline u64 bit_lzcnt(vp_t* vp, u64 a, int width) noexcept nogil:
    cdef u64 result = leading_zeros(a, width)
    flags_logic(vp, result, width)
    flags_set_carries(vp, a == 0, False)
    return result


cdef inline int bit_bsf(vp_t* vp, const op_t* op, u64 a, int width) noexcept nogil:
    flags_logic(vp, a, width)
    if a:
        register_set(vp, op.reg, trailing_zeros(a, width), width)
    return next_op(vp, op)


cdef inline int bit_bsr(vp_t* vp, const op_t* op, u64 a, int width) noexcept nogil:
    flags_logic(vp, a, width)
    if a:
        register_set(vp, op.reg, width - 1 - leading_zeros(a, width), width)
    return next_op(vp, op)


cdef inline u64 bit_popcnt(vp_t* vp, u64 a, int width) noexcept nogil:
    """ZF for a zero source, all other flags clear: PF too, hence the flip."""
    cdef u64 result = count_ones(a)
    vp.flag_result = <i64>(a != 0)
    vp.flag_aux = 0 if a else 1 << 8
    return result


cdef inline u64 bit_bswap(vp_t* vp, u64 a, int width) noexcept nogil:
    """Sixteen bits: BSWAP is undefined there and gives zero; MOVBE swaps. They meet here, so the swap it is."""
    return swap_bytes64(a) >> (64 - width)


cdef inline u64 bmi_result(vp_t* vp, u64 result, bint carry, int width) noexcept nogil:
    flags_logic(vp, result, width)
    flags_set_carries(vp, carry, False)
    return result


cdef inline u64 bit_andn(vp_t* vp, u64 a, u64 b, int width) noexcept nogil:
    return bmi_result(vp, ~a & b, False, width)


cdef inline u64 bit_blsr(vp_t* vp, u64 a, int width) noexcept nogil:
    return bmi_result(vp, a & (a - 1), a == 0, width)


cdef inline u64 bit_blsmsk(vp_t* vp, u64 a, int width) noexcept nogil:
    return bmi_result(vp, a ^ (a - 1), a == 0, width)


cdef inline u64 bit_blsi(vp_t* vp, u64 a, int width) noexcept nogil:
    return bmi_result(vp, a & (0 - a), a != 0, width)


cdef inline u64 bit_bextr(vp_t* vp, u64 a, u64 control, int width) noexcept nogil:
    cdef u64 start = control & 0xFF, length = (control >> 8) & 0xFF
    cdef u64 result = a >> start if start < <u64>width else 0
    if length < 64:
        result &= (<u64>1 << length) - 1
    return bmi_result(vp, result, False, width)


cdef inline u64 bit_bzhi(vp_t* vp, u64 a, u64 index, int width) noexcept nogil:
    index &= 0xFF
    if index < <u64>width:
        return bmi_result(vp, a & ((<u64>1 << index) - 1), False, width)
    return bmi_result(vp, a, True, width)


cdef inline u64 bit_pext(vp_t* vp, u64 a, u64 mask, int width) noexcept nogil:
    cdef u64 result = 0
    cdef int place = 0
    while mask:
        result |= ((a >> count_trailing_zeros(mask)) & 1) << place
        place += 1
        mask &= mask - 1
    return result


cdef inline u64 bit_pdep(vp_t* vp, u64 a, u64 mask, int width) noexcept nogil:
    cdef u64 result = 0
    while mask:
        result |= (a & 1) << count_trailing_zeros(mask)
        a >>= 1
        mask &= mask - 1
    return result
