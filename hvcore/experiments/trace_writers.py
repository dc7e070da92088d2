"""Records to trace files: NumPy, lackey, ChampSim. What a running guest does is recorded by `vp.attach(writer)`."""

from __future__ import annotations

import gzip
import lzma
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np

from hvcore._native.traces import ChampsimPacker, lackey_text
from hvcore.experiments.records import RECORD, Records, Trace, as_records, chunks_of


class TraceWriter:
    """Writes a trace; a context manager, or call `close`.

    Parameters
    ----------
    path : by its suffixes ".npy", ".lackey" and ".txt", ".champsim" and ".champsimtrace" it has its format, by a
        further ".gz" or ".xz" its compression; an .npy is written plain.
    format : "npy", "lackey" or "champsim"; None: by the suffix.

    Attributes
    ----------
    count : records that were given to it.
    dropped : of what it was given, what the format cannot say. lackey: flushes and invalidations. ChampSim: these,
        operands beyond two targets and four sources, address 0, accesses before the first fetch.

    Raises
    ------
    ValueError
        The format is not known, or an .npy was to be compressed.
    OSError
        The file cannot be written.
    """

    def __init__(self, path: str | PathLike[str], *, format: str | None = None) -> None:
        self.path = Path(path)
        suffixes = self.path.suffixes
        compression = suffixes.pop() if suffixes and suffixes[-1] in (".gz", ".xz") else ""
        known = {".npy": "npy", ".lackey": "lackey", ".txt": "lackey", ".champsim": "champsim"}
        known[".champsimtrace"] = "champsim"
        self.format = format or known.get(suffixes[-1] if suffixes else "", "")
        if self.format not in known.values():
            raise ValueError(f"format must be npy, lackey or champsim, not {self.format!r} ({self.path.name})")
        if self.format == "npy" and compression:
            raise ValueError(f"an .npy trace is written without compression, not as {compression}")
        self.count = 0
        self._lost = 0
        self._packer = ChampsimPacker()
        self._file: IO[bytes] | None = _create(self.path, compression)
        if self.format == "npy":
            self._file.write(self._header())

    @property
    def dropped(self) -> int:
        return self._lost + self._packer.dropped

    def consume(self, records: Records) -> None:
        """Write one chunk."""
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        part = np.ascontiguousarray(records, dtype=RECORD)
        self.count += len(part)
        raw = part.view(np.uint8)
        if self.format == "npy":
            self._file.write(raw.data)
        elif self.format == "lackey":
            text, lost = lackey_text(raw)
            self._lost += lost
            self._file.write(text)
        else:
            self._file.write(self._packer.pack(raw))

    def write(self, trace: Trace) -> None:
        """Write a whole trace, of any form that models take."""
        for chunk in chunks_of(trace):
            self.consume(as_records(chunk))

    def close(self) -> None:
        """Finish the file."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            if self.format == "champsim":
                file.write(self._packer.rest())
            elif self.format == "npy":
                file.seek(0)
                file.write(self._header())
        finally:
            file.close()

    def _header(self) -> bytes:
        """NumPy's format 1.0 (NEP 1)."""
        text = f"{{'descr': {_description()!r}, 'fortran_order': False, 'shape': ({self.count},), }}"
        body = text.ljust(HEADER_BYTES - 11) + "\n"
        return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body.encode()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create(path: Path, compression: str) -> IO[bytes]:
    if compression == ".gz":
        return cast("IO[bytes]", gzip.open(path, "wb"))
    return lzma.open(path, "wb") if compression == ".xz" else path.open("wb")


def _description() -> Any:
    return np.lib.format.dtype_to_descr(RECORD)


HEADER_BYTES = 384
"""Fixed, so that the number of records can be filled in at the end."""
