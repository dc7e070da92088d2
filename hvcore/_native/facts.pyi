"""What the table says about each form: NumPy columns indexed by form, and the names of numbers. See facts.pyx."""
from enum import IntEnum, IntFlag
from typing import Final

import numpy
from numpy.typing import NDArray

mnemonic: Final[NDArray[numpy.uint16]]
row: Final[NDArray[numpy.uint16]]
line: Final[NDArray[numpy.uint16]]
flow: Final[NDArray[numpy.uint8]]
flags_read: Final[NDArray[numpy.uint32]]
flags_written: Final[NDArray[numpy.uint32]]
flags_cleared: Final[NDArray[numpy.uint32]]
flags_set: Final[NDArray[numpy.uint32]]
flags_undefined: Final[NDArray[numpy.uint32]]
privileged: Final[NDArray[numpy.uint8]]
features: Final[NDArray[numpy.uint16]]
implicit: Final[NDArray[numpy.uint16]]
operand_count: Final[NDArray[numpy.uint8]]
operand_kind: Final[NDArray[numpy.uint8]]
operand_register_base: Final[NDArray[numpy.uint8]]
operand_bits: Final[NDArray[numpy.uint16]]
operand_access: Final[NDArray[numpy.uint8]]
operand_group: Final[NDArray[numpy.uint8]]
memory_bits: Final[NDArray[numpy.uint16]]
element: Final[NDArray[numpy.uint8]]
broadcast_bits: Final[NDArray[numpy.uint8]]
index_bits: Final[NDArray[numpy.uint16]]
modes: Final[NDArray[numpy.uint8]]
space: Final[NDArray[numpy.uint8]]
opcode_map: Final[NDArray[numpy.uint8]]
opcode: Final[NDArray[numpy.uint8]]
operand_size: Final[NDArray[numpy.uint8]]
vector_bits: Final[NDArray[numpy.uint16]]
mnemonics: Final[tuple[str, ...]]
feature_sets: Final[tuple[tuple[str, ...], ...]]
implicit_sets: Final[tuple[tuple[tuple[str, str], ...], ...]]
spaces: Final[tuple[str, ...]]
elements: Final[tuple[str, ...]]
GENERAL: Final[tuple[str, ...]]

class Flow(IntEnum):
    NEXT = 0
    JUMP = 1
    JUMP_INDIRECT = 2
    BRANCH = 3
    CALL = 4
    CALL_INDIRECT = 5
    RETURN = 6
    INTERRUPT = 7
    EXCEPTION = 8
    TRANSACTION = 9

class OperandKind(IntEnum):
    NONE = 0
    REGISTER = 1
    MEMORY = 2
    IMMEDIATE = 3
    TARGET = 4
    FAR = 5
    REGISTER_OR_MEMORY = 6

class Access(IntFlag):
    READ = 1
    WRITE = 2
    ADDRESS = 4
    CONDITIONAL = 8
    NONE = 16

class Prefix(IntFlag):
    OPERAND_SIZE = 1
    ADDRESS_SIZE = 2
    LOCK = 4
    REPNE = 8
    REP = 16
    REX = 32
    VEX = 64
    EVEX = 128
    XOP = 256
    REX2 = 512
    SEGMENT = 1024
    W = 2048
    AMD = 4096

class Flags(IntFlag):
    CF = 1
    PF = 4
    AF = 16
    ZF = 64
    SF = 128
    TF = 256
    IF = 512
    DF = 1024
    OF = 2048
    NT = 16384
    RF = 65536
    AC = 262144
    C0 = 16777216
    C1 = 33554432
    C2 = 67108864
    C3 = 134217728
    UIF = 268435456

class Element(IntEnum):
    NONE = 0
    U8 = 1
    U16 = 2
    U32 = 3
    U64 = 4
    U128 = 5
    U256 = 6
    U512 = 7
    U52 = 8
    I8 = 9
    I16 = 10
    I32 = 11
    I64 = 12
    I128 = 13
    F16 = 14
    BF16 = 15
    F32 = 16
    F64 = 17
    F80 = 18
    F128 = 19
    BCD = 20
    F16X2 = 21
    BF16X2 = 22
    BF8 = 23
    HF8 = 24
    TF32 = 25

class Register(IntEnum):
    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RSP = 4
    RBP = 5
    RSI = 6
    RDI = 7
    R8 = 8
    R9 = 9
    R10 = 10
    R11 = 11
    R12 = 12
    R13 = 13
    R14 = 14
    R15 = 15
    R16 = 16
    R17 = 17
    R18 = 18
    R19 = 19
    R20 = 20
    R21 = 21
    R22 = 22
    R23 = 23
    R24 = 24
    R25 = 25
    R26 = 26
    R27 = 27
    R28 = 28
    R29 = 29
    R30 = 30
    R31 = 31
    V0 = 32
    V1 = 33
    V2 = 34
    V3 = 35
    V4 = 36
    V5 = 37
    V6 = 38
    V7 = 39
    V8 = 40
    V9 = 41
    V10 = 42
    V11 = 43
    V12 = 44
    V13 = 45
    V14 = 46
    V15 = 47
    V16 = 48
    V17 = 49
    V18 = 50
    V19 = 51
    V20 = 52
    V21 = 53
    V22 = 54
    V23 = 55
    V24 = 56
    V25 = 57
    V26 = 58
    V27 = 59
    V28 = 60
    V29 = 61
    V30 = 62
    V31 = 63
    K0 = 64
    K1 = 65
    K2 = 66
    K3 = 67
    K4 = 68
    K5 = 69
    K6 = 70
    K7 = 71
    ST0 = 72
    ST1 = 73
    ST2 = 74
    ST3 = 75
    ST4 = 76
    ST5 = 77
    ST6 = 78
    ST7 = 79
    MM0 = 80
    MM1 = 81
    MM2 = 82
    MM3 = 83
    MM4 = 84
    MM5 = 85
    MM6 = 86
    MM7 = 87
    ES = 88
    CS = 89
    SS = 90
    DS = 91
    FS = 92
    GS = 93
    CR0 = 96
    CR1 = 97
    CR2 = 98
    CR3 = 99
    CR4 = 100
    CR5 = 101
    CR6 = 102
    CR7 = 103
    CR8 = 104
    CR9 = 105
    CR10 = 106
    CR11 = 107
    CR12 = 108
    CR13 = 109
    CR14 = 110
    CR15 = 111
    DR0 = 112
    DR1 = 113
    DR2 = 114
    DR3 = 115
    DR4 = 116
    DR5 = 117
    DR6 = 118
    DR7 = 119
    DR8 = 120
    DR9 = 121
    DR10 = 122
    DR11 = 123
    DR12 = 124
    DR13 = 125
    DR14 = 126
    DR15 = 127
    TR0 = 128
    TR1 = 129
    TR2 = 130
    TR3 = 131
    TR4 = 132
    TR5 = 133
    TR6 = 134
    TR7 = 135
    TMM0 = 136
    TMM1 = 137
    TMM2 = 138
    TMM3 = 139
    TMM4 = 140
    TMM5 = 141
    TMM6 = 142
    TMM7 = 143
    BND0 = 144
    BND1 = 145
    BND2 = 146
    BND3 = 147
    AH = 148
    CH = 149
    DH = 150
    BH = 151
    RIP = 152
    BSR0 = 153
    NONE = 255

def register_name(number: int, bits: int = 64) -> str: ...
