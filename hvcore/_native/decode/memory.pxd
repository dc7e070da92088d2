"""The memory operand of a ModRM byte: SIB, displacement, 16-bit addresses (SDM volume 2, section 2.1.5)."""
from hvcore._native.base.types cimport i8, i16, i32, u16, u32, u8
from hvcore._native.decode.spec cimport REGISTER_NONE, REGISTER_RIP, REGISTER_VECTOR, insn_t
from libc.string cimport memcpy


cdef inline u32 decode_memory16(const u8* code, u32 at, u32 limit, u8 shift,
                                insn_t* insn) noexcept nogil:
    """The displacement of a 16-bit address; the offset behind it, or 0 if cut off."""
    cdef u8 mod = insn.modrm >> 6, rm = insn.modrm & 7
    cdef i16 word
    # [BX+SI] [BX+DI] [BP+SI] [BP+DI] [SI] [DI] [BP] [BX], as register numbers of four bits each
    insn.base = (<u32>0x35765533 >> 4 * rm) & 15
    insn.index = (<u32>0x7676 >> 4 * rm) & 15 if rm < 4 else REGISTER_NONE
    if mod == 1:
        if at + 1 > limit:
            return 0
        insn.displacement = <i32>(<u32><i32><i8>code[at] << shift)
        insn.displacement_size = 1
    elif mod == 2 or rm == 6:
        if at + 2 > limit:
            return 0
        if mod == 0:
            insn.base = REGISTER_NONE
        memcpy(&word, code + at, 2)
        insn.displacement = word
        insn.displacement_size = 2
    insn.displacement_offset = <u8>at if insn.displacement_size else 0
    return at + insn.displacement_size


cdef inline u32 decode_memory(const u8* code, u32 at, u32 limit, u8 rex, u8 high_base, u8 high_index, u8 shift,
                              insn_t* insn) noexcept nogil:
    """SIB and displacement of a 32- or 64-bit address; the offset behind them, or 0 if cut off.

    `rex` gives X (2) and B (1), `high_base` and `high_index` bit 4 of the registers; a displacement of one byte is
    scaled by 2**shift."""
    cdef u8 mod = insn.modrm >> 6, rm = insn.modrm & 7, sib
    cdef i32 doubleword
    if rm == 4:
        if at >= limit:
            return 0
        sib = code[at]
        at += 1
        insn.scale = sib >> 6
        insn.index = ((sib >> 3) & 7) | (rex & 2) << 2 | high_index
        if insn.index == 4:
            insn.index = REGISTER_NONE
        rm = sib & 7
        insn.base = rm | (rex & 1) << 3 | high_base
        if rm == 5 and mod == 0:
            insn.base = REGISTER_NONE
            mod = 2
    else:
        insn.base = rm | (rex & 1) << 3 | high_base
        if rm == 5 and mod == 0:
            insn.base = REGISTER_RIP if insn.mode == 64 else REGISTER_NONE
            mod = 2
    if mod == 1:
        if at + 1 > limit:
            return 0
        insn.displacement = <i32>(<u32><i32><i8>code[at] << shift)
        insn.displacement_size = 1
        insn.displacement_offset = <u8>at
        return at + 1
    if mod == 2:
        if at + 4 > limit:
            return 0
        memcpy(&doubleword, code + at, 4)
        insn.displacement = doubleword
        insn.displacement_size = 4
        insn.displacement_offset = <u8>at
        return at + 4
    return at


cdef inline bint make_vsib(const u8* code, u32 at, u8 rex, u8 high_index, insn_t* insn) noexcept nogil:
    """The index of a decoded memory operand is a vector register; False if there is no SIB byte, or can't be."""
    if insn.modrm & 7 != 4 or insn.address_size == 16:
        return False
    insn.index = (REGISTER_VECTOR + ((code[at] >> 3) & 7)) | (rex & 2) << 2 | high_index
    return True
