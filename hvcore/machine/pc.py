"""The machine below the root partition: what its I/O ports reach."""

from __future__ import annotations

from collections.abc import Callable

from hvcore.machine.bus import Bus
from hvcore.machine.uart import COM1, COM1_INTERRUPT, PORT_COUNT, Uart


class Machine:
    """`ports`, the bus, with `console`, a UART, at 3F8h.

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
