"""What hvcore says about an instruction beside what iced-x86 says: flags, flow, features, operands and their access,
memory, registers. A dictionary of kind to (theirs, ours) for what differs."""

from __future__ import annotations

from typing import Any

import iced_x86 as iced

import hvcore as hv

from . import iced_samples

READ, WRITE, CONDITIONAL, NONE = hv.Access.READ, hv.Access.WRITE, hv.Access.CONDITIONAL, hv.Access.NONE
ACCESS = {
    iced.OpAccess.NONE: 0, iced.OpAccess.READ: READ, iced.OpAccess.COND_READ: CONDITIONAL | READ,
    iced.OpAccess.WRITE: WRITE, iced.OpAccess.COND_WRITE: CONDITIONAL | WRITE, iced.OpAccess.READ_WRITE: READ | WRITE,
    iced.OpAccess.READ_COND_WRITE: CONDITIONAL | READ | WRITE, iced.OpAccess.NO_MEM_ACCESS: NONE,
}  # fmt: skip
FLOWS = {
    "NEXT": "NEXT", "UNCONDITIONAL_BRANCH": "JUMP", "INDIRECT_BRANCH": "JUMP_INDIRECT", "CONDITIONAL_BRANCH": "BRANCH",
    "RETURN": "RETURN", "CALL": "CALL", "INDIRECT_CALL": "CALL_INDIRECT", "INTERRUPT": "INTERRUPT",
    "XBEGIN_XABORT_XEND": "TRANSACTION", "EXCEPTION": "EXCEPTION",
}  # fmt: skip
FLAGS = ("OF", "SF", "ZF", "AF", "CF", "PF", "DF", "IF", "AC", "UIF", "C0", "C1", "C2", "C3")
SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


REGISTERS = _names(iced.Register)
NUMBERS = {name: value for value, name in REGISTERS.items()}
FEATURES, FLOW_NAMES = _names(iced.CpuidFeature), _names(iced.FlowControl)
ELEMENTS = {
    getattr(iced.MemorySize, theirs + size): f"{ours}{size}" for theirs, ours, sizes in (
        ("UINT", "u", "8 16 32 52 64 128 256 512"), ("INT", "i", "8 16 32 64 128"), ("FLOAT", "f", "16 32 64 80 128"),
        ("BFLOAT", "bf", "16"),
    ) for size in sizes.split()
} | {iced.MemorySize.BCD: "bcd"}  # fmt: skip
"""Types that both have; iced has others for what is no number."""
BITS = {getattr(iced.RflagsBits, name): hv.Flags[name] for name in FLAGS}
INFORMATION = iced.InstructionInfoFactory()


def flags(mask: int) -> int:
    """iced's flags as hv.Flags."""
    return sum(ours for theirs, ours in BITS.items() if mask & theirs)


def full_name(name: str) -> str:
    """The widest register that a register is part of."""
    number = NUMBERS.get(name.upper())
    return name if number is None else REGISTERS[iced.RegisterExt.full_register(number)].lower()


def used(pairs: list[tuple[str, int]]) -> dict[str, int]:
    """Access by whole register."""
    found: dict[str, int] = {}
    for name, access in pairs:
        if access:
            found[full_name(name)] = found.get(full_name(name), 0) | access
    return found


def differences(octets: bytes, bits: int) -> dict[str, tuple[Any, Any]]:
    """What is not the same for one instruction."""
    theirs = iced_samples.decoder(octets, bits).decode()
    ours = hv.decode_one(octets, ip=iced_samples.IP[bits], bits=bits)
    info = INFORMATION.info(theirs)
    pairs: dict[str, tuple[Any, Any]] = {
        name: (flags(getattr(theirs, "r" + name)), int(getattr(ours, name)))
        for name in ("flags_read", "flags_written", "flags_cleared", "flags_set", "flags_undefined")
    }
    pairs["flow"] = (FLOWS[FLOW_NAMES[theirs.flow_control]], ours.flow.name)
    pairs["privileged"] = (bool(theirs.is_privileged), ours.privileged)
    pairs["features"] = (tuple(sorted(FEATURES[one].lower() for one in theirs.cpuid_features())), ours.features)
    pairs["operands"] = (theirs.op_count, len(ours.operands))
    if theirs.op_count == len(ours.operands):
        for number in range(theirs.op_count):
            pairs |= operand_pairs(theirs, info, number, ours.operands[number])
    pairs["registers"] = (
        used([(REGISTERS[one.register].lower(), int(ACCESS[one.access])) for one in info.used_registers()]),
        used([(name, int(access)) for name, access in ours.used_registers.items()]),
    )
    return {kind: pair for kind, pair in pairs.items() if pair[0] != pair[1]}


def operand_pairs(theirs: Any, info: Any, number: int, ours: Any) -> dict[str, tuple[Any, Any]]:
    """(theirs, ours) of what there is to say about an operand."""
    kind = theirs.op_kind(number)
    pairs: dict[str, tuple[Any, Any]] = {}
    if kind == iced.OpKind.REGISTER:
        pairs[f"name {number}"] = (REGISTERS[theirs.op_register(number)].lower(), getattr(ours, "name", None))
    elif kind == iced.OpKind.MEMORY:
        base, index = REGISTERS[theirs.memory_base].lower(), REGISTERS[theirs.memory_index].lower()
        pairs[f"address {number}"] = ((base, index), (ours.base_name or "none", ours.index_name or "none"))
        pairs[f"scale {number}"] = (theirs.memory_index_scale, ours.scale)
        pairs[f"segment {number}"] = (REGISTERS[theirs.memory_segment].lower(), ours.segment_name)
        size = iced.MemorySizeInfo(theirs.memory_size)
        pairs[f"size {number}"] = (8 * size.size, ours.bits)
        if size.element_type in ELEMENTS:
            pairs[f"element {number}"] = (ELEMENTS[size.element_type], ours.element.name.lower())
        pairs["is broadcast"] = (theirs.is_broadcast, ours.is_broadcast)
    if ours.kind in (hv.OperandKind.REGISTER, hv.OperandKind.MEMORY):
        pairs[f"access {number}"] = (int(ACCESS[info.op_access(number)]), int(ours.access))
    return pairs
