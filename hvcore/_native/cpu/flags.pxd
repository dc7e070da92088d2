"""Lazy arithmetic flags: the last result and one word of carries, from which each flag is a bit or two away.

    flag_result   the result, sign-extended from its width
    flag_aux      63: CF    62: CF ^ OF (the carry into the sign bit)    61: flips SF    15..8: flips parity    4: AF

ZF is `result == 0`, SF its sign, PF the parity of its low byte; the flips exist for flags that were loaded from
elsewhere (POPF, SAHF), where ZF and SF may both be set. OF is bit 63 ^ bit 62.
"""
from hvcore._native.base.bits cimport sign_extend
from hvcore._native.base.types cimport i64, u32, u64
from hvcore._native.cpu.spec cimport FLAGS_SYSTEM, FLAG_AF, FLAG_CF, FLAG_FIXED, FLAG_OF, FLAG_PF, FLAG_SF, FLAG_ZF
from hvcore._native.cpu.state cimport vp_t

cdef extern from *:
    int parity_of "__builtin_parity"(unsigned int) noexcept nogil



cdef inline void flags_add(vp_t* vp, u64 a, u64 b, u64 result, int width) noexcept nogil:
    cdef u64 carries = (a & b) | ((a | b) & ~result)
    vp.flag_result = sign_extend(result, width)
    vp.flag_aux = ((carries << (64 - width)) & (<u64>3 << 62)) | ((a ^ b ^ result) & FLAG_AF)


cdef inline void flags_sub(vp_t* vp, u64 a, u64 b, u64 result, int width) noexcept nogil:
    cdef u64 borrows = (~a & b) | ((~a | b) & result)
    vp.flag_result = sign_extend(result, width)
    vp.flag_aux = ((borrows << (64 - width)) & (<u64>3 << 62)) | ((a ^ b ^ result) & FLAG_AF)


cdef inline void flags_logic(vp_t* vp, u64 result, int width) noexcept nogil:
    vp.flag_result = sign_extend(result, width)
    vp.flag_aux = 0


cdef inline void flags_set_carries(vp_t* vp, bint carry, bint overflow) noexcept nogil:
    """Change CF and OF alone."""
    vp.flag_aux = (vp.flag_aux & ~(<u64>3 << 62)) | (<u64>carry << 63) | (<u64>(carry ^ overflow) << 62)


cdef inline bint flag_carry(const vp_t* vp) noexcept nogil:
    return vp.flag_aux >> 63


cdef inline bint flag_overflow(const vp_t* vp) noexcept nogil:
    return (vp.flag_aux ^ vp.flag_aux << 1) >> 63


cdef inline bint flag_zero(const vp_t* vp) noexcept nogil:
    return vp.flag_result == 0


cdef inline bint flag_sign(const vp_t* vp) noexcept nogil:
    return <i64>(<u64>vp.flag_result ^ vp.flag_aux << 2) < 0


cdef inline bint flag_parity(const vp_t* vp) noexcept nogil:
    return not parity_of(<u32>((<u64>vp.flag_result ^ vp.flag_aux >> 8) & 0xFF))


cdef inline bint flag_less(const vp_t* vp) noexcept nogil:
    """SF != OF."""
    return (<u64>vp.flag_result ^ vp.flag_aux << 2 ^ vp.flag_aux ^ vp.flag_aux << 1) >> 63


cdef inline bint condition_holds(const vp_t* vp, int condition) noexcept nogil:
    """One of the sixteen conditions, by its low opcode bits (SDM 1, appendix B); odd ones negate."""
    cdef int base = condition & 14
    cdef bint holds
    if base == 0:
        holds = flag_overflow(vp)
    elif base == 2:
        holds = flag_carry(vp)
    elif base == 4:
        holds = flag_zero(vp)
    elif base == 6:
        holds = flag_carry(vp) or flag_zero(vp)
    elif base == 8:
        holds = flag_sign(vp)
    elif base == 10:
        holds = flag_parity(vp)
    elif base == 12:
        holds = flag_less(vp)
    else:
        holds = flag_less(vp) or flag_zero(vp)
    return holds ^ (condition & 1)


cdef inline u64 flags_arithmetic(const vp_t* vp) noexcept nogil:
    """CF PF AF ZF SF OF at their places in RFLAGS."""
    return (<u64>flag_carry(vp) | <u64>flag_parity(vp) << 2 | (vp.flag_aux & FLAG_AF) | <u64>flag_zero(vp) << 6
            | <u64>flag_sign(vp) << 7 | <u64>flag_overflow(vp) << 11)


cdef inline void flags_load(vp_t* vp, u64 flags) noexcept nogil:
    """Set all six arithmetic flags from RFLAGS bits."""
    cdef bint zero = flags & FLAG_ZF != 0, parity = flags & FLAG_PF != 0
    cdef bint carry = flags & FLAG_CF, overflow = flags & FLAG_OF != 0
    vp.flag_result = 0 if zero else 1
    vp.flag_aux = (<u64>carry << 63 | <u64>(carry ^ overflow) << 62 | <u64>(flags & FLAG_SF != 0) << 61
                   | (flags & FLAG_AF) | <u64>(parity ^ zero) << 8)


cdef inline u64 rflags_read(const vp_t* vp) noexcept nogil:
    return flags_arithmetic(vp) | vp.rflags_system | FLAG_FIXED


cdef inline void rflags_write(vp_t* vp, u64 value) noexcept nogil:
    flags_load(vp, value)
    vp.rflags_system = value & FLAGS_SYSTEM
