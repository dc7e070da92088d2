"""A child partition with one processor in 64-bit mode, and code from bytes: what most benchmarks run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import hvcore

CODE = 0x10_0000
STACK = 0x20_0000
DATA = 0x40_0000


@contextmanager
def child_running(
    code: bytes, *, memory: str = "16 MiB", page_size: str = "4 KiB", privileges: int | None = None
) -> Iterator[tuple[hvcore.VirtualProcessor, hvcore.MemoryRegion]]:
    """Its processor, about to run `code` at CODE, and its memory. Both levels map pages of `page_size`."""
    with hvcore.Hypervisor(memory="640 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition(privileges=privileges)
        ram = child.map_memory(gpa=0, size=memory, page_size=page_size)
        ram[CODE : CODE + len(code)] = code
        vp = child.vps[0]
        vp.reset("long64", rip=CODE, rsp=STACK, page_size=page_size)
        yield vp, ram
