"""Runs the workloads of hvcore.guests natively and in a child partition, and compares.

`python -m benchmarks.workloads [--repeats N] [--only NAME,NAME] [--page-size "2 MiB"] [--json FILE]`. Both sides run
the same source with the same flags and the same amount of work, one after the other, and are timed around the
workload alone: native_main.c reads its clock around workload(), here it is read around run(). Both find their arena
zeroed and its pages present.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median
from time import perf_counter_ns

import hvcore
from hvcore import exits
from hvcore.boot.elf import Image, load
from hvcore.boot.program import boot
from hvcore.guests import workloads

MEMORY = "512 MiB"
SIZES: dict[str, dict[str, int]] = {
    "null": {},
    "sieve": {"reps": 60},
    "sha256": {"reps": 70},
    "fib": {"arg": 39},
    "list": {"reps": 4},
    "movsb": {"reps": 25_000},
    "memcpy8": {"reps": 200_000},
    "qsort": {"reps": 4},
    "interp": {"reps": 18_000_000},
    "matmul": {"reps": 90},
    "crc32": {"reps": 90},
}
"""With these a workload takes 0.2 s or more as a process on a processor of 2020."""
NOT_AVERAGED = ("null", "movsb")
"""One measures nothing but the start, the other the copy loop of the host."""


@dataclass(frozen=True, slots=True)
class Row:
    """One workload: medians of all repeats, times in seconds."""

    name: str
    native: float
    hvcore: float
    slowdown: float
    mips: float


class Machine:
    """A child partition that programs are started in again and again."""

    def __init__(self, child: hvcore.Partition, ram: hvcore.MemoryRegion, page_size: str) -> None:
        self.child, self.ram, self.page_size = child, ram, page_size
        self.vp = child.vps[0]

    def prepare(self, image: Image) -> None:
        """A zeroed arena, present in the host, and the program at its entry."""
        first, end = workloads.ARENA, workloads.ARENA + workloads.ARENA_BYTES
        self.ram[first:end] = bytes(workloads.ARENA_BYTES)
        boot(self.child, self.vp, image, page_size=self.page_size)

    def run(self) -> tuple[int, float, int]:
        """Checksum, seconds, and instructions of a prepared program."""
        before = self.vp.counters().instructions
        start = perf_counter_ns()
        ended = self.vp.run()
        seconds = (perf_counter_ns() - start) / 1e9
        if not isinstance(ended, exits.Halt):
            raise RuntimeError(f"the workload ended by {ended!r}")
        return self.vp.rax, seconds, self.vp.counters().instructions - before


@contextmanager
def machine(page_size: str) -> Iterator[Machine]:
    """A machine for one workload."""
    with hvcore.Hypervisor(memory="640 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition()
        yield Machine(child, child.map_memory(gpa=0, size=MEMORY, page_size=page_size), page_size)


def compare(name: str, folder: Path, *, repeats: int, size: dict[str, int], page_size: str) -> Row:
    """Run one workload on both sides, alternating.

    Raises
    ------
    RuntimeError
        The two sides compute different things.
    """
    program = workloads.native_program(name, folder, **size)
    image = load(workloads.build(name, folder, **size).read_bytes())
    native, emulated, ratios, mips = [], [], [], []
    for _ in range(repeats):
        with machine(page_size) as one:
            one.prepare(image)
            expected = workloads.run_native(program)[0]
            checksum, seconds, instructions = one.run()
        if checksum != expected.checksum:
            raise RuntimeError(f"{name} is {checksum:#x} in the partition and {expected.checksum:#x} natively")
        native.append(max(expected.nanoseconds, 1) / 1e9)
        emulated.append(seconds)
        ratios.append(seconds / native[-1])
        mips.append(instructions / seconds / 1e6)
    return Row(name, median(native), median(emulated), median(ratios), median(mips))


def compare_all(
    names: Iterable[str], *, repeats: int, page_size: str = "4 KiB", small: bool = False
) -> Iterator[Row]:
    """A row for each name; `small` takes the least amount of work that there is."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            size = {} if name == "null" else {"arg": 20} if name == "fib" else {"reps": 1}
            yield compare(
                name, Path(folder), repeats=repeats, size=size if small else SIZES[name], page_size=page_size
            )


def mean_slowdown(rows: Iterable[Row]) -> float | None:
    """The geometric mean over the workloads that are averaged; None without any."""
    averaged = [row.slowdown for row in rows if row.name not in NOT_AVERAGED]
    return geometric_mean(averaged) if averaged else None


def line(row: Row) -> str:
    return f"{row.name:10} {row.native:10.4f} {row.hvcore:10.4f} {row.slowdown:9.2f} x {row.mips:8.0f}"


HEADING = f"{'workload':10} {'native s':>10} {'hvcore s':>10} {'slowdown':>9}   {'MIPS':>8}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workloads", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=",".join(SIZES), help="names, separated by commas")
    parser.add_argument("--page-size", default="4 KiB", help="of both levels: 4 KiB or 2 MiB")
    parser.add_argument("--json", type=Path, help="where to write the rows as JSON")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(SIZES):
        parser.error(f"there is no workload {', '.join(sorted(unknown))}")
    print(HEADING)
    rows = []
    for row in compare_all(names, repeats=options.repeats, page_size=options.page_size):
        rows.append(row)
        print(line(row), flush=True)
    mean = mean_slowdown(rows)
    if mean is not None:
        print(f"geometric mean without {' and '.join(NOT_AVERAGED)}: {mean:.2f} x")
    if options.json:
        facts = {"rows": [asdict(row) for row in rows], "mean": mean, "repeats": options.repeats}
        options.json.write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
