"""Which partition and which virtual processors an interrupt of the machine reaches.

A source belongs to the machine: a line, a timer, a device that writes messages, or something of the user's own. Until
it is routed the root receives it; when the partition that it is routed to ends, the root receives it again. Devices
are named by HV_DEVICE_ID (hyperv-abi.md 4.11); HvCallMapDeviceInterrupt and HvCallRetargetDeviceInterrupt write the
same table as the methods here. hvcore/device_routes.py has their part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hvcore.arguments import integer
from hvcore.device_routes import IOAPIC, DeviceRoutes, device_id_of, key_of, message_writer
from hvcore.interrupt_source import InterruptSource, Line
from hvcore.wiring import MSI_ADDRESSES

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor


class Interrupts(DeviceRoutes):
    """`hypervisor.interrupts`: the sources of the machine by name, and the table that says where they go."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        super().__init__(hypervisor)
        self._sources: dict[str, InterruptSource] = {}
        self._devices: dict[int, InterruptSource] = {}

    def __getitem__(self, name: str) -> InterruptSource:
        """Raises KeyError."""
        return self._sources[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def add(self, name: str, *, level: bool = False, line: Line | None = None) -> InterruptSource:
        """Make a source. `line` drives the root's line while it is not routed; without one, that is counted as lost.

        Raises
        ------
        TypeError
            `name` is no str, or `line` cannot be called.
        ValueError
            There is one of that name.
        RuntimeError
            The hypervisor was closed.
        """
        self.hypervisor.require_open()
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if line is not None and not callable(line):
            raise TypeError(f"line must be a function of a level, or None, not {type(line).__name__}")
        if name in self._sources:
            raise ValueError(f"name must be new: there is a source {name!r}")
        self._sources[name] = InterruptSource(self.hypervisor, name, level=bool(level), line=line)
        return self._sources[name]

    def device(self, device_id: int) -> InterruptSource:
        """The source of a device that writes messages, "device 0x..."; it is made when it is first asked for.

        Raises
        ------
        TypeError, ValueError
            `device_id` is no HV_DEVICE_ID.
        """
        device_id = device_id_of(device_id)
        if device_id not in self._devices:
            self._devices[device_id] = self.add(f"device {device_id:#x}")
        return self._devices[device_id]

    def route(
        self,
        source: InterruptSource | str,
        partition: Partition,
        *,
        vp: int | Iterable[int] = 0,
        vector: int,
        multicast: bool = False,
    ) -> None:
        """Send a source to processors of a partition, by VP index, from now on.

        Raises
        ------
        KeyError
            There is no source of that name.
        TypeError
            An argument is of another type.
        ValueError
            The source or the partition is another hypervisor's; the partition is not active, has no such processor, or
            one is named twice; or `vector` is not 16 to 255.
        RuntimeError
            The hypervisor was closed.
        """
        found = self._found(source)
        with self.hypervisor.exclusive():
            found.change(self.checked_route(partition, vp, vector, level=found.level, multicast=multicast))

    def to_root(self, source: InterruptSource | str) -> None:
        """Give a source back to the root. Raises as `route` does."""
        self.hypervisor.require_open()
        found = self._found(source)
        with self.hypervisor.exclusive():
            found.change(None)

    def deliver_msi(self, device_id: int, address: int, data: int) -> int:
        """A device writes its message: by its entry, else into the interrupt controllers of whom it belongs to.

        Returns
        -------
        int
            How many processors accepted it. If none did, `counts` of the device say whether it was "blocked" or "lost".

        Raises
        ------
        TypeError, ValueError
            An argument is not an integer or out of range, or the device is the I/O APIC; without an entry, `address` is
            not FEE00000h to FEEFFFFFh.
        RuntimeError
            The hypervisor was closed.
        """
        self.hypervisor.require_open()
        device_id = message_writer(device_id)
        key = key_of(device_id, address, data)
        if key not in self._entries.get(device_id, {}):
            integer(address, "address", *MSI_ADDRESSES)
        return self.write_message(device_id, *key) or 0

    def write_message(self, device_id: int, address: int, data: int) -> int | None:
        """`deliver_msi` of what guest code made a device write; None for a message that interrupt remapping refused.

        One to another address than FEEx_xxxxh is no interrupt, and lost: software chooses the address.
        """
        route = self.entry(device_id, address, data)
        with self.hypervisor.exclusive():
            source = self.device(device_id)
            source.counts["messages"] += 1
            if route is not None:
                return source.send(route)
            if not MSI_ADDRESSES[0] <= address <= MSI_ADDRESSES[1]:
                source.counts["lost"] += 1
                return 0
            owner = self._owners.get(device_id, self.hypervisor.root)
            accepted = owner.core.send_msi(address, data, device_id & 0xFFFF)
            if accepted is None:
                source.counts["blocked"] += 1
                return None
            source.counts["delivered"] += accepted
            source.counts["lost"] += not accepted
            return accepted

    def end_of_interrupt(self, vp: VirtualProcessor, vector: int) -> bool:
        """A processor ended an interrupt: lines that are still up raise it again. False: it was of no line.

        Those routed to the root by vector are not raised again: it has an I/O APIC for that."""
        ended = [source.end(vp, vector) for source in self._sources.values()]
        if IOAPIC in self._entries and vp.partition is not self.hypervisor.root:
            ended.append(self.hypervisor.root.core.end_routed(vp.partition.core, vector))
        return any(ended)

    def partition_ended(self, partition: Partition) -> None:
        """Its sources and devices are the root's again."""
        for source in self._sources.values():
            if source.route is not None and source.route.partition is partition:
                source.change(None)
        for device_id in [one for one, owner in self._owners.items() if owner is partition]:
            del self._owners[device_id]
        for device_id, entries in list(self._entries.items()):
            for address, data in [key for key, route in entries.items() if route.partition is partition]:
                self.remove_entry(device_id, address, data)
        self.refresh_pins(gone=partition)

    def _found(self, source: InterruptSource | str) -> InterruptSource:
        if isinstance(source, str):
            return self._sources[source]
        if not isinstance(source, InterruptSource):
            raise TypeError(f"source must be an InterruptSource or the name of one, not {type(source).__name__}")
        if self._sources.get(source.name) is not source:
            raise ValueError(f"source must be of this Hypervisor, not {source!r}")
        return source
