"""Runs the test kernels of tests/irq/kernels: freestanding C for 64-bit mode, one program a file, on 1 to 8 processors.

A kernel writes its checks as lines into its memory, drives lines of the platform by OUT 0EE0h, and ends by OUT 0F4h.

    python tests/irq/kernel_runner.py tests/irq/kernels/apic.c --processors 2
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import freestanding
from apic_guest import apic_guest
from support import Guest

from hvcore._native.exits import IoPort
from hvcore.boot import elf

KERNELS = Path(__file__).parent / "kernels"
LOG, PROCESSORS = 0x90_0000, 0x9F_F008


def build(source: Path, output: Path) -> elf.Image:
    """Compile and link one kernel."""
    parts = [KERNELS / "start.S", KERNELS / "kernel.c", source]
    return elf.load(freestanding.build(parts, output, text=0x10_0000, options=["-Os"]))


def start(image: elf.Image, processors: int, logical: int | None = None) -> Guest:
    """A partition of so many processors with a platform, the kernel in front of each.

    `logical`: how many logical processors they share, if not one each: in turns that are shorter than their ticks."""
    guest = apic_guest(vps=processors, processors=logical or processors)
    guest.partition.attach_platform()
    if (logical or processors) < processors:
        guest.hypervisor.quantum = 1000
    for segment in image.segments:
        guest.write(segment.address, segment.data.ljust(segment.memory_size, b"\0"))
    guest.write(PROCESSORS, bytes((processors, 0, 0, 0)))
    for index, vp in guest.partition.vps.items():
        vp.rip, vp.rdi = image.entry, index
        vp.explicit_suspend = False
    return guest


def run(image: elf.Image, processors: int, logical: int | None = None, budget: int = 2_000_000_000) -> list[str]:
    """The lines of the kernel's log; the last one is `end` unless it went astray."""
    guest = start(image, processors, logical)
    platform = guest.partition.platform
    assert platform is not None
    while isinstance(exit_ := guest.hypervisor.run(max_instructions=budget), IoPort) and exit_.port == 0xEE0:
        platform.set_pin(exit_.value & 0xFF, bool(exit_.value >> 8))
    text = bytes(guest.ram[LOG + 8 : LOG + 8 + guest.read(LOG)]).decode()
    lines = text.splitlines()
    if not isinstance(exit_, IoPort) or exit_.port != 0xF4:
        lines.append(f"stopped by {exit_}")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--processors", type=int, default=1)
    parser.add_argument("--logical", type=int, help="logical processors; default: one each")
    parser.add_argument("--all", action="store_true", help="also the checks that hold")
    arguments = parser.parse_args()
    made = build(arguments.source, Path("/tmp") / f"{arguments.source.stem}.elf")
    found = run(made, arguments.processors, arguments.logical)
    print("\n".join(line for line in found if arguments.all or not line.startswith("ok ")))
    print(len(found), "lines")
