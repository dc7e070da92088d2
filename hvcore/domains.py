"""Device domains: which memory a device may reach, as partitions say by hypercalls (hyperv-abi.md 4.11).

They drive the machine's remapping unit, if that belongs to the hypervisor. Without one, a device reaches the memory of
the partition that owns it, and there are no domains. Tables of a second-stage domain are pages of the partition's
pool; what they name leaves them with the page itself, like any mapping below a partition (pages.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import pack
from typing import TYPE_CHECKING, Any

from hvcore._native.irqchip import MessagePort
from hvcore._native.space import GpaSpace
from hvcore.enums import MessageType, Status
from hvcore.hypercalls.abi import Refused
from hvcore.pages import Mappings
from hvcore.unit_tables import Translation, UnitTables

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.machine.device import Device
    from hvcore.partition import Partition

DEFAULT_DOMAIN, NULL_DOMAIN = 0, 0xFFFF_FFFF
ADDRESS_BITS = 48
_CAP, _FSTS, _FAULT_BITS = 0x08, 0x34, 3
_FAULT_SINT = 1


class DeviceDomainType(IntEnum):
    """HV_DEVICE_DOMAIN_TYPE (section 4.11)."""

    SECOND_STAGE, FIRST_STAGE, SOC = range(3)


class DeviceDomain:
    """One domain of a partition."""

    def __init__(self, owner: Partition, domain_id: int, kind: DeviceDomainType, number: int) -> None:
        hypervisor = owner.hypervisor
        self.owner = owner
        self.id = domain_id
        self.type = kind
        self.number = number
        """The domain id that the unit tags translations with."""
        self.translates = False
        self.blocked = False
        self.five_levels = False
        self.table_root = 0
        self.mappings: Mappings | None = None
        if kind is DeviceDomainType.SECOND_STAGE:
            space = GpaSpace(hypervisor.memory, owner.pool, gpa_bits=ADDRESS_BITS)
            if not space.create():
                raise Refused(Status.INSUFFICIENT_MEMORY)
            self.mappings = Mappings(space, hypervisor.owners)
            owner.mappings.below.append(self.mappings)

    def translation(self) -> Translation | None:
        """What the unit does for devices in it."""
        if self.mappings is not None:
            return Translation(self.number, self.mappings.space.root)
        if self.blocked:
            return None
        first = self.table_root if self.translates else None
        return Translation(self.number, self.owner.space.root, first, self.five_levels)

    def close(self) -> None:
        """Give the tables back to the pool."""
        if self.mappings is not None:
            self.mappings.clear()
            self.owner.mappings.below.remove(self.mappings)


class DeviceDomains:
    """The domains of all partitions, and which device is in which."""

    maximum = 1 << 16
    """How many there may be, the default one of each partition included; the unit may know fewer."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self.hypervisor = hypervisor
        self.tables: UnitTables | None = None
        self._unit: Any = None
        self._domains: dict[tuple[int, int], DeviceDomain] = {}
        self._defaults: dict[int, int] = {}
        self._attached: dict[Device, DeviceDomain | None] = {}
        self._logical: dict[tuple[int, int], Device] = {}
        self._messages = MessagePort()
        self._numbers: set[int] = set()

    def take(self, unit: Any) -> None:
        """The unit belongs to the hypervisor now: every device of the machine gets its owner's memory."""
        devices = self.hypervisor.machine.devices.values()
        owners = {self.hypervisor.root, *(device.owner for device in devices)}
        most = min(self.maximum, 1 << 4 + 2 * (unit.read(_CAP, 8) & 7))
        if len(owners) >= most:
            raise ValueError(f"cap must give a domain id to each of {len(owners)} partitions with devices")
        self._unit = unit
        self.maximum = most
        self.tables = UnitTables(self.hypervisor, unit)
        self._default_number(self.hypervisor.root)      # devices that come back to it must find one
        for partition in self.hypervisor.partitions.values():
            partition.core.device_domain_bits = ADDRESS_BITS
        for device in devices:
            self.apply(device)

    # Devices.

    def apply(self, device: Device) -> None:
        """Make the unit do what is known of a device."""
        if self.tables is not None:
            domain = self._attached.get(device)
            if device not in self._attached:
                found: Translation | None = Translation(self._default_number(device.owner), device.owner.space.root)
            else:
                found = None if domain is None else domain.translation()
            self.tables.set(device.requester_id, found)

    def find(self, partition: Partition, device_id: int) -> Device:
        """The device of a partition by HV_DEVICE_ID, a PCI one or a logical one. Refuses with INVALID_DEVICE_ID."""
        device: Device | None = None
        if device_id >> 62 == 0:
            device = self._logical.get((partition.id, device_id))
        elif device_id >> 62 == 1 and not device_id >> 16 & 0x3FFF_FFFF_FFFF:
            device = self.hypervisor.machine.devices.get(device_id & 0xFFFF)
        if device is None or device.owner is not partition:
            raise Refused(Status.INVALID_DEVICE_ID)
        return device

    def assign(self, partition: Partition, device: Device, logical_id: int) -> None:
        """Give a device of the root to a partition, under a name of its own there; all or nothing."""
        if (partition.id, logical_id) in self._logical:
            raise Refused(Status.INVALID_PARAMETER)
        if device in self._attached or device in self._logical.values():
            raise Refused(Status.INVALID_DEVICE_STATE)
        before, device.owner = device.owner, partition
        try:
            self.apply(device)
        except Refused:
            device.owner = before
            raise
        self.hypervisor.interrupts.give_device(device.device_id, partition)
        self._logical[partition.id, logical_id] = device

    def withdraw(self, partition: Partition, logical_id: int) -> None:
        """Take a device back from a partition: it is the root's again, in its default domain."""
        device = self._logical.pop((partition.id, logical_id), None)
        if device is None:
            raise Refused(Status.INVALID_DEVICE_ID)
        self._attached.pop(device, None)
        device.owner = self.hypervisor.root
        self.hypervisor.interrupts.give_device(device.device_id, None)
        self.apply(device)

    def attach(self, device: Device, domain: DeviceDomain | None) -> None:
        """Put a device from its default domain into another, or with None where every access is blocked."""
        if device in self._attached:
            raise Refused(Status.DEVICE_ALREADY_IN_DOMAIN)
        self._attached[device] = domain
        self.apply(device)

    def detach(self, device: Device) -> None:
        """Back to the default domain."""
        if device not in self._attached:
            raise Refused(Status.INVALID_DEVICE_STATE)
        del self._attached[device]
        self.apply(device)

    # Domains.

    def create(self, owner: Partition, domain_id: int, kind: DeviceDomainType) -> DeviceDomain:
        """A new domain, with nothing mapped. Refuses with INSUFFICIENT_DEVICE_DOMAINS or INSUFFICIENT_MEMORY."""
        if domain_id in (DEFAULT_DOMAIN, NULL_DOMAIN) or (owner.id, domain_id) in self._domains:
            raise Refused(Status.INVALID_PARAMETER)
        self._default_number(owner)
        number = self._new_number()
        try:
            domain = DeviceDomain(owner, domain_id, kind, number)
        except Refused:
            self._numbers.discard(number)
            raise
        self._domains[owner.id, domain_id] = domain
        return domain

    def get(self, owner: Partition, domain_id: int, kind: int) -> DeviceDomain:
        """A domain by name. Refuses with INVALID_PARAMETER."""
        domain = self._domains.get((owner.id, domain_id))
        if domain is None or domain.type != kind:
            raise Refused(Status.INVALID_PARAMETER)
        return domain

    def delete(self, domain: DeviceDomain) -> None:
        """Refuses with INVALID_DEVICE_STATE while a device is in it."""
        if domain in self._attached.values():
            raise Refused(Status.INVALID_DEVICE_STATE)
        self.flush(domain)
        domain.close()
        del self._domains[domain.owner.id, domain.id]
        self._numbers.discard(domain.number)

    def flush(self, domain: DeviceDomain) -> None:
        """Nothing older than this is used for devices in the domain."""
        if self.tables is not None:
            self.tables.flush(domain.number)

    def changed(self, domain: DeviceDomain) -> None:
        """A first-stage domain was configured."""
        for device, its in self._attached.items():
            if its is domain:
                self.apply(device)

    def flush_partition(self, partition: Partition) -> None:
        """Pages left the partition's space: no device of it may find them any more."""
        if self.tables is not None and partition.id in self._defaults:
            self.tables.flush(self._defaults[partition.id])
            for domain in self._of(partition):
                self.tables.flush(domain.number)

    def release(self, partition: Partition) -> None:
        """The partition ends: its devices are the root's again, its domains gone."""
        for logical_id in [name[1] for name in self._logical if name[0] == partition.id]:
            self.withdraw(partition, logical_id)
        for domain in list(self._of(partition)):
            for device in [device for device, its in self._attached.items() if its is domain]:
                self.detach(device)
            self.delete(domain)
        number = self._defaults.pop(partition.id, None)
        if number is not None and self.tables is not None:
            self.tables.flush(number)
            self._numbers.discard(number)

    # Faults.

    def deliver_faults(self) -> None:
        """Take the unit's fault records, and tell each owner by a message to SINT 1.

        The payload: u64 device id, u64 IOVA page, u32 fault reason, u32 1 for a read. (Public documents give the
        number of the message, not its layout.)
        """
        if self.tables is None:
            return
        for requester_id, iova, reason, is_read in self._take_records():
            device = self.hypervisor.machine.devices.get(requester_id)
            if device is not None:
                payload = pack("<QQII", device.device_id, iova, reason, is_read)
                for _, vp in sorted(device.owner.vps.items()):
                    if vp.interrupts.accepts_messages:
                        vp.interrupts.post_message(
                            self._messages,
                            sint=_FAULT_SINT,
                            message_type=MessageType.IOMMU_FAULT,
                            sender=0,
                            payload=payload,
                        )
                        break

    def _take_records(self) -> Iterator[tuple[int, int, int, bool]]:
        """(requester id, page, reason, read) of each record, oldest first; the records are free again."""
        unit = self._unit
        capabilities = unit.read(_CAP, 8)
        first, count = (capabilities >> 24 & 0x3FF) * 16, (capabilities >> 40 & 0xFF) + 1
        start = unit.read(_FSTS, 4) >> 8 & 0xFF
        for i in range(count):
            at = first + (start + i) % count * 16
            high = unit.read(at + 8, 8)
            if high >> 63:
                page = unit.read(at, 8) & -4096
                unit.write(at + 12, 4, 1 << 31)
                yield high & 0xFFFF, page, high >> 32 & 0xFF, bool(high >> 62 & 1)
        unit.write(_FSTS, 4, 1)

    def _of(self, partition: Partition) -> list[DeviceDomain]:
        return [domain for (owner, _), domain in self._domains.items() if owner == partition.id]

    def _default_number(self, partition: Partition) -> int:
        if partition.id not in self._defaults:
            self._defaults[partition.id] = self._new_number()
            partition.mappings.on_loss.append(lambda: self.flush_partition(partition))
        return self._defaults[partition.id]

    def _new_number(self) -> int:
        for number in range(1, self.maximum):
            if number not in self._numbers:
                self._numbers.add(number)
                return number
        raise Refused(Status.INSUFFICIENT_DEVICE_DOMAINS)
