"""Traces in NumPy's files, a chunk at a time: arrays of RECORD or of addresses, or a column each in an .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hvcore.experiments.errors import TraceError
from hvcore.experiments.recognition import DAMAGED
from hvcore.experiments.records import CHUNK, RECORD, Kind, Records, make_records

COLUMNS = ("address", "size", "asid", "kind", "page_shift", "nested_page_shift")


class _Column:
    """One array in a stream: its header, then its elements in order."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path, self._done = stream, path, 0
        try:
            version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, self._by_columns, self.dtype = reader(stream)  # type: ignore[no-untyped-call]
        except (ValueError, *DAMAGED) as error:
            raise TraceError(path, f"the header of the array is damaged: {error}", record=1, offset=0) from None
        if len(shape) != 1 or self.dtype.hasobject or not 0 < self.dtype.itemsize <= 4096 or shape[0] < 0:
            raise TraceError(path, f"an array of a trace must have one dimension of plain records, not {self.dtype}")
        self.length = int(shape[0])

    def take(self, count: int) -> NDArray[Any]:
        """The next elements, as many as are there of `count`."""
        count = min(count, self.length - self._done)
        wanted, parts = count * self.dtype.itemsize, []
        left, problem = wanted, ""
        while left:
            try:
                part = self._stream.read(left)
            except (zipfile.BadZipFile, *DAMAGED) as error:
                part, problem = b"", f": {error}"
            if not part:
                break
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        if left:
            record = self._done + len(data) // self.dtype.itemsize
            raise TraceError(
                self._path,
                f"it ends within its {self.length:,} records{problem}",
                record=record + 1,
                offset=record * self.dtype.itemsize,
            )
        self._done += count
        return np.frombuffer(data, self.dtype)


def read_npy(stream: IO[bytes], path: Path) -> Iterator[Records]:
    """Records, or structured arrays with some of COLUMNS, or plain addresses."""
    column = _Column(stream, path)
    for _ in range(0, column.length, CHUNK):
        yield _as_records(column.take(CHUNK), path)


def read_npz(file: IO[bytes], path: Path) -> Iterator[Records]:
    """One array of any name, or arrays named as COLUMNS, `address` among them."""
    try:
        archive = zipfile.ZipFile(file)
        names = [name for name in archive.namelist() if name.endswith(".npy")]
    except (zipfile.BadZipFile, *DAMAGED) as error:
        raise TraceError(path, f"the archive is damaged: {error}", record=1, offset=0) from None
    wanted = {name: name.removesuffix(".npy") for name in names if name.removesuffix(".npy") in COLUMNS}
    if "address.npy" not in wanted and len(names) != 1:
        raise TraceError(path, f"an archive must have one array, or `address` and others of {', '.join(COLUMNS)}")
    with ExitStack() as opened:

        def open_column(name: str) -> _Column:
            try:
                return _Column(opened.enter_context(archive.open(name)), path)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *DAMAGED) as error:
                raise TraceError(path, f"{name} is damaged: {error}", record=1, offset=0) from None

        if "address.npy" not in wanted:
            column = open_column(names[0])
            for _ in range(0, column.length, CHUNK):
                yield _as_records(column.take(CHUNK), path)
            return
        columns = {wanted[name]: open_column(name) for name in wanted}
        lengths = {column.length for column in columns.values()}
        if len(lengths) > 1:
            raise TraceError(path, f"its columns differ in length: {', '.join(map(str, sorted(lengths)))}")
        for _ in range(0, lengths.pop(), CHUNK):
            yield _from_columns({name: column.take(CHUNK) for name, column in columns.items()}, path)


def _as_records(part: NDArray[Any], path: Path) -> Records:
    if part.dtype == RECORD:
        return part
    if part.dtype.names:
        return _from_columns({name: part[name] for name in part.dtype.names if name in COLUMNS}, path)
    return _from_columns({"address": part}, path)


def _from_columns(columns: dict[str, NDArray[Any]], path: Path) -> Records:
    if "address" not in columns or any(column.dtype.kind not in "ui" for column in columns.values()):
        raise TraceError(path, f"a trace must have an integer `address`, and may have integers {', '.join(COLUMNS[1:])}")
    others = dict(columns)
    if "size" in others:
        others["size"] = np.minimum(others["size"], 65535)
    records = make_records(others.pop("address").astype(np.uint64, copy=False), others.pop("kind", Kind.LOAD))
    for name, values in others.items():
        records[name] = values
    return records
