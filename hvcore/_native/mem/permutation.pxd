"""Frames in no order: a permutation of [0, count) that is computed, not stored, and its inverse.

Each round multiplies by an odd number and folds the upper half down, both of which can be undone in a power of two;
an index that lands at or beyond `count` goes through again until it does not (cycle walking), at most twice on average.
"""
from hvcore._native.base.types cimport u64

cdef enum:
    PERMUTATION_ROUNDS = 4


cdef inline u64 round_key(u64 seed, int turn) noexcept nogil:
    """Key bits of one round: the finaliser of splitmix64 over the seed."""
    cdef u64 z = seed + <u64>(turn + 1) * <u64>0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <u64>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <u64>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef inline int index_bits(u64 count) noexcept nogil:
    """Bits of the largest index."""
    cdef int bits = 0
    while bits < 64 and (count - 1) >> bits:
        bits += 1
    return bits


cdef inline u64 odd_inverse(u64 odd) noexcept nogil:
    """The multiplicative inverse modulo 2**64, by Newton's iteration: each turn doubles the bits that are right."""
    cdef u64 inverse = odd
    cdef int turn
    for turn in range(5):
        inverse *= 2 - odd * inverse
    return inverse


cdef inline u64 permuted(u64 index, u64 count, u64 seed) noexcept nogil:
    """Where `index` goes."""
    cdef int bits = index_bits(count), turn
    cdef u64 mask, key
    if bits == 0:
        return index
    mask = <u64>-1 >> (64 - bits)
    while True:
        for turn in range(PERMUTATION_ROUNDS):
            key = round_key(seed, turn)
            index = ((index ^ key) * (key | 1)) & mask
            index ^= index >> ((bits + 1) // 2)
        if index < count:
            return index


cdef inline u64 unpermuted(u64 index, u64 count, u64 seed) noexcept nogil:
    """Where `index` comes from."""
    cdef int bits = index_bits(count), turn
    cdef u64 mask, key
    if bits == 0:
        return index
    mask = <u64>-1 >> (64 - bits)
    while True:
        for turn in range(PERMUTATION_ROUNDS - 1, -1, -1):
            key = round_key(seed, turn)
            index ^= index >> ((bits + 1) // 2)
            index = ((index * odd_inverse(key | 1)) ^ key) & mask
        if index < count:
            return index
