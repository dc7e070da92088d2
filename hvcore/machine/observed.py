"""Who is shown what a device asks for: models of IOTLBs, recorders of traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hvcore.experiments.device_traces import requests_of
from hvcore.experiments.records import Kind

if TYPE_CHECKING:
    from hvcore.processor import Listener

_DOMAINS = 0xFFFF


class Observed:
    """What a device and its listeners have to do with each other."""

    def __init__(self) -> None:
        self._listeners: list[tuple[Listener, int]] = []

    def attach(self, *listeners: Listener, domain: int = 0) -> None:
        """Let models, recorders or anything else with a `consume` see what the device reads and writes from now on.

        They get arrays of hvcore.experiments.RECORD by device address: a load or a store for each page of 4 KiB that an
        access touches, which is what a remapping unit is asked, whether or not it will be blocked. Interrupt messages
        are none of it. Nothing else changes.

        Parameters
        ----------
        domain : `asid` of the records, for listeners that several devices share: 0 to 65534.

        Raises
        ------
        TypeError
            A listener has no `consume`.
        ValueError
            A listener would be attached twice, or `domain` is out of range.
        """
        if not 0 <= domain < _DOMAINS:
            raise ValueError(f"domain must be 0 to {_DOMAINS - 1}, not {domain}")
        for listener in listeners:
            if not callable(getattr(listener, "consume", None)):
                raise TypeError(f"a listener must have a method consume(records), not {type(listener).__name__}")
        together = [*self._listeners, *((listener, domain) for listener in listeners)]
        if len({id(listener) for listener, _ in together}) < len(together):
            raise ValueError("a listener is attached twice")
        self._listeners = together

    def detach(self, *listeners: Listener) -> None:
        """Stop showing accesses to these, or to all.

        Raises
        ------
        ValueError
            One of them is not attached.
        """
        gone = {id(listener) for listener in listeners}
        left = [one for one in self._listeners if id(one[0]) not in gone]
        if len(left) != len(self._listeners) - len(gone):
            raise ValueError("a listener that is to be detached is not attached")
        self._listeners = left if listeners else []

    def _show(self, iovas: NDArray[np.uint64], size: int, kind: Kind) -> None:
        """Every one of `size` bytes."""
        for listener, domain in self._listeners:
            listener.consume(requests_of(iovas, size, kind, asid=domain))
