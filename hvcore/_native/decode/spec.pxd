"""Numbers and layouts of the decoder: what the generated tables hold and what a decoded instruction is.

`isa/generate.py` writes the tables in these very layouts; the letters of the table are explained at the head of
`isa/x64.txt`. Downstream code may rely on insn_t and on the numbers; form_t and isa_t belong to the decoder.
"""
from hvcore._native.base.types cimport i64, u8, u16, u32, u64

cdef enum DecodeOptions:        # one of the modes, with or without the vendor
    DECODE_16 = 0
    DECODE_32 = 1
    DECODE_64 = 2
    DECODE_AMD = 4              # the vendor's own reading where it differs from Intel's

cdef enum DecodeStatus:
    DECODE_OK
    DECODE_INVALID
    DECODE_TRUNCATED            # more bytes are needed than there are
    DECODE_TOO_LONG             # more than 15 bytes

cdef enum:
    MAXIMUM_LENGTH = 15

cdef enum Prefix:
    PREFIX_OPERAND = 1          # 66, or pp = 1
    PREFIX_ADDRESS = 2          # 67
    PREFIX_LOCK = 4             # F0
    PREFIX_REPNE = 8            # F2 is the last of F2 and F3
    PREFIX_REP = 16             # F3 is the last of F2 and F3
    PREFIX_REX = 32
    PREFIX_VEX = 64
    PREFIX_EVEX = 128
    PREFIX_XOP = 256
    PREFIX_REX2 = 512
    PREFIX_SEGMENT = 1024       # a segment override is present, whether it counts or not
    PREFIX_W = 2048             # W of REX, VEX, EVEX, XOP, REX2
    PREFIX_AMD = 4096           # decoded under the AMD option
    PREFIX_OVERRIDE = 13        # shift of three bits: 1 + number of the segment register (ES CS SS DS FS GS) that
                                # the last override names

cdef enum EvexBit:
    EVEX_ZEROING = 1
    EVEX_BROADCAST = 2          # EVEX.b with a memory operand
    EVEX_ROUNDING = 4           # EVEX.b with registers: rounding in `rounding`, exceptions suppressed
    EVEX_SUPPRESS = 8           # EVEX.b with registers: exceptions suppressed
    EVEX_ND = 16
    EVEX_NF = 32

cdef enum Register:             # the number is the architectural register; its width is a fact of the form
    REGISTER_GENERAL = 0        # RAX RCX RDX RBX RSP RBP RSI RDI R8 .. R31
    REGISTER_VECTOR = 32
    REGISTER_MASK = 64
    REGISTER_X87 = 72
    REGISTER_MMX = 80
    REGISTER_SEGMENT = 88       # ES CS SS DS FS GS
    REGISTER_ES = 88
    REGISTER_CS = 89
    REGISTER_SS = 90
    REGISTER_DS = 91
    REGISTER_FS = 92
    REGISTER_GS = 93
    REGISTER_CONTROL = 96
    REGISTER_DEBUG = 112
    REGISTER_TEST = 128
    REGISTER_TILE = 136
    REGISTER_BOUND = 144
    REGISTER_HIGH = 148         # AH CH DH BH: what byte registers 4 to 7 are without REX
    REGISTER_RIP = 152          # EIP by address size
    REGISTER_BSR0 = 153         # block scales of ACE
    REGISTER_NONE = 255

cdef enum Place:                # where an operand is
    PLACE_NONE
    PLACE_REG                   # ModRM.reg
    PLACE_RM                    # ModRM.rm: register or memory
    PLACE_VVVV
    PLACE_OPCODE                # low three opcode bits
    PLACE_IS4                   # register in immediate bits 7:4
    PLACE_FIXED                 # register `register_base`
    PLACE_IMMEDIATE
    PLACE_IMMEDIATE2
    PLACE_ONE                   # the constant 1
    PLACE_TARGET                # relative branch target
    PLACE_FAR                   # selector in immediate2, offset in immediate
    PLACE_OFFSET                # memory at an absolute offset, no ModRM
    PLACE_SOURCE                # memory at segment:[rSI]
    PLACE_DESTINATION           # memory at ES:[rDI]
    PLACE_TABLE                 # memory at segment:[rBX + AL]

cdef enum Flow:
    FLOW_NEXT
    FLOW_JUMP
    FLOW_JUMP_INDIRECT
    FLOW_BRANCH
    FLOW_CALL
    FLOW_CALL_INDIRECT
    FLOW_RETURN
    FLOW_INTERRUPT
    FLOW_EXCEPTION
    FLOW_TRANSACTION

cdef enum Access:
    ACCESS_READ = 1
    ACCESS_WRITE = 2
    ACCESS_ADDRESS = 4          # the address only
    ACCESS_CONDITIONAL = 8      # may not happen
    ACCESS_NONE = 16            # memory that is named, not touched

cdef enum Space:                # numbers of opcode tables; the map is added to VEX and EVEX, map - 8 to XOP
    SPACE_LEGACY = 0            # one byte, 0F, 0F38, 0F3A
    SPACE_3DNOW = 4
    SPACE_REX2 = 5              # one-byte opcodes that mean something else behind REX2
    SPACE_VEX = 8
    SPACE_EVEX = 16
    SPACE_XOP = 24
    SPACE_COUNT = 32

cdef enum KeyField:             # bit positions in the key that nodes look at (isa/nodes.py has the same)
    KEY_MODRM = 0
    KEY_PP = 8                  # 0 none, 1 66, 2 F3, 3 F2
    KEY_L = 10
    KEY_W = 12
    KEY_66 = 13                 # 66 is present, whatever pp says
    KEY_ADDRESS = 14            # 0 16, 1 32, 2 64 bits
    KEY_B = 16                  # B of REX: the opcode register is 8 or above
    KEY_EVEX_B = 17
    KEY_ND = 18                 # APX: what EVEX.b, bit 2 of aaa and the four bits V' aaa mean in promoted instructions
    KEY_NF = 19
    KEY_SCC = 20                # 4 bits

cdef enum Entry:                # an entry of `entries`: a form, or where to look on
    ENTRY_BASE = 0x1FFFFF       # of a node: its first entry; of a form: its number
    ENTRY_SHIFT = 21            # 5 bits: which part of the key
    ENTRY_WIDTH = 26            # 4 bits: how many bits of it
    ENTRY_MODRM = 0x40000000    # (in opcode tables) a ModRM byte follows
    ENTRY_NODE = 0x80000000

cdef enum FormFlag:
    FORM_LOCK = 1               # LOCK is valid with a memory operand
    FORM_VVVV = 2               # vvvv is an operand
    FORM_REGISTERS = 4          # ModRM.mod is ignored: registers
    FORM_SIGNED = 8             # the immediate is sign-extended
    FORM_CHECK = 16             # `checks` is not 0
    FORM_IS4 = 32
    FORM_VSIB = 64
    FORM_MASK = 128             # EVEX.aaa may name a mask
    FORM_MASK_NEEDED = 256      # and must
    FORM_ZEROING = 512
    FORM_BROADCAST = 1024
    FORM_ROUNDING = 2048
    FORM_SUPPRESS = 4096
    FORM_OFFSET = 8192          # an absolute offset of the address size
    FORM_NO_REX2 = 16384
    FORM_VECTOR_REG = 32768     # EVEX.R' extends ModRM.reg, or nothing
    FORM_VECTOR_RM = 65536      # EVEX.X extends ModRM.rm
    FORM_ENDS_BLOCK = 131072    # decoded blocks of the processor end here
    FORM_STACK = 262144         # one stack access
    FORM_SHORT_REG = 524288     # ModRM.reg has three bits, extensions ignored
    FORM_SHORT_RM = 1048576     # so has ModRM.rm
    FORM_LOCK_CR8 = 2097152     # LOCK means CR8 (AMD)
    FORM_NO_SEGMENT = 4194304   # a segment override has no effect
    FORM_PROMOTED = 8388608    # APX: EVEX.b is ND, bit 2 of aaa is NF, the others are 0
    FORM_SOURCE_CONDITION = 16777216    # APX: aaa and V' are a condition, vvvv the flags if it is false

cdef enum FormCheck:            # what neither the key nor a flag says
    CHECK_SEGMENT = 1           # ModRM.reg: a segment register
    CHECK_SEGMENT_WRITE = 2     # and not CS
    CHECK_CONTROL = 4           # CR0 2 3 4 8
    CHECK_DEBUG = 8             # below 8
    CHECK_BOUND_REG = 16        # below 4
    CHECK_BOUND_RM = 32
    CHECK_MASK_REG = 64         # below 8
    CHECK_DISTINCT = 128        # all registers of operands, and an index, differ
    CHECK_DISTINCT_TARGET = 256 # the first operand is none of the others
    CHECK_SIB = 512            # memory needs a SIB byte
    CHECK_NO_16 = 1024          # no 16-bit addressing
    CHECK_MASK_VVVV = 2048      # below 8
    CHECK_TILE_RM = 4096
    CHECK_NOT_RSP = 8192       # neither register of a pair is RSP
    CHECK_PAIR = 16384         # and they differ


# One form as the decoder needs it; what only people ask for is in the facts (isa/facts.py).
cdef struct form_t:
    u32 flags                   # FormFlag
    u32 checks                  # FormCheck
    u8 immediate_bytes
    u8 immediate2_bytes
    u8 displacement_shift       # disp8*N: log2 N
    u8 broadcast_shift          # with EVEX.b
    u8 operand_size             # bits; 0: has none
    u8 vector_length            # 0 1 2: 128 << n
    u8 operand_count
    u8 flow                     # Flow
    u16 mnemonic
    u16 row                     # number of the row of x64.txt, +cc rows written out
    u32 handler                 # first of its slots in the processor's table of handlers; 0: no semantics
    u8 condition                # of a +cc row
    u8 memory_access            # Access bits by which the processor's handler touches the memory operand
    u8[5] places
    u8[5] register_bases
    u8[5] access
    u8[5] sizes                 # bits of the register or memory as log2 of bytes; 255: other


cdef struct isa_t:
    const u32* entries
    const u32* roots            # [6 * SPACE_COUNT] by options: first entry of an opcode table
    const form_t* forms
    const u8* leads             # [3 * 256] by mode: Lead of a byte
    u32 form_count
    u32 row_count


cdef enum Lead:                 # what a byte is in front of or instead of an opcode
    LEAD_OPCODE                 # an opcode of the one-byte map
    LEAD_ESCAPE                 # 0F
    LEAD_REX
    LEAD_66
    LEAD_67
    LEAD_LOCK
    LEAD_REPNE
    LEAD_REP
    LEAD_SEGMENT
    LEAD_VEX3
    LEAD_VEX2
    LEAD_EVEX
    LEAD_XOP
    LEAD_REX2


cdef struct insn_t:
    u8 status                   # DecodeStatus
    u8 length
    u16 form
    u16 prefixes                # Prefix
    u8 mode                     # 16, 32, 64
    u8 operand_size             # bits; 0: the form has none
    u8 address_size             # bits
    u8 vector_length            # 0 1 2: 128 << n
    u8 opcode
    u8 modrm
    u8 is_memory                # an operand is memory that ModRM or an absolute offset names
    u8 reg                      # ModRM.reg with its extensions
    u8 rm                       # ModRM.rm or the opcode register with its extensions
    u8 vvvv                     # of CCMPscc and CTESTscc: OF SF ZF CF if the condition is false
    u8 is4                      # register of immediate bits 7:4
    u8 base                     # register number, REGISTER_RIP or REGISTER_NONE
    u8 index                    # register number (of a vector for VSIB) or REGISTER_NONE
    u8 scale                    # shift count
    u8 segment                  # register number of an override that counts, or REGISTER_NONE
    u8 mask                     # EVEX.aaa
    u8 evex                     # EvexBit
    u8 rounding                 # EVEX.RC with EVEX_ROUNDING: 0 nearest, 1 down, 2 up, 3 to zero
    u8 displacement_size        # bytes
    u8 immediate_size
    u8 immediate2_size
    u8 displacement_offset      # from the start of the instruction
    u8 immediate_offset
    u8 prefix_length            # bytes before the opcode or its escape
    i64 displacement            # scaled by N of disp8*N; the whole offset of an absolute one
    i64 immediate               # sign- or zero-extended; of a relative target: the displacement
    u64 immediate2              # of ENTER, EXTRQ, INSERTQ; selector of a far pointer
