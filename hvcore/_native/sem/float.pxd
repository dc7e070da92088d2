"""Software IEEE 754 for binary32 and binary64 as SSE defines it (SDM 1, 4.8, 10.2.3, 11.5 and appendix E).

Everything is computed on integers: the same bits on every host, all rounding modes, DAZ, FTZ and the six flags.
Here: taking encodings apart, NaN rules, rounding; float_arithmetic.pxd has the operations. A format is named by its
number of fraction bits. Must not touch a vector or use any floating point operation or state of the host.
"""
from hvcore._native.base.types cimport i32, u128, u32, u64, u8

cdef extern from *:
    """
    #define hv_leading_zeros(value) __builtin_clzll(value)
    #define hv_cold_void __attribute__((cold)) void
    """
    int leading_zeros "hv_leading_zeros"(u64 value) noexcept nogil  # undefined for zero
    # The result type of what must stay out of line: inlined, the rare path would spoil its callers' registers.
    ctypedef void cold_void "hv_cold_void"


cdef enum:
    MXCSR_IE = 0x01
    MXCSR_DE = 0x02
    MXCSR_ZE = 0x04
    MXCSR_OE = 0x08
    MXCSR_UE = 0x10
    MXCSR_PE = 0x20
    MXCSR_FLAGS = 0x3F
    MXCSR_DAZ = 0x40
    MXCSR_OM = 0x400
    MXCSR_UM = 0x800
    MXCSR_MASKS = 0x1F80
    MXCSR_MASK_SHIFT = 7  # from a flag to its mask bit
    MXCSR_RC_SHIFT = 13
    MXCSR_RC = 0x6000
    MXCSR_FTZ = 0x8000

# Found before an operation is carried out: an unmasked one of these hides OE, UE and PE (SDM 1, 11.5.3).
cdef enum:
    BEFORE_OPERATION = 0x07

cdef enum:
    ROUND_NEAREST = 0
    ROUND_DOWN = 1
    ROUND_UP = 2
    ROUND_TO_ZERO = 3

cdef enum:
    BINARY32 = 23
    BINARY64 = 52

cdef enum:
    ADD
    SUBTRACT
    MULTIPLY
    DIVIDE
    SQUARE_ROOT
    MINIMUM
    MAXIMUM

cdef enum:
    ZERO
    FINITE
    INFINITE
    QUIET_NAN
    SIGNALING_NAN

# The outcome of a comparison is one bit, so that a predicate is a set of outcomes.
cdef enum:
    LESS = 1
    EQUAL = 2
    GREATER = 4
    UNORDERED = 8


cdef struct number_t:
    # FINITE: significand * 2**(exponent - 63) with bit 63 set. NaN: the fraction, aligned below bit 63.
    u64 significand
    i32 exponent
    u8 kind
    u8 is_negative
    u8 is_denormal


cdef struct outcome_t:
    u64 bits
    u32 flags


cdef inline outcome_t outcome(u64 bits, u32 flags) noexcept nogil:
    cdef outcome_t made
    made.bits = bits
    made.flags = flags
    return made


# ---- formats ---------------------------------------------------------------------------------------------------------

cdef inline int exponent_bias(int format) noexcept nogil:
    return 127 if format == BINARY32 else 1023


cdef inline u64 sign_bit(int format, bint is_negative) noexcept nogil:
    return <u64>is_negative << (31 if format == BINARY32 else 63)


cdef inline u64 infinity(int format, bint is_negative) noexcept nogil:
    return sign_bit(format, is_negative) | (<u64>(2 * exponent_bias(format) + 1) << format)


cdef inline u64 default_nan(int format) noexcept nogil:
    """The "QNaN floating-point indefinite" of SDM 1, table 4-3: negative, only the quiet bit set."""
    return infinity(format, True) | (<u64>1 << (format - 1))


cdef inline number_t unpack(u64 bits, int format, u32 mxcsr) noexcept nogil:
    """Take an encoding apart; under DAZ a denormal is a zero of its sign and leaves no trace."""
    cdef number_t number
    cdef u64 fraction = bits & ((<u64>1 << format) - 1)
    cdef int bias = exponent_bias(format)
    cdef int exponent = <int>(bits >> format) & (2 * bias + 1)
    cdef int shift
    number.is_negative = (bits & sign_bit(format, True)) != 0
    number.is_denormal = False
    number.significand = fraction << (63 - format)
    number.exponent = exponent - bias
    if exponent == 2 * bias + 1:
        number.kind = INFINITE if fraction == 0 else QUIET_NAN if fraction >> (format - 1) else SIGNALING_NAN
    elif exponent != 0:
        number.kind = FINITE
        number.significand |= <u64>1 << 63
    elif fraction == 0 or mxcsr & MXCSR_DAZ:
        number.kind = ZERO
    else:
        number.kind = FINITE
        number.is_denormal = True
        shift = leading_zeros(number.significand)
        number.significand <<= shift
        number.exponent = 1 - bias - shift
    return number


cdef inline u64 pack_nan(number_t number, int format) noexcept nogil:
    """Quieten: sign and the leading payload bits stay, so this also narrows and widens."""
    return infinity(format, number.is_negative) | (<u64>1 << (format - 1)) | (number.significand >> (63 - format))


cdef inline outcome_t choose_nan(number_t first, number_t second, int format) noexcept nogil:
    """SDM 1, table 4-7 for SSE: the first source if it is a NaN at all, else the second."""
    cdef bint is_invalid = first.kind == SIGNALING_NAN or second.kind == SIGNALING_NAN
    return outcome(pack_nan(first if first.kind >= QUIET_NAN else second, format), MXCSR_IE if is_invalid else 0)


# ---- rounding --------------------------------------------------------------------------------------------------------

cdef inline u64 jam_right(u64 value, int count) noexcept nogil:
    """Shift right, keeping "something was lost" in bit 0: all that rounding needs to know about it."""
    if count == 0:
        return value
    if count > 63:
        return value != 0
    return (value >> count) | ((value << (64 - count)) != 0)


cdef inline u128 jam_right_wide(u128 value, int count) noexcept nogil:
    if count == 0:
        return value
    if count > 127:
        return value != 0
    return (value >> count) | <u128>((value << (128 - count)) != 0)


cdef inline u64 jam_half(u128 value) noexcept nogil:
    return <u64>(value >> 64) | (<u64>value != 0)


cdef inline bint rounds_away(u64 kept, u64 lost, u64 half, bint is_negative, u32 mxcsr) noexcept nogil:
    """Whether the magnitude `kept` grows by one, `lost` out of 2 * `half` having been cut off."""
    cdef int control = (mxcsr & MXCSR_RC) >> MXCSR_RC_SHIFT
    if control == ROUND_NEAREST:
        return lost > half or (lost == half and kept & 1)
    return lost != 0 and control == (ROUND_DOWN if is_negative else ROUND_UP)


cdef inline u64 round_significand(u64 significand, int format, bint is_negative, u32 mxcsr) noexcept nogil:
    """Drop to format + 1 bits; the result may be 2**(format + 1)."""
    cdef u64 half = <u64>1 << (62 - format)
    cdef u64 kept = significand >> (63 - format)
    return kept + rounds_away(kept, significand & (2 * half - 1), half, is_negative, mxcsr)


cdef inline outcome_t pack(bint is_negative, i32 exponent, u64 significand, int format, u32 mxcsr) noexcept nogil:
    """Round significand * 2**(exponent - 63), bit 63 set and bit 0 sticky, into the format.

    SSE detects tininess after rounding, that is, on the result an unbounded exponent would have given.
    A masked underflow is flagged only when inexact; an unmasked one always, and it switches FTZ off. The result of an
    unmasked overflow or underflow is never delivered: only its exactness, had the exponent been wide enough, counts.
    """
    cdef int bias = exponent_bias(format)
    cdef u64 sign = sign_bit(format, is_negative)
    cdef u64 cut_off = (<u64>1 << (63 - format)) - 1
    cdef u32 inexact = MXCSR_PE if significand & cut_off else 0
    cdef u64 rounded = round_significand(significand, format, is_negative, mxcsr)
    cdef int carried = <int>(rounded >> (format + 1))
    if exponent + carried < 1 - bias:
        if not mxcsr & MXCSR_UM:
            return outcome(0, MXCSR_UE | inexact)
        if mxcsr & MXCSR_FTZ:
            return outcome(sign, MXCSR_UE | MXCSR_PE)
        significand = jam_right(significand, 1 - bias - exponent)
        # Rounding up to 2**format lands on the encoding of the smallest normal number by itself.
        rounded = round_significand(significand, format, is_negative, mxcsr)
        return outcome(sign | rounded, MXCSR_UE | MXCSR_PE if significand & cut_off else 0)
    exponent += carried
    if exponent > bias:
        if not mxcsr & MXCSR_OM:
            return outcome(0, MXCSR_OE | inexact)
        # An infinity, or the largest finite number when the rounding direction points back to zero.
        rounded = infinity(format, False) - (not rounds_away(1, 1, 0, is_negative, mxcsr))
        return outcome(sign | rounded, MXCSR_OE | MXCSR_PE)
    # The implicit bit of `rounded` adds the last one to the exponent field; a carry has a zero fraction anyway.
    return outcome(sign + (<u64>(exponent + bias - 1) << format) + (rounded >> carried), inexact)
