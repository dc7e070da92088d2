"""The port bus of the machine: which device answers an IN or an OUT.

A port that no device claims floats: reads are all ones, writes are lost, as on a PC.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

PORT_COUNT = 0x1_0000


class Device(Protocol):
    """What sits on the bus. `offset` counts from the start of its range; `size` is 1, 2 or 4 bytes."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class _Claim(NamedTuple):
    device: Device
    first: int
    end: int


class Bus:
    """Ranges of ports and their devices."""

    def __init__(self) -> None:
        self._claims: list[_Claim] = []

    def attach(self, device: Device, *, port: int, count: int) -> None:
        """Give `device` the ports `port` to `port + count - 1`.

        Raises
        ------
        ValueError
            The range leaves port space, or a device has some of it already.
        """
        if count < 1 or not 0 <= port <= PORT_COUNT - count:
            raise ValueError(f"ports {port:#x} to {port + count - 1:#x} are not in 0 to {PORT_COUNT - 1:#x}")
        for claim in self._claims:
            if port < claim.end and claim.first < port + count:
                raise ValueError(f"port {max(port, claim.first):#x} belongs to {type(claim.device).__name__} already")
        self._claims.append(_Claim(device, port, port + count))

    def read(self, port: int, size: int) -> int:
        """What IN gets."""
        claim = self._find(port, size)
        return (1 << 8 * size) - 1 if claim is None else claim.device.read(port - claim.first, size)

    def write(self, port: int, size: int, value: int) -> None:
        """What OUT does."""
        claim = self._find(port, size)
        if claim is not None:
            claim.device.write(port - claim.first, size, value)

    def _find(self, port: int, size: int) -> _Claim | None:
        """The claim that has all of the access."""
        for claim in self._claims:
            if claim.first <= port and port + size <= claim.end:
                return claim
        return None
