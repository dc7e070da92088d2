"""Guest code that drives its local APIC: the page mapped at its own address, handlers, and short ways to write code."""

from __future__ import annotations

from typing import Any

from support import IRETQ, STUBS, TABLES, Guest, code, mov, q

from hvcore.enums import Privilege

PAGE = 0xFEE0_0000
EOI, SVR, ICR, ICR_HIGH, LVT_TIMER, INITIAL, CURRENT, DIVIDE = 0xB0, 0xF0, 0x300, 0x310, 0x320, 0x380, 0x390, 0x3E0
SELF = 1 << 18
APIC_BASE, X2APIC = 0x1B, 0x800
MARK = 0x20_0000
"""Where handlers count."""


def apic_guest(**options: Any) -> Guest:
    """A guest whose tables also map the last gigabyte below 4 GiB at its own address by large pages."""
    guest = Guest(privileges=sum(Privilege), **options)
    guest.write(TABLES + 0x1000 + 8 * 3, q(TABLES + 0x3000 | 7))
    guest.write(TABLES + 0x3000, q(*(0xC000_0000 + (i << 21) | 0x87 for i in range(512))))
    return guest


def store(offset: int, value: int) -> bytes:
    """mov dword [PAGE + offset], value, through RBX = PAGE (see `base`)."""
    return b"\xc7\x83" + offset.to_bytes(4, "little") + value.to_bytes(4, "little")


def load(offset: int) -> bytes:
    """mov eax, [PAGE + offset]."""
    return b"\x8b\x83" + offset.to_bytes(4, "little")


def base() -> bytes:
    return mov("rbx", PAGE)


def wrmsr(index: int, value: int) -> bytes:
    return code("b9", index.to_bytes(4, "little"), "b8", (value & 0xFFFF_FFFF).to_bytes(4, "little"), "ba",
                (value >> 32).to_bytes(4, "little"), "0f30")  # fmt: skip


def rdmsr(index: int) -> bytes:
    """The value in RAX."""
    return code("b9", index.to_bytes(4, "little"), "0f32 48c1e220 4809d0")


def handler(guest: Guest, vector: int, *body: bytes | str) -> None:
    """A handler that runs `body` and returns. Handlers have 256 bytes each, apart from the stubs."""
    at = 0x40_0000 + vector * 256
    guest.write(at, code(*body, IRETQ))
    guest.write(STUBS + 16 * vector, b"\xe9" + (at - (STUBS + 16 * vector + 5)).to_bytes(4, "little", signed=True))
