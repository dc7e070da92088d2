"""The table that a sweep gives: a NumPy array a column, and its rows as instructions when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

import numpy
from numpy.typing import NDArray

from hvcore._native.instructions import decode_one
from hvcore._native.sweep import COLUMNS
from hvcore.extras import extra

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from hvcore._native.instructions import Instruction

DTYPES: Final[dict[str, numpy.dtype[Any]]] = {
    name: numpy.dtype({"offset": "u4", "offset64": "u8", "form": "u2", "mnemonic": "u2", "displacement": "i4",
                       "immediate": "i8", "target": "u8", "prefixes": "u2"}.get(name, "u1"))
    for name in COLUMNS
}
"""The dtype of each column. `offset` is u8 (64 bits) in tables of buffers over 4 GiB."""

STANDARD: Final = ("offset", "length", "form", "mnemonic", "flow", "operand_kinds", "register", "base", "index",
                   "scale", "displacement", "segment", "immediate", "target")
"""The columns of `hv.decode` if nothing else is asked for."""

class InstructionTable:
    """Decoded instructions, one NumPy array a column; an attribute for each of them.

    The arrays are views of the rows that were written, `len(table)` of them; `table.columns` has them all by name.
    `table[3]` is the instruction of a row as an object, made when asked for. Registers are numbers (hv.Register); 255
    is none. Nothing is copied on the way to others: `pandas.DataFrame(table.columns, copy=False)`, and whatever takes
    Arrow streams takes the table.

    Attributes
    ----------
    code : buffer
        What was decoded; kept alive, not copied.
    ip, bits, vendor
        As they were given.
    filled : tuple of str
        The columns that the last sweep wrote: all, unless it was asked for fewer. Only these can be seen.
    end : int
        Offset in `code` behind the last row: less than its size if rows ran out.
    """

    __slots__ = ("_storage", "bits", "code", "end", "filled", "ip", "rows", "vendor")

    def __init__(self, storage: Mapping[str, NDArray[Any]]) -> None:
        self._storage = dict(storage)
        self.filled = tuple(self._storage)
        self.code: Buffer = b""
        self.ip, self.bits, self.vendor = 0, 64, "intel"
        self.rows = self.end = 0

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Every column by name: views of the written rows."""
        return {name: self._storage[name][: self.rows] for name in self.filled}

    @property
    def storage(self) -> dict[str, NDArray[Any]]:
        """The arrays with all the room they have, as `out` takes them."""
        return dict(self._storage)

    @property
    def capacity(self) -> int:
        """Rows that there is room for."""
        return min((len(array) for array in self._storage.values()), default=0)

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name.startswith("_") or name == "filled":
            raise AttributeError(name)
        if name not in self.filled:
            raise AttributeError(f"the table has no column {name!r}; it has {', '.join(self.filled)}")
        return self._storage[name][: self.rows]

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.filled})

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Instruction:
        """The instruction of a row; needs the column `offset`, or `length`."""
        if not isinstance(row, SupportsIndex):
            raise TypeError(f"row must be an integer, not {row!r}: columns are attributes, and slice those")
        try:
            position = range(self.rows)[row]
        except IndexError:
            raise IndexError(f"row {row} is none of the table's {self.rows}") from None
        if "offset" in self.filled:
            offset = int(self._storage["offset"][position])
        elif "length" in self.filled:
            offset = int(self._storage["length"][:position].sum(dtype=numpy.uint64))
        else:
            raise ValueError("instructions of a table need its column 'offset' or 'length'")
        ip = (self.ip + offset) & 0xFFFF_FFFF_FFFF_FFFF
        return decode_one(self.code, ip=ip, bits=self.bits, offset=offset, vendor=self.vendor)

    def __iter__(self) -> Iterator[Instruction]:
        return (self[row] for row in range(self.rows))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface, by pyarrow."""
        stream: object = extra("pyarrow", "frames").table(self.columns).__arrow_c_stream__(requested_schema)
        return stream

    def __repr__(self) -> str:
        return f"<InstructionTable of {self.rows} rows: {', '.join(self.filled)}>"
