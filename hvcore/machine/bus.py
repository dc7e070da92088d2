"""The buses of the machine: which device answers an IN or an OUT, or an access to device memory.

What no device claims floats: reads are all ones, writes are lost, as on a PC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import index
from typing import NamedTuple, Protocol

PORT_COUNT = 0x1_0000
WIDEST = 8
"""Bytes of the widest access to device memory; what an instruction moves beyond that is several accesses."""


class Registers(Protocol):
    """What sits on a bus. `offset` counts from the start of its range; `size` is 1, 2, 4 or (memory only) 8 bytes."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Claim(NamedTuple):
    """A range and its device."""

    device: Registers
    first: int
    end: int


class _Ranges:
    """Ranges of one address space, none of which overlap."""

    def __init__(self, limit: int, what: str, plural: str) -> None:
        self.limit = limit
        self.what = what
        self.plural = plural
        self.claims: list[Claim] = []

    def add(self, device: Registers, first: int, count: int) -> None:
        """Raises ValueError, naming the range, if it leaves the space or meets another."""
        if count < 1 or not 0 <= first <= self.limit - count:
            raise ValueError(
                f"{self.plural} {first:#x} to {first + count - 1:#x} are not in 0 to {self.limit - 1:#x}"
            )
        for claim in self.claims:
            if first < claim.end and claim.first < first + count:
                owner = type(claim.device).__name__
                raise ValueError(f"{self.what} {max(first, claim.first):#x} belongs to {owner} already")
        self.claims.append(Claim(device, first, first + count))

    def find(self, first: int, size: int) -> Claim | None:
        """The claim that has all of an access."""
        for claim in self.claims:
            if claim.first <= first and first + size <= claim.end:
                return claim
        return None


class Bus:
    """Ranges of ports and their devices."""

    def __init__(self) -> None:
        self._ranges = _Ranges(PORT_COUNT, "port", "ports")
        self.behind: Registers | None = None
        """What sees the accesses that no range has, by port number: the PCI bus."""

    def attach(self, device: Registers, *, port: int, count: int) -> None:
        """Give `device` the ports `port` to `port + count - 1`.

        Raises
        ------
        ValueError
            The range leaves port space, or a device has some of it already.
        """
        self._ranges.add(device, port, count)

    def read(self, port: int, size: int) -> int:
        """What IN gets."""
        claim = self._ranges.find(port, size)
        if claim is not None:
            return answer(claim, port, size)
        return (1 << 8 * size) - 1 if self.behind is None else self.behind.read(port, size)

    def write(self, port: int, size: int, value: int) -> None:
        """What OUT does."""
        claim = self._ranges.find(port, size)
        if claim is not None:
            claim.device.write(port - claim.first, size, value)
        elif self.behind is not None:
            self.behind.write(port, size, value)


class MemoryBus:
    """Ranges of the machine's guest physical addresses and their devices; the root's code reaches them.

    An access becomes naturally aligned ones of 1, 2, 4 and 8 bytes, in ascending order: so many as an instruction's
    16 bytes, or its unaligned ones, need. A piece that is not all in one range floats.
    """

    def __init__(self, bits: int, changed: Callable[[list[tuple[int, int]]], None]) -> None:
        self._ranges = _Ranges(1 << bits, "address", "addresses")
        self._changed = changed

    def attach(self, device: Registers, *, gpa: int, size: int) -> None:
        """Give `device` the addresses `gpa` to `gpa + size - 1`. RAM at the same addresses hides it.

        Raises
        ------
        ValueError
            The range leaves the address space, or a device has some of it already.
        """
        self._ranges.add(device, gpa, size)
        self._changed([(claim.first, claim.end - 1) for claim in self._ranges.claims])

    def read(self, gpa: int, size: int) -> int:
        """What a load of `size` bytes gets."""
        value = 0
        for at, piece in pieces(gpa, size):
            claim = self._ranges.find(at, piece)
            part = (1 << 8 * piece) - 1 if claim is None else answer(claim, at, piece)
            value |= part << 8 * (at - gpa)
        return value

    def write(self, gpa: int, size: int, value: int) -> None:
        """What a store does."""
        for at, piece in pieces(gpa, size):
            claim = self._ranges.find(at, piece)
            if claim is not None:
                claim.device.write(at - claim.first, piece, value >> 8 * (at - gpa) & (1 << 8 * piece) - 1)


def answer(claim: Claim, address: int, size: int) -> int:
    """What the device of a range gives, as much of it as was asked for.

    Raises TypeError, naming the device, if it is no integer."""
    offset = address - claim.first
    value = claim.device.read(offset, size)
    try:
        return index(value) & (1 << 8 * size) - 1
    except TypeError:
        name = type(claim.device).__name__
        raise TypeError(f"{name}.read({offset:#x}, {size}) must return an integer, not {value!r}") from None


def pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the naturally aligned accesses that make one of `size` bytes."""
    end = address + size
    while address < end:
        piece = WIDEST
        while address % piece or piece > end - address:
            piece //= 2
        yield address, piece
        address += piece
