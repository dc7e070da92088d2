"""Prefix bytes, and the payloads of VEX, EVEX, XOP and REX2.

SDM volume 2, sections 2.3 and 2.7; AMD volume 3, section 1.2.7; Intel's APX specification, section 3.1.

What they say is gathered in lead_t, in the order of the legacy REX byte: W 8, R 4, X 2, B 1.
"""
from hvcore._native.base.types cimport u32, u8
from hvcore._native.decode.spec cimport (
    DECODE_64, EVEX_ZEROING, KEY_ND, KEY_NF, KEY_SCC, LEAD_67, LEAD_66, LEAD_EVEX, LEAD_LOCK, LEAD_REP, LEAD_REPNE,
    LEAD_VEX2, LEAD_XOP, PREFIX_ADDRESS, PREFIX_EVEX, PREFIX_LOCK, PREFIX_OPERAND, PREFIX_OVERRIDE, PREFIX_REP,
    PREFIX_REPNE, PREFIX_REX, PREFIX_REX2, PREFIX_SEGMENT, PREFIX_VEX, PREFIX_XOP, REGISTER_FS, REGISTER_SEGMENT,
    SPACE_EVEX, SPACE_VEX, SPACE_XOP, insn_t,
)


cdef struct lead_t:             # what comes before the opcode
    u8 rex                      # WRXB
    u8 pp                       # 0 none, 1 66, 2 F3, 3 F2
    u8 length                   # L'L
    u8 has_b                    # EVEX.b
    u8 table                    # number of the opcode table
    u8 high_reg                 # 16 or 0: EVEX.R'
    u8 high_rm                  # 16 or 0: EVEX.X, of vector registers
    u8 high_index               # 16 or 0: EVEX.X4 or REX2.X4
    u8 high_base                # 16 or 0: EVEX.B4 or REX2.B4, of base registers and general registers in ModRM.rm
    u8 high_vsib                # 16 or 0: EVEX.V', of VSIB
    u32 key                     # what EVEX adds to the key
    bint bad                    # a reserved bit is set


cdef inline void note_prefix(u8 kind, u8 byte, u8 mode, lead_t* lead, insn_t* insn) noexcept nogil:
    """A legacy prefix. It takes an earlier REX's effect away."""
    cdef u8 segment
    lead.rex = 0
    if kind == LEAD_66:
        insn.prefixes |= PREFIX_OPERAND
        if lead.pp == 0:
            lead.pp = 1
    elif kind == LEAD_67:
        insn.prefixes |= PREFIX_ADDRESS
    elif kind == LEAD_LOCK:
        insn.prefixes |= PREFIX_LOCK
    elif kind == LEAD_REPNE:
        insn.prefixes = (insn.prefixes & ~<u32>PREFIX_REP) | PREFIX_REPNE
        lead.pp = 3
    elif kind == LEAD_REP:
        insn.prefixes = (insn.prefixes & ~<u32>PREFIX_REPNE) | PREFIX_REP
        lead.pp = 2
    else:
        # 26 2E 36 3E and 64 65 to ES CS SS DS FS GS. In 64-bit mode only FS and GS count, and stay.
        segment = REGISTER_SEGMENT + (byte >> 3 & 3) if byte < 0x64 else byte - 0x64 + REGISTER_FS
        insn.prefixes = (insn.prefixes & ((1 << PREFIX_OVERRIDE) - 1)) | PREFIX_SEGMENT \
            | (segment - REGISTER_SEGMENT + 1) << PREFIX_OVERRIDE
        if mode != DECODE_64 or segment >= REGISTER_FS:
            insn.segment = segment


cdef inline bint has_payload(u8 kind, u8 mode, u8 following) noexcept nogil:
    """Whether C4, C5, 62 or 8F starts a VEX, EVEX or XOP instruction and not LES, LDS, BOUND or POP."""
    if kind == LEAD_XOP:
        return following & 0x1F >= 8
    return mode == DECODE_64 or following >= 0xC0


cdef inline u32 read_payload(u8 kind, const u8* payload, u8 mode, lead_t* lead, insn_t* insn) noexcept nogil:
    """The bytes behind C4, C5, 62 or 8F; how many they are."""
    cdef u8 first = payload[0], second = payload[1], third, map
    # Another prefix that says what the payload says is not allowed.
    lead.bad = lead.pp != 0 or insn.prefixes & (PREFIX_LOCK | PREFIX_OPERAND) != 0 or lead.rex != 0
    lead.rex = ~first >> 5 & 7
    map = first & 31
    if kind == LEAD_VEX2:
        lead.rex &= 4
        second = first & 0x7F
        map = 1
    if mode != DECODE_64:
        lead.rex = 0
    lead.rex |= second >> 4 & 8
    lead.pp = second & 3
    if lead.pp == 1:
        insn.prefixes |= PREFIX_OPERAND
    insn.vvvv = ~second >> 3 & 15
    if kind == LEAD_EVEX:
        insn.prefixes |= PREFIX_EVEX
        third = payload[2]
        lead.table = SPACE_EVEX + (first & 7)
        lead.length = third >> 5 & 3
        lead.has_b = third >> 4 & 1
        lead.high_rm = (lead.rex & 2) << 3
        insn.mask = third & 7
        insn.evex = EVEX_ZEROING if third & 0x80 else 0
        if mode == DECODE_64:
            lead.high_reg = ~first & 16
            lead.high_base = (first & 8) << 1
            lead.high_index = (~second & 4) << 2
            lead.high_vsib = (~third & 8) << 1
            insn.vvvv |= lead.high_vsib
            lead.key = ((<u32>lead.has_b << KEY_ND) | (<u32>(third >> 2 & 1) << KEY_NF)
                        | (<u32>(third & 15) << KEY_SCC))
        else:
            lead.bad |= first & 8 != 0 or second & 4 == 0 or third & 8 == 0
        return 3
    lead.length = second >> 2 & 1
    if kind == LEAD_XOP:
        insn.prefixes |= PREFIX_XOP
        lead.table = SPACE_XOP + (map & 7)
        lead.bad |= map > 15
    else:
        insn.prefixes |= PREFIX_VEX
        lead.table = SPACE_VEX + (map & 7)
        lead.bad |= map > 7
    return 1 if kind == LEAD_VEX2 else 2


cdef inline void read_rex2(u8 payload, lead_t* lead, insn_t* insn) noexcept nogil:
    """The byte behind D5: M0 R4 X4 B4 W R3 X3 B3. REX must not stand before it."""
    lead.bad = lead.rex != 0
    insn.prefixes = (insn.prefixes & ~<u32>PREFIX_REX) | PREFIX_REX2
    lead.rex = payload & 15
    lead.table = payload >> 7
    lead.high_reg = payload >> 2 & 16
    lead.high_index = payload >> 1 & 16
    lead.high_base = payload & 16
