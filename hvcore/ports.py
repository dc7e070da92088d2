"""Ports, which receive, and connections, which send to exactly one port (TLFS 11, hyperv-abi.md 9.2, 9.3, 9.5).

A port belongs to the receiving partition, a connection to the sending one. A connection whose port is gone is dead.
"""

from __future__ import annotations

from struct import pack_into, unpack_from
from typing import TYPE_CHECKING

from hvcore._native.irqchip import MessagePort
from hvcore._native.space import READ, WRITE
from hvcore.enums import ANY_VP, OverlayKind, PartitionState, PortType, Status
from hvcore.hypercalls.abi import Refused

if TYPE_CHECKING:
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

_SINT0_MSR = 0x4000_0090
_SINT_MASKED = 1 << 16
_RING_BYTES = 256
_RING_SLOTS = 63


class Port:
    """One port: where its messages, events or doorbells go."""

    def __init__(
        self,
        owner: Partition,
        port_id: int,
        sender_id: int,
        kind: PortType,
        *,
        sint: int = 0,
        vp_index: int = ANY_VP,
        gpa: int = 0,
    ) -> None:
        self.owner = owner
        self.id = port_id
        self.sender_id = sender_id
        """The one partition that may connect."""
        self.type = kind
        self.sint = sint
        self.vp_index = vp_index
        self.base_flag = 0
        self.flag_count = 0
        self.connection: Connection | None = None
        self.alive = True
        self.buffers = MessagePort()
        self.monitor = MonitorPage(owner, gpa) if kind is PortType.MONITOR else None

    def post(self, message_type: int, payload: bytes) -> None:
        """Queue a message at the first virtual processor that accepts messages."""
        for vp in self._targets():
            if vp.interrupts.accepts_messages:
                queued = vp.interrupts.post_message(
                    self.buffers, sint=self.sint, message_type=message_type, sender=self.id, payload=payload
                )
                if not queued:
                    raise Refused(Status.INSUFFICIENT_BUFFERS)
                return
        raise Refused(Status.INVALID_SYNIC_STATE)

    def signal(self, flag: int) -> None:
        """Set flag `flag` of this port at the first virtual processor that accepts events on its SINT."""
        for vp in self._targets():
            if vp.interrupts.signal_event(sint=self.sint, flag=self.base_flag + flag) is not None:
                return
        raise Refused(Status.INVALID_SYNIC_STATE)

    def ring(self) -> None:
        """Put this port's id into the event ring of its SINT, and interrupt unless the consumer masked that."""
        for vp in self._targets():
            offset = self.sint * _RING_BYTES
            page = self.owner.hypervisor.memory.page(self.owner.frames[vp.index].event_ring)
            masked = page[offset]
            slot = self.owner.ring_heads.get((vp.index, self.sint), 0)
            if unpack_from("<I", page, offset + 4 + 4 * slot)[0]:
                page[offset + 1] = 1
            else:
                pack_into("<I", page, offset + 4 + 4 * slot, self.id)
                self.owner.ring_heads[vp.index, self.sint] = (slot + 1) % _RING_SLOTS
            if not masked:
                page[offset] = 1
                self._interrupt(vp)
            return

    def close(self) -> None:
        """Lose queued messages and the monitor page; the connection is dead from now on."""
        self.alive = False
        self.buffers.discard()
        if self.monitor is not None:
            self.monitor.close()

    def _interrupt(self, vp: VirtualProcessor) -> None:
        setting = vp.interrupts.read_msr(_SINT0_MSR + self.sint, self.owner.reference_time)
        if setting is not None and not setting & _SINT_MASKED:
            vp.interrupts.assert_interrupt(setting & 0xFF)

    def _targets(self) -> list[VirtualProcessor]:
        if self.vp_index == ANY_VP:
            vps = [vp for _, vp in sorted(self.owner.vps.items())]
        else:
            vps = [self.owner.vps[self.vp_index]] if self.vp_index in self.owner.vps else []
        if not vps:
            raise Refused(Status.INVALID_VP_INDEX)
        return vps


class Connection:
    """One connection of the sending partition."""

    def __init__(self, owner: Partition, connection_id: int, port: Port, *, gpa: int) -> None:
        self.owner = owner
        self.id = connection_id
        self.port = port
        self.gpa = gpa
        self.type = port.type
        self.size = 0
        self._value: int | None = None

    @property
    def alive(self) -> bool:
        """The port exists and its owner is active."""
        return self.port.alive and self.port.owner.state is PartitionState.ACTIVE

    def set_trigger(self, value: int, *, size_code: int, any_value: bool) -> None:
        """What a write must be to ring this doorbell; size code 0 is any size, n is 2**(n-1) bytes."""
        self.size = 1 << size_code >> 1
        self._value = None if any_value else value

    def is_rung_by(self, gpa: int, size: int, value: int) -> bool:
        """A write of `value` at `gpa` matches this doorbell."""
        return (
            self.type is PortType.DOORBELL
            and gpa == self.gpa
            and self.size in (0, size)
            and self._value in (None, value)
        )


class MonitorPage:
    """A page of the hypervisor that lies over the port's GPA in the receiver and the connection's in the sender."""

    def __init__(self, owner: Partition, gpa: int) -> None:
        self._hypervisor = owner.hypervisor
        (self._spn,) = owner.hypervisor.new_frames(1)
        self._overlays: list[tuple[Partition, int]] = []
        self.lay(owner, gpa)

    def lay(self, partition: Partition, gpa: int) -> int:
        """Lay the page over `gpa`; the number by which `lift` takes it away."""
        slot = next(n for n in range(1 << 16) if n not in partition.monitor_slots)
        partition.monitor_slots.add(slot)
        partition.space.set_overlay(OverlayKind.MONITOR, slot, gpa >> 12, self._spn, READ | WRITE)
        self._overlays.append((partition, slot))
        return slot

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
