"""What does it cost to watch interrupts? A guest sends itself interrupts as fast as it can: ICR, handler, EOI, IRET."""

import struct

import pytest

from benchmarks.guest import CODE, child_running
from benchmarks.measure import report, run_rounds, timed

IDT, HANDLER, VECTOR = 0x30_0000, 0x31_0000, 0x50
ICR, EOI = 0x4000_0071, 0x4000_0070
SEND = bytes.fromhex("fb") + b"\xb9" + struct.pack("<I", ICR) + b"\xba\0\0\0\0" + b"\xb8" + struct.pack(
    "<I", 1 << 18 | VECTOR) + bytes.fromhex("0f30 ebec")  # sti; mov ecx, ICR; mov edx, 0; mov eax, ...; wrmsr; jmp
HANDLE = b"\xb9" + struct.pack("<I", EOI) + bytes.fromhex("0f30 48cf")  # mov ecx, EOI; wrmsr; iretq
INSTRUCTIONS = 9
"""Of one round trip."""
RING, MEASURE = 1 << 16, 0


@pytest.fixture
def sizes(smoke):
    """Rounds, and round trips in each."""
    return (1, 100) if smoke else (15, 100_000)


def sender(child):
    """Make a processor send itself interrupts."""
    vp, ram = child
    ram[HANDLER : HANDLER + len(HANDLE)] = HANDLE
    gate = struct.pack("<HHHHII", HANDLER & 0xFFFF, vp.cs.selector, 0x8E00, HANDLER >> 16, 0, 0)
    ram[IDT + 16 * VECTOR : IDT + 16 * VECTOR + 16] = gate
    vp.idtr = vp.idtr._replace(base=IDT, limit=0xFFF)
    return vp


def test_watching_self_ipis(benchmark, sizes):
    """Nobody watches; latencies alone; latencies and the ring."""
    rounds, count = sizes
    with child_running(SEND) as one, child_running(SEND) as two, child_running(SEND) as three:
        off, measured, traced = sender(one), sender(two), sender(three)
        two_trace = measured.partition.hypervisor.trace_interrupts(capacity=MEASURE)
        three_trace = traced.partition.hypervisor.trace_interrupts(capacity=RING)

        def trips(vp):
            return lambda: timed(lambda: vp.run(max_instructions=count * INSTRUCTIONS), count)

        measures = {"nobody watches": trips(off), "latencies": trips(measured), "latencies and ring": trips(traced)}
        results = run_rounds(benchmark, measures, rounds)
        report(benchmark, results, base="nobody watches")
        delivered = int(off.interrupt_statistics().delivered[VECTOR])
        assert delivered > 0 and off.rip >= CODE
        assert two_trace.latencies().by_vector[VECTOR].sum() == measured.interrupt_statistics().delivered[VECTOR]
        assert len(three_trace) > 0
