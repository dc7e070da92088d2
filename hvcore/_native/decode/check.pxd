"""What makes bytes invalid although a form matches them: LOCK, vvvv, masks, rounding, and registers that there are not.

Called at the end of decoding, and only by what needs it: most instructions have none of this.
"""
from hvcore._native.base.types cimport u32, u8
from hvcore._native.decode.spec cimport (
    CHECK_BOUND_REG, CHECK_BOUND_RM, CHECK_CONTROL, CHECK_DEBUG, CHECK_DISTINCT, CHECK_GATHER, CHECK_MASK_REG,
    CHECK_MASK_VVVV, CHECK_NO_16, CHECK_NOT_RIP, CHECK_SEGMENT, CHECK_SEGMENT_WRITE, CHECK_SIB, CHECK_TEST, CHECK_TILE,
    CHECK_TILE_RM, EVEX_BROADCAST, EVEX_ROUNDING, EVEX_SUPPRESS, EVEX_ZEROING, FORM_BROADCAST, FORM_MASK,
    FORM_MASK_NEEDED, FORM_ROUNDING, FORM_SUPPRESS, FORM_VVVV, FORM_ZEROING, PLACE_RM, PREFIX_EVEX, REGISTER_CS,
    REGISTER_NONE, REGISTER_RIP, REGISTER_SEGMENT, REGISTER_VECTOR, form_t, insn_t,
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


cdef inline bint is_gather_valid(const form_t* form, const insn_t* insn) noexcept nogil:
    """The registers of a gather differ: destination and index, and the mask of VEX."""
    cdef u8 index = insn.index - REGISTER_VECTOR
    if insn.prefixes & PREFIX_EVEX:
        return form.places[0] == PLACE_RM or insn.reg != index
    return insn.reg != index and insn.reg != insn.vvvv and insn.vvvv != index


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
    if checks & (CHECK_MASK_REG | CHECK_TILE) and insn.reg > 7:
        return False
    if checks & CHECK_MASK_VVVV and insn.vvvv > 7:
        return False
    if checks & CHECK_TILE_RM and not insn.is_memory:
        if insn.rm > 7 or insn.vvvv > 7 or insn.reg == insn.rm or insn.reg == insn.vvvv or insn.rm == insn.vvvv:
            return False
    if checks & CHECK_GATHER and not is_gather_valid(form, insn):
        return False
    if checks & CHECK_DISTINCT:
        if insn.reg == insn.vvvv and form.flags & FORM_VVVV:
            return False
        if insn.reg == insn.rm and not insn.is_memory:
            return False
    if checks & CHECK_NOT_RIP and insn.base == REGISTER_RIP:
        return False
    if checks & CHECK_SIB and insn.modrm & 7 != 4:
        return False
    if checks & CHECK_NO_16 and insn.address_size == 16:
        return False
    return True
