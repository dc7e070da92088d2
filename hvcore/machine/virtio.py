"""Virtio over PCI, without the legacy interface (virtio 1.2, 4.1): capabilities, the common configuration, queues,
interrupts. What a device is for is in its subclass: `process` and `configuration_bytes`.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

from hvcore.machine.msix import MsixTable
from hvcore.machine.pci import COMMAND_MASTER, Bar, PciFunction
from hvcore.machine.virtio_registers import CommonConfiguration
from hvcore.machine.virtqueue import Broken, Request, Virtqueue

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor

VENDOR = 0x1AF4
INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, RING_RESET = 28, 29, 32, 33, 40
"""Feature bits of every device. ACCESS_PLATFORM: addresses are those that the device's requester id is given."""
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 0x40, 0x80
NO_VECTOR = 0xFFFF

_COMMON, _NOTIFY, _ISR, _DEVICE, _PCI = 1, 2, 3, 4, 5
_ISR_QUEUE, _ISR_CONFIGURATION = 1, 2
_PAGE = 0x1000
_NOTIFY_STEP = 4
_REGISTERS_BAR, _MSIX_BAR = 0, 2


class VirtioDevice(PciFunction):
    """A virtio device on the PCI bus, with MSI-X and an INTA pin for a driver without.

    BAR 0 (64 bits) has the four register sets, a page each; BAR 2 the MSI-X table. A driver's notification is
    served before its store has retired, so that two runs are the same.

    Parameters
    ----------
    kind : int
        Device number of virtio 1.2, 5.
    features : int
        Bits that the device offers beyond those of every device.
    queues : int
    """

    def __init__(
        self, hypervisor: Hypervisor, *, requester_id: int, kind: int, class_code: int, features: int, queues: int
    ) -> None:
        super().__init__(
            hypervisor,
            requester_id=requester_id,
            vendor=VENDOR,
            device=0x1040 + kind,
            class_code=class_code,
            revision=1,
            subsystem=(VENDOR, 0x1040 + kind),
            interrupt_pin=1,
        )
        base = (INDIRECT_DESC, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, RING_RESET)
        self.offered = features | sum(1 << bit for bit in base)
        self.queues = [Virtqueue(self) for _ in range(queues)]
        self.generation = 0
        self.reset()
        self._add_registers(queues)
        self.msix = MsixTable(self, vectors=queues + 1, bar=_MSIX_BAR)
        self.add_bar(Bar(_MSIX_BAR, max(self.msix.size, _PAGE), self.msix))
        hypervisor.machine.pci.assign(self)

    # What a subclass says.

    def process(self, queue: int, request: Request) -> int:
        """Do a request: how many bytes were written into it. Raises Broken if it has no legal form."""
        raise NotImplementedError

    def configuration_bytes(self) -> bytes:
        """The device's own configuration, as the driver sees it now."""
        return b""

    def configuration_stored(self, offset: int, data: bytes) -> None:
        """The driver has written into the device's own configuration."""

    # State.

    def reset(self) -> None:
        """What writing 0 to the status does; BARs and MSI-X stay."""
        self.negotiated = 0
        self.status_bits = 0
        self.isr = 0
        self.configuration_vector = NO_VECTOR
        for queue in self.queues:
            queue.reset()
        self.set_intx(False)

    def machine_reset(self) -> None:
        """Also MSI-X, and what PCI has."""
        super().machine_reset()
        self.reset()
        self.msix.reset()

    def has_feature(self, bit: int) -> bool:
        """It was offered, and the driver took it."""
        return bool(self.negotiated >> bit & 1)

    def set_status(self, value: int) -> None:
        """The driver writes its status. Features that are not offered, or no VERSION_1, leave FEATURES_OK clear."""
        if value == 0:
            self.reset()
            return
        if value & FEATURES_OK and not self.status_bits & FEATURES_OK:
            if self.negotiated & ~self.offered or not self.has_feature(VERSION_1):
                value &= ~FEATURES_OK
        self.status_bits = value | self.status_bits & NEEDS_RESET
        for queue in self.queues:
            queue.event_index = self.has_feature(EVENT_IDX)
            queue.may_be_indirect = self.has_feature(INDIRECT_DESC)

    def notify(self, index: int) -> None:
        """The driver says that a queue has entries: do all that there are. A ring that breaks the rules is left."""
        if index >= len(self.queues) or not self.status_bits & DRIVER_OK or self.status_bits & NEEDS_RESET:
            return
        queue = self.queues[index]
        if not queue.enabled:
            return
        wanted = False
        try:
            for _ in range(queue.size):
                request = queue.take()
                if request is None:
                    break
                wanted |= queue.put(request, self.process(index, request))
                self.counters["requests"] += 1
            queue.ask_for_notifications()
        except Broken:
            self.counters["broken"] += 1
            self.status_bits |= NEEDS_RESET
            self.configuration_changed()
        if wanted:
            self._interrupt(queue.vector, _ISR_QUEUE)

    def configuration_changed(self) -> None:
        """Tell the driver to read the configuration again."""
        self.generation = self.generation + 1 & 0xFF
        if self.status_bits & DRIVER_OK:
            self._interrupt(self.configuration_vector, _ISR_CONFIGURATION)

    def raise_msi(self, number: int = 0) -> bool:
        """Send vector `number` of the MSI-X table: whether it reached a processor now."""
        return self.msix.raise_vector(number)

    def _interrupt(self, vector: int, reason: int) -> None:
        if self.msix.enabled:
            if vector != NO_VECTOR:
                self.msix.raise_vector(vector)
            return
        self.isr |= reason
        self.set_intx(True)

    def take_isr(self) -> int:
        """Reading the ISR status clears it and the pin."""
        reason, self.isr = self.isr, 0
        self.set_intx(False)
        return reason

    # Capabilities.

    def _add_registers(self, queues: int) -> None:
        registers = CommonConfiguration(self)
        places = (
            (_COMMON, 0, 0x40),
            (_ISR, _PAGE, 4),
            (_DEVICE, 2 * _PAGE, _PAGE),
            (_NOTIFY, 3 * _PAGE, _NOTIFY_STEP * queues),
        )
        self.add_bar(Bar(_REGISTERS_BAR, 4 * _PAGE, registers, wide=True))
        for kind, offset, size in places:
            extra = pack("<I", _NOTIFY_STEP) if kind == _NOTIFY else b""
            body = pack("<BBBBHII", 16 + len(extra), kind, _REGISTERS_BAR, 0, 0, offset, size) + extra
            self.add_capability(0x09, body)
        window = pack("<BBBBHII", 20, _PCI, 0, 0, 0, 0, 0) + bytes(4)
        # bar, offset, length and data are the driver's; the rest of the capability is not.
        mask = bytes((0, 0, 0xFF, 0, 0, 0)) + b"\xff" * 12
        self._window = self.add_capability(0x09, window, mask)
        self._registers = registers

    def configuration_written(self, offset: int, size: int) -> None:
        """MSI-X may have been unmasked; a write to the data of the PCI configuration window goes to a range."""
        self.msix.send_pending()
        if self._window + 16 <= offset < self._window + 20:
            at, length = self._windowed()
            if length:
                self._registers.write(at, length, self.get(self._window + 16, length))

    def read_configuration(self, offset: int, size: int) -> int:
        """Reading the data of the PCI configuration window reads a range."""
        if self._window + 16 <= offset < self._window + 20:
            at, length = self._windowed()
            if length:
                self.set(self._window + 16, 4, self._registers.read(at, length))
        return super().read_configuration(offset, size)

    def _windowed(self) -> tuple[int, int]:
        """(offset in BAR 0, bytes) that the window names; 0 bytes for what is not legal."""
        bar, at, length = self.get(self._window + 4, 1), self.get(self._window + 8, 4), self.get(self._window + 12, 4)
        legal = bar == _REGISTERS_BAR and length in (1, 2, 4) and at % length == 0 and at + length <= 4 * _PAGE
        return at, length if legal else 0

    def command_written(self) -> None:
        """A new bus master may send what is pending."""
        if self.command & COMMAND_MASTER:
            self.msix.send_pending()
