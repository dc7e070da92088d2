"""Makes the tables and figures of docs/study.md again:  python docs/study/study.py [--traces FOLDER]

The two traces are made by valgrind, if they are not there yet: a start of the Python interpreter that runs this, and
gcc's compiler proper at work on one line of C. They take 1.6 GB and some minutes, and depend on the versions of both.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from hvcore.experiments.config import SweepConfig

HERE = Path(__file__).parent
SWEEPS = ("pages", "tlb", "walk_caches")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, default=HERE / "traces", help="where the traces are, or are put")
    options = parser.parse_args()
    make_traces(options.traces)
    for name in SWEEPS:
        config = SweepConfig.load(HERE / f"{name}.toml", traces=options.traces)
        results = config.run()
        results.to_csv(HERE / f"{name}.csv")
        config.draw(results, HERE)
        print(f"{config.title}\n{results.to_text()}\n")


if __name__ == "__main__":
    main()
