"""The machine below the root partition: what its I/O ports and its device memory reach, and its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvcore.machine.bus import Bus, MemoryBus
from hvcore.machine.pci_host import PciHost
from hvcore.machine.uart import COM1, PORT_COUNT, Uart

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.machine.device import Device

_REQUESTERS = 0x1_0000


class SerialMachine:
    """`ports`, the port bus, with `console`, a UART at 3F8h: what a child that Python manages is given."""

    def __init__(self) -> None:
        self.ports = Bus()
        self.console = Uart()
        self.ports.attach(self.console, port=COM1, count=PORT_COUNT)


class Machine(SerialMachine):
    """Below the root: also `memory`, the bus of device memory; `pci`, the host bridge; `devices` by requester id.

    `unit` is the remapping unit in front of the devices, None while there is none.
    """

    def __init__(self, hypervisor: Hypervisor) -> None:
        super().__init__()
        root = hypervisor.root
        self.hypervisor = hypervisor
        self.devices: dict[int, Device] = {}
        self.unit: Any = None
        self.memory = MemoryBus(root.space.gpa_bits, root.core.set_device_ranges)
        self.pci = PciHost(hypervisor, self.ports, self.memory)

    def add_device(self, device: Device, requester_id: int) -> None:
        """Called by the constructor of a device. Raises ValueError: the requester id is out of range or taken."""
        if not 0 <= requester_id < _REQUESTERS:
            raise ValueError(f"requester_id must be 0 to {_REQUESTERS - 1:#x}, not {requester_id:#x}")
        if requester_id in self.devices:
            raise ValueError(f"requester_id {requester_id:#06x} belongs to {self.devices[requester_id]!r} already")
        device._requester_id = requester_id
        self.devices[requester_id] = device

    def send_message(self, device: Device, address: int, data: int) -> bool:
        """An interrupt message of a device on its way: whether it reached a processor."""
        return False

    def set_line(self, line: int, level: bool) -> None:
        """Drive a pin of the I/O APIC."""
