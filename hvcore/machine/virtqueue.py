"""A split virtqueue as a device sees it (virtio 1.2, 2.7): rings and descriptors in the driver's memory.

Everything is read by the device's own DMA. A ring that breaks the rules is `Broken`: no chain is longer than the
queue, no pass longer than the entries that the ring can hold, whatever a driver writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack, unpack
from typing import TYPE_CHECKING

from hvcore.machine.device import DmaStatus

if TYPE_CHECKING:
    from hvcore.machine.device import Device

MAXIMUM_SIZE = 256
NEXT, WRITE, INDIRECT = 1, 2, 4
NO_INTERRUPT = 1
_DESCRIPTOR_BYTES = 16


class Broken(Exception):
    """The driver broke the rules of the ring, or its memory cannot be reached: the device needs a reset."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a request."""

    iova: int
    size: int


@dataclass(frozen=True, slots=True)
class Request:
    """A descriptor chain: what the device reads, then what it writes."""

    head: int
    readable: tuple[Segment, ...]
    writable: tuple[Segment, ...]


class Virtqueue:
    """One queue: its registers, and how far device and driver have come."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        """As after power-on."""
        self.size = MAXIMUM_SIZE
        self.vector = 0xFFFF
        self.enabled = False
        self.descriptors = 0
        self.available = 0
        self.used = 0
        self.event_index = False
        self.may_be_indirect = False
        self._next_available = 0
        self._next_used = 0

    def take(self) -> Request | None:
        """The next request that the driver has made available, or None. Raises Broken."""
        waiting = self._word(self.available + 2) - self._next_available & 0xFFFF
        if waiting > self.size:
            raise Broken(f"{waiting} entries are available in a ring of {self.size}")
        if waiting == 0:
            return None
        head = self._word(self.available + 4 + 2 * (self._next_available % self.size))
        if head >= self.size:
            raise Broken(f"descriptor {head} in a queue of {self.size}")
        self._next_available = self._next_available + 1 & 0xFFFF
        return self._chain(head)

    def ask_for_notifications(self) -> None:
        """Let the driver notify for the next entry that it makes available."""
        if self.event_index:
            self._store(self.used + 4 + 8 * self.size, pack("<H", self._next_available))

    def put(self, request: Request, written: int) -> bool:
        """Give a request back: whether the driver wants an interrupt. Raises Broken."""
        slot = self.used + 4 + 8 * (self._next_used % self.size)
        self._store(slot, pack("<II", request.head, written))
        before, self._next_used = self._next_used, self._next_used + 1 & 0xFFFF
        self._store(self.used + 2, pack("<H", self._next_used))
        if self.event_index:
            event = self._word(self.available + 4 + 2 * self.size)
            return self._next_used - event - 1 & 0xFFFF < self._next_used - before & 0xFFFF
        return not self._word(self.available) & NO_INTERRUPT

    def _chain(self, head: int) -> Request:
        table, entries, indirect, index = self.descriptors, self.size, False, head
        parts: tuple[list[Segment], list[Segment]] = ([], [])
        for _ in range(self.size):
            iova, size, flags, following = unpack("<QIHH", self._load(table + _DESCRIPTOR_BYTES * index, 16))
            if flags & INDIRECT:
                if indirect or flags & NEXT or not self.may_be_indirect or size % _DESCRIPTOR_BYTES or not size:
                    raise Broken("an indirect table that is nested, chained, not negotiated or of a wrong size")
                table, entries, indirect, index = iova, size // _DESCRIPTOR_BYTES, True, 0
                continue
            if parts[1] and not flags & WRITE:
                raise Broken("a descriptor to be read behind one to be written")
            if iova + size > 1 << 64:
                raise Broken(f"a descriptor of {size:#x} bytes at {iova:#x}")
            parts[bool(flags & WRITE)].append(Segment(iova, size))
            if not flags & NEXT:
                return Request(head, tuple(parts[0]), tuple(parts[1]))
            index = following
            if index >= entries:
                raise Broken(f"descriptor {index} in a table of {entries}")
        raise Broken(f"a chain of more than {self.size} descriptors")

    def _word(self, iova: int) -> int:
        return int.from_bytes(self._load(iova, 2), "little")

    def _load(self, iova: int, size: int) -> bytes:
        iova &= (1 << 64) - 1
        data = self.device.read(iova, size) if iova + size <= 1 << 64 else b""
        if not data or self.device.status is not DmaStatus.DONE:
            raise Broken(f"the ring at {iova:#x} cannot be read")
        return data

    def _store(self, iova: int, data: bytes) -> None:
        iova &= (1 << 64) - 1
        if iova + len(data) > 1 << 64 or self.device.write(iova, data) is not DmaStatus.DONE:
            raise Broken(f"the ring at {iova:#x} cannot be written")
