"""Trace files as chunks of records: ChampSim, lackey, drmemtrace, gem5 and NumPy, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np

from hvcore._native.traces import FORMATS as PARSED
from hvcore._native.traces import Parser
from hvcore.experiments.errors import TraceError
from hvcore.experiments.numpy_files import read_npy, read_npz
from hvcore.experiments.progress import followed, progress_bar
from hvcore.experiments.recognition import DAMAGED, FORMATS, GEM5_MAGIC, decompressed, format_of
from hvcore.experiments.records import RECORD, Records

BLOCK_BYTES = 1 << 20
"""How much of a file is in memory at a time; a chunk is what it holds."""


class TraceFile:
    """A trace on disk. Iterating over it reads it from its start, a chunk of records at a time, in bounded memory.

    Made by `read_trace`. `path` and `format` say what it is.
    """

    def __init__(self, path: Path, format: str, progress: bool) -> None:
        self.path, self.format, self.progress = path, format, progress

    def __iter__(self) -> Iterator[Records]:
        size = self.path.stat().st_size
        with (
            self.path.open("rb") as file,
            progress_bar(size, unit="B", label=self.path.name, shown=self.progress) as progress,
        ):
            try:
                yield from followed(self._chunks(file), file, progress) if self.progress else self._chunks(file)
            except _Damage as damage:
                raise TraceError(self.path, damage.problem, record=damage.record, offset=damage.offset) from None

    def _chunks(self, file: BufferedReader) -> Iterator[Records]:
        if self.format == "npz":
            return read_npz(file, self.path)
        stream = decompressed(file, self.path)
        return read_npy(stream, self.path) if self.format == "npy" else _parse(stream, self.format)

    def read(self) -> Records:
        """All records in one array."""
        chunks = list(self)
        return np.concatenate(chunks) if chunks else np.zeros(0, RECORD)

    def __repr__(self) -> str:
        return f"TraceFile({str(self.path)!r}, format={self.format!r})"


class _Damage(Exception):
    """Where and why a file could not be read on."""

    def __init__(self, problem: str, record: int, offset: int) -> None:
        super().__init__(problem)
        self.problem, self.record, self.offset = problem, record, offset


def _parse(stream: IO[bytes], format: str) -> Iterator[Records]:
    parser = Parser(format)
    rest, offset, count = b"", 0, 0
    if format == "gem5":
        offset = len(GEM5_MAGIC)
        if stream.read(offset) != GEM5_MAGIC:
            raise _Damage(f"a packet trace must start with {GEM5_MAGIC!r}", 1, 0)
    while True:
        try:
            block = stream.read(BLOCK_BYTES)
        except DAMAGED as error:
            raise _Damage(f"it cannot be decompressed: {error}", count + 1, offset) from None
        data = rest + block
        records = np.empty(parser.room_for(len(data)), RECORD)
        found, used, problem = parser.parse(data, records.view(np.uint8))
        if found:
            yield records[:found]
        count, offset, rest = count + found, offset + used, data[used:]
        if problem:
            raise _Damage(problem, count + 1, offset)
        if not block and rest:
            raise _Damage(f"it ends within a record: {len(rest):,} bytes are left over", count + 1, offset)
        if len(rest) > BLOCK_BYTES:
            raise _Damage("a record does not end", count + 1, offset)
        if not block:
            return


def read_trace(path: str | PathLike[str], *, format: str | None = None, progress: bool = False) -> TraceFile:
    """A trace file, to be iterated over or given to a model.

    Parameters
    ----------
    path : the file; gzip, xz and bzip2 are seen through.
    format : "lackey", "champsim", "cloudsuite", "drmemtrace", "gem5", "npy" or "npz"; None: by its content.
    progress : show how much of the file has been read, by tqdm if that is installed.

    Returns
    -------
    TraceFile
        Each iteration gives arrays of RECORD. Damage raises TraceError there, behind the chunks before it.

    Raises
    ------
    TraceError
        The format is not recognized.
    ValueError
        There is no such format.
    OSError
        The file cannot be opened.
    """
    place = Path(path)
    if format is not None and format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    return TraceFile(place, format_of(place) if format is None else format, progress)


assert set(PARSED) < set(FORMATS)
