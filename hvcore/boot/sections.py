"""The code in an ELF file for x86: executable sections, and the names of functions (System V ABI, chapter 4).

Where there are no section headers the executable segments take their place. Every refusal is a ValueError of one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, error
from typing import Final

MACHINES: Final = {3: 32, 62: 64}
"""ELF machine to mode: EM_386, EM_X86_64."""

_MAGIC = b"\x7fELF"
_EXECUTE_SECTION, _NO_BITS = 4, 8
_SYMBOLS, _DYNAMIC_SYMBOLS = 2, 11
_LOAD, _EXECUTE_SEGMENT = 1, 1
_FUNCTION = 2


@dataclass(frozen=True)
class Code:
    """A stretch of code: `size` bytes at `offset` of the file, which belong to `address`."""

    name: str
    address: int
    offset: int
    size: int


@dataclass(frozen=True)
class CodeFile:
    """What there is to decode: the mode, the code in the file's order, and function names by address."""

    bits: int
    code: list[Code]
    functions: dict[int, str]


class _Layout:
    """Fields of the headers of one class, 32 or 64 bits."""

    def __init__(self, wide: bool) -> None:
        self.header = Struct("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH")
        self.section = Struct("<IIQQQQIIQQ" if wide else "<IIIIIIIIII")
        self.segment = Struct("<IIQQQQQQ" if wide else "<IIIIIIII")
        self.symbol = Struct("<IBBHQQ" if wide else "<IIIBBH")
        self.wide = wide


def is_elf(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an ELF file."""
    return head[:4] == _MAGIC


def read_code(data: bytes | memoryview) -> CodeFile:
    """What is executable in an ELF file.

    Raises
    ------
    ValueError
        It is none for x86, or it is cut off; the message says which.
    """
    if len(data) < 20 or not is_elf(bytes(data[:4])):
        raise ValueError("not an ELF file")
    if data[4] not in (1, 2) or data[5] != 1:
        raise ValueError(f"a little-endian ELF file of class 1 or 2 is needed, this one has {data[4]} and {data[5]}")
    layout = _Layout(data[4] == 2)
    try:
        return _read(data, layout)
    except (error, IndexError):
        raise ValueError("truncated: headers lie behind the end of the file") from None


def _read(data: bytes | memoryview, layout: _Layout) -> CodeFile:
    fields = layout.header.unpack_from(data, 16)
    machine, segments, sections = fields[1], fields[4], fields[5]
    segment_size, segment_count, section_size, section_count, names = fields[8:13]
    if machine not in MACHINES:
        raise ValueError(f"made for ELF machine {machine}, not x86 (3) or x86-64 (62)")
    found: list[Code] = []
    functions: dict[int, str] = {}
    if sections and section_count:
        places = range(sections, sections + section_size * section_count, section_size)
        headers = [layout.section.unpack_from(data, place) for place in places]
        for header in headers:
            name = _string(data, headers[names][4] + header[0]) if names < len(headers) else ""
            if header[2] & _EXECUTE_SECTION and header[1] != _NO_BITS and header[5]:
                found.append(Code(name, header[3], header[4], header[5]))
            elif header[1] in (_SYMBOLS, _DYNAMIC_SYMBOLS) and header[6] < len(headers):
                functions |= _functions(data, layout, header, headers[header[6]][4])
    if not found:
        for number in range(segment_count):
            found += _segment(layout.segment.unpack_from(data, segments + segment_size * number), layout.wide)
    for code in found:
        if code.offset + code.size > len(data):
            raise ValueError(f"truncated: {code.name} ends at {code.offset + code.size:#x}, the file at {len(data):#x}")
    return CodeFile(MACHINES[machine], found, functions)


def _segment(header: tuple[int, ...], wide: bool) -> list[Code]:
    if wide:
        flags, offset, address, size = header[1], header[2], header[3], header[5]
    else:
        flags, offset, address, size = header[6], header[1], header[2], header[4]
    return [Code("segment", address, offset, size)] if header[0] == _LOAD and flags & _EXECUTE_SEGMENT and size else []


def _functions(
    data: bytes | memoryview, layout: _Layout, header: tuple[int, ...], strings: int
) -> dict[int, str]:
    """The defined functions of a symbol table."""
    found: dict[int, str] = {}
    for at in range(header[4], header[4] + header[5], layout.symbol.size):
        if layout.wide:
            name, info, _, section, value, _ = layout.symbol.unpack_from(data, at)
        else:
            name, value, _, info, _, section = layout.symbol.unpack_from(data, at)
        if info & 0xF == _FUNCTION and section and name:
            found.setdefault(value, _string(data, strings + name))
    return found


def _string(data: bytes | memoryview, at: int) -> str:
    end = bytes(data[at : at + 4096]).find(b"\0")
    return bytes(data[at : at + max(end, 0)]).decode("utf-8", "backslashreplace")
