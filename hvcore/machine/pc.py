"""The machine below the root partition: what its I/O ports and its device memory reach, and its devices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hvcore._native.iommu import RemappingUnit
from hvcore._native.space import GpaSpace
from hvcore.hypercalls.abi import PAGE_SIZE, Refused
from hvcore.machine import dmar
from hvcore.machine.bus import Bus, MemoryBus
from hvcore.machine.pci_host import PciHost
from hvcore.machine.uart import COM1, COM1_INTERRUPT, PORT_COUNT, Uart
from hvcore.memory import LARGE_PAGE_SIZE
from hvcore.pages import RWX

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.interrupt_source import InterruptSource
    from hvcore.machine.device import Device

UNIT = 0xFED9_0000
_IO_APIC_REQUESTER = 0xFF00
_INTERRUPT_PAGES = (0xFEC0_0000, 0xFEE0_0000)
"""The I/O APIC's registers and those of the local APICs."""
_REQUESTERS = 0x1_0000
_ECAP_IR = 1 << 3
_ECAP_NEEDS = {1: "queued invalidation", 26: "nested translation", 43: "scalable mode", 46: "second-level translation",
               47: "first-level translation"}
_CAP_NEEDS = {10: "second levels of 48 bits", 60: "first levels of 57 bits"}


class SerialMachine:
    """`ports`, the port bus, with `console`, a UART at 3F8h: what a child that Python manages is given.

    Parameters
    ----------
    drive_line : called with the pin of the I/O APIC and the level whenever a device changes its interrupt line.
    """

    def __init__(self, drive_line: Callable[[int, bool], None] | None = None) -> None:
        self.ports = Bus()
        self.console = Uart()
        if drive_line is not None:
            self.console.line = lambda high: drive_line(COM1_INTERRUPT, high)
        self.ports.attach(self.console, port=COM1, count=PORT_COUNT)


class Machine(SerialMachine):
    """Below the root: also `memory`, the bus of device memory; `pci`, the host bridge; `devices` by requester id.

    `unit` is the remapping unit in front of the devices, None while there is none.
    """

    def __init__(self, hypervisor: Hypervisor) -> None:
        super().__init__(self.set_line)
        root = hypervisor.root
        self.hypervisor = hypervisor
        self.devices: dict[int, Device] = {}
        self._lines: dict[int, InterruptSource] = {}
        self.line(COM1_INTERRUPT)
        self.unit: RemappingUnit | None = None
        self.unit_gpa: int | None = None
        """Where the root finds its registers."""
        self.memory = MemoryBus(root.space.gpa_bits, root.core.set_device_ranges)
        self.pci = PciHost(hypervisor, self.ports, self.memory)

    def add_device(self, device: Device, requester_id: int) -> None:
        """Called by the constructor of a device, and raises as that says."""
        if not 0 <= requester_id < _REQUESTERS:
            raise ValueError(f"requester_id must be 0 to {_REQUESTERS - 1:#x}, not {requester_id:#x}")
        if requester_id in self.devices:
            raise ValueError(f"requester_id {requester_id:#06x} belongs to {self.devices[requester_id]!r} already")
        device._requester_id = requester_id
        try:
            self.hypervisor.domains.apply(device)
        except Refused as refused:
            raise MemoryError(f"the remapping unit cannot serve {device!r}: {refused.status.name}") from None
        self.devices[requester_id] = device

    def close(self) -> None:
        """Close all devices: what they have stored is where it survives."""
        for device in self.devices.values():
            device.close()

    def reset(self) -> None:
        """As after power on, with the root: its devices, and the remapping unit unless the hypervisor drives that.

        Called by Hypervisor.reset. Where firmware has put ranges of PCI functions, they stay.
        """
        self.console.reset()
        for device in self.devices.values():
            if device.owner is self.hypervisor.root:
                device.machine_reset()
        if self.unit is not None and self.unit_gpa is not None:
            self.unit.reset()

    def send_message(self, device: Device, address: int, data: int) -> int | None:
        """An interrupt message of a device on its way: how many processors it reached; None: remapping refused it."""
        return self.hypervisor.interrupts.write_message(device.device_id, address, data)

    def line(self, number: int) -> InterruptSource:
        """An interrupt line of the machine's devices, "line 4" for the UART's: the pin of that number of the root's I/O
        APIC, unless `hypervisor.interrupts` routes it elsewhere."""
        if number not in self._lines:
            self._lines[number] = self.hypervisor.interrupts.add(
                f"line {number}", level=True, line=partial(self._drive_pin, number)
            )
        return self._lines[number]

    def set_line(self, number: int, level: bool) -> None:
        """A device drives its line."""
        source = self.line(number)
        if level:
            source.assert_()
        else:
            source.deassert()

    def _drive_pin(self, pin: int, level: bool) -> int:
        platform = self.hypervisor.root.platform
        if platform is None:
            return 0
        platform.set_pin(pin, level)
        return int(level)

    def attach_unit(self, *, gpa: int | None = None, driver: str = "root", **options: Any) -> RemappingUnit:
        """Put a remapping unit in front of all devices.

        Parameters
        ----------
        gpa : where its registers are, a multiple of 4096; default FED9_0000h, or above RAM if that reaches so far.
        driver : "root": the root's code programs it, in its own memory, and its interrupts are remapped.
            "hypervisor": the hypervisor does, for the device domains of all partitions; nobody else sees it.
        options : of RemappingUnit: preset, cap, ecap, caches ...

        Raises
        ------
        TypeError, ValueError
            There is one already, `driver` is neither, the addresses are taken, or an option is none or makes a unit
            that the hypervisor cannot drive. Nothing has changed then.
        """
        if self.unit is not None:
            raise ValueError("the machine has a remapping unit already")
        hypervisor = self.hypervisor
        if driver == "hypervisor":
            if gpa is not None:
                raise ValueError("gpa is only for a unit that the root drives")
            _require_drivable(hypervisor, options)
            unit = RemappingUnit(hypervisor.memory, _whole_memory(hypervisor), **options)
            hypervisor.domains.take(unit)
            self.unit = unit
            return unit
        if driver != "root":
            raise ValueError(f'driver must be "root" or "hypervisor", not {driver!r}')
        unit = RemappingUnit(hypervisor.memory, hypervisor.root.space, **options)
        if gpa is None:
            gpa = UNIT if hypervisor.memory.size <= UNIT else self.pci.windows[-1][1] + 1
        _require_place(hypervisor, gpa, unit.region_size)
        self.memory.attach(_UnitRegisters(unit), gpa=gpa, size=unit.region_size)
        unit.connect(hypervisor.root.core)
        self.unit, self.unit_gpa = unit, gpa
        if hypervisor.root.platform is not None:
            hypervisor.root.platform.requester = _IO_APIC_REQUESTER
        return unit

    def dmar(self) -> bytes:
        """The ACPI table that tells the root's system of its unit: every PCI device and the I/O APIC are behind it.

        Raises
        ------
        ValueError
            The root drives no unit.
        """
        if self.unit is None or self.unit_gpa is None:
            raise ValueError("the root drives no remapping unit")
        platform = self.hypervisor.root.platform
        scopes = [] if platform is None else [dmar.Scope.of(platform.requester, dmar.ScopeType.IO_APIC)]
        return dmar.table(
            [dmar.remapping_unit(self.unit_gpa, include_all=True, scopes=scopes)],
            address_bits=self.hypervisor.root.space.gpa_bits,
            flags=dmar.DmarFlags.INTERRUPT_REMAPPING if self.unit.ecap & _ECAP_IR else 0,
        )


class _UnitRegisters:
    """The registers of a unit on the memory bus."""

    def __init__(self, unit: RemappingUnit) -> None:
        self.read = unit.read
        self._unit = unit

    def write(self, offset: int, size: int, value: int) -> None:
        self._unit.write(offset, size, value)


def _require_place(hypervisor: Hypervisor, gpa: int, size: int) -> None:
    """ValueError if a unit's registers cannot be there: RAM and the interrupt controllers would hide them."""
    if not isinstance(gpa, int):
        raise TypeError(f"gpa must be an integer, not {gpa!r}")
    if gpa % PAGE_SIZE or gpa < hypervisor.memory.size:
        raise ValueError(f"gpa must be a multiple of {PAGE_SIZE:#x} above RAM, not {gpa:#x}")
    if any(gpa < page + PAGE_SIZE and page < gpa + size for page in _INTERRUPT_PAGES):
        raise ValueError(f"gpa must leave the pages of the interrupt controllers free, not be {gpa:#x}")


def _require_drivable(hypervisor: Hypervisor, options: dict[str, Any]) -> None:
    """ValueError, naming the option, if device domains need what a unit of these options has not."""
    unit = RemappingUnit(hypervisor.memory, hypervisor.root.space, **options)
    for register, value, needs in (("ecap", unit.ecap, _ECAP_NEEDS), ("cap", unit.cap, _CAP_NEEDS)):
        missing = [what for bit, what in needs.items() if not value >> bit & 1]
        if missing:
            without_scalable = not options.get("scalable", True)
            name = "scalable" if without_scalable else register if register in options else "preset"
            raise ValueError(f"{name} must leave the hypervisor's unit {', '.join(missing)}, not be {options[name]!r}")
    bits = options.get("host_address_bits")
    if bits is not None and hypervisor.memory.size + hypervisor.memory.reserve > 1 << bits:
        raise ValueError(f"host_address_bits must reach all of memory, not be {bits}")


def _whole_memory(hypervisor: Hypervisor) -> GpaSpace:
    """All system memory at its own address, reserve and pools included: what the hypervisor itself sees."""
    memory = hypervisor.memory
    space = GpaSpace(memory, memory.reserve_pool)
    space.create()
    large = memory.size // LARGE_PAGE_SIZE
    space.map(0, np.arange(large, dtype=np.uint64) * np.uint64(512), rights=RWX, large=True)
    first, last = memory.size >> 12, memory.size + memory.reserve >> 12
    space.map(first, np.arange(first, last, dtype=np.uint64), rights=RWX)
    return space
