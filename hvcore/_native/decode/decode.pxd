"""One instruction of 16-, 32- or 64-bit mode: bytes to insn_t (SDM volume 2, chapter 2).

prefixes -> opcode table -> nodes -> form -> memory operand -> immediates -> checks. Reads at most `available` bytes and
allocates nothing. What each byte means is in the tables; how bytes follow each other is here.
"""
from hvcore._native.base.types cimport i8, i16, i32, i64, u16, u32, u64, u8
from hvcore._native.decode.check cimport is_evex_valid, is_promoted_valid, is_valid
from hvcore._native.decode.memory cimport decode_memory, decode_memory16, make_vsib
from hvcore._native.decode.prefix cimport has_payload, lead_t, note_prefix, read_payload, read_rex2
from hvcore._native.decode.spec cimport (
    DECODE_AMD, DECODE_INVALID, DECODE_OK, DECODE_TOO_LONG, DECODE_TRUNCATED, ENTRY_BASE, ENTRY_MODRM, ENTRY_NODE,
    ENTRY_SHIFT, ENTRY_WIDTH, FORM_CHECK, FORM_IS4, FORM_LOCK, FORM_LOCK_CR8, FORM_NO_REX2, FORM_NO_SEGMENT,
    FORM_OFFSET, FORM_PROMOTED, FORM_REGISTERS, FORM_SHORT_REG, FORM_SHORT_RM, FORM_SIGNED, FORM_SOURCE_CONDITION,
    FORM_VECTOR_REG, FORM_VECTOR_RM, FORM_VSIB, FORM_VVVV, KEY_66, KEY_ADDRESS, KEY_B, KEY_EVEX_B, KEY_L, KEY_PP,
    KEY_W, LEAD_ESCAPE, LEAD_EVEX, LEAD_OPCODE, LEAD_REX, LEAD_REX2, LEAD_VEX2, LEAD_VEX3, PREFIX_ADDRESS,
    PREFIX_EVEX, PREFIX_LOCK, PREFIX_OPERAND, PREFIX_REX, PREFIX_REX2, PREFIX_VEX, PREFIX_W, PREFIX_XOP,
    REGISTER_NONE, SPACE_3DNOW, SPACE_COUNT, SPACE_EVEX, SPACE_REX2, MAXIMUM_LENGTH, form_t, insn_t, isa_t,
)
from libc.string cimport memcpy, memset


cdef inline u64 read_immediate(const u8* code, u8 size_bytes, bint is_signed) noexcept nogil:
    cdef u64 value = 0
    cdef u16 word
    cdef u32 doubleword
    if size_bytes == 1:
        return <u64><i64><i8>code[0] if is_signed else code[0]
    if size_bytes == 4:
        memcpy(&doubleword, code, 4)
        return <u64><i64><i32>doubleword if is_signed else doubleword
    if size_bytes == 2:
        memcpy(&word, code, 2)
        return <u64><i64><i16>word if is_signed else word
    memcpy(&value, code, 8)
    return value


cdef inline u32 walk(const isa_t* isa, u32 entry, u32 key) noexcept nogil:
    """From an entry of an opcode table to a form; 0 if there is none."""
    while entry & ENTRY_NODE:
        entry = isa.entries[(entry & ENTRY_BASE)
                            + (key >> (entry >> ENTRY_SHIFT & 31) & ((<u32>1 << (entry >> ENTRY_WIDTH & 15)) - 1))]
    return entry & ENTRY_BASE


cdef inline void decode(const isa_t* isa, const u8* code, u32 available, u8 options, insn_t* insn) noexcept nogil:
    """Decode the instruction at `code` in the mode of `options` (DecodeOptions). `insn.status` tells; on anything but
    OK only `length` means something: the bytes that were looked at."""
    cdef u32 limit = min(available, <u32>MAXIMUM_LENGTH), at = 0, entry, key, size
    cdef u8 mode = options & 3, byte = 0, kind = 0, address
    cdef bint has_modrm
    cdef const u8* kinds = isa.leads + (<u32>mode << 8)
    cdef const u32* roots = isa.roots + (mode + (3 if options & DECODE_AMD else 0)) * SPACE_COUNT
    cdef lead_t lead
    cdef const form_t* form
    memset(insn, 0, sizeof(insn_t))
    memset(&lead, 0, sizeof(lead_t))
    insn.base = insn.index = insn.segment = REGISTER_NONE
    insn.mode = 16 << mode
    insn.status = DECODE_TOO_LONG if available >= MAXIMUM_LENGTH else DECODE_TRUNCATED
    insn.length = limit

    while True:
        if at >= limit:
            return
        byte = code[at]
        kind = kinds[byte]
        at += 1
        if kind == LEAD_REX:
            lead.rex = byte
        elif kind <= LEAD_ESCAPE or kind >= LEAD_VEX3:
            break
        else:
            note_prefix(kind, byte, mode, &lead, insn)
    if lead.rex:
        insn.prefixes |= PREFIX_REX
    insn.prefix_length = <u8>(at - 1)

    # Here: `byte` is the opcode or the first byte of an escape, all prefixes are known.
    if kind == LEAD_ESCAPE:
        lead.table = 1
        if at >= limit:
            return
        byte = code[at]
        at += 1
        if byte == 0x38 or byte == 0x3A:
            lead.table = 2 if byte == 0x38 else 3
            if at >= limit:
                return
            byte = code[at]
            at += 1
        elif byte == 0x0F:
            lead.table = SPACE_3DNOW
    elif kind == LEAD_REX2:
        if at + 2 > limit:
            return
        read_rex2(code[at], &lead, insn)
        byte = code[at + 1]
        at += 2
        insn.prefix_length += 2
    elif kind != LEAD_OPCODE:
        if at >= limit:
            return
        if has_payload(kind, mode, code[at]):
            # payload, opcode: 2, 3 or 4 bytes in all
            if at + (2 if kind == LEAD_VEX2 else 4 if kind == LEAD_EVEX else 3) > limit:
                return
            at += read_payload(kind, code + at, mode, &lead, insn)
            byte = code[at]
            at += 1
    insn.opcode = byte
    address = mode
    if insn.prefixes & PREFIX_ADDRESS:
        address = 1 if mode == 0 else mode - 1
    insn.address_size = 16 << address
    key = ((<u32>lead.pp << KEY_PP) | (<u32>lead.length << KEY_L) | (<u32>(lead.rex & 8) << KEY_W - 3)
           | (<u32>(insn.prefixes & PREFIX_OPERAND) << KEY_66) | (<u32>address << KEY_ADDRESS)
           | (<u32>(lead.rex & 1 | lead.high_base >> 4) << KEY_B) | (<u32>lead.has_b << KEY_EVEX_B) | lead.key)
    if lead.rex & 8:
        insn.prefixes |= PREFIX_W

    if insn.prefixes & PREFIX_REX2 and lead.table == 0 and walk(isa, isa.entries[roots[<u32>SPACE_REX2] + byte], key):
        lead.table = SPACE_REX2
    entry = isa.entries[roots[lead.table] + byte] if lead.table != SPACE_3DNOW else <u32>ENTRY_MODRM
    has_modrm = entry & ENTRY_MODRM != 0
    if has_modrm:
        if at >= limit:
            return
        insn.modrm = code[at]
        at += 1
        key |= insn.modrm
        if lead.has_b and insn.modrm >= 0xC0 and lead.table != SPACE_EVEX + 4:
            key = (key & ~(<u32>3 << KEY_L)) | 2 << KEY_L       # L'L is the rounding: 512 bits or a scalar
    entry = walk(isa, entry & ~<u32>ENTRY_MODRM, key)       # of 3DNow!: form 0, until the opcode is known
    form = &isa.forms[entry]
    insn.form = <u16>entry
    if (entry == 0 and lead.table != SPACE_3DNOW) or lead.bad:
        insn.status = DECODE_INVALID
        insn.length = <u8>at
        return
    insn.operand_size = form.operand_size
    insn.vector_length = form.vector_length
    insn.rm = (byte & 7) | (lead.rex & 1) << 3 | lead.high_base
    if has_modrm:
        at = decode_modrm(form, code, at, limit, &lead, insn)
        if at == 0:
            return
        if lead.table == SPACE_3DNOW:
            if at >= limit:
                return
            insn.opcode = code[at]
            entry = walk(isa, isa.entries[roots[<u32>SPACE_3DNOW] + code[at]] & ~<u32>ENTRY_MODRM, key)
            form = &isa.forms[entry]
            insn.form = <u16>entry
            at += 1
            if entry == 0:
                insn.status = DECODE_INVALID
                insn.length = <u8>at
                return
    elif form.flags & FORM_OFFSET:
        size = insn.address_size >> 3
        if at + size > limit:
            return
        insn.displacement = <i64>read_immediate(code + at, size, False)
        insn.displacement_size = size
        insn.displacement_offset = <u8>at
        insn.is_memory = True
        at += size

    size = form.immediate_bytes
    if size:
        if at + size + form.immediate2_bytes > limit:
            return
        insn.immediate_size = size
        insn.immediate_offset = <u8>at
        insn.immediate = <i64>read_immediate(code + at, size, form.flags & FORM_SIGNED != 0)
        at += size
        if form.immediate2_bytes:
            insn.immediate2_size = form.immediate2_bytes
            insn.immediate2 = read_immediate(code + at, form.immediate2_bytes, False)
            at += form.immediate2_bytes
    insn.length = <u8>at
    insn.status = DECODE_OK
    finish(form, &lead, options, insn)


cdef inline u32 decode_modrm(const form_t* form, const u8* code, u32 at, u32 limit, const lead_t* lead,
                             insn_t* insn) noexcept nogil:
    """Registers and memory of a ModRM byte; the offset behind it, or 0 if cut off."""
    cdef u32 flags = form.flags, sib = at
    cdef u8 shift
    insn.reg = ((insn.modrm >> 3) & 7) | (lead.rex & 4) << 1
    if not (flags & FORM_VECTOR_REG and insn.prefixes & PREFIX_REX2):       # REX2 gives general registers bit 4
        insn.reg |= lead.high_reg
    if insn.modrm >= 0xC0 or flags & FORM_REGISTERS:
        insn.rm = (insn.modrm & 7) | (lead.rex & 1) << 3
        insn.rm |= lead.high_rm if flags & FORM_VECTOR_RM else lead.high_base
        return at
    insn.rm = insn.modrm & 7
    insn.is_memory = True
    shift = form.broadcast_shift if lead.has_b else form.displacement_shift
    if insn.address_size == 16:
        at = decode_memory16(code, at, limit, shift, insn)
    else:
        at = decode_memory(code, at, limit, lead.rex, lead.high_base, lead.high_index, shift, insn)
    if flags & FORM_VSIB and at != 0 and not make_vsib(code, sib, lead.rex, lead.high_vsib, insn):
        insn.index = REGISTER_NONE
    return at


cdef inline void finish(const form_t* form, const lead_t* lead, u8 options, insn_t* insn) noexcept nogil:
    """The checks that need the whole instruction, and what depends on them."""
    cdef u32 flags = form.flags
    if flags & (FORM_SHORT_REG | FORM_SHORT_RM | FORM_IS4 | FORM_NO_SEGMENT):
        if flags & FORM_NO_SEGMENT:
            insn.segment = REGISTER_NONE
        if flags & FORM_SHORT_REG:
            insn.reg &= 7
        if flags & FORM_SHORT_RM and not insn.is_memory:
            insn.rm &= 7
        if flags & FORM_IS4:
            insn.is4 = (insn.immediate >> 4) & (15 if insn.mode == 64 else 7)
            insn.immediate &= 15
    if insn.prefixes & (PREFIX_LOCK | PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP | PREFIX_REX2):
        if insn.prefixes & PREFIX_REX2 and flags & FORM_NO_REX2:
            insn.status = DECODE_INVALID
        if insn.prefixes & PREFIX_LOCK and not (flags & FORM_LOCK and insn.is_memory):
            if not (flags & FORM_LOCK_CR8 and options & DECODE_AMD and insn.reg == 0):
                insn.status = DECODE_INVALID
                return
            insn.reg = 8
        if not flags & (FORM_VVVV | FORM_SOURCE_CONDITION):
            if insn.vvvv and not (flags & FORM_VSIB and insn.prefixes & PREFIX_EVEX and insn.vvvv == 16):
                insn.status = DECODE_INVALID        # unused, it must be 1111, which is stored inverted
        elif insn.mode != 64:
            insn.vvvv &= 7
        if insn.prefixes & PREFIX_EVEX:
            # U has a meaning in memory operands with an index only: it extends a general register.
            if lead.high_index and (not insn.is_memory or flags & FORM_VSIB):
                insn.status = DECODE_INVALID
            if not (is_promoted_valid(form, insn, lead.has_b) if flags & FORM_PROMOTED
                    else is_evex_valid(form, insn, lead.has_b, lead.length)):
                insn.status = DECODE_INVALID
        if flags & FORM_VSIB and insn.index == REGISTER_NONE:
            insn.status = DECODE_INVALID
    if flags & FORM_CHECK and not is_valid(form, insn):
        insn.status = DECODE_INVALID
