"""Ports, which receive, and connections, which send to exactly one port (TLFS 11, hyperv-abi.md 9.2, 9.3, 9.5).

A port belongs to the receiving partition, a connection to the sending one. A connection whose port is gone is dead.
What posts and signals is native (hvcore/_native/hv/ports.pxd); here is what pages and pools they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore._native import ports
from hvcore._native.space import READ, WRITE
from hvcore.enums import ANY_VP, OverlayKind, PortType

if TYPE_CHECKING:
    from hvcore.partition import Partition


class Port(ports.Port):
    """One port: where its messages, events or doorbells go."""

    def __init__(
        self,
        owner: Partition,
        port_id: int,
        sender_id: int,
        type: PortType,
        *,
        sint: int = 0,
        vp_index: int = ANY_VP,
        base_flag: int = 0,
        flag_count: int = 0,
        gpa: int = 0,
    ) -> None:
        self.sender_id = sender_id
        """The one partition that may connect."""
        self.type = type
        self.connected = False
        self.monitor = MonitorPage(owner, gpa) if type is PortType.MONITOR else None
        super().__init__(owner.core, port_id, type, sint, vp_index, base_flag, flag_count)

    def close(self) -> int:
        """Lose queued messages and the monitor page; the connection is dead from now on. How many were lost."""
        if self.monitor is not None:
            self.monitor.close()
        return super().close()


class Connection(ports.Connection):
    """One connection of the sending partition."""

    def __init__(
        self,
        owner: Partition,
        connection_id: int,
        port: Port,
        *,
        gpa: int = 0,
        value: int = 0,
        size: int = 0,
        any_value: bool = False,
    ) -> None:
        super().__init__(owner.core, connection_id, port, gpa=gpa, value=value, size=size, any_value=any_value)
        self.owner = owner
        self.target = port
        """The port that it leads to."""
        port.connected = True
        if port.monitor is not None:
            port.monitor.lay(owner, gpa)

    def close(self) -> None:
        """Free the port for another connection; messages that were queued stay."""
        super().close()
        self.target.connected = False
        if self.target.monitor is not None:
            self.target.monitor.lift(self.owner)


class MonitorPage:
    """A page of the hypervisor that lies over the port's GPA in the receiver and the connection's in the sender."""

    def __init__(self, owner: Partition, gpa: int) -> None:
        self._hypervisor = owner.hypervisor
        (self._spn,) = owner.hypervisor.new_frames(1)
        self._overlays: list[tuple[Partition, int]] = []
        self.lay(owner, gpa)

    def lay(self, partition: Partition, gpa: int) -> None:
        """Lay the page over `gpa`."""
        slot = next(n for n in range(1 << 16) if n not in partition.monitor_slots)
        partition.monitor_slots.add(slot)
        partition.space.set_overlay(OverlayKind.MONITOR, slot, gpa >> 12, self._spn, READ | WRITE)
        self._overlays.append((partition, slot))

    def lift(self, partition: Partition) -> None:
        """Take the page away from `partition`."""
        for overlay in [overlay for overlay in self._overlays if overlay[0] is partition]:
            partition.space.clear_overlay(OverlayKind.MONITOR, overlay[1])
            partition.monitor_slots.discard(overlay[1])
            self._overlays.remove(overlay)

    def close(self) -> None:
        """Take the page away from everyone and free it."""
        for partition, _ in list(self._overlays):
            self.lift(partition)
        self._hypervisor.free_frames(self._spn)
