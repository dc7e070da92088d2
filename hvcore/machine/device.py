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

from hvcore._native.iommu import COLUMNS, device_addresses
from hvcore._native.space import READ, WRITE
from hvcore.experiments.records import Kind
from hvcore.machine.dma import (
    DeviceTranslations,
    are_messages,
    buffer,
    integer,
    pages,
    parts,
    require_range,
    require_room,
)
from hvcore.machine.observed import Observed

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition

_PCI = 1 << 62
"""HV_DEVICE_ID type 1: a PCI requester."""


class DmaStatus(IntEnum):
    """How the last access of a device ended."""

    DONE = 0
    BLOCKED = 1
    """By the unit, which has recorded why, or, without a unit, because the owner has no such memory."""
    NOT_MASTER = 2
    """A PCI function whose command register does not let it access memory."""


_NO_MEMORY = 4
"""RemapStatus of hvcore.iommu: the partition has no such memory, or not the right to it."""
_ACCESSES = {"r": READ, "w": WRITE, "rw": READ | WRITE}


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
    MemoryError
        The hypervisor drives the remapping unit, and has no page left for its tables.
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
        hypervisor.machine.add_device(self, integer(requester_id, "requester_id"))

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

    def close(self) -> None:
        """The hypervisor closes: let go of what the host lent. Whoever needs it says so in a class of his own."""

    def machine_reset(self) -> None:
        """The machine is reset: be as after power on. Whoever has state says so in a class of his own."""

    def read(self, iova: int, size: int) -> bytes:
        """`size` bytes at `iova`, FF where the access was blocked.

        Raises
        ------
        TypeError, ValueError
            `iova` and `size` are not a range of 64-bit addresses.
        """
        require_range(iova, size)
        data = np.empty(size, np.uint8)
        self.read_into(iova, data)
        return data.tobytes()

    def read_into(self, iova: int, out: Any) -> DmaStatus:
        """Fill a writable buffer, a NumPy array for instance, from `iova`."""
        target = buffer(out, "out", writable=True)
        require_range(iova, target.nbytes)
        return self.read_batch(np.array([iova], np.uint64), target)

    def write(self, iova: int, data: Any) -> DmaStatus:
        """Store a buffer, `bytes` or a NumPy array for instance, at `iova`. A store of four bytes to FEEx_xxxxh is an
        interrupt message: BLOCKED if interrupt remapping refuses it, and DONE whether or not a processor takes it."""
        source = buffer(data, "data")
        require_range(iova, source.nbytes)
        return self.write_batch(np.array([iova], np.uint64), source)

    def read_batch(self, iovas: ArrayLike, out: Any) -> DmaStatus:
        """Fill equal parts of a writable buffer, one from each address, in order.

        Raises
        ------
        TypeError, ValueError
            The addresses are not integers in one dimension, a part would end behind 2**64, or the buffer does not
            divide into as many parts as there are addresses.
        RuntimeError
            Another thread is inside the hypervisor. All that a device does says so.
        """
        target = buffer(out, "out", writable=True)
        addresses, part = parts(iovas, target.nbytes)
        with self.hypervisor.exclusive():
            return self._fill(addresses, target, part)

    def _fill(self, addresses: NDArray[np.uint64], target: memoryview, part: int) -> DmaStatus:
        if not target.nbytes or not self._may_begin(target.nbytes):
            target[:] = b"\xff" * target.nbytes
            return self.status
        self._show(addresses, part, Kind.LOAD)
        unit = self.hypervisor.machine.unit
        if unit is not None:
            return self._account("read", target.nbytes, unit.read_batch(self.requester_id, addresses, target))
        require_room(addresses, part)
        done = 0
        for number, iova in enumerate(addresses.tolist()):
            for at, size in pages(iova, part):
                offset = number * part + at - iova
                spa = self._locate(at, READ)
                data = b"\xff" * size if spa is None else self.hypervisor.memory.read(spa, size)
                target[offset : offset + size] = data
                done += 0 if spa is None else size
        return self._account("read", target.nbytes, done)

    def write_batch(self, iovas: ArrayLike, data: Any) -> DmaStatus:
        """Store equal parts of a buffer, one at each address, in order; those of four bytes may be interrupt messages.
        Raises as `read_batch` does."""
        source = buffer(data, "data")
        addresses, part = parts(iovas, source.nbytes)
        with self.hypervisor.exclusive():
            if not source.nbytes or not self._may_begin(source.nbytes):
                return self.status
            if part == 4 and are_messages(addresses).any():
                require_room(addresses, part)
                return self._write_words(addresses, source)
            return self._store(addresses, source, part)

    def _store(self, addresses: NDArray[np.uint64], source: memoryview, part: int) -> DmaStatus:
        self._show(addresses, part, Kind.STORE)
        unit = self.hypervisor.machine.unit
        if unit is not None:
            return self._account("written", source.nbytes, unit.write_batch(self.requester_id, addresses, source))
        require_room(addresses, part)
        done = 0
        for number, iova in enumerate(addresses.tolist()):
            for at, size in pages(iova, part):
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
        iovas : integers, an array of one dimension.
        access : "r", "w" or "rw".

        Raises
        ------
        TypeError, ValueError
            `access` is none of these, or `iovas` are not integers of 64 bits.
        """
        if access not in _ACCESSES:
            raise ValueError(f"access must be one of {', '.join(_ACCESSES)}, not {access!r}")
        addresses = device_addresses(iovas)
        unit = self.hypervisor.machine.unit
        if unit is not None:
            with self.hypervisor.exclusive():
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
        """An interrupt message, by remapping and the hypervisor's routing: whether it reached a processor.

        `status` is BLOCKED if remapping refused it. A message to an address outside FEEx_xxxxh is no interrupt; it is
        lost, and counted so by `hypervisor.interrupts.device(device_id).counts`.

        Raises
        ------
        TypeError, ValueError
            `address` has no 64 bits, or `data` no 32.
        """
        for name, value, bits in (("address", address, 64), ("data", data, 32)):
            if not 0 <= integer(value, name) < 1 << bits:
                raise ValueError(f"{name} must have {bits} bits, not be {value:#x}")
        with self.hypervisor.exclusive():
            self.counters["messages"] += 1
            accepted = self.hypervisor.machine.send_message(self, address, data)
            self.status = DmaStatus.BLOCKED if accepted is None else DmaStatus.DONE
        return bool(accepted)

    def _write_words(self, addresses: NDArray[np.uint64], source: memoryview) -> DmaStatus:
        """Stores of four bytes, some of which are messages, in order."""
        worst = DmaStatus.DONE
        for number, message in enumerate(are_messages(addresses).tolist()):
            word = source[4 * number : 4 * number + 4]
            if message:
                self.send_message(int(addresses[number]), int.from_bytes(word, "little"))
                self._account("written", 4, 4 if self.status is DmaStatus.DONE else 0)
            else:
                self._store(addresses[number : number + 1], word, 4)
            worst = max(worst, self.status)
        self.status = worst
        return worst

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
