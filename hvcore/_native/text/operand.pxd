"""Operands as text: registers, memory, immediates, targets. Who calls it knows the form's layout; see text/line.pxd."""
from hvcore._native.base.types cimport i64, u8, u16, u32, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.text.spec cimport *
from hvcore._native.text.write cimport (
    put_character, put_number, put_prefixed, put_signed, put_suffixed, put_text, put_word,
)


cdef inline char* put_register(const text_tables_t* tables, u8 syntax, u8 names, u8 number, char* out) noexcept nogil:
    if syntax == SYNTAX_ATT:
        out = put_character(out, c"%")
    return put_word(out, &tables.registers[syntax * NAMES_COUNT * 32 + names * 32 + (number & 31)])


cdef inline u8 general_names(u8 bits) noexcept nogil:
    """Names of general registers of this many bits."""
    if bits == 64:
        return NAMES_64
    return NAMES_32 if bits == 32 else NAMES_16


cdef inline u8 byte_names(const insn_t* insn) noexcept nogil:
    """Registers 4 to 7 are AH to BH unless a REX prefix of any kind is there."""
    if insn.prefixes & (PREFIX_REX | PREFIX_REX2 | PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP):
        return NAMES_8
    return NAMES_8_LEGACY


cdef inline u8 default_segment(const insn_t* insn) noexcept nogil:
    return REGISTER_SS if insn.base == 4 or insn.base == 5 else REGISTER_DS


cdef inline bint has_override(const insn_t* insn) noexcept nogil:
    """A segment override that counts, and is not DS, where DS would be used anyway."""
    return insn.segment != REGISTER_NONE and insn.segment != REGISTER_DS


cdef inline char* put_segment(const text_tables_t* tables, u8 syntax, u8 segment, char* out) noexcept nogil:
    out = put_register(tables, syntax, NAMES_SEGMENT, segment - REGISTER_SEGMENT, out)
    return put_character(out, c":")


cdef inline u64 absolute_address(const insn_t* insn, u64 ip) noexcept nogil:
    """Where memory without registers is; RIP-relative memory is such, once the instruction's address is known."""
    cdef u64 address = <u64>insn.displacement
    if insn.base == REGISTER_RIP:
        address += ip + insn.length
    if insn.address_size == 32:
        address = <u32>address
    elif insn.address_size == 16:
        address = <u16>address
    return address


cdef inline char* put_size_word(u8 address_size, char* out) noexcept nogil:
    """NASM's word for the size of an absolute address."""
    if address_size == 64:
        return put_text(out, b"qword ", 6)
    if address_size == 32:
        return put_text(out, b"dword ", 6)
    return put_text(out, b"word ", 5)


cdef inline char* put_absolute(const text_tables_t* tables, u8 syntax, const insn_t* insn, u64 ip,
                               bint is_offset, bint override, char* out) noexcept nogil:
    """What is inside the brackets of memory without registers."""
    if syntax == SYNTAX_NASM:
        if is_offset and (insn.address_size == 64 or insn.mode != 64 and insn.address_size != insn.mode) or (
                insn.base == REGISTER_RIP and insn.address_size == 32):
            out = put_size_word(insn.address_size, out)
        if insn.base == REGISTER_RIP:
            out = put_text(out, b"rel ", 4)
        if override:
            out = put_segment(tables, syntax, insn.segment, out)
    return put_number(out, absolute_address(insn, ip), syntax == SYNTAX_ATT)


cdef inline char* put_brackets(const text_tables_t* tables, u8 syntax, const insn_t* insn, u8 index_names,
                               char* out) noexcept nogil:
    """base+index*scale+displacement, of Intel's and NASM's syntax."""
    cdef u8 names = general_names(insn.address_size)
    cdef bint first = True
    if insn.base != REGISTER_NONE:
        out = put_register(tables, syntax, names, insn.base, out)
        first = False
    if insn.index != REGISTER_NONE:
        if not first:
            out = put_character(out, c"+")
        out = put_register(tables, syntax, index_names if index_names else names, insn.index, out)
        first = False
        if insn.scale or insn.base == REGISTER_NONE and insn.address_size != 16:
            out[0], out[1] = c"*", <char>(48 + (1 << insn.scale))
            out += 2
    if insn.displacement:
        if insn.displacement > 0 and not first:
            out = put_character(out, c"+")
        out = put_signed(out, insn.displacement, False)
    return out


cdef inline char* put_parentheses(const text_tables_t* tables, const insn_t* insn, u8 index_names,
                                  char* out) noexcept nogil:
    """displacement(base,index,scale), of AT&T's syntax."""
    cdef u8 names = general_names(insn.address_size)
    if insn.displacement:
        out = put_signed(out, insn.displacement, True)
    out = put_character(out, c"(")
    if insn.base != REGISTER_NONE:
        out = put_register(tables, SYNTAX_ATT, names, insn.base, out)
    if insn.index != REGISTER_NONE:
        out = put_character(out, c",")
        out = put_register(tables, SYNTAX_ATT, index_names if index_names else names, insn.index, out)
        if insn.scale:
            out[0], out[1] = c",", <char>(48 + (1 << insn.scale))
            out += 2
    return put_character(out, c")")


cdef inline char* put_memory(const text_tables_t* tables, u8 syntax, const insn_t* insn, u64 ip,
                             const layout_t* layout, bint is_offset, char* out) noexcept nogil:
    """The memory operand of ModRM, or an absolute offset."""
    cdef bint absolute = is_offset or insn.base == REGISTER_RIP or (
        insn.base == REGISTER_NONE and insn.index == REGISTER_NONE)
    cdef bint override = insn.segment != REGISTER_NONE and not layout.flags & TEXT_NO_SEGMENT and (
        insn.segment != (REGISTER_DS if absolute else default_segment(insn)))
    if override and syntax != SYNTAX_NASM:
        out = put_segment(tables, syntax, insn.segment, out)
    if syntax == SYNTAX_ATT:
        return put_absolute(tables, syntax, insn, ip, is_offset, override, out) if absolute else \
            put_parentheses(tables, insn, layout.index_names, out)
    out = put_character(out, c"[")
    if absolute:
        out = put_absolute(tables, syntax, insn, ip, is_offset, override, out)
    else:
        if override and syntax == SYNTAX_NASM:
            out = put_segment(tables, syntax, insn.segment, out)
        out = put_brackets(tables, syntax, insn, layout.index_names, out)
    return put_character(out, c"]")


cdef inline char* put_string_memory(const text_tables_t* tables, u8 syntax, const insn_t* insn, u8 register, u8 segment,
                                    char* out) noexcept nogil:
    """Memory at a register that the instruction implies; a segment override makes both segments show."""
    if has_override(insn):
        out = put_segment(tables, syntax, segment, out)
    out = put_character(out, c"(" if syntax == SYNTAX_ATT else c"[")
    out = put_register(tables, syntax, general_names(insn.address_size), register, out)
    return put_character(out, c")" if syntax == SYNTAX_ATT else c"]")


cdef inline u8 effective_size(const insn_t* insn) noexcept nogil:
    """The operand size, for forms that have none what prefixes would make it."""
    if insn.operand_size:
        return insn.operand_size
    if insn.prefixes & PREFIX_W and insn.mode == 64:
        return 64
    if insn.mode == 16:
        return 32 if insn.prefixes & PREFIX_OPERAND else 16
    return 16 if insn.prefixes & PREFIX_OPERAND else 32


cdef inline u8 target_bits(const insn_t* insn, bint transaction) noexcept nogil:
    """How wide the address is that a relative branch makes."""
    if insn.mode == 64 and (transaction or insn.operand_size == 0):
        return 64
    return 32 if transaction else effective_size(insn)


cdef inline u64 branch_target(const insn_t* insn, u64 ip, bint transaction) noexcept nogil:
    """Where a relative branch goes."""
    cdef u64 target = ip + insn.length + <u64>insn.immediate
    cdef u8 bits = target_bits(insn, transaction)
    if bits == 16:
        return <u16>target
    return <u32>target if bits == 32 else target


cdef inline char* put_target(u8 syntax, u64 target, u8 bits, char* out) noexcept nogil:
    """An address with all its digits."""
    if syntax == SYNTAX_ATT:
        return put_prefixed(out, target, bits >> 2)
    return put_suffixed(out, target, bits >> 2)


cdef inline char* put_far_part(u8 syntax, u64 value, u8 bits, char* out) noexcept nogil:
    """With all its digits, unless one is enough."""
    if value < 10:
        return put_number(out, value, syntax == SYNTAX_ATT)
    return put_target(syntax, value, bits, out)


cdef inline char* put_far(u8 syntax, const insn_t* insn, char* out) noexcept nogil:
    cdef u8 bits = 16 if insn.operand_size == 16 else 32
    if syntax == SYNTAX_INTEL:
        out = put_character(put_far_part(syntax, <u64>insn.immediate, bits, out), c",")
        return put_far_part(syntax, insn.immediate2, 16, out)
    if syntax == SYNTAX_ATT:
        out = put_far_part(syntax, insn.immediate2, 16, put_character(out, c"$"))
        out = put_character(put_character(out, c","), c"$")
    else:
        out = put_character(put_far_part(syntax, insn.immediate2, 16, out), c":")
    return put_far_part(syntax, <u64>insn.immediate, bits, out)


cdef inline char* put_default_flags(const insn_t* insn, char* out) noexcept nogil:
    """What CCMPscc and CTESTscc leave in the flags if their condition does not hold."""
    cdef const char* names = b"ofsfzfcf"
    cdef u8 left = insn.vvvv, bit
    out = put_text(out, b" {dfv=", 6)
    for bit in range(4):
        if left & 8 >> bit:
            out = put_text(out, names + 2 * bit, 2)
            left &= ~(8 >> bit)
            if left:
                out = put_character(out, c",")
    return put_character(out, c"}")


cdef inline char* put_immediate(u8 syntax, u64 value, u8 bits, char* out) noexcept nogil:
    if syntax == SYNTAX_ATT:
        out = put_character(out, c"$")
    if bits < 64:
        value &= (<u64>1 << bits) - 1
    return put_number(out, value, syntax == SYNTAX_ATT)
