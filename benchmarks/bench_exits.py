"""What does it cost to leave a run and come back, in calls of an empty Python function?"""

from itertools import repeat

import pytest

from benchmarks.guest import CODE, DATA, child_running
from benchmarks.measure import report, run_rounds, timed
from hvcore import exits
from hvcore.enums import Hypercall, Privilege

PORT = 0x3F8
OUT_LOOP = bytes.fromhex("ee ebfd")  # out dx, al; jmp back
IN_LOOP = bytes.fromhex("ec ebfd")  # in al, dx; jmp back
SPIN = bytes.fromhex("ebfe")  # jmp to itself
HYPERCALL_LOOP = bytes.fromhex("0f01c1 ebfb")  # vmcall; jmp back
MAXIMUM_RATIO = 30
"""The project's bar: an I/O exit and back costs no more empty calls than this."""


def empty():
    """What the exits are measured against."""


@pytest.fixture
def sizes(smoke):
    """Rounds, and units of work in each."""
    return (1, 10) if smoke else (15, 20_000)


def calls_of_nothing(count):
    def loop():
        for _ in repeat(None, count):
            empty()

    return lambda: timed(loop, count)


def test_io_exits(benchmark, smoke, sizes):
    """OUT: run() to run(). IN: run(), complete(), run(). Budget: nothing but in and out."""
    rounds, count = sizes
    with (
        child_running(OUT_LOOP) as (writer, _),
        child_running(IN_LOOP) as (reader, _),
        child_running(SPIN) as (spinner, _),
    ):
        writer.rdx = reader.rdx = PORT
        assert isinstance(writer.run(), exits.IoPort)
        reader.run().complete(0)

        def write():
            run = writer.run
            for _ in repeat(None, count):
                run()

        def read():
            run = reader.run
            for _ in repeat(None, count):
                run().complete(7)

        def step():
            run = spinner.run
            for _ in repeat(None, count):
                run(max_instructions=1)

        measures = {
            "empty Python call": calls_of_nothing(count),
            "OUT exit and back": lambda: timed(write, count),
            "IN exit, complete() and back": lambda: timed(read, count),
            "Budget exit of one instruction": lambda: timed(step, count),
        }
        results = run_rounds(benchmark, measures, rounds)
        assert reader.rax & 0xFF == 7
    ratios = report(benchmark, results, "empty Python call")
    if not smoke:
        assert ratios["OUT exit and back"] <= MAXIMUM_RATIO


def test_hypercalls(benchmark, sizes):
    """From Python, and from guest code: VMCALL to the Python layer and back, without an exit."""
    rounds, count = sizes
    count = max(1, count // 10)
    with child_running(HYPERCALL_LOOP, privileges=sum(Privilege)) as (vp, ram):
        child = vp.partition
        child.core.guest_os_id, child.core.hypercall_msr = 1, 1
        vp.rcx, vp.r8 = Hypercall.GET_PARTITION_ID, DATA
        root = child.parent
        target = child.id.to_bytes(8, "little")
        question = target + bytes(8)

        def from_python():
            for _ in repeat(None, count):
                root.hypercall(Hypercall.GET_MEMORY_BALANCE, question)

        def from_guest():
            vp.run(max_instructions=2 * count)

        measures = {
            "empty Python call": calls_of_nothing(10 * count),
            "GetMemoryBalance from Python": lambda: timed(from_python, count),
            "GetPartitionId from guest code": lambda: timed(from_guest, count),
        }
        results = run_rounds(benchmark, measures, rounds)
        assert vp.rip in (CODE, CODE + 3)
        assert vp.rax == 0 and ram[DATA : DATA + 8] == target
    report(benchmark, results, "empty Python call")
