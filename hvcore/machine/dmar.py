"""The ACPI table DMAR: which remapping units a machine has, and what is behind each (VT-d, 8; iommu-facts.md 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import pack

_SIGNATURE = b"DMAR"
_REVISION = 1
_HEADER_BYTES = 36
_OEM = (b"HVCORE", b"HVCORE  ", 1, b"HVCR", 1)
_DRHD, _RMRR, _ATSR, _RHSA, _ANDD, _SATC, _SIDP = range(7)
_ALL = 1


class DmarFlags(IntFlag):
    """Flags of the table."""

    INTERRUPT_REMAPPING = 1
    X2APIC_OPT_OUT = 2
    DMA_CONTROL_OPT_IN = 4


class ScopeType(IntEnum):
    """What a device scope names."""

    ENDPOINT = 1
    BRIDGE = 2
    IO_APIC = 3
    HPET = 4
    ACPI_NAMESPACE = 5


@dataclass(frozen=True, slots=True)
class Scope:
    """A device: the bus where its path starts and the (device, function) of each step.

    `enumeration` is the I/O APIC's id, the HPET's number or the ACPI device's number; 0 for PCI devices.
    """

    type: ScopeType
    bus: int
    path: Sequence[tuple[int, int]]
    enumeration: int = 0

    @classmethod
    def of(cls, requester_id: int, kind: ScopeType = ScopeType.ENDPOINT) -> Scope:
        """What has a requester id."""
        return cls(kind, requester_id >> 8, ((requester_id >> 3 & 31, requester_id & 7),))

    def pack(self) -> bytes:
        """Its bytes. Raises ValueError for what has no encoding."""
        _require("bus", self.bus, 0xFF)
        _require("enumeration", self.enumeration, 0xFF)
        if not self.path:
            raise ValueError("path must have at least one (device, function)")
        for device, function in self.path:
            _require("device", device, 31)
            _require("function", function, 7)
        steps = b"".join(bytes(step) for step in self.path)
        return pack("<BBHBB", self.type, 6 + len(steps), 0, self.enumeration, self.bus) + steps


def remapping_unit(base: int, *, segment: int = 0, include_all: bool = False, scopes: Iterable[Scope] = ()) -> bytes:
    """DRHD: a unit with its registers at GPA `base`. `include_all`: also every PCI device that no other unit names."""
    if base & 0xFFF:
        raise ValueError(f"base must be a multiple of 0x1000, not {base:#x}")
    return _structure(_DRHD, pack("<BBHQ", _ALL * include_all, 0, segment, base), scopes)


def reserved_memory(base: int, limit: int, *, segment: int = 0, scopes: Iterable[Scope] = ()) -> bytes:
    """RMRR: addresses `base` to `limit` that these devices must always reach."""
    if base & 0xFFF or limit & 0xFFF != 0xFFF or limit < base:
        raise ValueError(f"base and limit must bound whole pages, not {base:#x} to {limit:#x}")
    return _structure(_RMRR, pack("<HHQQ", 0, segment, base, limit), scopes)


def root_port_ats(*, segment: int = 0, all_ports: bool = False, scopes: Iterable[Scope] = ()) -> bytes:
    """ATSR: root ports below which devices may translate for themselves."""
    return _structure(_ATSR, pack("<BBH", _ALL * all_ports, 0, segment), scopes)


def affinity(base: int, proximity: int) -> bytes:
    """RHSA: the proximity domain of a unit."""
    return _structure(_RHSA, pack("<IQI", 0, base, proximity))


def namespace_device(number: int, name: str) -> bytes:
    """ANDD: the ACPI name of a device that scopes call by `number`."""
    _require("number", number, 0xFF)
    return _structure(_ANDD, bytes(3) + bytes((number,)) + name.encode("ascii") + b"\0")


def integrated_ats(*, segment: int = 0, required: bool = False, scopes: Iterable[Scope] = ()) -> bytes:
    """SATC: devices of the chip that translate for themselves; `required`: they do not work otherwise."""
    return _structure(_SATC, pack("<BBH", int(required), 0, segment), scopes)


def integrated_properties(*, segment: int = 0, scopes: Iterable[Scope] = ()) -> bytes:
    """SIDP: devices of the chip with properties of their own."""
    return _structure(_SIDP, pack("<HH", 0, segment), scopes)


def table(structures: Iterable[bytes], *, address_bits: int = 48, flags: int = 0) -> bytes:
    """The whole table, with its checksum. `address_bits` is the width of the machine's addresses, `flags` DmarFlags.

    Raises
    ------
    ValueError
        `address_bits` is not 1 to 64.
    """
    if not 1 <= address_bits <= 64:
        raise ValueError(f"address_bits must be 1 to 64, not {address_bits}")
    body = pack("<BB10x", address_bits - 1, flags) + b"".join(structures)
    oem, oem_table, oem_revision, creator, creator_revision = _OEM
    length = _HEADER_BYTES + len(body)
    tail = pack("<6s8sI4sI", oem, oem_table, oem_revision, creator, creator_revision) + body
    head = pack("<4sIB", _SIGNATURE, length, _REVISION)
    return head + bytes((-sum(head + tail) & 0xFF,)) + tail


def _structure(kind: int, body: bytes, scopes: Iterable[Scope] = ()) -> bytes:
    body += b"".join(scope.pack() for scope in scopes)
    return pack("<HH", kind, 4 + len(body)) + body


def _require(name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be 0 to {most}, not {value}")
