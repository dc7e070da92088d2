"""The routing table's rows of devices: whose each is, and where each of its messages goes (hyperv-abi.md 4.11).

A message is an address and the data that is written there. The machine's I/O APIC is such a device, too: its messages
are redirection entries, and native code has its rows (_native/irq/pin_routes.pxd).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from hvcore._native.platform import ENTRY_IDENTITY
from hvcore.arguments import integer, integers, living
from hvcore.enums import PartitionState
from hvcore.interrupt_source import InterruptSource, Route
from hvcore.wiring import IOAPIC_ID

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition

IOAPIC: Final = 2 << 62 | IOAPIC_ID
"""HV_DEVICE_ID of the machine's I/O APIC, the root's: type 2, with the id that the MADT tells."""


class DeviceRoutes(ABC):
    """The part of `hypervisor.interrupts` that knows devices by HV_DEVICE_ID."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self.hypervisor = hypervisor
        self._entries: dict[int, dict[tuple[int, int], Route]] = {}
        self._owners: dict[int, Partition] = {}
        self._has_pins = False

    @abstractmethod
    def device(self, device_id: int) -> InterruptSource:
        """The source of a device that writes messages, made when it is first asked for."""

    def give_device(self, device_id: int, partition: Partition | None) -> None:
        """Whose messages a device writes when no entry says more: the root's with None. Raises as `route` does, and
        ValueError for the I/O APIC, which stays the root's."""
        self.hypervisor.require_open()
        device_id = message_writer(device_id)
        if partition is not None:
            living(partition, "partition", self.hypervisor)
        self.device(device_id)
        if partition is None or partition is self.hypervisor.root:
            self._owners.pop(device_id, None)
        else:
            self._owners[device_id] = partition

    def owner_of(self, device_id: int) -> Partition | None:
        """The partition that a device was given to; None: nobody but the root knows it."""
        return self._owners.get(device_id_of(device_id))

    def knows(self, device_id: int) -> bool:
        """It was given to a partition, or has an entry."""
        device_id = device_id_of(device_id)
        return device_id in self._owners or device_id in self._entries

    def set_entry(
        self,
        device_id: int,
        address: int,
        data: int,
        partition: Partition,
        *,
        vp: int | Iterable[int],
        vector: int,
        level: bool = False,
        multicast: bool = False,
    ) -> None:
        """Where this message of this device goes. Raises as `route` does.

        A message of IOAPIC is a redirection entry: `address` is its low half and `data` its high half. It is known by
        vector, delivery mode, destination mode and bits 63:48, whichever pin has it; whether it is a level the entry
        says.
        """
        device_id = device_id_of(device_id)
        key = key_of(device_id, address, data)
        route = self.checked_route(partition, vp, vector, level=level, multicast=multicast)
        with self.hypervisor.exclusive():
            if device_id != IOAPIC:
                self.device(device_id)
            self._entries.setdefault(device_id, {})[key] = route
            if device_id == IOAPIC:
                self.refresh_pins()

    def entry(self, device_id: int, address: int, data: int) -> Route | None:
        """What `set_entry` said."""
        return self.entries(device_id).get(key_of(device_id, address, data))

    def entries(self, device_id: int) -> Mapping[tuple[int, int], Route]:
        """All that `set_entry` said of a device, by address and data."""
        return MappingProxyType(self._entries.get(device_id_of(device_id), {}))

    def entry_of_handle(self, address: int) -> int | None:
        """The device that has an entry for this address."""
        return next((device for device, entries in self._entries.items() for key in entries if key[0] == address), None)

    def remove_entry(self, device_id: int, address: int, data: int) -> bool:
        """Forget one; whether there was one."""
        device_id = device_id_of(device_id)
        with self.hypervisor.exclusive():
            entries = self._entries.get(device_id, {})
            found = entries.pop(key_of(device_id, address, data), None) is not None
            if not entries:
                self._entries.pop(device_id, None)
            if device_id == IOAPIC:
                self.refresh_pins()
        return found

    def refresh_pins(self, *, gone: Partition | None = None) -> None:
        """Tell the root's I/O APIC of its entries: after they, or I/O APICs, have changed, or with `gone`, a partition
        whose processors will not end anything any more."""
        self._has_pins |= IOAPIC in self._entries
        if self._has_pins and self.hypervisor.root.platform is not None:
            rows = [
                (address | data << 32, route.partition.core, route.vps, route.vector, route.multicast)
                for (address, data), route in self.entries(IOAPIC).items()
            ]
            self.hypervisor.root.core.route_pins(rows, None if gone is None else gone.core)

    def checked_route(
        self, partition: Partition, vp: int | Iterable[int], vector: int, *, level: bool, multicast: bool
    ) -> Route:
        """A route of these arguments; raises as `route` does."""
        living(partition, "partition", self.hypervisor)
        last = self.hypervisor.maximum_vps - 1
        indices = integers(vp, "vp", 0, last) if isinstance(vp, Iterable) else (integer(vp, "vp", 0, last),)
        if partition.state is not PartitionState.ACTIVE:
            raise ValueError(f"partition must be active, not {partition.state.name}")
        if not indices or any(index not in partition.vps for index in indices):
            raise ValueError(f"vp must name virtual processors of {partition!r}, not {vp!r}")
        if len(set(indices)) < len(indices):
            raise ValueError(f"vp must name each virtual processor once, not {vp!r}")
        return Route(partition, indices, integer(vector, "vector", 16, 255), level, multicast)


def device_id_of(device_id: int) -> int:
    """An argument as HV_DEVICE_ID."""
    return integer(device_id, "device_id", 0, (1 << 64) - 1)


def message_writer(device_id: int) -> int:
    """That of a device whose interrupts are writes."""
    device_id = device_id_of(device_id)
    if device_id == IOAPIC:
        raise ValueError("device_id must be that of a device that writes messages: an I/O APIC has pins")
    return device_id


def key_of(device_id: int, address: int, data: int) -> tuple[int, int]:
    """What names a message among those of its device."""
    address, data = integer(address, "address", 0, (1 << 64) - 1), integer(data, "data", 0, (1 << 32) - 1)
    if device_id != IOAPIC:
        return address, data
    entry = (integer(address, "address", 0, (1 << 32) - 1) | data << 32) & ENTRY_IDENTITY
    return entry & 0xFFFF_FFFF, entry >> 32
