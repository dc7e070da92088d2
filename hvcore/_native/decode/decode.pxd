"""One instruction of 64-bit mode: bytes to insn_t (SDM volume 2, chapter 2).

prefixes -> escape and opcode -> rule -> ModRM, SIB, displacement -> immediate. Reads at most `available` bytes and
allocates nothing. What each byte means is in the tables; how bytes follow each other is here.
"""
from hvcore._native.base.types cimport i64, u16, u32, u8
from hvcore._native.decode.spec cimport (
    DECODE_INVALID, DECODE_OK, DECODE_TOO_LONG, DECODE_TRUNCATED, FORM_DEFAULT_64, FORM_FORCED_64, FORM_LOCK, KIND_B,
    KIND_C, KIND_D, KIND_I, KIND_J, KIND_O, MAXIMUM_LENGTH, PREFIX_ADDRESS, PREFIX_LOCK, PREFIX_OPERAND, PREFIX_REP,
    PREFIX_REPNE, PREFIX_REX, PREFIX_VEX, REGISTER_NONE, REGISTER_RIP, VEX_MAPS, WIDTH_B, WIDTH_D, WIDTH_U, WIDTH_V,
    WIDTH_W, WIDTH_Y, WIDTH_Z, form_t, insn_t, isa_t, opcode_t, rule_t,
)
from libc.string cimport memcpy, memset


cdef inline u8 operand_size(u8 width, u8 flags, bint has_66, bint has_w) noexcept nogil:
    """Operand size in bits that a form's deciding width gives under these prefixes."""
    if width == WIDTH_V or width == WIDTH_Z:
        if flags & FORM_FORCED_64 or has_w:
            return 64
        if has_66:
            return 16
        return 64 if flags & FORM_DEFAULT_64 else 32
    if width == WIDTH_Y:
        return 64 if has_w else 32
    if width == WIDTH_B or width == WIDTH_U:
        return 8
    if width == WIDTH_W:
        return 16
    if width == WIDTH_D:
        return 32
    return 64


cdef inline u8 immediate_bytes(u8 width, u8 size_bits, bint forced_64) noexcept nogil:
    if width == WIDTH_B or width == WIDTH_U:
        return 1
    if width == WIDTH_W:
        return 2
    if width == WIDTH_Z:
        return 2 if size_bits == 16 and not forced_64 else 4
    if width == WIDTH_V:
        return size_bits >> 3
    return 4


cdef inline i64 read_signed(const u8* code, u8 size_bytes) noexcept nogil:
    cdef i64 value = 0
    memcpy(&value, code, size_bytes)
    return (value << (64 - 8 * size_bytes)) >> (64 - 8 * size_bytes)


cdef inline const rule_t* match_rule(const isa_t* isa, const opcode_t* opcode, u8 prefix, bint has_66, u8 modrm,
                                     u8 rex) noexcept nogil:
    """The first rule of `opcode` that these bytes satisfy, or NULL. `prefix`: 0 none, 2 F3, 3 F2."""
    cdef const rule_t* rule
    cdef u8 present = 1 << prefix if prefix else (2 if has_66 else 1)
    cdef u8 size_mask = 4 if rex & 8 else (1 if has_66 else 2)
    cdef u16 i
    for i in range(opcode.count):
        rule = &isa.rules[opcode.first + i]
        if not rule.prefixes & present or not rule.w & (2 if rex & 8 else 1):
            continue
        if not rule.rex_b & (2 if rex & 1 else 1):
            continue
        if rule.has_modrm and (not rule.digits >> ((modrm >> 3) & 7) & 1 or not rule.rms >> (modrm & 7) & 1
                               or not rule.modes & (2 if modrm >= 0xC0 else 1)):
            continue
        if rule.sizes != 7:
            if isa.forms[rule.form].flags & FORM_DEFAULT_64 and size_mask == 2:
                if not rule.sizes & 4:
                    continue
            elif not rule.sizes & size_mask:
                continue
        return rule
    return NULL


cdef inline u8 decode_memory(const u8* code, u8 at, u32 limit, u8 modrm, u8 rex, u8 rex_x, insn_t* insn) noexcept nogil:
    """SIB and displacement behind a ModRM byte that names memory; the offset behind them, or 0 if cut off."""
    cdef u8 mode = modrm >> 6, rm = modrm & 7, size = 0, sib
    insn.base = rm | (rex & 1) << 3
    if rm == 4:
        if at >= limit:
            return 0
        sib = code[at]
        at += 1
        insn.scale = sib >> 6
        insn.index = ((sib >> 3) & 7) | rex_x
        if insn.index == 4:
            insn.index = REGISTER_NONE
        insn.base = (sib & 7) | (rex & 1) << 3
        if sib & 7 == 5 and mode == 0:
            insn.base = REGISTER_NONE
            size = 4
    elif rm == 5 and mode == 0:
        insn.base = REGISTER_RIP
        size = 4
    if mode == 1:
        size = 1
    elif mode == 2:
        size = 4
    if size:
        if at + size > limit:
            return 0
        insn.displacement = read_signed(code + at, size)
    return at + size


cdef inline void decode(const isa_t* isa, const u8* code, u32 available, insn_t* insn) noexcept nogil:
    """Decode the instruction at `code`. `insn.status` tells; on anything but OK only `length` means something:
    the bytes that were looked at."""
    cdef u32 limit = min(available, <u32>MAXIMUM_LENGTH)
    cdef u8 at = 0, byte = 0, prefix = 0, rex = 0, table = 0, modrm = 0, size, i
    cdef bint lock = False, names_vvvv = False
    cdef const opcode_t* opcode
    cdef const rule_t* rule
    cdef const form_t* form
    memset(insn, 0, sizeof(insn_t))
    insn.base = insn.index = insn.segment = REGISTER_NONE
    insn.status = DECODE_TOO_LONG if available >= MAXIMUM_LENGTH else DECODE_TRUNCATED
    insn.length = limit

    while True:
        if at >= limit:
            return
        byte = code[at]
        at += 1
        if byte == 0x66:
            insn.prefixes |= PREFIX_OPERAND
        elif byte == 0x67:
            insn.prefixes |= PREFIX_ADDRESS
        elif byte == 0xF0:
            insn.prefixes |= PREFIX_LOCK
            lock = True
        elif byte == 0xF2:
            insn.prefixes = (insn.prefixes & ~PREFIX_REP) | PREFIX_REPNE
            prefix = 3
        elif byte == 0xF3:
            insn.prefixes = (insn.prefixes & ~PREFIX_REPNE) | PREFIX_REP
            prefix = 2
        elif byte == 0x64 or byte == 0x65:
            insn.segment = byte - 0x60
        elif byte == 0x26 or byte == 0x2E or byte == 0x36 or byte == 0x3E:
            pass                    # no effect in 64-bit mode, and none on an FS or GS prefix before it
        elif byte & 0xF0 == 0x40:
            rex = byte
            continue
        else:
            break
        rex = 0                     # a REX prefix counts only right before the opcode
    if rex:
        insn.prefixes |= PREFIX_REX

    # Here: `byte` is the opcode or the first byte of an escape, all prefixes are known.
    if byte == 0x0F:
        table = 1
        if at >= limit:
            return
        byte = code[at]
        at += 1
        if byte == 0x38 or byte == 0x3A:
            table = 2 if byte == 0x38 else 3
            if at >= limit:
                return
            byte = code[at]
            at += 1
    elif byte == 0xC4 or byte == 0xC5:
        if at + 2 + (byte == 0xC4) > limit:
            return
        if insn.prefixes & (PREFIX_OPERAND | PREFIX_LOCK | PREFIX_REPNE | PREFIX_REP | PREFIX_REX):
            insn.status = DECODE_INVALID
            insn.length = at
            return
        insn.prefixes |= PREFIX_VEX
        rex = (~code[at] >> 5) & 4
        table = 1
        if byte == 0xC4:
            rex = (~code[at] >> 5) & 7
            table = code[at] & 31
            at += 1
            rex |= (code[at] >> 4) & 8
        insn.vvvv = (~code[at] >> 3) & 15
        size = code[at] & 3
        if size == 1:
            insn.prefixes |= PREFIX_OPERAND
        prefix = 0 if size < 2 else size
        if table == 0 or table > 3 or code[at] & 4:
            insn.status = DECODE_INVALID
            insn.length = at
            return
        table += VEX_MAPS
        byte = code[at + 1]
        at += 2

    opcode = &isa.opcodes[(<u32>table << 8) | byte]
    if opcode.has_modrm:
        if at >= limit:
            return
        modrm = code[at]
    rule = match_rule(isa, opcode, prefix, insn.prefixes & PREFIX_OPERAND != 0, modrm, rex)
    if rule == NULL:
        insn.status = DECODE_INVALID
        insn.length = at
        return
    form = &isa.forms[rule.form]
    insn.form = rule.form
    insn.width = operand_size(form.width, form.flags, insn.prefixes & PREFIX_OPERAND != 0, rex & 8 != 0)
    insn.rm = (byte & 7) | (rex & 1) << 3
    if rule.has_modrm:
        at += 1
        insn.reg = ((modrm >> 3) & 7) | (rex & 4) << 1
        insn.rm = (modrm & 7) | (rex & 1) << 3
        if modrm < 0xC0 and form.kinds[0] != KIND_C and form.kinds[0] != KIND_D \
                and form.kinds[1] != KIND_C and form.kinds[1] != KIND_D:
            insn.is_memory = True
            at = decode_memory(code, at, limit, modrm, rex, (rex & 2) << 2, insn)
            if at == 0:
                return

    for i in range(form.operand_count):
        if form.kinds[i] == KIND_O:
            size = 4 if insn.prefixes & PREFIX_ADDRESS else 8
            if at + size > limit:
                return
            memcpy(&insn.displacement, code + at, size)
            insn.is_memory = True
        elif form.kinds[i] == KIND_I or form.kinds[i] == KIND_J:
            size = immediate_bytes(form.widths[i], insn.width, form.kinds[i] == KIND_J)
            if at + size > limit:
                return
            if form.kinds[i] == KIND_I and form.widths[i] == WIDTH_U and i > 0 and form.kinds[i - 1] == KIND_I:
                insn.immediate2 = code[at]
            else:
                insn.immediate = read_signed(code + at, size)
                if form.widths[i] == WIDTH_U or form.widths[i] == WIDTH_W:
                    insn.immediate &= 0xFF if form.widths[i] == WIDTH_U else 0xFFFF
        else:
            names_vvvv |= form.kinds[i] == KIND_B
            continue
        at += size

    insn.length = at
    insn.status = DECODE_OK
    if lock and not (form.flags & FORM_LOCK and insn.is_memory):
        insn.status = DECODE_INVALID
    if insn.vvvv and not names_vvvv:        # unused, it must be 1111, which is stored inverted
        insn.status = DECODE_INVALID
