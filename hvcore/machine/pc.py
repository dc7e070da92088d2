"""The machine below the root partition: what its I/O ports reach."""

from __future__ import annotations

from hvcore.machine.bus import Bus
from hvcore.machine.uart import COM1, PORT_COUNT, Uart


class Machine:
    """`ports`, the bus, with `console`, a UART, at 3F8h."""

    def __init__(self) -> None:
        self.ports = Bus()
        self.console = Uart()
        self.ports.attach(self.console, port=COM1, count=PORT_COUNT)
