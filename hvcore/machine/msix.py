"""MSI-X: a table of messages and their pending bits, both in ranges of the function (PCI 3.0, 6.8.2)."""

from __future__ import annotations

from struct import pack

from hvcore.machine.pci import BAR_COUNT, PciFunction

CAPABILITY = 0x11
ENTRY_BYTES = 16
_ENABLE, _FUNCTION_MASK = 1 << 15, 1 << 14
_ENTRY_MASK = 1
_MOST = 2048


class MsixTable:
    """The table, then the pending bits, in one range of `size` bytes; the capability says where.

    Parameters
    ----------
    function : PciFunction
        Whose messages they are.
    vectors : int
        1 to 2048.
    bar : int
        The base address register that the range belongs to. It is for the caller to add the range there.

    Raises
    ------
    ValueError
        `vectors` or `bar` is out of range.
    """

    def __init__(self, function: PciFunction, *, vectors: int, bar: int) -> None:
        if not 1 <= vectors <= _MOST:
            raise ValueError(f"vectors must be 1 to {_MOST}, not {vectors}")
        if not 0 <= bar < BAR_COUNT:
            raise ValueError(f"bar must be 0 to {BAR_COUNT - 1}, not {bar}")
        self.function = function
        self.vectors = vectors
        self.entries = bytearray()
        self.pending = 0
        self.pending_offset = max(vectors * ENTRY_BYTES, 0x800)
        self.size = 1 << (self.pending_offset + (vectors + 63) // 64 * 8 - 1).bit_length()
        body = pack("<HII", vectors - 1, bar, self.pending_offset | bar)
        self.offset = function.add_capability(CAPABILITY, body, (_ENABLE | _FUNCTION_MASK).to_bytes(2, "little"))
        self.reset()

    @property
    def enabled(self) -> bool:
        """Messages are used, and not the pin."""
        return bool(self.function.get(self.offset + 2, 2) & _ENABLE)

    def raise_vector(self, number: int) -> bool:
        """Send message `number`, or keep it pending while it is masked: whether it was sent now and arrived.

        Raises
        ------
        IndexError
            There is no such vector.
        """
        if not 0 <= number < self.vectors:
            raise IndexError(f"vector must be 0 to {self.vectors - 1}, not {number}")
        if not self.enabled:
            return False
        self.pending |= 1 << number
        return self._send(number)

    def send_pending(self) -> None:
        """A mask may have gone: send what waits."""
        waiting = self.pending
        while waiting:
            number = (waiting & -waiting).bit_length() - 1
            waiting &= waiting - 1
            self._send(number)

    def reset(self) -> None:
        """As after power on: off, every vector masked, nothing pending."""
        self.function.set(self.offset + 2, 2, self.vectors - 1)
        self.entries = bytearray(bytes((*[0] * 12, _ENTRY_MASK, 0, 0, 0)) * self.vectors)
        self.pending = 0

    # What software does with the range.

    def read(self, offset: int, size: int) -> int:
        """A read of the table or of the pending bits; zero behind them."""
        if offset < len(self.entries):
            return int.from_bytes(self.entries[offset : offset + size], "little")
        if offset >= self.pending_offset:
            return self.pending >> 8 * (offset - self.pending_offset) & (1 << 8 * size) - 1
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A write of 4 or 8 bytes of the table; others are undefined, and do nothing."""
        if size < 4 or offset + size > len(self.entries):
            return
        self.entries[offset : offset + size] = value.to_bytes(size, "little")
        self.send_pending()

    def _send(self, number: int) -> bool:
        entry = self.entries[number * ENTRY_BYTES : (number + 1) * ENTRY_BYTES]
        masked = self.function.get(self.offset + 2, 2) & _FUNCTION_MASK or entry[12] & _ENTRY_MASK
        if masked or not self.enabled or not self.function.is_master:
            return False
        self.pending &= ~(1 << number)
        address, data = int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8:12], "little")
        return self.function.send_message(address & ~3, data)
