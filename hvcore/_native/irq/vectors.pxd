"""Sets of interrupt vectors: 256 bits in four words."""
from hvcore._native.base.types cimport u32, u64

cdef extern from *:
    int count_leading_zeros "__builtin_clzll"(u64 word) noexcept nogil


cdef inline int highest_vector(const u64 *vectors) noexcept nogil:
    """The highest member of a vector set, or -1."""
    if vectors[3]:
        return 255 - count_leading_zeros(vectors[3])
    if vectors[2]:
        return 191 - count_leading_zeros(vectors[2])
    if vectors[1]:
        return 127 - count_leading_zeros(vectors[1])
    if vectors[0]:
        return 63 - count_leading_zeros(vectors[0])
    return -1


cdef inline bint has_vector(const u64 *vectors, u32 vector) noexcept nogil:
    return (vectors[vector >> 6] >> (vector & 63)) & 1


cdef inline void put_vector(u64 *vectors, u32 vector, bint present) noexcept nogil:
    """Make the vector a member of the set, or not."""
    cdef u64 bit = <u64>1 << (vector & 63)
    if present:
        vectors[vector >> 6] |= bit
    else:
        vectors[vector >> 6] &= ~bit
