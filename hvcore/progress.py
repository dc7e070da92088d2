"""A progress bar: tqdm's where it is installed, a plain line now and then where it is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from hvcore.extras import extra

_SECONDS = 5.0


class Progress(Protocol):
    """What a long work reports to."""

    def update(self, n: int) -> object:
        """So many more are done."""


class _Silent:
    def update(self, n: int) -> None:
        pass


class _Plain:
    """A line on standard error every few seconds."""

    def __init__(self, total: int, unit: str, label: str) -> None:
        self._total, self._unit, self._label = total, unit, label
        self._done = 0
        self._due = time.monotonic() + _SECONDS

    def update(self, n: int) -> None:
        self._done += n
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _SECONDS
            print(f"{self._label}: {self._done} of {self._total} {self._unit}", file=sys.stderr)


@contextmanager
def progress_bar(total: int, *, unit: str, label: str, shown: bool | None = None) -> Iterator[Progress]:
    """A bar over `total` units on standard error; `shown` None shows it only where a person looks on."""
    if not (sys.stderr.isatty() if shown is None else shown):
        yield _Silent()
        return
    try:
        tqdm = extra("tqdm", "progress").tqdm
    except ModuleNotFoundError:
        yield _Plain(total, unit, label)
        return
    with tqdm(total=total, unit=unit, desc=label, file=sys.stderr) as bar:
        yield bar
