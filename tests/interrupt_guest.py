"""A guest that is interrupted all the time."""

from __future__ import annotations

import random
import struct
from typing import Any

from msr_code import EOI, ICR, TPR, wrmsr
from support import HLT, IRETQ, STUBS, Guest, code

SCONTROL, SIMP, EOM, SINT0 = 0x40000080, 0x40000083, 0x40000084, 0x40000090


def busy_guest(seed: int, **keywords: Any) -> Guest:
    """Timers in both modes, self-IPIs, stretches with interrupts off or a raised TPR, halts; the order is random."""
    rng = random.Random(seed)
    guest = Guest(privileges=0xFFFF, **keywords)
    for vector in range(0x40, 0x60):
        guest.write(STUBS + 16 * vector, b"\xe9" + struct.pack("<i", 0x610000 - (STUBS + 16 * vector) - 5))
    guest.write(0x610000, code("50 51 52", "c7042500023000 00000000",
                               wrmsr(EOM, 0), wrmsr(EOI, 0), "5a 59 58", IRETQ))   # slot of SINT2 = 0, EOM, EOI
    parts = [wrmsr(SIMP, 0x300001), wrmsr(SCONTROL, 1), wrmsr(SINT0 + 2, 0x45),
             wrmsr(0x400000B1, 40), wrmsr(0x400000B0, 0x1000 | 0x51 << 4 | 3),
             wrmsr(0x400000B3, 70), wrmsr(0x400000B2, 2 << 16 | 3), "fb"]
    for _ in range(60):
        kind = rng.randrange(5)
        if kind == 0:
            parts.append(wrmsr(ICR, 1 << 18 | rng.randrange(0x40, 0x60)))
        elif kind == 1:
            parts.append(code("fa", "90" * rng.randrange(1, 300), wrmsr(ICR, 1 << 18 | 0x58), "fb"))
        elif kind == 2:
            parts.append(wrmsr(TPR, rng.choice([0, 0x40, 0x50])))
        elif kind == 3:
            parts.append(code("90" * rng.randrange(1, 200)))
        else:
            parts += [wrmsr(TPR, 0), HLT]
    body = b"".join(part if isinstance(part, bytes) else code(part) for part in parts)
    guest.load(body, b"\xe9" + struct.pack("<i", -len(body) - 5 + sum(len(code(p)) for p in parts[:8])))
    return guest
