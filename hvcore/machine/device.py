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
from hvcore.experiments.records import Kind
from hvcore.machine.observed import Observed
from hvcore.paging.results import Translations

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


COLUMNS = {
    "gpa": np.uint64,
    "spa": np.uint64,
    "page_shift": np.uint8,
    "nested_page_shift": np.uint8,
    "status": np.uint8,
    "reason": np.uint8,
    "table_references": np.uint8,
    "references": np.uint8,
    "nested_references": np.uint8,
}
"""The columns of a batch of device addresses and their types."""
_NO_MEMORY = 4
"""RemapStatus of hvcore.iommu: the partition has no such memory, or not the right to it."""
_ACCESSES = {"r": READ, "w": WRITE, "rw": READ | WRITE}


class DeviceTranslations(Translations):
    """Columns of translated device addresses: those of a processor's, with numbers of RemapStatus as `status`,
    `reason`, the fault reason of the unit, for the error code, and `table_references`, entries of root, context and
    PASID tables that were read."""

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name in COLUMNS:
            return self.columns[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)


class Device(Observed):
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
        super().__init__()
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
        return self.read_batch(np.array([iova], np.uint64), target)

    def write(self, iova: int, data: Any) -> DmaStatus:
        """Store a buffer, `bytes` or a NumPy array for instance, at `iova`. A store of four bytes to FEEx_xxxxh is an
        interrupt message."""
        source = memoryview(data).cast("B")
        _require_range(iova, source.nbytes)
        if source.nbytes == 4 and INTERRUPT_FIRST <= iova <= INTERRUPT_LAST and iova % 4 == 0:
            if self._may_begin(4):
                self.send_message(iova, int.from_bytes(source, "little"))
                self._account("written", 4, 4)
            return self.status
        return self.write_batch(np.array([iova], np.uint64), source)

    def read_batch(self, iovas: ArrayLike, out: Any) -> DmaStatus:
        """Fill equal parts of a writable buffer, one from each address, in order.

        Raises
        ------
        ValueError
            The buffer does not divide into as many parts as there are addresses.
        """
        target = memoryview(out).cast("B")
        addresses, part = _parts(iovas, target.nbytes)
        if not target.nbytes or not self._may_begin(target.nbytes):
            target[:] = b"\xff" * target.nbytes
            return self.status
        self._show(addresses, part, Kind.LOAD)
        unit = self.hypervisor.machine.unit
        if unit is not None:
            return self._account("read", target.nbytes, unit.read_batch(self.requester_id, addresses, target))
        done = 0
        for number, iova in enumerate(addresses.tolist()):
            for at, size in _pages(iova, part):
                offset = number * part + at - iova
                spa = self._locate(at, READ)
                data = b"\xff" * size if spa is None else self.hypervisor.memory.read(spa, size)
                target[offset : offset + size] = data
                done += 0 if spa is None else size
        return self._account("read", target.nbytes, done)

    def write_batch(self, iovas: ArrayLike, data: Any) -> DmaStatus:
        """Store equal parts of a buffer, one at each address, in order. Raises ValueError as `read_batch` does."""
        source = memoryview(data).cast("B")
        addresses, part = _parts(iovas, source.nbytes)
        if not source.nbytes or not self._may_begin(source.nbytes):
            return self.status
        self._show(addresses, part, Kind.STORE)
        unit = self.hypervisor.machine.unit
        if unit is not None:
            return self._account("written", source.nbytes, unit.write_batch(self.requester_id, addresses, source))
        done = 0
        for number, iova in enumerate(addresses.tolist()):
            for at, size in _pages(iova, part):
                spa = self._locate(at, WRITE)
                if spa is not None:
                    offset = number * part + at - iova
                    self.hypervisor.memory.write(spa, source[offset : offset + size])
                    done += size
        return self._account("written", source.nbytes, done)

    def translate(self, iovas: ArrayLike, access: str = "r") -> DeviceTranslations:
        """What the device's accesses to these addresses would come to, one after the other: the caches of the unit
        learn of them, faults are recorded, and nothing is moved.

        Parameters
        ----------
        iovas : uint64 array.
        access : "r", "w" or "rw".

        Raises
        ------
        ValueError
            `access` is none of these.
        """
        if access not in _ACCESSES:
            raise ValueError(f"access must be one of {', '.join(_ACCESSES)}, not {access!r}")
        addresses = np.atleast_1d(np.asarray(iovas)).astype(np.uint64, copy=False)
        unit = self.hypervisor.machine.unit
        if unit is not None:
            found = unit.translate(self.requester_id, addresses, _ACCESSES[access])
            self.hypervisor.domains.deliver_faults()
            return DeviceTranslations(found)
        return self._translate_owned(addresses, _ACCESSES[access])

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

    def _account(self, what: str, size: int, done: int) -> DmaStatus:
        self.counters[f"bytes_{what}"] += done
        self.counters["bytes_blocked"] += size - done
        self.status = DmaStatus.DONE if done == size else DmaStatus.BLOCKED
        if done < size:
            self.hypervisor.domains.deliver_faults()
        return self.status

    def _translate_owned(self, gpas: NDArray[np.uint64], rights: int) -> DeviceTranslations:
        """The columns without a unit: the owner's space is the only dimension, and counts nothing."""
        columns = {name: np.zeros(gpas.size, kind) for name, kind in COLUMNS.items()}
        columns["gpa"][:] = gpas
        for number, gpa in enumerate(gpas.tolist()):
            found = self.owner.space.resolve(gpa)
            if found is None or rights & ~found[1]:
                columns["status"][number] = _NO_MEMORY
            else:
                columns["spa"][number], columns["nested_page_shift"][number] = found[0], found[2]
        return DeviceTranslations(columns)

    def _locate(self, gpa: int, right: int) -> int | None:
        found = self.owner.space.resolve(gpa)
        return found[0] if found is not None and found[1] & right else None


def _require_range(iova: int, size: int) -> None:
    if size < 0 or not 0 <= iova <= (1 << 64) - size:
        raise ValueError(f"iova {iova:#x} with {size:#x} bytes is no range of 64-bit addresses")


def _parts(iovas: ArrayLike, size: int) -> tuple[NDArray[np.uint64], int]:
    """The addresses, and the bytes of each part."""
    addresses = np.ascontiguousarray(iovas, np.uint64).reshape(-1)
    if not addresses.size or size % addresses.size:
        raise ValueError(f"{size} bytes do not divide into {addresses.size} equal parts")
    return addresses, size // addresses.size


def _pages(iova: int, size: int) -> list[tuple[int, int]]:
    """(address, bytes) of what a range has in each page."""
    found = []
    end = iova + size
    while iova < end:
        piece = min(end - iova, _PAGE - iova % _PAGE)
        found.append((iova, piece))
        iova += piece
    return found
