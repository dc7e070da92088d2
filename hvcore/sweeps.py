"""Whole buffers of code as columns: `hv.decode`, `hv.lengths` and `hv.iterate`.

A sweep is linear: each instruction begins where the one before ends. A byte where none begins is a row of form 0 and
length 1, and the sweep goes on at the next byte; so is each byte of an instruction that the buffer's end cuts off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

import numpy
from numpy.typing import NDArray

from hvcore._native.decoder import MODES, VENDORS
from hvcore._native.sweep import COLUMNS, PATHS, decode_into
from hvcore.instruction_table import DTYPES, STANDARD, InstructionTable

if TYPE_CHECKING:
    from typing_extensions import Buffer

_GUESS = 3          # bytes an instruction, when rows have to be reserved: real code has four


class Readable(Protocol):
    """A binary file, or something like one."""

    def read(self, size: int, /) -> bytes: ...


def decode(
    buffer: Buffer,
    *,
    ip: int = 0,
    bits: int = 64,
    columns: Iterable[str] | None = None,
    out: InstructionTable | Mapping[str, NDArray[Any]] | None = None,
    vendor: str = "intel",
) -> InstructionTable:
    """Decode all of a buffer into columns.

    Parameters
    ----------
    buffer : contiguous buffer of bytes
        bytes, memoryview, mmap, ndarray; it may be read-only and is not copied. The table keeps a reference.
    ip : int
        Address of the first byte, for branch targets.
    bits : int
        16, 32 or 64: the mode.
    columns : iterable of str
        Which columns to fill, names of DTYPES; STANDARD, or all that `out` has, if not given. What is left out costs
        nothing. `prefixes` is much slower than the others.
    out : InstructionTable or dict of arrays
        Storage to use again, contiguous and of the dtypes of DTYPES. Fresh pages cost more than decoding. A table
        given is the one returned. If its rows run out the sweep stops, and `end` says where.
    vendor : str
        "intel" or "amd", for the few bytes that they read differently (AMD64 manual, volume 3).

    Returns
    -------
    InstructionTable

    Raises
    ------
    ValueError
        There is no such column, mode or vendor; or an array of `out` does not fit.
    """
    view = _bytes_of(buffer)
    options, ip = _options(bits, vendor), _address(ip)
    if out is None:
        return _fill_new(view, buffer, ip, bits, vendor, _names(columns, STANDARD), False)
    if not isinstance(out, InstructionTable | Mapping) or not len(getattr(out, "storage", out)):
        raise TypeError("out must be an InstructionTable or a dict of arrays, at least one")
    table = out if isinstance(out, InstructionTable) else InstructionTable(out)
    arrays = _fitting(table.storage, _names(columns, tuple(table.storage)), len(view))
    capacity = min((len(array) for array in arrays.values()), default=0)
    table.filled = tuple(arrays)
    table.rows, table.end = decode_into(view, _ordered(arrays), options=options, ip=ip, at=0, row=0, capacity=capacity,
                                        more=False, path=PATHS[-1])
    table.code, table.ip, table.bits, table.vendor = buffer, ip, bits, vendor
    return table


def lengths(
    buffer: Buffer, *, bits: int = 64, out: NDArray[numpy.uint8] | None = None, vendor: str = "intel"
) -> NDArray[numpy.uint8]:
    """Lengths of the instructions of a buffer, in bytes; their sum up to a row is its offset.

    Parameters and errors are those of `decode`; `out` is an array of uint8, and what is returned is the part of it
    that was written.
    """
    storage = None if out is None else {"length": out}
    return decode(buffer, bits=bits, columns=("length",), out=storage, vendor=vendor).length


def iterate(
    source: Readable | Iterable[Buffer],
    *,
    ip: int = 0,
    bits: int = 64,
    columns: Iterable[str] | None = None,
    vendor: str = "intel",
    chunk: int = 1 << 20,
) -> Iterator[InstructionTable]:
    """Decode a stream: a table for each piece, with instructions that lie over a piece's end in the next table.

    Parameters
    ----------
    source : binary file or iterable of buffers
        A file is read `chunk` bytes at a time.
    ip, bits, columns, vendor
        As for `decode`. Each table's `ip` is the address of its own first byte; its offsets count from there.

    Yields
    ------
    InstructionTable
        At least one row each. The tables do not share storage.
    """
    names = _names(columns, STANDARD)
    _options(bits, vendor)
    if chunk < 1:
        raise ValueError(f"chunk must be positive, not {chunk}")
    if isinstance(source, bytes | bytearray | memoryview):
        raise ValueError("source must be a file or an iterable of buffers; decode() takes one buffer")
    if not hasattr(source, "read") and not isinstance(source, Iterable):
        raise TypeError(f"source must be a file or an iterable of buffers, not {type(source).__name__}")
    pieces = iter(lambda: source.read(chunk), b"") if hasattr(source, "read") else iter(source)
    return _tables(pieces, _address(ip), bits, vendor, names)


def _tables(
    pieces: Iterator[Buffer], ip: int, bits: int, vendor: str, names: Sequence[str]
) -> Iterator[InstructionTable]:
    carry = b""
    for piece in pieces:
        code = carry + _bytes_of(piece)
        table = _fill_new(memoryview(code), code, ip, bits, vendor, names, True)
        carry = code[table.end :]
        ip = (ip + table.end) & 0xFFFF_FFFF_FFFF_FFFF
        if len(table):
            yield table
    if carry:
        yield _fill_new(memoryview(carry), carry, ip, bits, vendor, names, False)


def _fill_new(
    view: memoryview, code: Buffer, ip: int, bits: int, vendor: str, names: Sequence[str], more: bool
) -> InstructionTable:
    """A table with storage of its own, which grows as needed."""
    wide = len(view) > 0xFFFF_FFFF
    row = at = 0
    arrays: dict[str, NDArray[Any]] = {}
    capacity = len(view) // _GUESS + 16
    while True:
        fresh = {name: numpy.empty(capacity, "u8" if wide and name == "offset" else DTYPES[name]) for name in names}
        for name, array in arrays.items():
            fresh[name][:row] = array[:row]
        arrays = fresh
        row, at = decode_into(view, _ordered(arrays), options=_options(bits, vendor), ip=ip, at=at, row=row,
                              capacity=capacity, more=more, path=PATHS[-1])
        if row < capacity or at == len(view):
            break
        capacity = min(row + len(view) - at, row + row // 2 + 16)
    table = InstructionTable(arrays)
    table.code, table.ip, table.bits, table.vendor, table.rows, table.end = code, ip, bits, vendor, row, at
    return table


def _bytes_of(buffer: Buffer) -> memoryview:
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError(f"buffer must be bytes or give a buffer of them, not {type(buffer).__name__}") from None
    if not view.c_contiguous:
        raise ValueError("buffer must be contiguous")
    if "O" in view.format:
        raise TypeError("buffer must hold bytes, not Python objects")
    return view.cast("B") if view.nbytes else memoryview(b"")


def _options(bits: int, vendor: str) -> int:
    if bits not in MODES:
        raise ValueError(f"bits must be 16, 32 or 64, not {bits!r}")
    if vendor not in VENDORS:
        raise ValueError(f"vendor must be 'intel' or 'amd', not {vendor!r}")
    return MODES[bits] | VENDORS[vendor]


def _address(ip: int) -> int:
    if not isinstance(ip, SupportsIndex) or not 0 <= index(ip) < 1 << 64:
        raise ValueError(f"ip must be an address of 64 bits, not {ip!r}")
    return index(ip)


def _names(columns: Iterable[str] | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    if columns is None:
        return usual
    if not isinstance(columns, Iterable):
        raise TypeError(f"columns must be names of columns, not {type(columns).__name__}")
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    known = [name for name in DTYPES if name != "offset64"]
    if not names:
        raise ValueError(f"columns must be at least one of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise ValueError(f"columns: there is no column {name!r}; there are {', '.join(known)}")
    return names


def _fitting(storage: Mapping[str, NDArray[Any]], names: Sequence[str], size: int) -> dict[str, NDArray[Any]]:
    """The arrays of `names`, if all of them can be written."""
    for name in names:
        if name not in DTYPES:
            raise ValueError(f"out: there is no column {name!r}; there are {', '.join(DTYPES)}")
        if name not in storage:
            raise ValueError(f"out has no array for the column {name!r}")
        array = storage[name]
        allowed = [DTYPES[name]]
        if name == "offset":
            allowed = [numpy.dtype("u8")] if size > 0xFFFF_FFFF else [*allowed, numpy.dtype("u8")]
        if not isinstance(array, numpy.ndarray) or array.dtype not in allowed or array.ndim != 1:
            raise ValueError(f"out[{name!r}] must be a one-dimensional array of {allowed[0]}")
        if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
            raise ValueError(f"out[{name!r}] must be contiguous, aligned and writable")
    return {name: storage[name] for name in names}


def _ordered(arrays: Mapping[str, NDArray[Any]]) -> list[NDArray[Any] | None]:
    """As decode_into takes them; offsets of 64 bits go to a column of their own."""
    named = dict(arrays)
    if "offset" in named and named["offset"].dtype.itemsize == 8:
        named["offset64"] = named.pop("offset")
    return [named.get(name) for name in COLUMNS]
