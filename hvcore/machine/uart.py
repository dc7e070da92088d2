"""A 16550 UART (National Semiconductor PC16550D data sheet, section 8), transmitting without delay.

Its interrupt line is high while IIR has a condition and OUT2 lets it out, as PCs are wired.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

COM1: Final = 0x3F8
COM1_INTERRUPT: Final = 4
PORT_COUNT: Final = 8

_DLAB = 0x80
_FIFO_ENABLE, _FIFO_CLEAR_RECEIVE = 0x01, 0x02
_FIFO_DEPTH = 16
_TRIGGER_LEVELS = (1, 4, 8, 14)
_LOOPBACK, _OUT2 = 0x10, 0x08
_RECEIVED, _OVERRUN, _TRANSMITTER_EMPTY = 0x01, 0x02, 0x60
_ENABLE_RECEIVED, _ENABLE_TRANSMIT, _ENABLE_LINE_STATUS, _ENABLE_MODEM_STATUS = 0x01, 0x02, 0x04, 0x08
_CONNECTED = 0xB0
"""Modem status of a terminal at the other end: DCD, DSR, CTS."""
_NOTHING_PENDING, _TRANSMIT_PENDING, _RECEIVED_PENDING = 0x01, 0x02, 0x04
_TIMEOUT_PENDING, _LINE_STATUS_PENDING, _MODEM_STATUS_PENDING = 0x0C, 0x06, 0x00


class _Register(IntEnum):
    DATA, INTERRUPT_ENABLE, IDENTIFY_OR_FIFO, LINE_CONTROL = range(4)
    MODEM_CONTROL, LINE_STATUS, MODEM_STATUS, SCRATCH = range(4, 8)


class Uart:
    """One port. `sink` gets each byte that the guest transmits, unless it is None; `feed` gives it bytes to receive.

    `line`, unless it is None, is called with the level of the interrupt line whenever that changes.
    """

    def __init__(self, sink: Callable[[int], object] | None = None) -> None:
        self.sink = sink
        self.line: Callable[[bool], None] | None = None
        self._line_is_high = False
        self.reset()

    def reset(self) -> None:
        """Master reset (8.1): nothing received, no interrupt enabled."""
        self.divisor = 0
        self.interrupt_enable = 0
        self.fifo_control = 0
        self.line_control = 0
        self.modem_control = 0
        self.scratch = 0
        self._received: deque[int] = deque()
        self._overrun = False
        self._transmit_pending = False
        self._deltas = 0
        self._drive_line()

    @property
    def room(self) -> int:
        """How many more bytes it can receive before one is lost."""
        return (_FIFO_DEPTH if self.fifo_control & _FIFO_ENABLE else 1) - len(self._received)

    def feed(self, data: Iterable[int]) -> int:
        """Bytes from the other end of the line, as many as there is room for; how many those were."""
        taken = 0
        for byte in data:
            if self.room <= 0:
                break
            self._received.append(byte)
            taken += 1
        self._drive_line()
        return taken

    def read(self, offset: int, size: int) -> int:
        """IN; a wider access reads consecutive registers."""
        value = sum(self._read(offset + position) << 8 * position for position in range(size))
        self._drive_line()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """OUT; a wider access writes consecutive registers."""
        for position in range(size):
            self._write(offset + position, value >> 8 * position & 0xFF)
        self._drive_line()

    def _drive_line(self) -> None:
        """OUT2 lets the line out, but not in loopback (8.6.7)."""
        high = self._pending() != _NOTHING_PENDING and self.modem_control & (_OUT2 | _LOOPBACK) == _OUT2
        if high != self._line_is_high:
            self._line_is_high = high
            if self.line is not None:
                self.line(high)

    def _read(self, register: int) -> int:
        latched = self.line_control & _DLAB
        match register:
            case _Register.DATA:
                if latched:
                    return self.divisor & 0xFF
                return self._received.popleft() if self._received else 0
            case _Register.INTERRUPT_ENABLE:
                return self.divisor >> 8 if latched else self.interrupt_enable
            case _Register.IDENTIFY_OR_FIFO:
                return self._identify()
            case _Register.LINE_CONTROL:
                return self.line_control
            case _Register.MODEM_CONTROL:
                return self.modem_control
            case _Register.LINE_STATUS:
                status = _TRANSMITTER_EMPTY | _RECEIVED * bool(self._received) | _OVERRUN * self._overrun
                self._overrun = False
                return status
            case _Register.MODEM_STATUS:
                status = self._modem_lines() | self._deltas
                self._deltas = 0
                return status
        return self.scratch

    def _write(self, register: int, value: int) -> None:
        latched = self.line_control & _DLAB
        match register:
            case _Register.DATA if latched:
                self.divisor = self.divisor & 0xFF00 | value
            case _Register.DATA:
                self._transmit(value)
            case _Register.INTERRUPT_ENABLE if latched:
                self.divisor = self.divisor & 0x00FF | value << 8
            case _Register.INTERRUPT_ENABLE:
                self._transmit_pending = bool(value & ~self.interrupt_enable & _ENABLE_TRANSMIT)
                self.interrupt_enable = value & 0x0F
            case _Register.IDENTIFY_OR_FIFO:
                self._control_fifo(value)
            case _Register.LINE_CONTROL:
                self.line_control = value
            case _Register.MODEM_CONTROL:
                before = self._modem_lines()
                self.modem_control = value & 0x1F
                self._note_changes(before)
            case _Register.SCRATCH:
                self.scratch = value

    def _transmit(self, value: int) -> None:
        self._transmit_pending = True
        if not self.modem_control & _LOOPBACK:
            if self.sink is not None:
                self.sink(value)
        elif self.room > 0:
            self._received.append(value)
        else:
            self._overrun = True
            if not self.fifo_control & _FIFO_ENABLE:
                self._received[0] = value

    def _control_fifo(self, value: int) -> None:
        if value & _FIFO_CLEAR_RECEIVE or (value ^ self.fifo_control) & _FIFO_ENABLE:
            self._received.clear()
        self.fifo_control = value & 0xC9 if value & _FIFO_ENABLE else 0

    def _identify(self) -> int:
        """IIR. Reading it acknowledges an empty transmitter."""
        pending = self._pending()
        if pending == _TRANSMIT_PENDING:
            self._transmit_pending = False
        return pending | 0xC0 * bool(self.fifo_control & _FIFO_ENABLE)

    def _pending(self) -> int:
        """The pending condition of the highest priority."""
        fifo = bool(self.fifo_control & _FIFO_ENABLE)
        level = _TRIGGER_LEVELS[self.fifo_control >> 6] if fifo else 1
        enabled = self.interrupt_enable
        if enabled & _ENABLE_LINE_STATUS and self._overrun:
            return _LINE_STATUS_PENDING
        if enabled & _ENABLE_RECEIVED and len(self._received) >= level:
            return _RECEIVED_PENDING
        if enabled & _ENABLE_RECEIVED and self._received:
            return _TIMEOUT_PENDING
        if enabled & _ENABLE_TRANSMIT and self._transmit_pending:
            return _TRANSMIT_PENDING
        if enabled & _ENABLE_MODEM_STATUS and self._deltas:
            return _MODEM_STATUS_PENDING
        return _NOTHING_PENDING

    def _modem_lines(self) -> int:
        """CTS, DSR, RI, DCD; in loopback those are RTS, DTR, OUT1, OUT2."""
        if not self.modem_control & _LOOPBACK:
            return _CONNECTED
        control = self.modem_control
        return (control & 2) << 3 | (control & 1) << 5 | (control & 4) << 4 | (control & 8) << 4

    def _note_changes(self, before: int) -> None:
        changed = before ^ self._modem_lines()
        ring_ended = before & ~self._modem_lines() & 0x40
        self._deltas |= (changed >> 4 & 0x0B) | ring_ended >> 4
