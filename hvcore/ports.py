"""Ports, which receive, and connections, which send to exactly one port (TLFS 11, hyperv-abi.md 9.2, 9.3, 9.5).

A port belongs to the receiving partition, a connection to the sending one. A connection whose port is gone is dead.
What posts and signals is native (hvcore/_native/hv/ports.pxd); here is what pages and pools they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hvcore._native import engine, ports
from hvcore._native.space import READ, WRITE
from hvcore.arguments import MAXIMUM_TICKS, contiguous_array, integer, integer_array, output_array
from hvcore.enums import ANY_VP, OverlayKind, PortType

if TYPE_CHECKING:
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

BUFFERS = 16
"""Messages of one port that can wait; one more is in the slot (section 9.2)."""
PAYLOAD_BYTES = 240
MESSAGE = np.dtype(
    [("type", "<u4"), ("size", "u1"), ("flags", "u1"), ("reserved", "<u2"), ("sender", "<u8"), ("payload", "u1", 240)]
)
"""HV_MESSAGE (section 9.1). Of messages to post, `type`, `size` and `payload` count."""
MESSAGES = "hvcore.ports.MESSAGE"
"""What arrays of them are called in exceptions."""


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
        self.receiver = owner
        """The partition that has it."""
        self.connection: Connection | None = None
        self.monitor = MonitorPage(owner, gpa) if type is PortType.MONITOR else None
        super().__init__(owner.core, port_id, type, sint, vp_index, base_flag, flag_count)

    def close(self) -> int:
        """Lose queued messages and the monitor page; the connection is dead from now on. How many were lost."""
        if self.connection is not None:
            self.connection.unwatch()
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
        port.connection = self
        if port.monitor is not None:
            port.monitor.lay(owner, gpa)
            self.watch(owner.hypervisor.scheduler, owner.hypervisor.memory, port.monitor.spn)

    def post_batch(self, messages: NDArray[Any], *, out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
        """HvCallPostMessage for each of `messages`, in order.

        Parameters
        ----------
        messages : array of MESSAGE, one-dimensional; `make_messages` makes one.
        out : uint16 array of the same length for the statuses, contiguous.

        Returns
        -------
        uint16 array
            An HV_STATUS each; INSUFFICIENT_BUFFERS for what found no free buffer.

        Raises
        ------
        TypeError, ValueError
            An array has another type or shape, is not contiguous, or is for results and cannot be written.
        """
        octets = _octets(messages)
        statuses = _statuses(len(messages), out)
        with self.owner.hypervisor.exclusive():
            ports.post_batch(self, octets, statuses)
        return statuses

    def exchange(
        self,
        messages: NDArray[Any],
        receiver: VirtualProcessor,
        *,
        out: NDArray[np.uint16] | None = None,
        received: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.uint16], NDArray[Any]]:
        """`post_batch` while `receiver` takes messages as `VirtualProcessor.take_messages` does: whenever no buffer is
        free, and at the end.

        Parameters
        ----------
        receiver : a processor that the port's messages go to.
        received : array of MESSAGE for what it takes; by default long enough for all that can be there.

        Returns
        -------
        (statuses, messages taken)

        Raises
        ------
        TypeError, ValueError
            As `post_batch`; or `receiver` is none of the partition that has the port.
        """
        octets = _octets(messages)
        statuses = _statuses(len(messages), out)
        if received is None:
            received = np.empty(len(messages) + BUFFERS + 1, MESSAGE)
        output_array(received, "received", MESSAGE, MESSAGES)
        if not isinstance(receiver, engine.VirtualProcessor):
            raise TypeError(f"receiver must be a VirtualProcessor, not {type(receiver).__name__}")
        if receiver.partition is not self.target.receiver:
            raise ValueError(f"receiver must be a processor of {self.target.receiver!r}, which has the port")
        with self.owner.hypervisor.exclusive():
            taken = ports.exchange(self, octets, statuses, receiver.interrupts, received.view(np.uint8))
        return statuses, received[:taken]

    def post_and_run(
        self, messages: NDArray[Any], *, ticks: int, out: NDArray[np.uint16] | None = None
    ) -> tuple[NDArray[np.uint16], Any]:
        """`post_batch` while guest code takes the messages: whenever no buffer is free, the machine runs.

        Parameters
        ----------
        ticks : how long at most each time, 0 to 2**62. A guest that halts when it has nothing to do comes back at once.

        Returns
        -------
        (statuses, exit of the last run or None)
            A run that frees no buffer, or whose exit the caller must see, is the last: the rest is refused.

        Raises
        ------
        TypeError, ValueError
            As `post_batch`; or `ticks` is no integer in its range.
        """
        octets = _octets(messages)
        statuses = _statuses(len(messages), out)
        ticks = integer(ticks, "ticks", 0, MAXIMUM_TICKS)
        with self.owner.hypervisor.exclusive():
            stopped = ports.post_and_run(self, octets, statuses, ticks)
        return statuses, stopped

    def signal_batch(self, flags: ArrayLike, *, out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
        """HvCallSignalEvent for each of `flags`, numbers from 0 to 65535; an HV_STATUS each, as `post_batch` does."""
        wanted = integer_array(flags, "flags", 0, 0xFFFF, np.uint16)
        if wanted.ndim != 1:
            raise ValueError(f"flags must be one-dimensional, not of shape {wanted.shape}")
        statuses = _statuses(wanted.size, out)
        with self.owner.hypervisor.exclusive():
            ports.signal_batch(self, wanted, statuses)
        return statuses

    def close(self) -> None:
        """Free the port for another connection; messages that were queued stay."""
        super().close()
        self.target.connection = None
        if self.target.monitor is not None:
            self.target.monitor.lift(self.owner)


def make_messages(payloads: ArrayLike, *, types: ArrayLike = 1, sizes: ArrayLike | None = None) -> NDArray[Any]:
    """An array of MESSAGE.

    Parameters
    ----------
    payloads : two-dimensional array of uint8, a row each, of at most 240 bytes.
    types : the type of each, or of all: 1 to 0x7FFFFFFF.
    sizes : how many bytes of each row count; by default all.

    Raises
    ------
    TypeError, ValueError
        `payloads` has another shape or no bytes, a type is out of range, or a size is more than its row has.
    """
    rows = integer_array(payloads, "payloads", 0, 0xFF, np.uint8)
    if rows.ndim != 2 or rows.shape[1] > PAYLOAD_BYTES:
        raise ValueError(f"payloads must be rows of at most {PAYLOAD_BYTES} bytes, not of shape {rows.shape}")
    made = np.zeros(len(rows), MESSAGE)
    made["payload"][:, : rows.shape[1]] = rows
    lengths = rows.shape[1] if sizes is None else sizes
    for name, field, values, lowest, highest in (
        ("types", "type", types, 1, 0x7FFF_FFFF),
        ("sizes", "size", lengths, 0, rows.shape[1]),
    ):
        column = integer_array(values, name, lowest, highest, made.dtype[field])
        if column.ndim and column.shape != (len(rows),):
            raise ValueError(f"{name} must be one number, or {len(rows)}: one for each row, not {column.shape}")
        made[field] = column
    return made


def _octets(messages: NDArray[Any]) -> NDArray[np.uint8]:
    contiguous_array(messages, "messages", MESSAGE, MESSAGES)
    return messages.view(np.uint8)


def _statuses(count: int, out: NDArray[np.uint16] | None) -> NDArray[np.uint16]:
    if out is None:
        return np.empty(count, np.uint16)
    output_array(out, "out", np.uint16, "uint16", count)
    return out


class MonitorPage:
    """A page of the hypervisor that lies over the port's GPA in the receiver and the connection's in the sender."""

    def __init__(self, owner: Partition, gpa: int) -> None:
        self._hypervisor = owner.hypervisor
        (self.spn,) = owner.hypervisor.new_frames(1)
        """The frame, of the hypervisor's reserve."""
        self._overlays: list[tuple[Partition, int]] = []
        self.lay(owner, gpa)

    def lay(self, partition: Partition, gpa: int) -> None:
        """Lay the page over `gpa`."""
        slot = next(n for n in range(1 << 16) if n not in partition.monitor_slots)
        partition.monitor_slots.add(slot)
        partition.space.set_overlay(OverlayKind.MONITOR, slot, gpa >> 12, self.spn, READ | WRITE)
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
        self._hypervisor.free_frames(self.spn)
