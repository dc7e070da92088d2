"""The ordinary case of SSE arithmetic on the host's own floating point unit (SDM 1, 10.2.3 and 11.5).

IEEE 754 fixes the result of + - * / and square root on plain numbers, so any host in its default rounding mode
gives the right bits, and collects whether one was inexact (inexact.pxd).
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


cdef inline u64 is_ordinary(u64 bits) noexcept nogil:
    """Plain and not zero: the test that needs no branch."""
    return (bits << 1) - (<u64>64 << 53) < <u64>1920 << 53


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


cdef inline bint are_plain(int operation, double first, double second) noexcept nogil:
    """Whether the host may compute at all: what it finds inexact counts for the guest."""
    if operation == SQUARE_ROOT:
        return is_plain(bits_of(second)) and second >= 0
    return is_plain(bits_of(first)) and is_plain(bits_of(second)) and (operation != DIVIDE or second != 0)


cdef inline bint are_plain_single(int operation, u32 first, u32 second) noexcept nogil:
    """Takes encodings and never branches, so that four of these become host vector operations."""
    cdef bint plain = is_plain_single(second)
    if operation != SQUARE_ROOT:
        plain &= is_plain_single(first)
    if operation == DIVIDE:
        plain &= second << 1 != 0
    if operation == SQUARE_ROOT:
        plain &= (second >> 31 == 0) | (second << 1 == 0)
    return plain


cdef inline bint is_trusted(int operation, double first, double second, double result) noexcept nogil:
    """Whether the result of plain operands is plain too."""
    return is_plain(bits_of(result)) and (result != 0 or is_true_zero(operation, first == 0, second == 0))


cdef inline bint is_trusted_single(int operation, u32 first, u32 second, u32 result) noexcept nogil:
    cdef bint plain = is_plain_single(result)
    if operation == MULTIPLY or operation == DIVIDE:
        plain &= (result << 1 != 0) | is_true_zero(operation, first << 1 == 0, second << 1 == 0)
    return plain


cdef inline int host_relation(double first, double second) noexcept nogil:
    return LESS * (first < second) + EQUAL * (first == second) + GREATER * (first > second)
