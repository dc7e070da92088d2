"""How far a file has been read: a bar by tqdm, or a line of text where that is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

Part = TypeVar("Part")


class Progress:
    """Follows the position in an open file of known size."""

    def __init__(self, path: Path, file: IO[bytes], *, shown: bool) -> None:
        self._file, self._done, self._name = file, 0, path.name
        self._size = path.stat().st_size
        self._bar: Any = None
        self._shown = shown
        if shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=self._size, desc=path.name, unit="B", unit_scale=True)

    def follow(self, parts: Iterable[Part]) -> Iterator[Part]:
        """The same parts; the position is looked at behind each."""
        for part in parts:
            yield part
            if self._shown:
                self._move(self._file.tell())

    def _move(self, place: int) -> None:
        if self._bar is not None:
            self._bar.update(place - self._done)
        elif self._size and place * 100 // self._size > self._done * 100 // self._size:
            print(f"\r{self._name}: {place * 100 // self._size} %", end="", file=sys.stderr, flush=True)
        self._done = place

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown and self._done:
            print(file=sys.stderr)
