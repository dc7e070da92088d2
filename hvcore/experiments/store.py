"""What a sweep has measured so far, in a file of one JSON object a line, so that it can go on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hvcore.experiments.table import Value

Point = Mapping[str, Value]


class StoreError(ValueError):
    """The file is no store, or that of another sweep."""


def key_of(point: Point) -> str:
    """The same text for the same point, whatever the order of its names."""
    return json.dumps(dict(point), sort_keys=True)


class Store:
    """Measured points by key. Without a path it is kept in memory alone.

    A last line that was cut off, because the process died while it wrote, is dropped and measured again.

    Raises
    ------
    StoreError
        The file belongs to a sweep with another title, or a line in its middle is damaged.
    """

    def __init__(self, path: Path | None, title: str) -> None:
        self._path, self._title = path, title
        self._file: IO[str] | None = None
        self.measured: dict[str, dict[str, Value]] = {}

    def __enter__(self) -> Store:
        if self._path is not None:
            whole = self._read(self._path) if self._path.exists() else 0
            self._file = open(self._path, "a", encoding="utf-8")
            self._file.truncate(whole)
            if whole == 0:
                self._write({"sweep": self._title})
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, point: Point, values: dict[str, Value]) -> None:
        """Keep what was measured at a point, on disk before anything else happens."""
        self.measured[key_of(point)] = values
        if self._file is not None:
            self._write({"point": dict(point), "values": values})

    def _write(self, entry: Mapping[str, object]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def _read(self, path: Path) -> int:
        """Take in what the file has; the bytes of it that are whole lines."""
        whole = 0
        for number, (line, entry) in enumerate(_entries(path), 1):
            if entry is None:
                raise StoreError(f"{path}: line {number} is no JSON object")
            if number == 1:
                if entry.get("sweep") != self._title:
                    raise StoreError(f"{path}: holds the sweep {entry.get('sweep')!r}, not {self._title!r}")
            else:
                self.measured[key_of(entry["point"])] = entry["values"]
            whole += len(line)
        return whole


def _entries(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        yield line, entry if isinstance(entry, dict) else None
