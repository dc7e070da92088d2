"""What processors that interrupt each other cost, and what those cost that sleep, against an empty guest loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack

import pytest

import hvcore
from benchmarks.measure import report, run_rounds, timed

CODE, IDT, HANDLER, STACK = 0x10_0000, 0x11_0000, 0x11_2000, 0x20_0000
VECTOR, EOI, ICR = 0x40, 0x4000_0070, 0x4000_0071
FOREVER = bytes.fromhex("90" * 9 + "ebf5")  # nine NOPs and a jump back: ten instructions
IDLE = bytes.fromhex("fb f4 ebfd")  # sti, hlt, and again
TICKS = 10


def wrmsr(index: int, value: int) -> bytes:
    return b"\xb9" + pack("<I", index) + b"\xb8" + pack("<I", value & 0xFFFFFFFF) + b"\xba" + pack(
        "<I", value >> 32
    ) + b"\x0f\x30"


@contextmanager
def machine(vps: int, processors: int = 2) -> Iterator[tuple[hvcore.Hypervisor, list[hvcore.VirtualProcessor]]]:
    """A child whose first processor loops and whose others sleep with interrupts on."""
    with hvcore.Hypervisor(memory="256 MiB", processors=processors) as hypervisor:
        child = hypervisor.root.create_partition(vps=vps, privileges=sum(hvcore.Privilege))
        ram = child.map_memory(gpa=0, size="16 MiB", page_size="2 MiB")
        ram[CODE : CODE + len(FOREVER)] = FOREVER
        ram[CODE + 0x1000 : CODE + 0x1000 + len(IDLE)] = IDLE
        for index, vp in child.vps.items():
            vp.reset("long64", rip=CODE + 0x1000 * bool(index), rsp=STACK - 256 * index, page_size="2 MiB")
            vp.start()
            vp.explicit_suspend = 0
        hypervisor.run(max_instructions=10_000)
        yield hypervisor, list(child.vps.values())


@contextmanager
def ping_pong(vps: int) -> Iterator[tuple[hvcore.Hypervisor, list[hvcore.VirtualProcessor]]]:
    """Two processors that sleep but for answering each other's IPI; the others sleep for good."""
    with machine(vps) as (hypervisor, processors):
        ram = processors[0].partition.regions[0]
        for index, vp in enumerate(processors[:2]):
            at = HANDLER + 0x100 * index
            handler = wrmsr(EOI, 0) + wrmsr(ICR, (1 - index) << 56 | VECTOR) + b"\x48\xcf"
            ram[at : at + len(handler)] = handler
            table = IDT + 0x1000 * index
            gate = pack("<HHHHII", at & 0xFFFF, vp.cs.selector, 0x8E00, at >> 16, 0, 0)
            ram[table + 16 * VECTOR : table + 16 * VECTOR + 16] = gate
            vp.idtr = hvcore.Table(table, 0xFFF)
            vp.interrupts.apic_enabled = True
            vp.rip = CODE + 0x1000
        processors[0].interrupts.assert_interrupt(VECTOR)
        yield hypervisor, processors


@pytest.fixture
def sizes(smoke: bool) -> tuple[int, int]:
    """Rounds, and instructions in each."""
    return (1, 20_000) if smoke else (15, 2_000_000)


def test_ipis_and_idle_processors(benchmark, smoke, sizes):
    """One unit is ten instructions of an empty loop, or one IPI with its delivery, EOI, IRET and HLT.

    Beside 255 processors that sleep, neither should cost much more."""
    rounds, count = sizes
    with machine(1) as (one, _), machine(256) as (crowd, _), ping_pong(2) as (pair, players), ping_pong(256) as (
        pair_in_crowd, _,
    ):  # fmt: skip
        before = [vp.counters()["interrupts"] for vp in players]
        pair.run(max_instructions=20_000)
        sent = sum(vp.counters()["interrupts"] for vp in players) - sum(before)
        span = 20_000 / sent

        def run(hypervisor: hvcore.Hypervisor, unit: float):
            return lambda: timed(lambda: hypervisor.run(max_instructions=count), count / unit)

        results = run_rounds(
            benchmark,
            {
                "loop of ten": run(one, TICKS),
                "loop beside 255 sleepers": run(crowd, TICKS),
                "IPI between two": run(pair, span),
                "IPI beside 254 sleepers": run(pair_in_crowd, span),
            },
            rounds,
        )
    ratios = report(benchmark, results, "loop of ten")
    assert smoke or ratios["loop beside 255 sleepers"] < 1.5
