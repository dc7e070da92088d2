"""Static ELF64 programs for x86-64: what to copy where, and where to begin (System V ABI, chapters 4 and 5).

Addresses are the physical ones of the program headers: nothing is relocated. Every refusal is a ValueError of one
line that says what is wrong with the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from typing import Final, NamedTuple

EXECUTE: Final = 1
WRITE: Final = 2
READ: Final = 4

_MAGIC = b"\x7fELF"
_CLASS_64, _LITTLE_ENDIAN = 2, 1
_EXECUTABLE, _SHARED_OBJECT = 2, 3
_X86_64 = 62
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_ADDRESSES = 1 << 64
_HEADER = Struct("<4sBBB9xHHIQQQIHHHHHH")
_PROGRAM_HEADER = Struct("<IIQQQQQQ")


class Segment(NamedTuple):
    """`data` goes to `address`; zeros follow up to `memory_size` bytes. `flags`: READ, WRITE, EXECUTE."""

    address: int
    data: bytes
    memory_size: int
    flags: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.memory_size

    @property
    def span(self) -> str:
        """Its addresses, for messages."""
        return f"{self.address:#x}-{self.end:#x}"


@dataclass(frozen=True, slots=True)
class Image:
    """A program: where to begin, and its segments in ascending order of address."""

    entry: int
    segments: list[Segment]

    @property
    def end(self) -> int:
        """The first address behind the last segment."""
        return self.segments[-1].end

    def require_inside(self, size: int) -> None:
        """Raise ValueError unless all of it lies in memory of `size` bytes from address 0."""
        for segment in self.segments:
            if segment.end > size:
                raise ValueError(f"segment {segment.span} is outside memory, which ends at {size:#x}")


class _ProgramHeader(NamedTuple):
    kind: int
    flags: int
    offset: int
    virtual_address: int
    address: int
    file_size: int
    memory_size: int
    alignment: int


def load(data: bytes) -> Image:
    """Parse a static executable.

    Raises
    ------
    ValueError
        `data` is no such file; the message says why.
    """
    if not data:
        raise ValueError("the file is empty")
    if data[:4] != _MAGIC:
        raise ValueError("not an ELF file: it does not begin with 7F 45 4C 46")
    if len(data) > 4 and data[4] != _CLASS_64:
        raise ValueError(f"a 64-bit ELF file is needed, this one has class {data[4]}" + " (32-bit)" * (data[4] == 1))
    if len(data) > 5 and data[5] != _LITTLE_ENDIAN:
        raise ValueError(f"a little-endian ELF file is needed, this one has encoding {data[5]}")
    if len(data) < _HEADER.size:
        raise ValueError(f"truncated: {len(data)} bytes, the ELF header alone has {_HEADER.size}")
    _, _, _, _, kind, machine, _, entry, offset, _, _, _, entry_size, count, _, _, _ = _HEADER.unpack_from(data)
    if machine != _X86_64:
        raise ValueError(f"made for ELF machine {machine}, not x86-64 (62)")
    if kind == _SHARED_OBJECT:
        raise ValueError("a position-independent or shared object (ET_DYN): link it with -static -no-pie")
    if kind != _EXECUTABLE:
        raise ValueError(f"not an executable: ELF type {kind}")
    segments = sorted(_segment(data, header) for header in _loaded(data, offset, entry_size, count))
    if not segments:
        raise ValueError("no segments to load")
    for lower, upper in pairwise(segments):
        if lower.end > upper.address:
            raise ValueError(f"segments {lower.span} and {upper.span} overlap")
    if not any(segment.address <= entry < segment.end for segment in segments):
        raise ValueError(f"the entry point {entry:#x} is in none of its segments")
    return Image(entry, segments)


def _loaded(data: bytes, offset: int, entry_size: int, count: int) -> list[_ProgramHeader]:
    """The program headers of segments that take up memory."""
    if count and entry_size != _PROGRAM_HEADER.size:
        raise ValueError(f"program headers have {entry_size} bytes, not {_PROGRAM_HEADER.size}")
    if offset + count * entry_size > len(data):
        end = offset + count * entry_size
        raise ValueError(f"truncated: program headers end at {end:#x}, the file at {len(data):#x}")
    headers = [
        _ProgramHeader(*_PROGRAM_HEADER.unpack_from(data, offset + index * entry_size)) for index in range(count)
    ]
    if any(header.kind in (_DYNAMIC, _INTERPRETER) for header in headers):
        raise ValueError("dynamically linked: link it with -static")
    return [header for header in headers if header.kind == _LOAD and header.memory_size]


def _segment(data: bytes, header: _ProgramHeader) -> Segment:
    where = f"segment at {header.address:#x}"
    if header.file_size > header.memory_size:
        raise ValueError(
            f"{where}: {header.file_size:#x} bytes in the file, more than {header.memory_size:#x} in memory"
        )
    end = header.offset + header.file_size
    if end > len(data):
        raise ValueError(f"truncated: {where} needs the file up to {end:#x}, not {len(data):#x}")
    if header.address + header.memory_size > _ADDRESSES:
        raise ValueError(f"{where} leaves the 64-bit address space")
    if header.virtual_address != header.address:
        raise ValueError(f"{where} is linked for another address, {header.virtual_address:#x}: memory is mapped flat")
    content = data[header.offset : end]
    return Segment(header.address, content, header.memory_size, header.flags & (READ | WRITE | EXECUTE))
