"""Machine code for the root, run at 64-bit CPL 0 with every address below 8 GiB mapped at itself."""

from __future__ import annotations

from typing import Any

from hvcore.boot.long_mode import enter_long_mode
from hvcore.hypervisor import Hypervisor

CODE, DATA = 0x2000, 0x9000


def prepare(hypervisor: Hypervisor, code: str, **registers: int) -> Any:
    """The root's first processor at `code`, hexadecimal; it ends with HLT."""
    vp = hypervisor.root.vps[0]
    hypervisor.memory.write(CODE, bytes.fromhex(code) + b"\xf4")
    enter_long_mode(hypervisor.root, vp, rip=CODE, rsp=0x80000, identity_map="8 GiB", tables=0xA0_0000)
    vp.explicit_suspend = False
    for name, value in registers.items():
        setattr(vp, name, value)
    return vp


def run(hypervisor: Hypervisor, code: str, **registers: int) -> Any:
    """Run it to its HLT."""
    vp = prepare(hypervisor, code, **registers)
    stopped = vp.run(max_instructions=10_000)
    assert type(stopped).__name__ == "Halt", stopped
    assert vp.rip == CODE + len(bytes.fromhex(code)) + 1
    return vp
