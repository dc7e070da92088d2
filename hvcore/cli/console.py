"""The serial console of a guest on standard output."""

from __future__ import annotations

from typing import BinaryIO

_NEW_LINE = 10


class Console:
    """Takes bytes one by one, keeps them, and shows them at once on `screen` if there is one."""

    def __init__(self, screen: BinaryIO | None) -> None:
        self.received = bytearray()
        self._screen = screen
        self._each_byte = screen is not None and screen.isatty()

    def put(self, byte: int) -> None:
        """One byte from the guest."""
        self.received.append(byte)
        if self._screen is not None:
            self._screen.write(bytes((byte,)))
            if byte == _NEW_LINE or self._each_byte:
                self._screen.flush()

    def end_line(self) -> None:
        """Whatever is shown next starts a line."""
        if self._screen is not None:
            if self.received and self.received[-1] != _NEW_LINE:
                self._screen.write(b"\n")
            self._screen.flush()

    @property
    def text(self) -> str:
        """All of it; bytes that are not UTF-8 become \\xNN."""
        return self.received.decode("utf-8", "backslashreplace")
