"""Every instruction form that iced-x86 knows, as bytes: operands are chosen by kind, iced's own encoder writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

iced_x86: Any = pytest.importorskip("iced_x86", reason="iced-x86 is not installed")
Register, OpKind, Kind = iced_x86.Register, iced_x86.OpKind, iced_x86.OpCodeOperandKind
AMD = iced_x86.DecoderOptions.AMD


def names_of(enum: Any) -> dict[int, str]:
    """Numbers to names of one of iced's enumerations, which are plain integers."""
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


CODES = names_of(iced_x86.Code)
KINDS = names_of(Kind)
MODES = (64, 32, 16)
NO_INSTRUCTIONS = ("INVALID", "DECLARE", "ZERO_BYTES")
NEVER_DECODED = {
    "POPW_CS": "of the 8086 only; its opcode is the escape 0F",
    "MONTMUL_16": "iced decodes it with 32-bit addresses only",
    "MONTMUL_64": "iced decodes it with 32-bit addresses only",
}
"""What iced has a Code for but no decoder, beside the x87 forms with WAIT in front, which are two instructions."""

# Registers of three kinds are told apart by number only, so that each operand gets another one.
_WIDE = {"R8": "{}L", "R16": "{}W", "R32": "{}D", "R64": "{}"}
_NARROW = {
    "R8": ("BL", "DL", "CL", "DH"),
    "R16": ("BX", "SI", "BP", "DI"),
    "R32": ("EBX", "ESI", "EBP", "EDI"),
    "R64": ("RBX", "RSI", "RBP", "RDI"),
}
_NUMBERED = {"XMM": 1, "YMM": 1, "ZMM": 1, "MM": 1, "K": 1, "TMM": 1, "BND": 0}
_GROUPS = {"XMMP3": "XMM4", "ZMMP3": "ZMM4", "KP1": "K2"}
_SINGLE = {"SEG": "DS", "CR": "CR3", "DR": "DR3", "TR": "TR6", "STI": "ST3"}
_FIXED = ("AL", "AX", "EAX", "RAX", "CL", "DX", "ES", "CS", "SS", "DS", "FS", "GS", "ST0")
_IMMEDIATES = {
    "IMM8": "IMMEDIATE8",
    "IMM8_CONST_1": "IMMEDIATE8",
    "IMM4_M2Z": "IMMEDIATE8",
    "IMM8SEX16": "IMMEDIATE8TO16",
    "IMM8SEX32": "IMMEDIATE8TO32",
    "IMM8SEX64": "IMMEDIATE8TO64",
    "IMM16": "IMMEDIATE16",
    "IMM32": "IMMEDIATE32",
    "IMM32SEX64": "IMMEDIATE32TO64",
    "IMM64": "IMMEDIATE64",
}
_STRINGS = {
    "SEG_RSI": ("MEMORY_SEG_SI", "MEMORY_SEG_ESI", "MEMORY_SEG_RSI"),
    "SEG_RDI": ("MEMORY_SEG_DI", "MEMORY_SEG_EDI", "MEMORY_SEG_RDI"),
    "ES_RDI": ("MEMORY_ESDI", "MEMORY_ESEDI", "MEMORY_ESRDI"),
}
_BASES = {16: Register.BX, 32: Register.EDX, 64: Register.R13}


@dataclass(frozen=True)
class Sample:
    """One encoding of a Code, and how iced decodes it again."""

    code: int
    bits: int
    vendor: str
    octets: bytes
    is_memory: bool
    decoded: Any

    @property
    def name(self) -> str:
        return CODES[self.code]

    def __str__(self) -> str:
        return f"{self.name} ({self.bits}-bit, {self.vendor}): {self.octets.hex(' ')}"


def codes() -> list[int]:
    """The Codes that iced's decoder knows without options, or with the one for AMD."""
    found = []
    for code, name in CODES.items():
        information = iced_x86.OpCodeInfo(code)
        if not name.startswith(NO_INSTRUCTIONS) and not information.decoder_option and not information.fwait:
            found.append(code)
    return found


def _register(name: str, number: int, bits: int) -> int:
    """A register of the kind whose name is the first word of `name`, another one for each operand number."""
    kind = name.partition("_")[0]
    if kind in _WIDE:
        text = _WIDE[kind].format(f"R{9 + number}") if bits == 64 else _NARROW[kind][number]
    elif kind in _NUMBERED:
        text = f"{kind}{_NUMBERED[kind] + number}"
    else:
        text = name if name in _FIXED else _GROUPS.get(kind) or _SINGLE[kind]
    return int(getattr(Register, text))


def _set_target(instruction: Any, number: int, name: str) -> None:
    """A relative or far branch target."""
    if name.startswith("FARBR"):
        size = 16 if name == "FARBR2_2" else 32
        instruction.set_op_kind(number, getattr(OpKind, f"FAR_BRANCH{size}"))
        setattr(instruction, f"far_branch{size}", 0x20)
        instruction.far_branch_selector = 0x30
        return
    size = int(name[2:4])
    instruction.set_op_kind(number, getattr(OpKind, f"NEAR_BRANCH{size}"))
    setattr(instruction, f"near_branch{size}", 0x20)


def _set_immediate(instruction: Any, number: int, name: str) -> None:
    earlier = {instruction.op_kind(other) for other in range(number)}
    if name == "IMM8" and earlier & {OpKind.IMMEDIATE8, OpKind.IMMEDIATE16}:
        instruction.set_op_kind(number, OpKind.IMMEDIATE8_2ND)
        instruction.immediate8_2nd = 2
        return
    instruction.set_op_kind(number, getattr(OpKind, _IMMEDIATES[name]))
    instruction.set_immediate_i32(number, 1 if name in ("IMM8_CONST_1", "IMM4_M2Z") else 2)


def _set_memory(instruction: Any, number: int, name: str, bits: int) -> None:
    instruction.set_op_kind(number, OpKind.MEMORY)
    if name == "MEM_OFFS":
        instruction.memory_displacement, instruction.memory_displ_size = 0x20, bits // 8
    elif name == "SEG_RBX_AL":
        instruction.memory_base = {16: Register.BX, 32: Register.EBX, 64: Register.RBX}[bits]
        instruction.memory_index = Register.AL
    else:
        instruction.memory_base = _BASES[bits]
        instruction.memory_displacement, instruction.memory_displ_size = 0x40, 1
    if name == "SIBMEM":
        instruction.memory_index = Register.R14
    elif name.startswith("MEM_VSIB"):
        instruction.memory_base = _BASES[max(bits, 32)]
        instruction.memory_index = getattr(Register, f"{name[-1]}MM5")


def _build(code: int, bits: int, is_memory: bool) -> Any:
    """An instruction of this Code; operands that may be memory are if `is_memory`."""
    information = iced_x86.OpCodeInfo(code)
    if CODES[code].startswith("XBEGIN"):
        instruction = iced_x86.Instruction.create_xbegin(bits, 0x20)
        instruction.code = code
        return instruction
    instruction = iced_x86.Instruction()
    instruction.code = code
    for number, kind in enumerate(information.op_kinds()):
        name = KINDS[kind]
        if name.startswith(("BR", "FARBR")):
            _set_target(instruction, number, name)
        elif name in _IMMEDIATES:
            _set_immediate(instruction, number, name)
        elif name in _STRINGS:
            instruction.set_op_kind(number, getattr(OpKind, _STRINGS[name][bits.bit_length() - 5]))
        elif name.startswith(("MEM", "SIBMEM", "SEG_RBX")) or ("OR_MEM" in name and is_memory):
            _set_memory(instruction, number, name, bits)
        else:
            instruction.set_op_kind(number, OpKind.REGISTER)
            instruction.set_op_register(number, _register(name, number, bits))
    for name in (KINDS[kind] for kind in information.op_kinds()):
        if name.endswith("_REG_MEM"):       # as wide as the address
            instruction.memory_base = {16: Register.BX, 32: Register.EDX, 64: Register.R13}[int(name[1:3])]
    if information.require_op_mask_register:
        instruction.op_mask = Register.K1
    return instruction


def samples(code: int, change: Callable[[Any], None] | None = None) -> Iterator[Sample]:
    """Encodings of a Code in every mode, with a register and with memory where it may have either.

    `change` may alter the instruction before it is encoded. Only what iced decodes to the same Code is given."""
    information = iced_x86.OpCodeInfo(code)
    has_both = any("OR_MEM" in KINDS[kind] for kind in information.op_kinds())
    for bits in MODES:
        if not information.is_available_in_mode(bits):
            continue
        for is_memory in (False, True)[: 1 + has_both]:
            instruction = _build(code, bits, is_memory)
            if change is not None:
                change(instruction)
            encoder = iced_x86.Encoder(bits)
            encoder.encode(instruction, 0)
            octets = encoder.take_buffer()
            for vendor, options in (("intel", 0), ("amd", AMD)):
                decoded = iced_x86.Decoder(bits, octets, options=options).decode()
                if decoded.code == code and decoded.len == len(octets):
                    yield Sample(code, bits, vendor, octets, is_memory, decoded)
