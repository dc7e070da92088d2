"""The ordinary case of SSE arithmetic on the host's own floating point unit (SDM 1, 10.2.3 and 11.5).

IEEE 754 fixes the result of + - * / and square root on plain numbers, so any host in its default rounding mode
gives the right bits; what the host does not tell is exactness, and that is decided here, exactly and without its flags.
Whatever is not plain is declined and goes to float_arithmetic.pxd. Requires -ffp-contract=off and no -ffast-math;
host FTZ or DAZ cannot be noticed, because no denormal is ever computed.
"""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.sem.float cimport (
    ADD, DIVIDE, EQUAL, GREATER, LESS, MULTIPLY, MXCSR_MASKS, MXCSR_RC, SQUARE_ROOT, SUBTRACT,
)

cdef extern from "<math.h>" nogil:
    double square_root "sqrt"(double value) noexcept

ctypedef fused real:
    float
    double


# A pun between a float and its encoding that no optimiser can misread.
cdef union bits64_t:
    double number
    u64 bits


cdef union bits32_t:
    float number
    u32 bits


cdef inline u64 bits_of(double number) noexcept nogil:
    cdef bits64_t pun
    pun.number = number
    return pun.bits


cdef inline u32 bits_of_single(float number) noexcept nogil:
    cdef bits32_t pun
    pun.number = number
    return pun.bits


cdef inline bint is_default(u32 mxcsr) noexcept nogil:
    """Nearest rounding and everything masked; DAZ and FTZ do not matter among plain numbers."""
    return mxcsr & (MXCSR_RC | MXCSR_MASKS) == MXCSR_MASKS


# ---- plain numbers ---------------------------------------------------------------------------------------------------
# Plain is a zero, or a normal number so far from both ends of the range that neither it nor its last bit's weight
# (the error term of an addition) is denormal or overflows.

cdef inline bint is_plain(u64 bits) noexcept nogil:
    cdef u64 magnitude = bits << 1
    return magnitude - (<u64>64 << 53) < <u64>1920 << 53 or magnitude == 0


cdef inline bint is_plain_single(u32 bits) noexcept nogil:
    cdef u32 magnitude = bits << 1
    return (magnitude - (<u32>32 << 24) < <u32>192 << 24) | (magnitude == 0)


cdef inline bint is_comparable(u64 bits) noexcept nogil:
    """Neither NaN nor denormal."""
    cdef u64 magnitude = bits << 1
    return magnitude - (<u64>1 << 53) <= <u64>2046 << 53 or magnitude == 0


cdef inline bint is_comparable_single(u32 bits) noexcept nogil:
    cdef u32 magnitude = bits << 1
    return (magnitude - (<u32>1 << 24) <= <u32>254 << 24) | (magnitude == 0)


# ---- operations ------------------------------------------------------------------------------------------------------

cdef inline real compute(int operation, real first, real second) noexcept nogil:
    if operation == ADD:
        return first + second
    if operation == SUBTRACT:
        return first - second
    if operation == MULTIPLY:
        return first * second
    if operation == DIVIDE:
        return first / second
    # For binary32 rounded twice, which is harmless for a root, as 53 >= 2 * 24 + 2.
    return <real>square_root(second)


cdef inline bint is_true_zero(int operation, bint first_is_zero, bint second_is_zero) noexcept nogil:
    """Whether a zero result of plain numbers is no underflow; sums, differences and roots of such cannot underflow."""
    if operation == MULTIPLY:
        return first_is_zero | second_is_zero
    return operation != DIVIDE or first_is_zero


cdef inline bint is_trusted(int operation, double first, double second, double result) noexcept nogil:
    """Whether operands and result are plain. A zero divisor gives an infinity or a NaN, a negative radicand a NaN."""
    return (
        is_plain(bits_of(second)) and is_plain(bits_of(result))
        and (operation == SQUARE_ROOT or is_plain(bits_of(first)))
        and (result != 0 or is_true_zero(operation, first == 0, second == 0)))


cdef inline bint is_trusted_single(int operation, u32 first, u32 second, u32 result) noexcept nogil:
    """Takes encodings and never branches, so that four of these become host vector operations."""
    cdef bint plain = is_plain_single(second) & is_plain_single(result)
    if operation != SQUARE_ROOT:
        plain &= is_plain_single(first)
    if operation == MULTIPLY or operation == DIVIDE:
        plain &= (result << 1 != 0) | is_true_zero(operation, first << 1 == 0, second << 1 == 0)
    return plain


cdef inline u64 significand(u64 bits) noexcept nogil:
    return (bits & ((<u64>1 << 52) - 1)) | (<u64>1 << 52)


cdef inline int exponent(u64 bits) noexcept nogil:
    return <int>(bits >> 52) & 0x7FF


cdef inline bint is_exact(int operation, double first, double second, double result) noexcept nogil:
    """Whether a trusted result needed no rounding.

    Addition: the error term of Knuth's two-sum is itself exact. Multiplication: the bits below the result's last,
    all within the low half of the integer product, are zero. Division and root: the integer remainder is smaller
    than 2**54, so that it is zero if its low 64 bits are.
    """
    cdef u64 a = bits_of(first), b = bits_of(second), r = bits_of(result)
    cdef double part
    if operation == ADD or operation == SUBTRACT:
        if operation == SUBTRACT:
            second = -second
        part = result - first
        return (first - (result - part)) + (second - part) == 0
    if result == 0:
        return True
    if operation == MULTIPLY:
        return (significand(a) * significand(b)) << (exponent(a) + exponent(b) - exponent(r) - 1011) == 0
    if operation == DIVIDE:
        return significand(r) * significand(b) == significand(a) << (exponent(a) - exponent(r) - exponent(b) + 1075)
    return significand(r) * significand(r) == significand(b) << (exponent(b) - 2 * exponent(r) + 1075)


cdef inline bint is_exact_single(int operation, double first, double second, double result) noexcept nogil:
    """The operands are binary32 values; a double holds every product of two exactly."""
    cdef double wide = compute(operation, first, second)
    return wide == result and (operation == MULTIPLY or is_exact(operation, first, second, wide))


cdef inline int host_relation(double first, double second) noexcept nogil:
    return LESS * (first < second) + EQUAL * (first == second) + GREATER * (first > second)
