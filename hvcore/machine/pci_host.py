"""The host bridge: configuration cycles by ports CF8h and CFCh and by ECAM, and the windows behind which functions have
their ranges (PCI 3.0, 3.2.2.3; PCI Express 7.2.2).

Every bus number is a bus of its own below the bridge: requester ids are what you say, without bridges between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.machine.pci import (
    BAR0,
    COMMAND_IO,
    COMMAND_MEMORY,
    COMMAND_NO_INTX,
    CONFIGURATION_BYTES,
    INTERRUPT_LINE,
    INTERRUPT_PIN,
    Bar,
    PciFunction,
)

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.machine.bus import Bus, MemoryBus

ADDRESS_PORT, DATA_PORT = 0xCF8, 0xCFC
ECAM_BYTES = 1 << 28
_ENABLE = 1 << 31
_LOW_HOLE = 0xE000_0000
_LOW_END = 0xFEC0_0000
"""Behind it lie the I/O APIC, the remapping unit and the local APICs."""
_HIGH_BYTES = 1 << 36
_PORTS = range(0xC000, 0x1_0000)
_FIRST_LINE = 16
"""INTA to INTD are pins 16 to 19 of the I/O APIC, turned by the device number."""


class PciHost:
    """What software sees of the PCI bus.

    `ecam` is the GPA of the memory-mapped configuration space, 4096 bytes a function at requester id * 4096; `windows`
    are the (first, last) GPAs in which base address registers may put memory. With more than 3.5 GiB of RAM all of
    it lies above.
    """

    def __init__(self, hypervisor: Hypervisor, ports: Bus, memory: MemoryBus) -> None:
        self._hypervisor = hypervisor
        self.functions: dict[int, PciFunction] = {}
        self._address = 0
        high = -(-max(hypervisor.memory.size, 1 << 32) // (1 << 30)) << 30
        low = hypervisor.memory.size <= _LOW_HOLE
        self.ecam = _LOW_HOLE if low else high
        high += 0 if low else ECAM_BYTES
        self.windows = [(_LOW_HOLE + ECAM_BYTES, _LOW_END - 1)] if low else []
        self.windows.append((high, high + _HIGH_BYTES - 1))
        self._next = [first for first, _ in self.windows]
        self._next_port = _PORTS.start
        self._pins = [0, 0, 0, 0]
        ports.attach(_Mechanism1(self), port=ADDRESS_PORT, count=8)
        ports.behind = _Window(self, 0, io=True)
        memory.attach(_Ecam(self), gpa=self.ecam, size=ECAM_BYTES)
        for first, last in self.windows:
            memory.attach(_Window(self, first, io=False), gpa=first, size=last + 1 - first)

    def plug(self, function: PciFunction) -> None:
        """Called by the constructor of a function."""
        self.functions[function.requester_id] = function
        base = self.functions.get(function.requester_id & ~7)
        if base is not None and function.requester_id & 7:
            base.set(0x0E, 1, 0x80)     # a device with several functions
        elif any(other & ~7 == function.requester_id for other in self.functions if other & 7):
            function.set(0x0E, 1, 0x80)

    def assign(self, function: PciFunction) -> None:
        """What firmware does: give each range an address and the pin a line. Decoding stays off.

        Raises
        ------
        MemoryError
            The windows are full.
        """
        for bar in function.bars.values():
            size = 8 if bar.wide else 4
            function.set(BAR0 + 4 * bar.index, size, self._place(bar) | bar.flags)
        pin = function.get(INTERRUPT_PIN, 1)
        if pin:
            function.set(INTERRUPT_LINE, 1, self._line(function))

    def configuration(self, requester_id: int, offset: int, size: int) -> int:
        """A configuration read; all ones where nothing is plugged in. Raises ValueError for what is no access of 1,
        2 or 4 bytes."""
        _require_field(offset, size)
        function = self.functions.get(requester_id)
        return (1 << 8 * size) - 1 if function is None else function.read_configuration(offset, size)

    def set_configuration(self, requester_id: int, offset: int, size: int, value: int) -> None:
        """A configuration write. Raises as `configuration`."""
        _require_field(offset, size)
        function = self.functions.get(requester_id)
        if function is not None:
            function.write_configuration(offset, size, value)

    def find(self, address: int, size: int, *, io: bool) -> tuple[Bar, int] | None:
        """The range that decodes all of an access, and the offset in it. The first function wins."""
        enable = COMMAND_IO if io else COMMAND_MEMORY
        for function in self.functions.values():
            if not function.command & enable:
                continue
            for bar in function.bars.values():
                base = function.bar_address(bar.index)
                if bar.io == io and base and base <= address and address + size <= base + bar.size:
                    return bar, address - base
        return None

    def drive_pin(self, function: PciFunction) -> None:
        """The level of a function's pin may have changed: the line is the OR of all that share it."""
        line = self._line(function)
        if function.get(INTERRUPT_PIN, 1):
            self._hypervisor.machine.set_line(
                line,
                any(
                    other.intx_asserted and not other.command & COMMAND_NO_INTX
                    for other in self.functions.values()
                    if other.get(INTERRUPT_PIN, 1) and self._line(other) == line
                ),
            )

    def _line(self, function: PciFunction) -> int:
        return _FIRST_LINE + ((function.requester_id >> 3) + function.get(INTERRUPT_PIN, 1) - 1 & 3)

    def _place(self, bar: Bar) -> int:
        if bar.io:
            at = -(-self._next_port // bar.size) * bar.size
            if at + bar.size > _PORTS.stop:
                raise MemoryError("no ports are left for a BAR")
            self._next_port = at + bar.size
            return at
        for number, (_, last) in enumerate(self.windows):
            at = -(-self._next[number] // bar.size) * bar.size
            if at + bar.size <= last + 1 and (bar.wide or at + bar.size <= 1 << 32):
                self._next[number] = at + bar.size
                return at
        raise MemoryError(f"no window has {bar.size:#x} bytes left for a BAR{'' if bar.wide else ' of 32 bits'}")


class _Mechanism1:
    """CF8h: the address, written as four bytes; CFCh to CFFh: the data."""

    def __init__(self, host: PciHost) -> None:
        self._host = host
        self._address = 0

    def read(self, offset: int, size: int) -> int:
        if offset + size <= 4:
            return self._address if size == 4 else (1 << 8 * size) - 1
        found = self._decode(offset, size)
        return (1 << 8 * size) - 1 if found is None else self._host.configuration(*found, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset + size <= 4:
            if size == 4:
                self._address = value & 0x80FF_FFFC
            return
        found = self._decode(offset, size)
        if found is not None:
            self._host.set_configuration(*found, size, value)

    def _decode(self, offset: int, size: int) -> tuple[int, int] | None:
        """(requester id, offset) of a data access; None while the address is not enabled or it leaves CFCh."""
        if offset < 4 or not self._address & _ENABLE:
            return None
        return self._address >> 8 & 0xFFFF, (self._address & 0xFC) + offset - 4


def _require_field(offset: int, size: int) -> None:
    if size not in (1, 2, 4):
        raise ValueError(f"size must be 1, 2 or 4, not {size}")
    if not 0 <= offset <= CONFIGURATION_BYTES - size:
        raise ValueError(f"offset must be 0 to {CONFIGURATION_BYTES - size:#x}, not {offset:#x}")


class _Ecam:
    """Bits 27:12 of the offset are the requester id. An access of 8 bytes is two of 4."""

    def __init__(self, host: PciHost) -> None:
        self._host = host

    def read(self, offset: int, size: int) -> int:
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        return self._host.configuration(offset >> 12, offset & 0xFFF, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if size == 8:
            self.write(offset, 4, value & 0xFFFF_FFFF)
            self.write(offset + 4, 4, value >> 32)
            return
        self._host.set_configuration(offset >> 12, offset & 0xFFF, size, value)


class _Window:
    """Addresses behind the bridge: whichever function decodes them."""

    def __init__(self, host: PciHost, base: int, *, io: bool) -> None:
        self._host = host
        self._base = base
        self._io = io

    def read(self, offset: int, size: int) -> int:
        found = self._host.find(self._base + offset, size, io=self._io)
        return (1 << 8 * size) - 1 if found is None else found[0].registers.read(found[1], size)

    def write(self, offset: int, size: int, value: int) -> None:
        found = self._host.find(self._base + offset, size, io=self._io)
        if found is not None:
            found[0].registers.write(found[1], size, value)
