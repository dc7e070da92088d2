"""Numbers and layouts of the decoder: what the generated tables hold and what a decoded instruction is.

`generate.py` writes the tables in these very layouts; the letters are explained at the head of `isa/x64.txt`.
"""
from hvcore._native.base.types cimport i64, u8, u16, u32

cdef enum OperandKind:
    KIND_NONE
    KIND_E                  # ModRM.rm: general register or memory (also R and M, which constrain ModRM.mod)
    KIND_G                  # ModRM.reg
    KIND_Z                  # low three opcode bits
    KIND_B                  # VEX.vvvv
    KIND_I                  # immediate
    KIND_J                  # relative target
    KIND_O                  # memory at an absolute offset
    KIND_V                  # XMM of ModRM.reg
    KIND_W                  # XMM of ModRM.rm, or memory (also U)
    KIND_S                  # segment register of ModRM.reg
    KIND_C                  # control register of ModRM.reg
    KIND_D                  # debug register of ModRM.reg
    KIND_A                  # accumulator
    KIND_CL
    KIND_DX
    KIND_ONE
    KIND_FS
    KIND_GS

cdef enum OperandWidth:
    WIDTH_NONE              # an address, a far pointer, a descriptor: not a plain value
    WIDTH_B
    WIDTH_W
    WIDTH_D
    WIDTH_Q
    WIDTH_X                 # 128 bits
    WIDTH_V                 # 16, 32 or 64 bits by operand size
    WIDTH_Y                 # 32 or 64 bits
    WIDTH_Z                 # 16 or 32 bits, for immediates
    WIDTH_U                 # byte, zero-extended, for immediates

cdef enum Access:
    ACCESS_READ = 1
    ACCESS_WRITE = 2
    ACCESS_ADDRESS = 4

cdef enum Flow:
    FLOW_NEXT
    FLOW_JUMP
    FLOW_BRANCH
    FLOW_CALL
    FLOW_RETURN
    FLOW_INTERRUPT
    FLOW_END                # goes on behind the instruction, but decoded blocks end there

cdef enum FormFlag:
    FORM_LOCK = 1           # LOCK is valid with a memory operand
    FORM_PRIVILEGED = 2
    FORM_ALIGNED = 4
    FORM_REP = 8            # a string instruction: REP is part of it
    FORM_DEFAULT_64 = 16
    FORM_FORCED_64 = 32
    FORM_STACK_WRITE = 64
    FORM_STACK_READ = 128

cdef enum Prefix:
    PREFIX_OPERAND = 1      # 66
    PREFIX_ADDRESS = 2      # 67
    PREFIX_LOCK = 4         # F0
    PREFIX_REPNE = 8        # F2
    PREFIX_REP = 16         # F3
    PREFIX_REX = 32
    PREFIX_VEX = 64

cdef enum DecodeStatus:
    DECODE_OK
    DECODE_INVALID
    DECODE_TRUNCATED        # more bytes are needed than there are
    DECODE_TOO_LONG         # more than 15 bytes

cdef enum:
    REGISTER_NONE = 0xFF    # no base, no index
    REGISTER_RIP = 0xFE
    MAXIMUM_LENGTH = 15
    VEX_MAPS = 4            # opcode map n of VEX is index n + 4, of the legacy escapes n (0F 1, 0F38 2, 0F3A 3)
    MAP_COUNT = 8


# One row of x64.txt as a test: the first rule of an opcode whose masks all match wins.
cdef struct rule_t:
    u16 form
    u8 prefixes             # bit 0: none of 66 F3 F2, 1: 66, 2: F3, 3: F2
    u8 digits               # allowed ModRM.reg values; 0xFF any
    u8 modes                # bit 0: memory, 1: register
    u8 rms                  # allowed ModRM.rm values
    u8 w                    # bit 0: W clear, 1: W set
    u8 sizes                # bit 0: operand size 16, 1: 32, 2: 64
    u8 rex_b                # bit 0: REX.B clear, 1: set
    u8 has_modrm


cdef struct form_t:
    u16 mnemonic
    u8 operand_count
    u8 width                # OperandWidth that decides the operand size
    u8 flow
    u8 flags
    u8 condition            # of a +cc row
    u8 memory_access        # ACCESS_ bits of the memory operand, if the form has one
    u8[4] kinds
    u8[4] widths
    u8[4] access


cdef struct opcode_t:
    u16 first               # index of its first rule
    u8 count
    u8 has_modrm            # any of the rules wants a ModRM byte


cdef struct isa_t:
    const opcode_t* opcodes     # [MAP_COUNT * 256]
    const rule_t* rules
    const form_t* forms
    u32 form_count


cdef struct insn_t:
    u8 status               # DecodeStatus
    u8 length
    u16 form
    u8 prefixes
    u8 width                # operand size in bits: 8, 16, 32, 64
    u8 is_memory            # ModRM names memory
    u8 reg                  # ModRM.reg with REX.R
    u8 rm                   # ModRM.rm or opcode register with REX.B
    u8 vvvv
    u8 base                 # of the memory operand, or REGISTER_NONE, REGISTER_RIP
    u8 index
    u8 scale                # shift count
    u8 segment              # 4 FS, 5 GS, else REGISTER_NONE: the others have base 0 in 64-bit mode
    u8 immediate2           # of ENTER
    i64 immediate           # sign- or zero-extended; of a relative target: the displacement
    i64 displacement        # of memory; the whole offset for KIND_O
