"""One interrupt source of the machine, and where it goes. hvcore/routing.py makes them and finds them by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

Line = Callable[[bool], int]
"""Drives an interrupt line of the root: called with its new level, gives the number of processors that accepted."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a source goes: `vector` at the processors `vps` of `partition`.

    `multicast`: every one of them receives it; otherwise the one of the lowest priority, and of equals the first.
    """

    partition: Partition
    vps: tuple[int, ...]
    vector: int
    level: bool = False
    multicast: bool = False

    def targets(self) -> list[VirtualProcessor]:
        """The processors that receive it now. Those that do not exist (any more) are left out."""
        there = [self.partition.vps[index] for index in self.vps if index in self.partition.vps]
        if self.multicast or len(there) < 2:
            return there
        return [min(there, key=lambda vp: (vp.interrupts.processor_priority, vp.index))]


class InterruptSource:
    """One source. `counts`: "asserted" by who drives it, "delivered" to a processor, "lost" for want of a receiver.

    A device counts "messages" instead of assertions, and "blocked" for those that interrupt remapping refused.
    """

    def __init__(self, hypervisor: Hypervisor, name: str, *, level: bool = False, line: Line | None = None) -> None:
        self.hypervisor = hypervisor
        self.name = name
        self.level = level
        """It stays asserted until it is deasserted; False: an edge."""
        self.route: Route | None = None
        """None: the root's, as its line or, for a device, as the message says."""
        self.asserted = False
        self.counts: Counter[str] = Counter()
        self._line = line

    def __repr__(self) -> str:
        return f"InterruptSource({self.name!r}, route={self.route})"

    @property
    def partition(self) -> Partition:
        """Who receives it."""
        return self.hypervisor.root if self.route is None else self.route.partition

    def assert_(self) -> int:
        """Raise it; the number of processors that accepted. A level that is asserted already stays so.

        Raises RuntimeError when the hypervisor was closed."""
        self.hypervisor.require_open()
        with self.hypervisor.exclusive():
            self.counts["asserted"] += 1
            if self.asserted:
                return 0
            self.asserted = self.level
            return self._drive(True)

    def deassert(self) -> None:
        """Let a level fall: what was not delivered yet is withdrawn. An edge stays requested."""
        with self.hypervisor.exclusive():
            self.asserted = False
            self._drive(False)

    def pulse(self) -> int:
        """Assert and deassert: an edge. A level that nobody takes in between is gone."""
        accepted = self.assert_()  # noqa: UP005
        self.deassert()
        return accepted

    def end(self, vp: VirtualProcessor, vector: int) -> bool:
        """A processor ended `vector`: a level that is still asserted comes again, as from an I/O APIC pin. False: it
        was not of this source."""
        route = self.route
        if route is None or not route.level or route.vector != vector or vp.partition is not route.partition \
                or vp.index not in route.vps:
            return False
        if self.asserted:
            self.counts["delivered"] += 1
            vp.interrupts.route_interrupt(vector, level=True)
        return True

    def send(self, route: Route) -> int:
        """Request the interrupt at the processors of `route`; how many there were."""
        targets = route.targets()
        for vp in targets:
            vp.interrupts.route_interrupt(route.vector, level=route.level)
        self.counts["delivered"] += len(targets)
        self.counts["lost"] += not targets
        return len(targets)

    def change(self, route: Route | None) -> None:
        """Give it another receiver; a level that is asserted is taken from the old one and given to the new one."""
        if self.asserted:
            self._drive(False)
        self.route = route
        if self.asserted:
            self._drive(True)

    def _drive(self, level: bool) -> int:
        if self.route is None:
            if self._line is None:
                self.counts["lost"] += level
                return 0
            accepted = self._line(level)
            self.counts["delivered"] += accepted
            return accepted
        if level:
            return self.send(self.route)
        if self.level:
            for vp in self.route.targets():
                vp.interrupts.withdraw_interrupt(self.route.vector)
        return 0
