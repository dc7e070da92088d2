"""What can be wrong with a trace."""

from __future__ import annotations

from os import PathLike, fspath


class TraceError(ValueError):
    """A trace file is cut or damaged, or is no trace.

    `record` is the number of the record (from 1) that could not be read, `offset` the byte at which it starts, behind
    decompression; both are None where the file as a whole is not understood.
    """

    def __init__(
        self, path: str | PathLike[str], problem: str, *, record: int | None = None, offset: int | None = None
    ) -> None:
        where = "" if record is None else f", record {record:,} at byte {offset:,}"
        super().__init__(f"{fspath(path)}{where}: {problem}")
        self.record, self.offset = record, offset
