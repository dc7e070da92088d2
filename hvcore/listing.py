"""Instructions as text: `hv.format` for one, for a table of them, for any number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload

import numpy
from numpy.typing import NDArray

from hvcore._native.formatter import format_code
from hvcore._native.instructions import Instruction
from hvcore.instruction_table import InstructionTable


@overload
def format(item: Instruction, *, syntax: str = "intel", uppercase: bool = False) -> str: ...
@overload
def format(
    item: InstructionTable | Iterable[Instruction], *, syntax: str = "intel", uppercase: bool = False
) -> list[str]: ...
def format(
    item: Instruction | InstructionTable | Iterable[Instruction], *, syntax: str = "intel", uppercase: bool = False
) -> str | list[str]:
    """The text of an instruction, or the lines of many.

    Parameters
    ----------
    item : Instruction, InstructionTable or iterable of Instruction
        A table needs its column `offset` or `length`; its lines are made in one go, some 100 ns each.
    syntax : "intel", "att" or "nasm"
    uppercase : bool
        In capital letters, but for `0x`.

    Returns
    -------
    str or list of str
        One line without an end of line for each instruction; "(bad)" for bytes that are none.

    Raises
    ------
    ValueError
        There is no such syntax, or the table has neither column.
    """
    if isinstance(item, Instruction):
        line = item.format(syntax)
        return upper(line) if uppercase else line
    if isinstance(item, InstructionTable):
        lines = format_code(
            item.code, offsets(item), ip=item.ip, bits=item.bits, vendor=item.vendor, syntax=syntax
        )
    else:
        items = list(item) if isinstance(item, Iterable) else [item]
        for one in items:
            if not isinstance(one, Instruction):
                raise TypeError(f"item must be an Instruction, a table or Instructions, not {type(one).__name__}")
        lines = [instruction.format(syntax) for instruction in items]
    return [upper(line) for line in lines] if uppercase else lines


def offsets(table: InstructionTable) -> NDArray[numpy.uint32] | NDArray[numpy.uint64]:
    """Where the instructions of a table begin, from whatever column says so."""
    columns = table.columns
    if "offset" in columns:
        return numpy.ascontiguousarray(columns["offset"])
    if "length" not in columns:
        raise ValueError("the text of a table needs its column 'offset' or 'length'")
    ends = numpy.cumsum(columns["length"], dtype=numpy.uint64)
    return numpy.concatenate((numpy.zeros(1, numpy.uint64), ends[:-1]))[: len(table)]


def upper(line: str) -> str:
    """The line in capital letters; 0x stays what it is."""
    return line.upper().replace("0X", "0x")
