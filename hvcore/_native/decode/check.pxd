"""What makes bytes invalid although a form matches them: LOCK, vvvv, masks, rounding, and registers that there are not.

Called at the end of decoding, and only by what needs it: most instructions have none of this.
"""
from hvcore._native.base.types cimport u32, u8
from hvcore._native.decode.spec cimport (
    CHECK_BOUND_REG, CHECK_BOUND_RM, CHECK_CONTROL, CHECK_DEBUG, CHECK_DISTINCT, CHECK_DISTINCT_TARGET,
    CHECK_MASK_REG, CHECK_MASK_VVVV, CHECK_NOT_RSP, CHECK_NO_16, CHECK_PAIR, CHECK_SEGMENT, CHECK_SEGMENT_WRITE,
    CHECK_SIB, CHECK_TILE_RM, EVEX_BROADCAST, EVEX_ND, EVEX_NF, EVEX_ROUNDING, EVEX_SUPPRESS, EVEX_ZEROING,
    FORM_BROADCAST, FORM_MASK, FORM_MASK_NEEDED, FORM_ROUNDING, FORM_SOURCE_CONDITION, FORM_SUPPRESS, FORM_VSIB,
    FORM_VVVV, FORM_ZEROING, PLACE_RM, REGISTER_VECTOR, form_t, insn_t,
)


cdef inline bint is_evex_valid(const form_t* form, insn_t* insn, bint has_b, u8 length) noexcept nogil:
    """EVEX.z, aaa, b and L'L against what the form allows; the meaning of b is noted."""
    if insn.mask:
        if not form.flags & FORM_MASK:
            return False
    elif form.flags & FORM_MASK_NEEDED:
        return False
    if insn.evex & EVEX_ZEROING and (not insn.mask or not form.flags & FORM_ZEROING
                                     or (insn.is_memory and form.places[0] == PLACE_RM)):
        return False
    if has_b:
        if insn.is_memory:
            insn.evex |= EVEX_BROADCAST
            return form.flags & FORM_BROADCAST != 0
        if form.flags & FORM_ROUNDING:
            insn.evex |= EVEX_ROUNDING
            insn.rounding = length
            return True
        insn.evex |= EVEX_SUPPRESS
        return form.flags & FORM_SUPPRESS != 0
    return True


cdef inline bint is_promoted_valid(const form_t* form, insn_t* insn, bint has_nd) noexcept nogil:
    """The same bits in an instruction that APX promoted to EVEX: ND is b, NF is bit 2 of aaa."""
    cdef bint is_zeroing = insn.evex & EVEX_ZEROING != 0
    cdef u8 low = insn.mask
    insn.mask = 0
    insn.evex = EVEX_ND if has_nd else 0
    if form.flags & FORM_SOURCE_CONDITION:
        insn.vvvv = ~insn.vvvv & 15
        return not is_zeroing
    if low & 4:
        insn.evex |= EVEX_NF
    return not is_zeroing and low & 3 == 0


cdef inline bint are_distinct(const form_t* form, const insn_t* insn, bint only_target) noexcept nogil:
    """No register of an operand, nor a VSIB index, is another's; with `only_target`, the first's is no other's."""
    cdef u8 other = insn.index - REGISTER_VECTOR if form.flags & FORM_VSIB else insn.rm
    cdef bint has_other = form.flags & FORM_VSIB or not insn.is_memory
    if form.flags & FORM_VVVV and (insn.reg == insn.vvvv or (has_other and not only_target and insn.vvvv == other)):
        return False
    return not (has_other and insn.reg == other)


cdef inline bint is_valid(const form_t* form, const insn_t* insn) noexcept nogil:
    """The checks of the form (FormCheck)."""
    cdef u32 checks = form.checks
    if checks & CHECK_SEGMENT and (insn.reg > 5 or (checks & CHECK_SEGMENT_WRITE and insn.reg == 1)):
        return False
    if checks & CHECK_CONTROL and not (<u32>0x11D >> insn.reg) & 1:
        return False
    if checks & CHECK_DEBUG and insn.reg > 7:
        return False
    if checks & CHECK_BOUND_REG and insn.reg > 3:
        return False
    if checks & CHECK_BOUND_RM and not insn.is_memory and insn.rm > 3:
        return False
    if checks & CHECK_MASK_REG and insn.reg > 7:
        return False
    if checks & CHECK_MASK_VVVV and insn.vvvv > 7:
        return False
    if checks & CHECK_TILE_RM and not insn.is_memory and insn.rm > 7:
        return False
    if checks & CHECK_NOT_RSP and (insn.rm == 4 or insn.vvvv == 4):
        return False
    if checks & CHECK_PAIR and insn.rm == insn.vvvv:
        return False
    if checks & (CHECK_DISTINCT | CHECK_DISTINCT_TARGET):
        if not are_distinct(form, insn, checks & CHECK_DISTINCT_TARGET != 0):
            return False
    if checks & CHECK_SIB and insn.modrm & 7 != 4:
        return False
    if checks & CHECK_NO_16 and insn.address_size == 16:
        return False
    return True
