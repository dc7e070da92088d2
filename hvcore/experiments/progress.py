"""A progress bar: tqdm's where it is installed, a line with the percentage where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol, TypeVar

from hvcore.extras import extra

Part = TypeVar("Part")


class Progress(Protocol):
    """What a long work reports to."""

    def update(self, n: int) -> object:
        """So many more are done."""


class _Silent:
    def update(self, n: int) -> None:
        pass


class _Plain:
    def __init__(self, total: int, label: str) -> None:
        self._total, self._label = max(total, 1), label
        self._done = 0
        self._shown = -1

    def update(self, n: int) -> None:
        self._done += n
        percent = self._done * 100 // self._total
        if percent > self._shown:
            self._shown = percent
            print(f"\r{self._label}: {percent} %", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._shown >= 0:
            print(file=sys.stderr)


@contextmanager
def progress_bar(total: int, *, unit: str, label: str, shown: bool | None = None) -> Iterator[Progress]:
    """A bar over `total` units on standard error; `shown` None shows it only where a person looks on."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield _Silent()
        return
    try:
        bar = extra("tqdm", "progress").tqdm(total=total, unit=unit, unit_scale=True, desc=label, file=sys.stderr)
    except ModuleNotFoundError:
        bar = _Plain(total, label)
    try:
        yield bar
    finally:
        bar.close()


def followed(parts: Iterable[Part], file: IO[bytes], progress: Progress) -> Iterator[Part]:
    """The same parts, which are read from an open file; behind each, how far the file has been read is reported."""
    done = 0
    for part in parts:
        yield part
        place = file.tell()
        progress.update(place - done)
        done = place
