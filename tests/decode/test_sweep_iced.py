"""Operand columns of real code against iced-x86, which knows nothing of our forms."""

from __future__ import annotations

import re
from typing import Any

import pytest

import hvcore as hv

from .test_sweep import real_code

iced_x86 = pytest.importorskip("iced_x86", reason="iced-x86 is not installed")

GENERAL = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
CLASSES = {"XMM": 32, "YMM": 32, "ZMM": 32, "K": 64, "ST": 72, "MM": 80, "CR": 96, "DR": 112, "TMM": 136, "BND": 144}
NAMED = {"NONE": 255, "RIP": 152, "EIP": 152, "AH": 148, "CH": 149, "DH": 150, "BH": 151, "SPL": 4, "BPL": 5, "SIL": 6,
         "DIL": 7, "AL": 0, "CL": 1, "DL": 2, "BL": 3, "ES": 88, "CS": 89, "SS": 90, "DS": 91, "FS": 92, "GS": 93}
KINDS = {"REGISTER": 1, "MEMORY": 2}
COLUMNS = ("offset", "length", "form", "operand_kinds", "base", "index", "scale", "displacement",
           *(f"register{i}" for i in range(4)))


def number(name: str) -> int:
    """Of a register of iced's, as our columns have it."""
    if name in NAMED:
        return NAMED[name]
    if name.lstrip("RE") in GENERAL:
        return GENERAL.index(name.lstrip("RE"))
    parts = re.fullmatch(r"([A-Z]+)(\d+)[DWL]?", name)
    assert parts, name
    return CLASSES.get(parts[1], 0) + int(parts[2])


REGISTERS = {value: number(name) for name, value in vars(iced_x86.Register).items()
             if isinstance(value, int) and not name.startswith(("DONTUSE", "TR"))}
OP_KINDS = {value: KINDS.get(name.split("_")[0], 3) for name, value in vars(iced_x86.OpKind).items()
            if isinstance(value, int)}


def expected(instruction: Any) -> tuple[int, ...]:
    kinds = [instruction.op_kind(i) for i in range(instruction.op_count)]
    registers = [REGISTERS[instruction.op_register(i)] if kind == iced_x86.OpKind.REGISTER else 255
                 for i, kind in enumerate(kinds)]
    packed = sum(OP_KINDS[kind] << 2 * i for i, kind in enumerate(kinds[:4]))
    memory: tuple[int, ...] = (255, 255, 0, 0)
    if iced_x86.OpKind.MEMORY in kinds:
        base, displacement = REGISTERS[instruction.memory_base], instruction.memory_displacement
        if base == 152:
            displacement -= instruction.next_ip
        displacement = (displacement + (1 << 31)) % (1 << 32) - (1 << 31)
        memory = (base, REGISTERS[instruction.memory_index], instruction.memory_index_scale, displacement)
    return (packed, *memory, *(registers + [255] * 4)[:4])


@pytest.mark.parametrize("position", [0.2, 0.45])
def test_operand_columns(position: float) -> None:
    code = real_code(150_000, position)
    table = hv.decode(code, columns=COLUMNS)
    rows = dict(zip(table.offset.tolist(), zip(*(table.columns[name].tolist() for name in COLUMNS[3:]), strict=True),
                    strict=True))
    lengths = dict(zip(table.offset.tolist(), table.length.tolist(), strict=True))
    differences, compared = [], 0
    for instruction in iced_x86.Decoder(64, code):
        if instruction.code == iced_x86.Code.INVALID or instruction.ip not in rows:
            continue
        compared += 1
        ours = rows[instruction.ip]
        if (ours, lengths[instruction.ip]) != (expected(instruction), instruction.len):
            octets = code[instruction.ip : instruction.ip + instruction.len].hex()
            differences.append(f"{octets} {instruction}: {ours}, not {expected(instruction)}")
    assert compared > 20_000
    assert not differences, f"{len(differences)} differ: {differences[:10]}"
