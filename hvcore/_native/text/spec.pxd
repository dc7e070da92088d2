"""Layouts of the tables that text is made from, one record for each form and syntax; `isa/text.py` writes them."""
from hvcore._native.base.types cimport u8, u16, u32

cdef enum Syntax:
    SYNTAX_INTEL
    SYNTAX_ATT
    SYNTAX_NASM
    SYNTAX_COUNT

cdef enum:
    LINE_MAXIMUM = 256          # bytes that the longest line may need, with room for whole slots behind it

cdef enum TextPlace:            # where an operand is: the Place of the form, or one of these
    TEXT_MASK = 32              # EVEX.aaa as an operand of its own
    TEXT_ACCUMULATOR            # AX, EAX or RAX by address size
    TEXT_ROUNDING               # {rn-sae}, as an operand of its own
    TEXT_COUNTER                # CX, ECX or RCX by address size, if that is not the mode's own
    TEXT_OVERRIDE               # the segment register of an override, as an operand
    TEXT_NOP_REGISTER           # AX, EAX or RAX by the operand size that prefixes would make

cdef enum Names:                # which registers' names
    NAMES_NONE
    NAMES_8                     # spl to dil with the numbers 4 to 7
    NAMES_8_LEGACY              # ah to bh with the numbers 4 to 7
    NAMES_16
    NAMES_32
    NAMES_64
    NAMES_XMM
    NAMES_YMM
    NAMES_ZMM
    NAMES_MASK
    NAMES_MMX
    NAMES_X87                   # st(0) .. st(7)
    NAMES_X87_TOP               # st
    NAMES_SEGMENT
    NAMES_CONTROL
    NAMES_DEBUG
    NAMES_TEST
    NAMES_TILE
    NAMES_BOUND
    NAMES_SCALE                 # bsr0
    NAMES_COUNT

cdef enum Mark:                 # what is printed with an operand
    MARK_MASK = 1               # {k1} and {z} behind it
    MARK_ROUNDING = 2           # {rn-sae} behind it
    MARK_BROADCAST = 4          # {1to8} behind it
    MARK_STAR = 8               # * in front

cdef enum TextFlag:
    TEXT_DATA = 1               # a word for the operand size in front, where it is not the mode's own
    TEXT_DATA_MEMORY = 2        # the same, with a memory operand only
    TEXT_ADDRESS = 4            # a word for the address size in front, where it is not the mode's own
    TEXT_REP = 8                # F3 is printed as rep
    TEXT_REPE = 16              # F3 is printed as repe
    TEXT_REPNE = 32             # F2 is printed as repne
    TEXT_BOUND = 64             # F2 is printed as bnd
    TEXT_NOTRACK = 128
    TEXT_HINT = 256             # CS and DS are branch hints
    TEXT_ACQUIRE = 512
    TEXT_RELEASE = 1024
    TEXT_ELIDE_LOCK = 2048      # XACQUIRE and XRELEASE do without LOCK
    TEXT_ALWAYS_REP = 4096
    TEXT_NOP = 8192             # NOP that is XCHG at another operand size
    TEXT_REPEATED = 16384       # the second of two equal registers is left out
    TEXT_SEGMENT = 32768        # a segment override is a word in front
    TEXT_LOCK = 65536
    TEXT_RAW_DATA = 131072      # the word for the operand size is a byte of its own
    TEXT_NAME_BY_ADDRESS = 262144   # a suffix for the address size, where it is not the mode's own
    TEXT_ADDRESS_IN_64 = 524288     # as TEXT_ADDRESS, in 64-bit mode only
    TEXT_NO_SEGMENT = 1048576   # an address that is not accessed has no segment
    TEXT_SECOND = 2097152       # no operands if the register is st(1)
    TEXT_EVEX = 4194304         # {evex} in front: there is a shorter encoding that would read the same
    TEXT_NO_FLAGS = 8388608     # {nf} in front
    TEXT_NAME_BY_SIZE = 33554432    # a suffix for the operand size, where it is not the mode's own
    TEXT_DEFAULT_FLAGS = 16777216   # {dfv=of,sf,zf,cf} behind the mnemonic

cdef enum OwnSize:              # which operand size is the mode's own
    OWN_NONE
    OWN_STACK                   # 16, 32, 64
    OWN_DATA                    # 16, 32, 32
    OWN_DATA_OR_W               # the same, and 64
    OWN_OUTSIDE_64              # all, but none in 64-bit mode
    OWN_SHORT_ADDRESS           # all, unless addresses have 64 bits

cdef enum Pseudo:               # names for values of the last immediate
    PSEUDO_NONE
    PSEUDO_COMPARE_8
    PSEUDO_COMPARE_32
    PSEUDO_COMPARE_INTEGER      # vpcmp
    PSEUDO_COMPARE_XOP          # vpcom
    PSEUDO_MULTIPLY             # pclmulqdq
    PSEUDO_COUNT


# A string with its length, copied whole: the copy has a fixed size.
cdef struct word_t:
    u8 length
    char[23] text


cdef struct text_operand_t:
    u8 place                    # Place or TextPlace
    u8 names                    # Names
    u8 number                   # of a fixed register; bits that are shown of an immediate
    u8 marks                    # Mark
    u8 word                     # index of the word in front of memory or a target; 0: none
    u8 word_other               # the same at an operand size that is not the mode's own
    u8 word_broadcast           # the same if the memory is broadcast


cdef struct layout_t:
    u32 flags                   # TextFlag
    u8 own_size                 # OwnSize
    u8 operand_count
    u8 broadcast                # how many elements a broadcast makes
    u8 index_names              # Names of a VSIB index
    u8 pseudo                   # Pseudo
    u8 pseudo_at                # where in the name the condition goes
    text_operand_t[6] operands  # in the order in which they are printed


cdef struct text_t:
    u16 name                    # word of the mnemonic
    u16 name_memory             # with a memory operand
    u16 name_other              # at an operand size that is not the mode's own; 0: the same
    u16 layout


# All that the formatters look up.
cdef struct text_tables_t:
    const word_t* words
    const word_t* registers     # [NAMES_COUNT * 32], without %
    const word_t* conditions    # [PSEUDO_COUNT * 32]
    const layout_t* layouts
    const text_t* texts         # [SYNTAX_COUNT * form_count]
    u32 form_count
