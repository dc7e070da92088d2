"""Bit tricks that more than one room needs."""
from hvcore._native.base.types cimport i64, u64


cdef inline i64 sign_extend(u64 value, int width) noexcept nogil:
    """The low `width` bits as a signed number."""
    return <i64>(value << (64 - width)) >> (64 - width)


cdef inline bint is_canonical(u64 gva) noexcept nogil:
    """Bits 63 to 47 are all equal: an address of four-level paging."""
    return <u64>sign_extend(gva, 48) == gva
