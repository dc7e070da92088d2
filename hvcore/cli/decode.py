"""`hvcore decode`: a listing of machine code, from raw bytes, hex text or the code of an ELF file."""

from __future__ import annotations

import json
import mmap
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy

from hvcore._native import facts
from hvcore._native.formatter import listing
from hvcore.boot.sections import CodeFile, is_elf, read_code
from hvcore.cli.failure import Failure, refusals
from hvcore.instruction_table import DTYPES, InstructionTable
from hvcore.listing import format, offsets
from hvcore.sweeps import iterate

PIECE = 1 << 20
"""Bytes that are decoded at a time."""
_LISTED = ("offset", "length")
_HEXADECIMAL = frozenset(("immediate", "target", "displacement", "prefixes"))
_NARROW = 32
"""Addresses below 2^32 are printed with eight digits."""


def decode(options: Namespace) -> int:
    """The command; returns the exit status."""
    names = _columns(options.columns)
    with refusals(options.file):
        data = _read(options)
        stretches = list(_stretches(data, options))
    writer = _Writer(sys.stdout.buffer, options, names)
    writer.begin()
    for title, bits, address, piece, functions in stretches:
        writer.title(title)
        pieces = (piece[at : at + PIECE] for at in range(0, len(piece), PIECE))
        for table in iterate(pieces, ip=address, bits=bits, columns=names or _LISTED, vendor=options.vendor):
            writer.table(table, functions, _NARROW if address + len(piece) <= 1 << _NARROW else 64)
    writer.end()
    return 0


def _columns(text: str | None) -> tuple[str, ...]:
    """The columns asked for, with those that addresses need."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in DTYPES or name == "offset64"]
    if unknown or not names:
        known = ", ".join(name for name in DTYPES if name != "offset64")
        raise Failure(f"--columns: there is no column {unknown[0] if unknown else ''!r}; there are {known}")
    return tuple(dict.fromkeys((*names, "offset")))


def _read(options: Namespace) -> bytes | memoryview:
    """All of the file, mapped if it can be."""
    if options.file == "-":
        data: bytes | memoryview = sys.stdin.buffer.read()
    else:
        path = Path(options.file)
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        else:
            data = path.read_bytes()
    if options.hex:
        text = bytes(data).decode("ascii", "replace").replace("0x", " ").replace(",", " ")
        try:
            data = bytes.fromhex(text)
        except ValueError:
            raise ValueError("--hex: the text is not pairs of hexadecimal digits") from None
    if not len(data):
        raise ValueError("there is nothing to decode: it is empty")
    return data


def _stretches(
    data: bytes | memoryview, options: Namespace
) -> Iterator[tuple[str, int, int, bytes | memoryview, dict[int, str]]]:
    """(title, mode, address, bytes, functions) of everything to decode."""
    if options.raw or options.hex or not is_elf(bytes(data[:4])):
        yield "", options.bits or 64, options.ip, data, {}
        return
    file: CodeFile = read_code(data)
    if not file.code:
        raise ValueError("there is no code in it")
    for code in file.code:
        yield (f"section {code.name}", options.bits or file.bits, code.address,
               memoryview(data)[code.offset : code.offset + code.size], file.functions)


class _Writer:
    """Writes tables of instructions as a listing, as columns, or as JSON."""

    def __init__(self, out: BinaryIO, options: Namespace, columns: tuple[str, ...]) -> None:
        self._out, self._options, self._columns = out, options, columns
        self._first = True

    def begin(self) -> None:
        if self._options.json:
            self._out.write(b"[")

    def title(self, text: str) -> None:
        """What comes now."""
        if self._options.json:
            return
        if text:
            self._out.write(f"{'' if self._first else chr(10)}{text}\n".encode())
        if self._columns:
            self._out.write(("  ".join(["address".ljust(16), *map(_heading, self._shown())]) + "\n").encode())
        self._first = False

    def table(self, table: InstructionTable, functions: dict[int, str], width: int) -> None:
        """One piece."""
        if self._options.json:
            self._json(table)
        elif self._columns:
            self._rows(table)
        else:
            self._listing(table, functions, width // 4)

    def end(self) -> None:
        if self._options.json:
            self._out.write(b"\n]\n" if not self._first else b"]\n")

    def _shown(self) -> tuple[str, ...]:
        return tuple(name for name in self._columns if name in self._options.columns.replace(" ", "").split(","))

    def _listing(self, table: InstructionTable, functions: dict[int, str], digits: int) -> None:
        starts = offsets(table)
        addresses = numpy.asarray([address - table.ip for address in functions
                                   if 0 <= address - table.ip < table.end], dtype=numpy.uint64)
        named = numpy.flatnonzero(numpy.isin(starts, addresses)) if len(addresses) else numpy.empty(0, numpy.int64)
        begin = 0
        for row in [*named.tolist(), len(starts)]:
            if row > begin:
                self._out.write(listing(table.code, starts[begin:row], ip=table.ip, bits=table.bits,
                                        vendor=table.vendor, syntax=self._options.syntax, digits=digits))
            if row < len(starts):
                self._out.write(f"\n<{functions[table.ip + int(starts[row])]}>:\n".encode())
            begin = row

    def _values(self, table: InstructionTable) -> list[list[Any]]:
        """Of each shown column the values that people read."""
        found = []
        for name in self._shown():
            column = table.columns[name]
            if name == "mnemonic":
                found.append([facts.mnemonics[number] for number in column.tolist()])
            elif name == "flow":
                found.append([facts.Flow(number).name.lower() for number in column.tolist()])
            else:
                found.append(column.tolist())
        return found

    def _addresses(self, table: InstructionTable) -> list[int]:
        return [(table.ip + offset) & 0xFFFF_FFFF_FFFF_FFFF for offset in offsets(table).tolist()]

    def _rows(self, table: InstructionTable) -> None:
        names = self._shown()
        lines = []
        for address, *values in zip(self._addresses(table), *self._values(table), strict=True):
            cells = [f"{value:#x}" if name in _HEXADECIMAL else str(value) for name, value in
                     zip(names, values, strict=True)]
            lines.append("  ".join([f"{address:016x}", *(cell.rjust(_width(name)) for name, cell in
                                                         zip(names, cells, strict=True))]))
        self._out.write(("\n".join(lines) + "\n").encode())

    def _json(self, table: InstructionTable) -> None:
        names = self._shown() if self._columns else ()
        addresses = self._addresses(table)
        if names:
            rows = [dict(zip(("address", *names), row, strict=True))
                    for row in zip(addresses, *self._values(table), strict=True)]
        else:
            lines, code = format(table, syntax=self._options.syntax), memoryview(table.code)
            places = zip(offsets(table).tolist(), table.length.tolist(), strict=True)
            rows = [{"address": address, "bytes": bytes(code[at : at + length]).hex(), "text": line}
                    for address, (at, length), line in zip(addresses, places, lines, strict=True)]
        for row in rows:
            self._out.write(("\n" if self._first else ",\n").encode() + json.dumps(row).encode())
            self._first = False


def _width(name: str) -> int:
    return max(len(name), 18 if name in ("immediate", "target") else 12 if name in ("mnemonic", "displacement") else 6)


def _heading(name: str) -> str:
    return name.rjust(_width(name))
