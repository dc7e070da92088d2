"""From a program of yours to a plot: how many TLB entries does it want?

    python examples/trace_a_program.py /bin/ls -l

runs the program under Valgrind's lackey, which writes down every access (hundreds of times slower than the program
alone), and draws the misses of fully associative data TLBs of every size, for pages of 4 KiB and of 2 MiB. Without a
program, or without Valgrind, it takes a recorded trace of /bin/true. Without matplotlib it prints and draws nothing.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hvcore.experiments import StackDistances, TraceFile, TranslationModel, read_trace, run_many

RECORDED = Path(__file__).parents[1] / "tests/experiments/data/true.lackey.txt.gz"
PLOT = Path("tlb_misses.png")
SIZES = (16, 32, 64, 128)


def trace(program: list[str], folder: Path) -> TraceFile:
    """What the program does to memory; the recorded trace if there is none, or no Valgrind to run it."""
    if not program or shutil.which("valgrind") is None:
        print("trace: /bin/true as recorded" + (" (there is no valgrind here)" if program else ""))
        return read_trace(RECORDED)
    log = folder / "trace.lackey"
    options = ["--tool=lackey", "--trace-mem=yes", "--basic-counts=no", f"--log-file={log}"]
    subprocess.run(["valgrind", *options, *program], check=False, stdout=subprocess.DEVNULL)
    print(f"trace: {' '.join(program)}, {log.stat().st_size:,} bytes")
    return read_trace(log, progress=True)


def draw(curves: dict[str, StackDistances]) -> None:
    """Misses by entries, both in powers of ten."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("plot: none, matplotlib is not installed")
        return
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for size, distances in curves.items():
        axes.step(range(1, len(distances.miss_curve())), distances.miss_curve()[1:], where="post", label=size)
    axes.set(xscale="log", yscale="log", xlabel="entries of a fully associative LRU data TLB", ylabel="misses")
    axes.legend(title="pages")
    figure.savefig(PLOT, dpi=150)
    print(f"plot: {PLOT}")


def main() -> None:
    """Count, print, draw."""
    with tempfile.TemporaryDirectory() as folder:
        accesses = trace(sys.argv[1:], Path(folder))
        curves = {size: StackDistances(page_size=size, kinds="LSM") for size in ("4 KiB", "2 MiB")}
        model = TranslationModel.preset("skylake-server")
        for chunk in accesses:
            for distances in curves.values():
                distances.consume(chunk)
            model.consume(chunk)
        result = model.counters()
        print(f"accesses: {result.lookups:,}, of them {result.instructions:,} instruction fetches")
        for size, distances in curves.items():
            misses = ", ".join(f"{entries}: {distances.misses(entries):,}" for entries in SIZES)
            print(f"pages of {size}: {distances.pages:,}; misses by entries: {misses}")
        print(f"Skylake: {result.walks:,} walks, {result.guest_references / max(result.walks, 1):.2f} references each")
        nested = [TranslationModel.preset("skylake-server", nested_levels=4, nested_page_size=size) for size in curves]
        small, large = (found.nested_references for found in run_many(nested, accesses))
        print(f"nested references: {small:,} with second-level pages of 4 KiB, {large:,} with 2 MiB")
        draw(curves)


if __name__ == "__main__":
    main()
