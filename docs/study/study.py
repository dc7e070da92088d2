"""Makes the tables and figures of docs/study.md again:  python docs/study/study.py [--traces FOLDER] [--only NAME ...]

Two traces are made by valgrind, if they are not there yet: a start of the Python interpreter that runs this, and gcc's
compiler proper at work on one line of C. They take 1.6 GB and some minutes, and depend on the versions of both. The
traces of devices (iotlb) are made by hvcore itself, in seconds, and are the same everywhere.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from study_devices import compare, count_in_unit, record

from hvcore.experiments import TranslationModel, read_trace
from hvcore.experiments.config import SweepConfig, build_model
from hvcore.experiments.sweeps import grid_points

HERE = Path(__file__).parent
SWEEPS = ("pages", "tlb", "walk_caches")
DEVICES = "iotlb"
"""The sweep over traces of devices: by file, which devices, and how many packets and requests of disks."""
DEVICE_TRACES = {"adapter": ("n", 20_000), "disk": ("d", 3_000), "both": ("nd", 14_000), "four": ("nnnndddd", 28_000)}
COMPARED = 10_000
"""So many requests of each trace go through a unit too, at every point."""
PROGRAM = "int main(void) { return 0; }\n"


def make_traces(folder: Path) -> None:
    """Record what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "program.c"
    source.write_text(PROGRAM)
    compiler = subprocess.check_output(["gcc", "-print-prog-name=cc1"], text=True).strip()
    commands = {
        "python": [sys.executable, "-I", "-S", "-c", "pass"],
        "cc1": [compiler, "-quiet", "-O0", str(source), "-o", "/dev/null"],
    }
    for name, command in commands.items():
        trace = folder / f"{name}.lackey"
        if trace.exists():
            continue
        if shutil.which("valgrind") is None:
            sys.exit(f"{trace} is not there, and neither is valgrind, which could make it")
        unfinished = trace.with_suffix(".unfinished")
        options = ["--tool=lackey", "--trace-mem=yes", "--basic-counts=no", f"--log-file={unfinished}"]
        subprocess.run(["valgrind", *options, *command], check=True)
        unfinished.rename(trace)


def make_device_traces(folder: Path) -> None:
    """Record what is missing: devices at work behind a unit, which has to count what the preset's model counts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (kinds, steps) in DEVICE_TRACES.items():
        trace = folder / f"{name}.npy"
        if not trace.exists():
            record(kinds, steps, TranslationModel.preset("virtuoso-iommu"), trace)


def compare_with_units(config: SweepConfig) -> None:
    """A model is worth what the unit says of it: both count the same at every point, or this ends here."""
    for point in grid_points(config.grid):
        model = build_model(config.model, point)
        trace = read_trace(config.traces[str(point["trace"])]).read()[:COMPARED]
        model.run(trace)
        compare(count_in_unit(trace, model, str(point["page_size"])), model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, default=HERE / "traces", help="where the traces are, or are put")
    parser.add_argument("--only", nargs="+", choices=(*SWEEPS, DEVICES), default=(*SWEEPS, DEVICES), metavar="NAME")
    options = parser.parse_args()
    if set(options.only) & set(SWEEPS):
        make_traces(options.traces)
    if DEVICES in options.only:
        make_device_traces(options.traces)
    for name in options.only:
        config = SweepConfig.load(HERE / f"{name}.toml", traces=options.traces)
        if name == DEVICES:
            compare_with_units(config)
        results = config.run()
        results.to_csv(HERE / f"{name}.csv")
        config.draw(results, HERE)
        print(f"{config.title}\n{results.to_text()}\n")


if __name__ == "__main__":
    main()
