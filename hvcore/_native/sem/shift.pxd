"""Shifts and rotates (SDM 2B). A count of zero, after masking, changes nothing: neither value nor flags.

Where the SDM leaves OF undefined (counts above one) it is what the one-bit rule gives; AF is cleared.
"""
from hvcore._native.base.bits cimport sign_extend
from hvcore._native.base.types cimport i64, u128, u64
from hvcore._native.cpu.flags cimport flag_carry, flags_logic, flags_set_carries
from hvcore._native.cpu.state cimport vp_t


cdef inline u64 shift_count(u64 count, int width) noexcept nogil:
    return count & (63 if width == 64 else 31)


cdef inline u64 mask_of(int width) noexcept nogil:
    return <u64>-1 >> (64 - width)


cdef inline u64 shift_shl(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    cdef u64 result
    cdef bint carry
    count = shift_count(count, width)
    if count == 0:
        return a
    carry = (a << (count - 1)) >> (width - 1) & 1
    result = a << count
    flags_logic(vp, result, width)
    flags_set_carries(vp, carry, carry ^ <bint>((result >> (width - 1)) & 1))
    return result


cdef inline u64 shift_shr(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    cdef u64 result
    count = shift_count(count, width)
    if count == 0:
        return a
    result = a >> count
    flags_logic(vp, result, width)
    flags_set_carries(vp, <bint>((a >> (count - 1)) & 1), <bint>((a >> (width - 1)) & 1))
    return result


cdef inline u64 shift_sar(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    cdef i64 value = sign_extend(a, width)
    count = shift_count(count, width)
    if count == 0:
        return a
    flags_logic(vp, <u64>(value >> count), width)
    flags_set_carries(vp, <bint>((value >> (count - 1)) & 1), False)
    return <u64>(value >> count)


cdef inline u64 rotate_left(u64 a, u64 count, int width) noexcept nogil:
    """By less than `width`."""
    return (a << count | a >> ((width - count) & (width - 1))) & mask_of(width) if count else a


cdef inline u64 shift_rol(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    cdef u64 result
    cdef bint carry
    count = shift_count(count, width)
    if count == 0:
        return a
    result = rotate_left(a, count & (width - 1), width)
    carry = result & 1
    flags_set_carries(vp, carry, carry ^ <bint>((result >> (width - 1)) & 1))
    return result


cdef inline u64 shift_ror(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    cdef u64 result
    cdef bint carry
    count = shift_count(count, width)
    if count == 0:
        return a
    result = rotate_left(a, (width - count) & (width - 1), width)
    carry = (result >> (width - 1)) & 1
    flags_set_carries(vp, carry, carry ^ <bint>((result >> (width - 2)) & 1))
    return result


cdef inline u64 shift_rcl(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    """Rotate the `width` + 1 bits CF:a."""
    cdef u128 ring
    cdef bint carry
    count = shift_count(count, width) % (width + 1)
    if count == 0:
        return a
    ring = <u128>flag_carry(vp) << width | a
    ring = ring << count | ring >> (width + 1 - count)
    carry = <bint>(<u64>(ring >> width) & 1)
    flags_set_carries(vp, carry, carry ^ <bint>(<u64>(ring >> (width - 1)) & 1))
    return <u64>ring


cdef inline u64 shift_rcr(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    cdef u128 ring
    count = shift_count(count, width) % (width + 1)
    if count == 0:
        return a
    ring = <u128>flag_carry(vp) << width | a
    ring = ring >> count | ring << (width + 1 - count)
    flags_set_carries(vp, <bint>(<u64>(ring >> width) & 1),
                      <bint>(<u64>((ring >> (width - 1)) ^ (ring >> (width - 2))) & 1))
    return <u64>ring


cdef inline u64 shift_shld(vp_t* vp, u64 a, u64 b, u64 count, int width) noexcept nogil:
    cdef u64 result
    cdef bint carry
    count = shift_count(count, width)
    if count == 0:
        return a
    if count > <u64>width:                  # only for 16 bits, where the SDM leaves all undefined
        count -= width
        a = b
    carry = (a >> (width - count)) & 1
    result = (a << count | b >> (width - count)) & mask_of(width)
    flags_logic(vp, result, width)
    flags_set_carries(vp, carry, <bint>(((a ^ result) >> (width - 1)) & 1))
    return result


cdef inline u64 shift_shrd(vp_t* vp, u64 a, u64 b, u64 count, int width) noexcept nogil:
    cdef u64 result
    cdef bint carry
    count = shift_count(count, width)
    if count == 0:
        return a
    if count > <u64>width:
        count -= width
        a = b
    carry = (a >> (count - 1)) & 1
    result = (a >> count | b << (width - count)) & mask_of(width)
    flags_logic(vp, result, width)
    flags_set_carries(vp, carry, <bint>(((a ^ result) >> (width - 1)) & 1))
    return result


cdef inline u64 shift_rorx(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    return rotate_left(a, (width - count) & (width - 1), width)


cdef inline u64 shift_shlx(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    return a << shift_count(count, width)


cdef inline u64 shift_shrx(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    return a >> shift_count(count, width)


cdef inline u64 shift_sarx(vp_t* vp, u64 a, u64 count, int width) noexcept nogil:
    return <u64>(sign_extend(a, width) >> shift_count(count, width))
