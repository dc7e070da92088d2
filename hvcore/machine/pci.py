"""A PCI function: configuration space with a header of type 0, base address registers, capabilities (PCI 3.0, 6).

Bits that software may write are in a mask of their own, so that sizing a base address register is nothing special:
of all ones that are written, those stay that are writable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvcore.machine.device import Device

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.machine.bus import Registers

CONFIGURATION_BYTES = 4096
COMMAND, STATUS, BAR0, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = 0x04, 0x06, 0x10, 0x34, 0x3C, 0x3D
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_NO_INTX = 1, 2, 4, 1 << 10
STATUS_INTERRUPT, STATUS_CAPABILITIES = 1 << 3, 1 << 4
_COMMAND_WRITABLE = 0x0547
"""I/O, memory, master, parity response, SERR, INTx disable."""
_STATUS_CLEARABLE = 0xF900
_FIRST_CAPABILITY = 0x40
BAR_COUNT = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """A base address register: a range of `size` bytes, a power of two, that `registers` serves.

    `io`: of ports, else of memory; `wide`: 64 bits, in two registers; `prefetchable` as the name says.
    """

    index: int
    size: int
    registers: Registers
    io: bool = False
    wide: bool = False
    prefetchable: bool = False

    @property
    def flags(self) -> int:
        """The read-only low bits of the register."""
        return 1 if self.io else self.wide << 2 | self.prefetchable << 3


class PciFunction(Device):
    """A function on the PCI bus, with the device's way to memory and interrupts.

    Parameters
    ----------
    requester_id : where it is plugged in: bus, device and function.
    vendor, device : ids.
    class_code : base class, subclass and programming interface, 24 bits.
    subsystem : (vendor, device) of the board.
    interrupt_pin : 0 none, 1 to 4 INTA to INTD.

    Raises
    ------
    ValueError
        The place is taken, or an id is out of range.
    """

    def __init__(
        self,
        hypervisor: Hypervisor,
        *,
        requester_id: int,
        vendor: int,
        device: int,
        class_code: int,
        revision: int = 0,
        subsystem: tuple[int, int] = (0, 0),
        interrupt_pin: int = 0,
    ) -> None:
        board, model = subsystem
        for name, value, limit in (
            ("vendor", vendor, 0xFFFE),
            ("device", device, 0xFFFF),
            ("class_code", class_code, 0xFF_FFFF),
            ("revision", revision, 0xFF),
            ("subsystem[0]", board, 0xFFFF),
            ("subsystem[1]", model, 0xFFFF),
        ):
            if not 0 <= value <= limit:
                raise ValueError(f"{name} must be 0 to {limit:#x}, not {value:#x}")
        if not 0 <= interrupt_pin <= 4:
            raise ValueError(f"interrupt_pin must be 0 to 4, not {interrupt_pin}")
        super().__init__(hypervisor, requester_id=requester_id)
        self.bars: dict[int, Bar] = {}
        self.configuration = bytearray(CONFIGURATION_BYTES)
        self.writable = bytearray(CONFIGURATION_BYTES)
        self.clearable = bytearray(CONFIGURATION_BYTES)
        self.intx_asserted = False
        self._next_capability = _FIRST_CAPABILITY
        self._last_link = CAPABILITIES
        self.set(0x00, 2, vendor)
        self.set(0x02, 2, device)
        self.set(0x08, 4, class_code << 8 | revision)
        self.set(0x2C, 2, board)
        self.set(0x2E, 2, model)
        self.set(INTERRUPT_PIN, 1, interrupt_pin)
        self.let_write(COMMAND, 2, _COMMAND_WRITABLE)
        self.let_write(INTERRUPT_LINE, 1, 0xFF)
        self.let_write(0x0C, 1, 0xFF)
        self.clearable[STATUS : STATUS + 2] = _STATUS_CLEARABLE.to_bytes(2, "little")
        hypervisor.machine.pci.plug(self)

    # What the function itself does with its configuration space.

    def get(self, offset: int, size: int) -> int:
        """A field."""
        return int.from_bytes(self.configuration[offset : offset + size], "little")

    def set(self, offset: int, size: int, value: int) -> None:
        """Set a field, writable by software or not."""
        self.configuration[offset : offset + size] = value.to_bytes(size, "little")

    def let_write(self, offset: int, size: int, mask: int) -> None:
        """Say which bits of a field software may write."""
        self.writable[offset : offset + size] = mask.to_bytes(size, "little")

    @property
    def command(self) -> int:
        """The command register."""
        return self.get(COMMAND, 2)

    @property
    def is_master(self) -> bool:
        """Bus mastering is enabled: memory can be accessed and messages sent."""
        return bool(self.command & COMMAND_MASTER)

    def add_bar(self, bar: Bar) -> None:
        """Give the function a range. Its address is for software, or PciHost.assign, to set.

        Raises
        ------
        ValueError
            The register is taken or does not exist, or the size is no power of two in range.
        """
        least, most = (4, 256) if bar.io else (16, 1 << 40 if bar.wide else 1 << 31)
        if bar.size & bar.size - 1 or not least <= bar.size <= most:
            raise ValueError(f"size of a BAR must be a power of two, {least:#x} to {most:#x}, not {bar.size:#x}")
        taken = {index for other in self.bars.values() for index in (other.index, other.index + other.wide)}
        wanted = {bar.index, bar.index + bar.wide}
        if wanted & taken or not wanted <= set(range(BAR_COUNT)) or (bar.io and bar.wide):
            raise ValueError(f"BAR {bar.index} is taken or does not exist")
        self.bars[bar.index] = bar
        offset, size = BAR0 + 4 * bar.index, 8 if bar.wide else 4
        self.set(offset, size, bar.flags)
        self.let_write(offset, size, -bar.size & (1 << 8 * size) - 1)

    def bar_address(self, index: int) -> int:
        """Where software has put a range."""
        bar = self.bars[index]
        return self.get(BAR0 + 4 * index, 8 if bar.wide else 4) & -bar.size

    def add_capability(self, kind: int, body: bytes, writable: bytes = b"") -> int:
        """Append a capability: its offset. `body` follows the two bytes of id and link; `writable` is its mask."""
        offset = self._next_capability
        end = offset + 2 + len(body)
        if end > 256:
            raise ValueError(f"no room for a capability of {len(body)} bytes behind {offset:#x}")
        self.configuration[offset : offset + 2] = bytes((kind, 0))
        self.configuration[offset + 2 : end] = body
        self.writable[offset + 2 : offset + 2 + len(writable)] = writable
        self.set(self._last_link, 1, offset)
        self.set(STATUS, 2, self.get(STATUS, 2) | STATUS_CAPABILITIES)
        self._last_link = offset + 1
        self._next_capability = end + 3 & -4
        return offset

    def set_intx(self, asserted: bool) -> None:
        """Drive the interrupt pin; the status bit follows, the pin only while the command register lets it."""
        self.intx_asserted = asserted
        status = self.get(STATUS, 2)
        self.set(STATUS, 2, status | STATUS_INTERRUPT if asserted else status & ~STATUS_INTERRUPT)
        self.hypervisor.machine.pci.drive_pin(self)

    # What software does with it.

    def read_configuration(self, offset: int, size: int) -> int:
        """A read of 1, 2 or 4 bytes."""
        return self.get(offset, size)

    def write_configuration(self, offset: int, size: int, value: int) -> None:
        """A write of 1, 2 or 4 bytes."""
        for i in range(size):
            byte, at = value >> 8 * i & 0xFF, offset + i
            kept = self.configuration[at] & ~self.writable[at] & ~(byte & self.clearable[at])
            self.configuration[at] = kept | byte & self.writable[at]
        self.configuration_written(offset, size)
        if offset < STATUS and offset + size > COMMAND:
            self.hypervisor.machine.pci.drive_pin(self)
            self.command_written()

    def machine_reset(self) -> None:
        """Decoding and bus mastering are off; ranges stay where firmware puts them."""
        self.write_configuration(COMMAND, 2, 0)

    def configuration_written(self, offset: int, size: int) -> None:
        """For functions with capabilities that act: software has written there."""

    def command_written(self) -> None:
        """Software has written the command register."""
