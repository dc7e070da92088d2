"""Differential fuzzing for as long as you like: `python tests/oracles/fuzz.py --seconds 60 --seed 1`.

Prints the seed of every batch, so that any finding can be repeated with `--seed N --batches 1`. Exit code 1: findings.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.oracles.cases import Template, generate
from tests.oracles.emulated import EmulatedProcessor
from tests.oracles.host_choices import settle
from tests.oracles.native import NativeProcessor, available, compare
from tests.oracles.templates import sort_rows

BATCH = 8192


def run_batch(
    templates: list[Template], count: int, seed: int, native: NativeProcessor, emulated: EmulatedProcessor
) -> list[str]:
    """Differences of one batch, each with the case it is from."""
    batch = generate(templates, count, seed)
    left, right = native.run(batch.cases), emulated.run(batch.cases)
    settle(batch, left, right)
    found = []
    for difference in compare(left, right, batch.undefined_flags):
        index = int(difference.split()[1].rstrip(":"))
        found.append(f"{batch.describe(index)}\n  {difference}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to run")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first batch; each next one is one higher")
    parser.add_argument("--batches", type=int, default=0, help="stop after this many, 0: by time only")
    parser.add_argument("--only", default="", help="mnemonics, separated by commas")
    parser.add_argument("--show", type=int, default=20, help="differences to print of a batch")
    arguments = parser.parse_args()
    works, reason = available()
    if not works:
        print(reason)
        return 0
    only = set(arguments.only.split(",")) - {""}
    templates = [template for _, template in sort_rows()[0] if not only or template.mnemonic in only]
    emulated = EmulatedProcessor()
    end = time.monotonic() + arguments.seconds
    seed, cases, findings = arguments.seed, 0, 0
    with NativeProcessor(capacity=BATCH) as native:
        while time.monotonic() < end and (not arguments.batches or seed < arguments.seed + arguments.batches):
            found = run_batch(templates, BATCH, seed, native, emulated)
            cases += BATCH
            findings += len(found)
            print(f"seed {seed}: {BATCH} cases, {len(found)} differences", flush=True)
            for text in found[: arguments.show]:
                print(text)
            seed += 1
    print(f"{cases} cases of {len(templates)} rows, {findings} differences")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
