"""A device: what reaches memory by a requester id of its own, and interrupts by messages.

With a remapping unit in front, an access goes through it. Without one, a device sees the guest physical addresses
of the partition that owns it, with the rights that the partition has there, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hvcore._native.space import READ, WRITE

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition

INTERRUPT_FIRST, INTERRUPT_LAST = 0xFEE0_0000, 0xFEEF_FFFF
"""Stores there are interrupt messages, whatever lies behind (SDM 3A 11.11)."""
_PAGE = 4096
_PCI = 1 << 62
"""HV_DEVICE_ID type 1: a PCI requester."""


class DmaStatus(IntEnum):
    """How the last access of a device ended."""

    DONE = 0
    BLOCKED = 1
    """By the unit, which has recorded why, or, without a unit, because the owner has no such memory."""
    NOT_MASTER = 2
    """A PCI function whose command register does not let it access memory."""


class Device:
    """A device of the machine, or the base class of your own.

    What an access comes to is not raised: a blocked read gives FF bytes, as a read that nothing completes does on a
    bus, a blocked write stores nothing there. `status` tells how the last access ended, and `counters` how many bytes
    were read, written and blocked. Why is in the fault records of the unit.

    Parameters
    ----------
    hypervisor : Hypervisor
    requester_id : int
        0 to FFFFh: bus, device and function in bits 15:8, 7:3 and 2:0.

    Raises
    ------
    ValueError
        `requester_id` is out of range or taken.
    """

    def __init__(self, hypervisor: Hypervisor, *, requester_id: int) -> None:
        self.hypervisor = hypervisor
        self.counters: Counter[str] = Counter()
        self.status = DmaStatus.DONE
        self.owner: Partition = hypervisor.root
        """Whose device it is: the root's, or that of the child it was attached to."""
        self.messages: dict[int, tuple[int, int]] = {}
        """What `raise_msi` sends: (address, data) by number."""
        self._requester_id = -1
        hypervisor.machine.add_device(self, requester_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(requester_id={self.requester_id:#06x})"

    @property
    def requester_id(self) -> int:
        """Bus, device and function: by what the unit knows it."""
        return self._requester_id

    @property
    def device_id(self) -> int:
        """HV_DEVICE_ID, as hypercalls name it."""
        return _PCI | self._requester_id

    @property
    def is_master(self) -> bool:
        """It may access memory."""
        return True

    def read(self, iova: int, size: int) -> bytes:
        """`size` bytes at `iova`, FF where the access was blocked.

        Raises
        ------
        ValueError
            `iova` and `size` are not a range of 64-bit addresses.
        """
        data = np.empty(size if size >= 0 else 0, np.uint8)
        _require_range(iova, size)
        self.read_into(iova, data)
        return data.tobytes()

    def read_into(self, iova: int, out: Any) -> DmaStatus:
        """Fill a writable buffer, a NumPy array for instance, from `iova`."""
        target = memoryview(out).cast("B")
        _require_range(iova, target.nbytes)
        if not self._may_begin(target.nbytes):
            target[:] = b"\xff" * target.nbytes
            return self.status
        unit = self.hypervisor.machine.unit
        blocked = 0
        for at, size in _pages(iova, target.nbytes):
            offset = at - iova
            data = self._read_owned(at, size) if unit is None else unit.read_memory(self.requester_id, at, size)
            target[offset : offset + size] = b"\xff" * size if data is None else data
            blocked += size if data is None else 0
        return self._account("read", target.nbytes, blocked)

    def write(self, iova: int, data: Any) -> DmaStatus:
        """Store a buffer, `bytes` or a NumPy array for instance, at `iova`. A store of four bytes to FEEx_xxxxh is an
        interrupt message."""
        source = memoryview(data).cast("B")
        _require_range(iova, source.nbytes)
        if not self._may_begin(source.nbytes):
            return self.status
        unit = self.hypervisor.machine.unit
        blocked = 0
        for at, size in _pages(iova, source.nbytes):
            piece = source[at - iova : at - iova + size]
            if INTERRUPT_FIRST <= at <= INTERRUPT_LAST:
                done = size == 4 and self.send_message(at, int.from_bytes(piece, "little"))
            elif unit is None:
                done = self._write_owned(at, piece)
            else:
                done = unit.write_memory(self.requester_id, at, piece)
            blocked += 0 if done else size
        return self._account("written", source.nbytes, blocked)

    def raise_msi(self, number: int = 0) -> bool:
        """Send message `number` of `messages`; whether it reached a processor.

        Raises
        ------
        KeyError
            Nobody has set that message.
        """
        return self.send_message(*self.messages[number])

    def send_message(self, address: int, data: int) -> bool:
        """An interrupt message, through interrupt remapping and the hypervisor's routing: whether it reached a
        processor."""
        self.counters["messages"] += 1
        return bool(self.hypervisor.machine.send_message(self, address, data))

    def _may_begin(self, size: int) -> bool:
        if self.is_master:
            return True
        self.status = DmaStatus.NOT_MASTER
        self.counters["bytes_blocked"] += size
        return False

    def _account(self, what: str, size: int, blocked: int) -> DmaStatus:
        self.counters[f"bytes_{what}"] += size - blocked
        self.counters["bytes_blocked"] += blocked
        self.status = DmaStatus.BLOCKED if blocked else DmaStatus.DONE
        return self.status

    def _read_owned(self, gpa: int, size: int) -> bytes | None:
        spa = self._locate(gpa, READ)
        return None if spa is None else self.hypervisor.memory.read(spa, size)

    def _write_owned(self, gpa: int, data: memoryview) -> bool:
        spa = self._locate(gpa, WRITE)
        if spa is not None:
            self.hypervisor.memory.write(spa, data)
        return spa is not None

    def _locate(self, gpa: int, right: int) -> int | None:
        found = self.owner.space.resolve(gpa)
        return found[0] if found is not None and found[1] & right else None


def _require_range(iova: int, size: int) -> None:
    if size < 0 or not 0 <= iova <= (1 << 64) - size:
        raise ValueError(f"iova {iova:#x} with {size:#x} bytes is no range of 64-bit addresses")


def _pages(iova: int, size: int) -> list[tuple[int, int]]:
    """(address, bytes) of what a range has in each page."""
    found = []
    end = iova + size
    while iova < end:
        piece = min(end - iova, _PAGE - iova % _PAGE)
        found.append((iova, piece))
        iova += piece
    return found
