"""The operations of software IEEE 754 on float.pxd's numbers: arithmetic, comparison, conversion (SDM 1, 11.5.2).

An operation takes and gives encodings, and returns the flags it found; who called decides what an unmasked one means.
This is the path for rare operands and unusual MXCSR settings: float_host.pxd answers everything ordinary.
Must not touch a vector or use any floating point operation or state of the host.
"""
from hvcore._native.base.types cimport i64, u128, u32, u64
from hvcore._native.sem.float cimport (
    BINARY32, BINARY64, DIVIDE, EQUAL, FINITE, GREATER, INFINITE, LESS, MAXIMUM, MINIMUM, MULTIPLY, MXCSR_DAZ,
    MXCSR_DE, MXCSR_FTZ, MXCSR_IE, MXCSR_MASKS, MXCSR_PE, MXCSR_RC, MXCSR_RC_SHIFT, MXCSR_ZE, QUIET_NAN, ROUND_DOWN,
    SIGNALING_NAN, SQUARE_ROOT, SUBTRACT, UNORDERED, ZERO, choose_nan, default_nan, infinity, jam_half, jam_right_wide,
    leading_zeros, number_t, outcome, outcome_t, pack, pack_nan, rounds_away, sign_bit, unpack,
)


# ---- on unpacked numbers that are not NaN ----------------------------------------------------------------------------

cdef inline outcome_t add_numbers(number_t first, number_t second, int format, u32 mxcsr) noexcept nogil:
    cdef u128 larger, smaller
    cdef number_t swapped
    cdef int shift
    if first.kind == INFINITE or second.kind == INFINITE:
        if first.kind == second.kind and first.is_negative != second.is_negative:
            return outcome(default_nan(format), MXCSR_IE)
        return outcome(infinity(format, (first if first.kind == INFINITE else second).is_negative), 0)
    if first.kind == ZERO and second.kind == ZERO and first.is_negative == second.is_negative:
        return outcome(sign_bit(format, first.is_negative), 0)
    if first.kind == ZERO or (second.kind != ZERO and first.exponent < second.exponent):
        swapped = first
        first = second
        second = swapped
    # 62 guard bits and a sticky one below, room for one carry above.
    larger = <u128>first.significand << 63 if first.kind == FINITE else 0
    smaller = 0
    if second.kind == FINITE:
        smaller = jam_right_wide(<u128>second.significand << 63, first.exponent - second.exponent)
    if first.is_negative == second.is_negative:
        larger += smaller
    elif larger >= smaller:
        larger -= smaller
    else:
        larger = smaller - larger
        first.is_negative = second.is_negative
    if larger == 0:
        return outcome(sign_bit(format, (mxcsr & MXCSR_RC) >> MXCSR_RC_SHIFT == ROUND_DOWN), 0)
    shift = leading_zeros(<u64>(larger >> 64)) if larger >> 64 else 64 + leading_zeros(<u64>larger)
    return pack(first.is_negative, first.exponent + 1 - shift, jam_half(larger << shift), format, mxcsr)


cdef inline outcome_t multiply_numbers(number_t first, number_t second, int format, u32 mxcsr) noexcept nogil:
    cdef bint is_negative = first.is_negative ^ second.is_negative
    cdef u128 product
    cdef int shift
    if first.kind == INFINITE or second.kind == INFINITE:
        if first.kind == ZERO or second.kind == ZERO:
            return outcome(default_nan(format), MXCSR_IE)
        return outcome(infinity(format, is_negative), 0)
    if first.kind == ZERO or second.kind == ZERO:
        return outcome(sign_bit(format, is_negative), 0)
    product = <u128>first.significand * second.significand
    shift = 1 - <int>(product >> 127)
    return pack(is_negative, first.exponent + second.exponent + 1 - shift, jam_half(product << shift), format, mxcsr)


cdef inline outcome_t divide_numbers(number_t first, number_t second, int format, u32 mxcsr) noexcept nogil:
    cdef bint is_negative = first.is_negative ^ second.is_negative
    cdef u128 dividend, divisor
    cdef u64 quotient
    cdef int shift
    if first.kind == second.kind and first.kind != FINITE:
        return outcome(default_nan(format), MXCSR_IE)
    if first.kind == INFINITE:
        return outcome(infinity(format, is_negative), 0)
    if second.kind == ZERO:
        return outcome(infinity(format, is_negative), MXCSR_ZE)
    if first.kind == ZERO or second.kind == INFINITE:
        return outcome(sign_bit(format, is_negative), 0)
    # Both of one type: Cython believes that u128 has 64 bits, and would divide in the other operand's type.
    dividend = <u128>first.significand << 63
    divisor = second.significand
    quotient = <u64>(dividend / divisor)
    shift = 1 - <int>(quotient >> 63)
    quotient = (quotient << shift) | (dividend % divisor != 0)
    return pack(is_negative, first.exponent - second.exponent - shift, quotient, format, mxcsr)


cdef inline outcome_t root_number(number_t number, int format, u32 mxcsr) noexcept nogil:
    cdef u128 rest
    cdef u64 root = 0, digit = <u64>1 << 63
    if number.kind == ZERO:
        return outcome(sign_bit(format, number.is_negative), 0)
    if number.is_negative:
        return outcome(default_nan(format), MXCSR_IE)
    if number.kind == INFINITE:
        return outcome(infinity(format, False), 0)
    # An even exponent halves; the 128-bit radicand then has a 64-bit root, found digit by digit.
    rest = <u128>number.significand << (63 + (number.exponent & 1))
    while digit != 0:
        if <u128>(root | digit) * (root | digit) <= rest:
            root |= digit
        digit >>= 1
    return pack(False, number.exponent >> 1, root | (<u128>root * root != rest), format, mxcsr)


cdef inline int relate(number_t first, number_t second) noexcept nogil:
    """LESS, EQUAL, GREATER or UNORDERED; zeros are equal whatever their signs."""
    cdef int outward
    if first.kind >= QUIET_NAN or second.kind >= QUIET_NAN:
        return UNORDERED
    if first.kind == ZERO and second.kind == ZERO:
        return EQUAL
    if first.kind == ZERO or second.kind == ZERO or first.is_negative != second.is_negative:
        if first.kind == ZERO:
            return GREATER if second.is_negative else LESS
        return LESS if first.is_negative else GREATER
    outward = LESS if first.is_negative else GREATER
    if first.kind != second.kind:
        return outward if first.kind == INFINITE else LESS + GREATER - outward
    if first.kind == INFINITE or (first.exponent == second.exponent and first.significand == second.significand):
        return EQUAL
    if first.exponent > second.exponent or (
            first.exponent == second.exponent and first.significand > second.significand):
        return outward
    return LESS + GREATER - outward


# ---- on encodings ----------------------------------------------------------------------------------------------------

cdef inline u32 denormal_flag(number_t first, number_t second) noexcept nogil:
    return MXCSR_DE if first.is_denormal or second.is_denormal else 0


cdef inline outcome_t compare(u64 first_bits, u64 second_bits, int format, bint is_signaling, u32 mxcsr) noexcept nogil:
    """`bits` is the relation. A signaling comparison is invalid for every NaN, a quiet one for SNaN only."""
    cdef number_t first = unpack(first_bits, format, mxcsr)
    cdef number_t second = unpack(second_bits, format, mxcsr)
    cdef int relation = relate(first, second)
    if relation == UNORDERED:
        is_signaling = is_signaling or first.kind == SIGNALING_NAN or second.kind == SIGNALING_NAN
        return outcome(relation, MXCSR_IE if is_signaling else 0)
    return outcome(relation, denormal_flag(first, second))


cdef inline outcome_t select(int operation, u64 first_bits, u64 second_bits, int format, u32 mxcsr) noexcept nogil:
    """MINIMUM and MAXIMUM: the second source unless the first is strictly better, also for NaN and two zeros."""
    cdef outcome_t compared = compare(first_bits, second_bits, format, True, mxcsr)
    cdef u64 chosen = first_bits if compared.bits == <u64>(LESS if operation == MINIMUM else GREATER) else second_bits
    cdef number_t number = unpack(chosen, format, mxcsr)
    if number.kind == ZERO:  # DAZ has replaced what is returned
        chosen = sign_bit(format, number.is_negative)
    return outcome(chosen, compared.flags)


cdef inline outcome_t operate(int operation, u64 first_bits, u64 second_bits, int format, u32 mxcsr) noexcept nogil:
    """Any operation of float.pxd's list; SQUARE_ROOT looks at the second operand only, as SSE's source."""
    cdef number_t first, second
    cdef outcome_t result
    if operation == MINIMUM or operation == MAXIMUM:
        return select(operation, first_bits, second_bits, format, mxcsr)
    second = unpack(second_bits, format, mxcsr)
    first = second if operation == SQUARE_ROOT else unpack(first_bits, format, mxcsr)
    if first.kind >= QUIET_NAN or second.kind >= QUIET_NAN:
        return choose_nan(first, second, format)
    if operation == SUBTRACT:
        second.is_negative ^= 1
    if operation == MULTIPLY:
        result = multiply_numbers(first, second, format, mxcsr)
    elif operation == DIVIDE:
        result = divide_numbers(first, second, format, mxcsr)
    elif operation == SQUARE_ROOT:
        result = root_number(second, format, mxcsr)
    else:
        result = add_numbers(first, second, format, mxcsr)
    # Invalid and divide-by-zero outrank the denormal operand (SDM 1, 4.9.2).
    if not result.flags & (MXCSR_IE | MXCSR_ZE):
        result.flags |= denormal_flag(first, second)
    return result


cdef inline outcome_t convert_format(u64 bits, int source_format, int format, u32 mxcsr) noexcept nogil:
    cdef number_t number = unpack(bits, source_format, mxcsr)
    cdef outcome_t result
    if number.kind >= QUIET_NAN:
        return choose_nan(number, number, format)
    if number.kind == ZERO:
        return outcome(sign_bit(format, number.is_negative), 0)
    if number.kind == INFINITE:
        return outcome(infinity(format, number.is_negative), 0)
    result = pack(number.is_negative, number.exponent, number.significand, format, mxcsr)
    result.flags |= denormal_flag(number, number)
    return result


cdef inline outcome_t from_integer(i64 value, int format, u32 mxcsr) noexcept nogil:
    cdef bint is_negative = value < 0
    cdef u64 magnitude = <u64>0 - <u64>value if is_negative else <u64>value
    cdef int shift
    if value == 0:
        return outcome(0, 0)
    shift = leading_zeros(magnitude)
    return pack(is_negative, 63 - shift, magnitude << shift, format, mxcsr)


cdef inline outcome_t to_integer(u64 bits, int format, int integer_bits, u32 mxcsr) noexcept nogil:
    """To a signed integer by MXCSR's rounding; the "integer indefinite" and IE for whatever does not fit.

    A denormal operand is no exception here, merely inexact (SDM 1, table E-17).
    """
    cdef number_t number = unpack(bits, format, mxcsr)
    cdef u64 limit = <u64>1 << (integer_bits - 1)
    cdef u64 magnitude, fraction
    cdef u128 fixed
    if number.kind == ZERO:
        return outcome(0, 0)
    if number.kind != FINITE or number.exponent > 63:
        return outcome(limit, MXCSR_IE)
    fixed = jam_right_wide(<u128>number.significand << 64, 63 - number.exponent)
    magnitude = <u64>(fixed >> 64)
    fraction = <u64>fixed
    magnitude += rounds_away(magnitude, fraction, <u64>1 << 63, number.is_negative, mxcsr)
    if magnitude > limit or (magnitude == limit and not number.is_negative):
        return outcome(limit, MXCSR_IE)
    # A 32-bit result is a zero-extended pattern: that is what a 32-bit register write leaves.
    magnitude = <u64>0 - magnitude if number.is_negative else magnitude
    return outcome(magnitude & (2 * limit - 1), MXCSR_PE if fraction != 0 else 0)


cdef inline u32 approximate(u32 bits, bint is_root) noexcept nogil:
    """RCPPS and RSQRTPS: no flags, denormals are zeros, tiny results are zeros, MXCSR is not consulted.

    The SDM promises a relative error of at most 1.5 * 2**-12 and processors differ below that. hvcore rounds the
    exact result to 12 fraction bits (error 2**-13), so that it does not depend on the host.
    """
    cdef number_t number = unpack(bits, BINARY32, MXCSR_MASKS | MXCSR_DAZ)
    cdef u64 result
    if number.kind >= QUIET_NAN:
        return <u32>pack_nan(number, BINARY32)
    if is_root:
        if number.kind == ZERO:
            return <u32>infinity(BINARY32, number.is_negative)
        # Widened first: one rounding of the root to 53 bits is invisible at 12.
        result = root_number(number, BINARY64, MXCSR_MASKS).bits
        if result == default_nan(BINARY64):
            return <u32>default_nan(BINARY32)
        number = unpack(result, BINARY64, MXCSR_MASKS)
    result = divide_numbers(
        unpack(0x3F800000, BINARY32, MXCSR_MASKS), number, BINARY32, MXCSR_MASKS | MXCSR_FTZ).bits
    return (<u32>result + 0x400) & ~<u32>0x7FF
