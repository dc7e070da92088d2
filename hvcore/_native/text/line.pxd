"""One instruction as a line of text: prefixes, mnemonic, operands, in Intel's, AT&T's or NASM's syntax.

The syntaxes are those of iced-x86's formatters with their default options; what differs is listed in docs/decoder.md.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.text.operand cimport (
    branch_target, byte_names, effective_size, general_names, has_override, put_default_flags, put_far,
    put_immediate, put_memory, put_register, put_string_memory, put_target, target_bits,
)
from hvcore._native.text.spec cimport *
from hvcore._native.text.write cimport put_character, put_text, put_word


cdef inline bint is_other_size(const layout_t* layout, const insn_t* insn) noexcept nogil:
    """The operand size is not the one that the mode has by itself."""
    if layout.own_size == OWN_NONE:
        return False
    if layout.own_size == OWN_OUTSIDE_64:
        return insn.mode == 64
    if layout.own_size == OWN_SHORT_ADDRESS:
        return insn.address_size == 64
    if layout.own_size == OWN_DATA:
        return effective_size(insn) != (32 if insn.mode == 64 else insn.mode)
    if layout.own_size == OWN_DATA_OR_W:
        return effective_size(insn) != 64 and effective_size(insn) != (32 if insn.mode == 64 else insn.mode)
    if insn.operand_size == 0 and insn.mode == 64:
        return False
    return effective_size(insn) != insn.mode


cdef inline u8 last_segment_prefix(const insn_t* insn, const u8* code) noexcept nogil:
    """The byte, or 0: an override that does not count can still be a hint, unless FS or GS is there in 64-bit mode."""
    cdef u8 found = 0
    cdef u8 at
    if insn.prefixes & PREFIX_SEGMENT and (insn.mode != 64 or insn.segment == REGISTER_NONE):
        for at in range(insn.prefix_length):
            if code[at] in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65):
                found = code[at]
    return found


cdef inline char* put_decimal(u8 value, char* out) noexcept nogil:
    """Two digits at most."""
    if value > 9:
        out = put_character(out, <char>(48 + value // 10))
    return put_character(out, <char>(48 + value % 10))


cdef inline char* put_size_prefix(u8 syntax, bint address, u8 bits, char* out) noexcept nogil:
    """`data16 `, `o16 `, `addr32 `, `a32 `."""
    if syntax == SYNTAX_NASM:
        out = put_character(out, c"a" if address else c"o")
    elif address:
        out = put_text(out, b"addr", 4)
    elif syntax == SYNTAX_ATT and bits == 64:
        return put_text(out, b"rex.w ", 6)
    else:
        out = put_text(out, b"data", 4)
    return put_character(put_decimal(bits, out), c" ")


cdef inline char* put_hint(u8 syntax, u8 prefix, char* out) noexcept nogil:
    """Branch hints in front of the mnemonic; AT&T's are behind it."""
    if syntax == SYNTAX_INTEL:
        return put_text(out, b"hint-taken ", 11) if prefix == 0x3E else put_text(out, b"hint-not-taken ", 15)
    return put_text(out, b"ds ", 3) if prefix == 0x3E else put_text(out, b"cs ", 3)


cdef inline char* put_lock(const layout_t* layout, const insn_t* insn, char* out) noexcept nogil:
    cdef bint elided = insn.is_memory and (insn.prefixes & PREFIX_LOCK or layout.flags & TEXT_ELIDE_LOCK)
    if elided and insn.prefixes & PREFIX_REPNE and layout.flags & TEXT_ACQUIRE:
        out = put_text(out, b"xacquire ", 9)
    elif elided and insn.prefixes & PREFIX_REP and layout.flags & TEXT_RELEASE:
        out = put_text(out, b"xrelease ", 9)
    if insn.prefixes & PREFIX_LOCK and layout.flags & TEXT_LOCK:
        out = put_text(out, b"lock ", 5)
    return out


cdef inline char* put_repeat(const layout_t* layout, const insn_t* insn, char* out) noexcept nogil:
    if layout.flags & TEXT_ALWAYS_REP or insn.prefixes & PREFIX_REP and layout.flags & TEXT_REP:
        return put_text(out, b"rep ", 4)
    if insn.prefixes & PREFIX_REP and layout.flags & TEXT_REPE:
        return put_text(out, b"repe ", 5)
    if insn.prefixes & PREFIX_REPNE and layout.flags & TEXT_REPNE:
        return put_text(out, b"repne ", 6)
    if insn.prefixes & PREFIX_REPNE and layout.flags & TEXT_BOUND:
        return put_text(out, b"bnd ", 4)
    return out


cdef inline char* put_prefixes(const text_tables_t* tables, u8 syntax, const layout_t* layout, const insn_t* insn,
                               const u8* code, bint other, char* out) noexcept nogil:
    """Everything in front of the mnemonic. Prefixes without effect are not shown."""
    cdef u8 segment
    if layout.flags & TEXT_NO_FLAGS:
        out = put_text(out, b"{nf} ", 5)
    elif layout.flags & TEXT_EVEX:
        out = put_text(out, b"{evex} ", 7)
    if layout.flags & (TEXT_DATA | TEXT_DATA_MEMORY) and other and (layout.flags & TEXT_DATA or insn.is_memory):
        out = put_text(out, b".byte 0x66; ", 12) if layout.flags & TEXT_RAW_DATA else \
            put_size_prefix(syntax, False, effective_size(insn), out)
    if insn.address_size != insn.mode and (layout.flags & TEXT_ADDRESS or
                                           layout.flags & TEXT_ADDRESS_IN_64 and insn.mode == 64):
        out = put_size_prefix(syntax, True, insn.address_size, out)
    if layout.flags & TEXT_SEGMENT and has_override(insn):
        out = put_word(out, &tables.registers[(syntax * NAMES_COUNT + NAMES_SEGMENT) * 32 + insn.segment - REGISTER_ES])
        out = put_character(out, c" ")
    if layout.flags & (TEXT_HINT | TEXT_NOTRACK):
        segment = last_segment_prefix(insn, code)
        if segment == 0x3E and layout.flags & TEXT_NOTRACK:
            out = put_text(out, b"notrack ", 8)
        elif segment in (0x2E, 0x3E) and layout.flags & TEXT_HINT and syntax != SYNTAX_ATT:
            out = put_hint(syntax, segment, out)
    out = put_lock(layout, insn, out)
    return put_repeat(layout, insn, out)


cdef inline int pseudo_condition(const layout_t* layout, const insn_t* insn) noexcept nogil:
    """Number of the condition that the last immediate names, or -1."""
    cdef u8 value = <u8>insn.immediate
    if layout.pseudo == PSEUDO_NONE:
        return -1
    if layout.pseudo == PSEUDO_MULTIPLY:
        return -1 if value & 0xEE else value & 1 | value >> 3
    return value if value < (32 if layout.pseudo == PSEUDO_COMPARE_32 else 8) else -1


cdef inline char* put_mnemonic(const text_tables_t* tables, u8 syntax, const text_t* text, const layout_t* layout,
                               const insn_t* insn, const u8* code, bint other, int condition,
                               char* out) noexcept nogil:
    cdef const word_t* word = &tables.words[text.name_other if other and text.name_other else
                                            text.name_memory if insn.is_memory and not insn.evex & EVEX_BROADCAST else
                                            text.name]
    cdef u8 segment
    if condition < 0:
        out = put_word(out, word)
    else:
        out = put_text(out, word.text, layout.pseudo_at)
        out = put_word(out, &tables.conditions[layout.pseudo * 32 + condition])
        out = put_text(out, word.text + layout.pseudo_at, word.length - layout.pseudo_at)
    if layout.flags & TEXT_NAME_BY_SIZE and other:
        out = put_character(out, c"w" if effective_size(insn) == 16 else c"l")
    if layout.flags & TEXT_NAME_BY_ADDRESS and insn.address_size != insn.mode:
        out = put_character(out, c"w" if insn.address_size == 16 else c"l" if insn.address_size == 32 else c"q")
    if syntax == SYNTAX_ATT and layout.flags & TEXT_HINT:
        segment = last_segment_prefix(insn, code)
        if segment in (0x2E, 0x3E):
            out = put_text(out, b",pt", 3) if segment == 0x3E else put_text(out, b",pn", 3)
    return out


cdef inline char* put_rounding(u8 syntax, const insn_t* insn, char* out) noexcept nogil:
    if insn.evex & EVEX_SUPPRESS:
        return put_text(out, b"{sae}", 5)
    if insn.rounding == 0:
        return put_text(out, b"{rne-sae}", 9) if syntax == SYNTAX_INTEL else put_text(out, b"{rn-sae}", 8)
    out = put_text(out, b"{rd-sae}", 8)
    if insn.rounding == 2:
        out[-6] = c"u"
    elif insn.rounding == 3:
        out[-6] = c"z"
    return out


cdef inline u8 register_number(const text_operand_t* operand, const insn_t* insn) noexcept nogil:
    """Which register a register operand names."""
    cdef u8 place = operand.place
    if place == PLACE_REG:
        return insn.reg
    if place == PLACE_RM or place == PLACE_OPCODE:
        return insn.rm
    if place == PLACE_VVVV:
        return insn.vvvv
    return insn.is4 if place == PLACE_IS4 else operand.number


cdef inline char* put_operand(const text_tables_t* tables, u8 syntax, const layout_t* layout,
                              const text_operand_t* operand, const insn_t* insn, u64 ip, bint other,
                              char* out) noexcept nogil:
    """One operand without its decorations."""
    cdef u8 place = operand.place
    cdef u8 names = operand.names, word
    cdef bint memory = place == PLACE_RM and insn.is_memory or place == PLACE_OFFSET
    if operand.marks & MARK_STAR:
        out = put_character(out, c"*")
    if place >= PLACE_TARGET or memory:
        word = (operand.word_broadcast if insn.evex & EVEX_BROADCAST else operand.word_other if other else
                operand.word)
        if word:
            out = put_word(out, &tables.words[word])
    if memory:
        return put_memory(tables, syntax, insn, ip, layout, place == PLACE_OFFSET, out)
    if place == PLACE_IMMEDIATE:
        return put_immediate(syntax, <u64>insn.immediate, operand.number, out)
    if place == PLACE_IMMEDIATE2:
        return put_immediate(syntax, insn.immediate2, operand.number, out)
    if place == PLACE_ONE:
        return put_immediate(syntax, 1, 8, out)
    if place == PLACE_TARGET:
        return put_target(syntax, branch_target(insn, ip, operand.number), target_bits(insn, operand.number), out)
    if place == PLACE_FAR:
        return put_far(syntax, insn, out)
    if place == PLACE_SOURCE or place == PLACE_TABLE:
        return put_string_memory(tables, syntax, insn, 6 if place == PLACE_SOURCE else 3, insn.segment, out)
    if place == PLACE_DESTINATION:
        return put_string_memory(tables, syntax, insn, 7, REGISTER_ES, out)
    if place == TEXT_MASK:
        return put_register(tables, syntax, NAMES_MASK, insn.mask, out)
    if place == TEXT_ROUNDING:
        return put_rounding(syntax, insn, out)
    if place == TEXT_ACCUMULATOR or place == TEXT_COUNTER:
        return put_register(tables, syntax, general_names(insn.address_size), operand.number, out)
    if place == TEXT_OVERRIDE:
        return put_register(tables, syntax, NAMES_SEGMENT, insn.segment - REGISTER_ES, out)
    if place == TEXT_NOP_REGISTER:
        return put_register(tables, syntax, general_names(effective_size(insn)), operand.number, out)
    if names == NAMES_8:
        names = byte_names(insn)
    return put_register(tables, syntax, names, register_number(operand, insn), out)


cdef inline char* put_decorations(const text_tables_t* tables, u8 syntax, const layout_t* layout,
                                  const text_operand_t* operand, const insn_t* insn, char* out) noexcept nogil:
    if operand.marks & MARK_BROADCAST and insn.evex & EVEX_BROADCAST:
        out = put_decimal(layout.broadcast, put_text(out, b"{1to", 4))
        out = put_character(out, c"}")
    if operand.marks & MARK_MASK and insn.mask:
        out = put_register(tables, syntax, NAMES_MASK, insn.mask, put_character(out, c"{"))
        out = put_character(out, c"}")
    if operand.marks & MARK_MASK and insn.evex & EVEX_ZEROING:
        out = put_text(out, b"{z}", 3)
    if operand.marks & MARK_ROUNDING and insn.evex & (EVEX_ROUNDING | EVEX_SUPPRESS):
        out = put_rounding(syntax, insn, out)
    return out


cdef inline bint is_shown(const layout_t* layout, u8 number, const insn_t* insn) noexcept nogil:
    cdef const text_operand_t* operand = &layout.operands[number]
    if operand.place == TEXT_ROUNDING:
        return insn.evex & (EVEX_ROUNDING | EVEX_SUPPRESS) != 0
    if operand.place == TEXT_OVERRIDE:
        return has_override(insn)
    if operand.place == TEXT_COUNTER:
        return insn.address_size != insn.mode
    return not (layout.flags & TEXT_REPEATED and number == 1 and not insn.is_memory and insn.reg == insn.rm)


cdef inline int put_line(const text_tables_t* tables, u8 syntax, const insn_t* insn, const u8* code, u64 ip,
                         char* start) noexcept nogil:
    """Write the line of one instruction, whose bytes are `code`, and return its length: LINE_MAXIMUM at most."""
    cdef const text_t* text = &tables.texts[syntax * tables.form_count + insn.form]
    cdef const layout_t* layout = &tables.layouts[text.layout]
    cdef bint other, first = True
    cdef int condition, number
    cdef char* out = start
    if insn.status != DECODE_OK:
        return <int>(put_text(out, b"(bad)", 5) - start)
    other = is_other_size(layout, insn)
    condition = pseudo_condition(layout, insn)
    out = put_prefixes(tables, syntax, layout, insn, code, other, out)
    out = put_mnemonic(tables, syntax, text, layout, insn, code, other, condition, out)
    if layout.flags & TEXT_DEFAULT_FLAGS:
        out = put_default_flags(insn, out)
    if layout.flags & TEXT_NOP and not other or layout.flags & TEXT_SECOND and not insn.is_memory and insn.rm & 7 == 1:
        return <int>(out - start)
    for number in range(layout.operand_count):
        if condition >= 0 and layout.operands[number].place == PLACE_IMMEDIATE or not is_shown(layout, number, insn):
            continue
        out = put_character(out, c" " if first else c",")
        first = False
        out = put_operand(tables, syntax, layout, &layout.operands[number], insn, ip, other, out)
        out = put_decorations(tables, syntax, layout, &layout.operands[number], insn, out)
    return <int>(out - start)
