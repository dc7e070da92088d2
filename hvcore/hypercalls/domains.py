"""Devices and their domains: calls 82, 83, B1 to B4, C4, C5, CE, D0, 125 and 127 (hyperv-abi.md 4.11).

Without a remapping unit of the hypervisor's there are no domains, and their calls are unknown (CPUID 40000003.EDX[24]
is clear). A default or null domain cannot be created, deleted, mapped or configured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from hvcore.domains import ADDRESS_BITS, DEFAULT_DOMAIN, NULL_DOMAIN, DeviceDomain, DeviceDomainType
from hvcore.enums import AccessMask, Status
from hvcore.hypercalls.abi import U8, U16, U32, U64, Bytes3, Bytes24, Layout, Refused, require_vtl0
from hvcore.hypercalls.call import Call, Progress
from hvcore.pages import PRESENT, spns_of

if TYPE_CHECKING:
    from hvcore.partition import Partition

_PAGE_SIZES = 0x1000
_PV_IOMMU = 10
_PRESENT, _SECOND_STAGE, _FIRST_STAGE, _FIVE_LEVELS = 1, 2, 4, 8
_TRANSLATES, _BLOCKED, _PAGING_5 = 1, 2, 4
_FLAGS_OF_ATTACH = 0xFF


class Head(NamedTuple):
    """What every call about a domain begins with."""

    partition_id: U64
    vtl: U8
    reserved0: U8
    reserved1: U16
    reserved2: U32
    type: U32
    domain_id: U32


_HEAD = Layout(Head)


class DomainInput(NamedTuple):
    head: Bytes24


class CreateInput(NamedTuple):
    head: Bytes24
    flags: U32
    reserved: U32


class AttachDomainInput(NamedTuple):
    head: Bytes24
    device_id: U64


class DetachDomainInput(NamedTuple):
    partition_id: U64
    device_id: U64


class MapInput(NamedTuple):
    head: Bytes24
    target_vtl: U8
    reserved: Bytes3
    flags: U32
    base: U64


class UnmapInput(NamedTuple):
    head: Bytes24
    base: U64


class ConfigureInput(NamedTuple):
    head: Bytes24
    settings: U64
    table_root: U64


class AttachDeviceInput(NamedTuple):
    partition_id: U64
    device_id: U64
    flags: U32
    vtl: U8
    reserved0: U8
    reserved1: U16
    logical_id: U64
    pci_capabilities: U32
    physical_function: U16
    reserved2: U16


class DetachDeviceInput(NamedTuple):
    partition_id: U64
    logical_id: U64


class CapabilitiesInput(NamedTuple):
    partition_id: U64
    reserved: U64


class Capabilities(NamedTuple):
    size: U32
    reserved: U16
    iova_bits: U8
    pasid_bits: U8
    capabilities: U64
    page_sizes: U64


class PropertyInput(NamedTuple):
    partition_id: U64
    logical_id: U64
    code: U32
    reserved: U32


class Word(NamedTuple):
    value: U64


_Domain: TypeAlias = DomainInput | CreateInput | AttachDomainInput | MapInput | UnmapInput | ConfigureInput


def create_device_domain(call: Call, header: CreateInput) -> None:
    """A new domain, with nothing mapped."""
    head = _HEAD.unpack(header.head)
    owner = _owner(call, head.partition_id, head.vtl)
    if header.flags & ~3 or head.type not in (DeviceDomainType.SECOND_STAGE, DeviceDomainType.FIRST_STAGE):
        raise Refused(Status.INVALID_PARAMETER)
    call.hypervisor.domains.create(owner, head.domain_id, DeviceDomainType(head.type))


def delete_device_domain(call: Call, header: DomainInput) -> None:
    """No device may be in it."""
    call.hypervisor.domains.delete(_domain(call, header))


def attach_device_domain(call: Call, header: AttachDomainInput) -> None:
    """Move a device out of its default domain; into the null domain, where every access is blocked."""
    head = _HEAD.unpack(header.head)
    owner = _owner(call, head.partition_id, head.vtl)
    domain = None if head.domain_id == NULL_DOMAIN else _domain(call, header)
    call.hypervisor.domains.attach(call.hypervisor.domains.find(owner, header.device_id), domain)


def detach_device_domain(call: Call, header: DetachDomainInput) -> None:
    """The device returns to its default domain."""
    owner = _owner(call, header.partition_id, 0)
    call.hypervisor.domains.detach(call.hypervisor.domains.find(owner, header.device_id))


def map_device_gpa_pages(call: Call, header: MapInput) -> Progress:
    """Map pages of the partition, one after the other from `base`."""
    domain = _domain(call, header)
    require_vtl0(header.target_vtl)
    if domain.mappings is None or not header.flags & AccessMask.READ or header.flags & ~3:
        raise Refused(Status.INVALID_PARAMETER)
    first = _page(header.base, call.start + call.count) + call.start
    gpns = call.elements
    within = gpns < np.uint64(domain.owner.page_limit)
    entries = domain.owner.mappings.entries(np.where(within, gpns, np.uint64(0)))
    usable = within & ((entries & np.uint64(PRESENT)) != 0) & ((np.uint64(header.flags) & ~entries) == 0)
    refused = np.flatnonzero(~usable)
    count = int(refused[0]) if refused.size else gpns.size
    placed = domain.mappings.place(first, spns_of(entries[:count]), header.flags)
    call.hypervisor.domains.flush(domain)
    if placed < count:
        return Progress(placed, Status.INSUFFICIENT_MEMORY)
    return Progress(placed, Status.INVALID_PARAMETER if refused.size else Status.SUCCESS)


def unmap_device_gpa_pages(call: Call, header: UnmapInput) -> Progress:
    """Unmap pages from `base`; unmapping an unmapped page succeeds. No device reaches them when this returns."""
    domain = _domain(call, header)
    if domain.mappings is None:
        raise Refused(Status.INVALID_PARAMETER)
    first = _page(header.base, call.start + call.count) + call.start
    removed = domain.mappings.remove(first, call.count)
    call.hypervisor.domains.flush(domain)
    return Progress(removed, Status.SUCCESS if removed == call.count else Status.INSUFFICIENT_MEMORY)


def configure_device_domain(call: Call, header: ConfigureInput) -> None:
    """A first-stage domain: the partition's own x64 page tables, or nothing, or its memory as it is."""
    domain = _domain(call, header)
    settings = header.settings
    legal = settings & ~7 == 0 and settings & (_TRANSLATES | _BLOCKED) != _TRANSLATES | _BLOCKED
    aligned = header.table_root & 0xFFF == 0 and header.table_root >> 12 < domain.owner.page_limit
    if domain.type is not DeviceDomainType.FIRST_STAGE or not legal or not aligned:
        raise Refused(Status.INVALID_PARAMETER)
    domain.translates = bool(settings & _TRANSLATES)
    domain.blocked = bool(settings & _BLOCKED)
    domain.five_levels = bool(settings & _PAGING_5)
    domain.table_root = header.table_root
    call.hypervisor.domains.changed(domain)


def flush_device_domain(call: Call, header: CreateInput) -> None:
    """Nothing older than this call is used for devices in the domain."""
    domain = _domain(call, header)
    if header.flags:
        raise Refused(Status.INVALID_PARAMETER)
    call.hypervisor.domains.flush(domain)


def attach_device(call: Call, header: AttachDeviceInput) -> None:
    """Give a device of the root to a partition, under the logical id that it has there."""
    partition = call.target(header.partition_id)
    require_vtl0(header.vtl)
    if header.flags & ~_FLAGS_OF_ATTACH or header.logical_id >> 62:
        raise Refused(Status.INVALID_PARAMETER)
    domains = call.hypervisor.domains
    if header.device_id >> 62 != 1:
        raise Refused(Status.INVALID_DEVICE_ID)
    device = call.hypervisor.machine.devices.get(header.device_id & 0xFFFF)
    if device is not None and device.owner is not call.caller:
        raise Refused(Status.INVALID_DEVICE_STATE)
    domains.assign(partition, domains.find(call.caller, header.device_id), header.logical_id)


def detach_device(call: Call, header: DetachDeviceInput) -> None:
    """The device is the root's again."""
    call.hypervisor.domains.withdraw(call.target(header.partition_id), header.logical_id)


def get_iommu_capabilities(call: Call, header: CapabilitiesInput) -> Capabilities:
    """What the partition's devices have in front of them."""
    call.target(header.partition_id, caller=True)
    present = call.hypervisor.domains.tables is not None
    abilities = _PRESENT | _SECOND_STAGE | _FIRST_STAGE | _FIVE_LEVELS if present else 0
    return Capabilities(24, 0, ADDRESS_BITS if present else 0, 0, abilities, _PAGE_SIZES if present else 0)


def get_logical_device_property(call: Call, header: PropertyInput) -> Word:
    """Whether the paravirtual IOMMU serves a device: the only property."""
    partition = call.target(header.partition_id, caller=True)
    if header.code != _PV_IOMMU:
        raise Refused(Status.INVALID_PARAMETER)
    call.hypervisor.domains.find(partition, header.logical_id)
    return Word(int(call.hypervisor.domains.tables is not None))


def _owner(call: Call, partition_id: int, vtl: int) -> Partition:
    """The partition whose domains are meant: the caller or its child."""
    if call.hypervisor.domains.tables is None:
        raise Refused(Status.INVALID_HYPERCALL_CODE)
    owner = call.target(partition_id, caller=True)
    require_vtl0(vtl)
    return owner


def _domain(call: Call, header: _Domain) -> DeviceDomain:
    """The domain that the head names: none of the two that always exist."""
    head = _HEAD.unpack(header.head)
    owner = _owner(call, head.partition_id, head.vtl)
    if head.domain_id in (DEFAULT_DOMAIN, NULL_DOMAIN):
        raise Refused(Status.INVALID_PARAMETER)
    return call.hypervisor.domains.get(owner, head.domain_id, head.type)


def _page(base: int, count: int) -> int:
    """The page number of a device address, with `count` pages from there."""
    if base & 0xFFF or base + (count << 12) > 1 << ADDRESS_BITS:
        raise Refused(Status.INVALID_PARAMETER)
    return base >> 12
