"""Counts of interrupts, always kept; latencies and a trace while somebody watches (docs/interrupts.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hvcore._native import engine
from hvcore._native.irqchip import InterruptObservation
from hvcore.arguments import integer, integers

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.processor import VirtualProcessor

Counts = NDArray[np.uint64]

VECTORS = 256
SINTS = 16
NO_SINT = 0xFF
_ANY = (1 << 64) - 1
_CAPACITY_MAXIMUM = 1 << 28
NOT_SEEN = _ANY
"""The latency of a delivery whose request was made before the trace began."""


class InterruptSource(IntEnum):
    """Who requests interrupts; numbers of _native/irq/observer.pxd."""

    UNKNOWN, SELF_IPI, IPI, SYNTHETIC_TIMER, MESSAGE, EVENT, UNHALTED_TIMER, APIC_TIMER, LOCAL = range(9)
    IO_APIC, PIC, MSI, PARENT, IPI_HYPERCALL, HOST, OTHER = range(9, 16)


class InterruptEvent(IntEnum):
    """What a record of a trace tells; numbers of _native/irq/observer.pxd. `value` means what is said here."""

    ASSERTED = 1
    """Requested. 1: by a processor that is ahead in time, so that it arrives later."""
    ACCEPTED = 2
    """Into the request register of the APIC. 1: level-triggered."""
    MERGED = 3
    """Requested while the same vector waited already."""
    DELIVERED = 4
    """Its handler begins. The latency in ticks; NOT_SEEN if the request was made before the trace began."""
    EOI = 5
    """Its handler has ended. 1: the guest left it to its assist page."""
    WITHDRAWN = 6
    LOST = 7
    """The APIC was disabled."""
    MESSAGE_QUEUED = 8
    """The message type."""
    MESSAGE_DELIVERED = 9
    """Into its slot. The message type."""
    EVENT_SIGNALED = 10
    """The flag."""
    TIMER_EXPIRED = 11
    """The number of the synthetic timer."""
    IPI_SENT = 12
    """The interrupt command register."""
    ROUTED = 13
    """A source of the machine was handed to this processor by `hypervisor.interrupts`. Its APIC id."""


RECORD = np.dtype(
    [
        ("time", "<u8"),
        ("value", "<u8"),
        ("partition", "<u4"),
        ("vp", "<u4"),
        ("flow", "<u4"),
        ("kind", "u1"),
        ("vector", "u1"),
        ("sint", "u1"),
        ("source", "u1"),
    ]
)
"""One event: ticks of 1 ns; a number that depends on `kind`; whose it is; a number that a request and its delivery
share (0: none); an InterruptEvent; the vector, 2 for an NMI; the SINT or NO_SINT; an InterruptSource."""


@dataclass(frozen=True)
class InterruptStatistics:
    """Counts of one virtual processor since it was created, as arrays of uint64."""

    requested: Counts
    """[256] fixed interrupts requested, per vector."""
    delivered: Counts
    """[256] of them that reached a handler, per vector."""
    sources: Counts
    """[16] requests per InterruptSource."""
    sint_interrupts: Counts
    """[16] requests that a SINT made."""
    sint_messages: Counts
    """[16] messages put into the slot of a SINT."""
    sint_events: Counts
    """[16] event flags of a SINT that became set."""

    @classmethod
    def of(cls, tallies: tuple[bytes, ...]) -> InterruptStatistics:
        """From what a controller keeps."""
        return cls(*(np.frombuffer(part, "<u8") for part in tallies))

    def requests_by_source(self) -> dict[str, int]:
        """Names of sources, and how often each requested an interrupt; those that did."""
        return {source.name: int(self.sources[source]) for source in InterruptSource if self.sources[source]}


@dataclass(frozen=True)
class Latencies:
    """Histograms of the ticks between the first request of an interrupt and the first instruction of its handler."""

    edges: Counts
    """Bucket i holds latencies of at least edges[i - 1] and less than edges[i]; the first and last bucket are open."""
    by_vector: Counts
    """[256, buckets]; row 2 has the NMIs."""
    by_sint: Counts
    """[16, buckets]"""
    by_source: Counts
    """[16, buckets], per InterruptSource."""

    def __add__(self, other: Latencies) -> Latencies:
        return Latencies(
            self.edges,
            self.by_vector + other.by_vector,
            self.by_sint + other.by_sint,
            self.by_source + other.by_source,
        )


class InterruptTrace:
    """An open observation of the interrupts of all virtual processors; made by Hypervisor.trace_interrupts.

    It ends with close() or the `with` statement; what it has found stays readable.
    """

    def __init__(self, hypervisor: Hypervisor, *, capacity: int, edges: Sequence[int] | None) -> None:
        if hypervisor.interrupt_trace is not None:
            raise RuntimeError("a trace of interrupts is open already: close it first")
        hypervisor.require_open()
        self._hypervisor = hypervisor
        given = None if edges is None else integers(edges, "edges", 0, _ANY)
        self._native = InterruptObservation(integer(capacity, "capacity", 0, _CAPACITY_MAXIMUM), given)
        bounds = given or [1 << bit for bit in range(self._native.bucket_count - 1)]
        self._edges = np.array(bounds, np.uint64)
        self._watched: dict[VirtualProcessor, tuple[int, int]] = {}
        self._past: dict[tuple[int, int], Latencies] = {}
        with hypervisor.exclusive():
            hypervisor.interrupt_trace = self
            for vp in hypervisor.partition_of:
                self.watch(vp)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"InterruptTrace(events={len(self)}, lost={self.lost}, open={self.is_open})"

    def __len__(self) -> int:
        """Events that are there."""
        return min(self._native.recorded, self._native.capacity)

    @property
    def is_open(self) -> bool:
        """It goes on."""
        return self._hypervisor.interrupt_trace is self

    @property
    def lost(self) -> int:
        """Events that newer ones have overwritten; with a capacity of 0 nothing is recorded, and nothing lost."""
        return self._native.recorded - len(self)

    def close(self) -> None:
        """End it. Watching costs nothing from then on."""
        if self.is_open:
            with self._hypervisor.exclusive():
                for vp in list(self._watched):
                    self.release(vp)
                self._hypervisor.interrupt_trace = None

    def watch(self, vp: VirtualProcessor) -> None:
        """Called for each virtual processor that there is, and for each new one."""
        name = (vp.partition.id, vp.index)
        self._native.attach(vp.interrupts, *name)
        self._watched[vp] = name

    def release(self, vp: VirtualProcessor) -> None:
        """Called for a virtual processor that goes."""
        name = self._watched.pop(vp)
        found = self._latencies(self._native.detach(vp.interrupts))
        self._past[name] = self._past[name] + found if name in self._past else found

    def events(self) -> NDArray[Any]:
        """The events in the ring, oldest first, as a new array of RECORD."""
        return np.frombuffer(self._native.records(), RECORD)

    def latencies(self, vp: VirtualProcessor | None = None) -> Latencies:
        """Histograms of all virtual processors together, or of one.

        Raises
        ------
        TypeError
            `vp` is no processor.
        ValueError
            `vp` was not watched.
        """
        if vp is not None and not isinstance(vp, engine.VirtualProcessor):
            raise TypeError(f"vp must be a VirtualProcessor, not {type(vp).__name__}")
        everything = dict(self._past)
        for one, name in self._watched.items():
            found = self._latencies(self._native.latencies(one.interrupts))
            everything[name] = everything[name] + found if name in everything else found
        if vp is not None:
            name = (vp.partition.id, vp.index)
            if vp.partition.hypervisor is not self._hypervisor or name not in everything:
                raise ValueError(f"vp must be a processor that was watched, not {vp!r}")
            return everything[name]
        buckets = self._native.bucket_count
        nothing = (bytes(VECTORS * buckets * 8), bytes(SINTS * buckets * 8), bytes(len(InterruptSource) * buckets * 8))
        return sum(everything.values(), self._latencies(nothing))

    def samples(self) -> Counts:
        """The exact latencies, in ticks, of the deliveries that are in the ring, oldest first."""
        events = self.events()
        delivered = events[events["kind"] == InterruptEvent.DELIVERED]
        return np.asarray(delivered["value"][delivered["value"] != NOT_SEEN], np.uint64)

    def write_chrome(self, path: str | PathLike[str]) -> int:
        """Write the events in the ring as JSON that chrome://tracing and Perfetto open; how many entries that made.

        A process is a partition, a thread a virtual processor; handlers are durations from delivery to EOI, requests
        are on threads of their own, one per source, with an arrow to the delivery.
        """
        from hvcore.interrupt_export import write_chrome

        return write_chrome(self.events(), path)

    def _latencies(self, parts: tuple[bytes, ...]) -> Latencies:
        buckets = self._native.bucket_count
        return Latencies(self._edges, *(np.frombuffer(part, "<u8").reshape(-1, buckets) for part in parts))
