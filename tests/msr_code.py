"""Machine code of tests that read and write MSRs."""

from __future__ import annotations

import struct

from support import code

EOI, ICR, TPR = 0x40000070, 0x40000071, 0x40000072
TIMER_CONFIG, TIMER_COUNT = 0x400000B0, 0x400000B1


def rdmsr(index: int) -> bytes:
    """RAX = the MSR."""
    return code("b9", struct.pack("<I", index), "0f32 48c1e220 4809d0")


def wrmsr(index: int, value: int) -> bytes:
    """Four instructions; RAX, RCX and RDX are overwritten."""
    low, high = struct.pack("<I", value & 0xFFFFFFFF), struct.pack("<I", value >> 32)
    return code("b9", struct.pack("<I", index), "b8", low, "ba", high, "0f30")


def one_shot(time: int, vector: int = 0x50) -> bytes:
    """Synthetic timer 0 in direct mode, at an absolute reference time."""
    return wrmsr(TIMER_COUNT, time) + wrmsr(TIMER_CONFIG, 1 << 12 | vector << 4 | 1)
