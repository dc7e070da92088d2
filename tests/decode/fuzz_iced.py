"""Random and mutated byte strings for hvcore and iced-x86: `python tests/decode/fuzz_iced.py --count 10000000`.

Strings are biased to prefixes, VEX, EVEX, XOP and groups, and mutated from the ones that were valid, in all three modes
and for both vendors. What disagrees is printed, the rest counted; the seed makes a run repeatable.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import iced_x86
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.decode.compare import Comparison, text_of

WINDOW = 16
"""Bytes a string; an instruction has at most 15."""
LEGACY = np.array([0x66, 0xF2, 0xF3, 0xF0, 0x67, 0x64, 0x65, 0x2E, 0x26, 0x36, 0x3E], np.uint8)
MAPS = np.array([0x38, 0x3A, 0x0F], np.uint8)
MODES = ((64, "intel"), (32, "intel"), (16, "intel"), (64, "amd"), (32, "amd"), (16, "amd"))
SHARES = (0.4, 0.2, 0.16, 0.12, 0.06, 0.06)
Bytes = NDArray[np.uint8]


def random_strings(rng: np.random.Generator, count: int) -> Bytes:
    """`count` rows of WINDOW bytes, an instruction more often than noise is."""
    rows = rng.integers(0, 256, (count, WINDOW), np.uint8)
    lead = np.zeros(count, np.int64)
    kind = rng.integers(0, 100, count)
    number = np.arange(count)
    for _ in range(3):
        some = rng.random(count) < 0.3
        rows[number[some], lead[some]] = rng.choice(LEGACY, int(some.sum()))
        lead += some
    some = (rng.random(count) < 0.3) & (kind < 60)
    rows[number[some], lead[some]] = 0x40 | rng.integers(0, 16, int(some.sum()))
    lead += some
    escaped = (kind >= 15) & (kind < 55)
    rows[number[escaped], lead[escaped]] = 0x0F
    lead += escaped
    three = (kind >= 40) & (kind < 55)
    rows[number[three], lead[three]] = rng.choice(MAPS, int(three.sum()), p=(0.5, 0.4, 0.1))
    for first, low, high, map_low, map_high in ((0xC4, 60, 72, 1, 4), (0xC5, 72, 76, 0, 0), (0x62, 76, 95, 1, 7),
                                                (0x8F, 95, 100, 8, 11)):
        these = (kind >= low) & (kind < high)
        total = int(these.sum())
        where, at = number[these], lead[these]
        rows[where, at] = first
        if map_high:
            top = rng.integers(0, 256, total, np.uint8) & (0xF0 if first == 0x62 else 0xE0)
            map_ = rng.integers(map_low, map_high, total).astype(np.uint8)
            rows[where, at + 1] = top | map_
        # half of the time vvvv is 1111, and the bits that must be 1 are
        plain = rng.random(total) < 0.5
        column = at + (2 if map_high else 1)
        rows[where[plain], column[plain]] |= 0x78
        if first == 0x62:
            rows[where, column] |= np.where(rng.random(total) < 0.9, 4, 0).astype(np.uint8)
            third = rows[where, column + 1]
            third = np.where(rng.random(total) < 0.6, third & 0x7F, third)
            third = np.where(rng.random(total) < 0.5, third & 0xEF, third)
            third = np.where(rng.random(total) < 0.7, third | 8, third)
            rows[where, column + 1] = third
    return rows


def mutated(rng: np.random.Generator, rows: Bytes) -> Bytes:
    """The rows, each with one bit among its first eight bytes turned over."""
    rows = rows.copy()
    number = np.arange(len(rows))
    rows[number, rng.integers(0, 8, len(rows))] ^= (1 << rng.integers(0, 8, len(rows))).astype(np.uint8)
    return rows


def compare_strings(comparison: Comparison, rows: Bytes) -> NDArray[np.bool_]:
    """Compare every row; which of them are valid for both."""
    code = rows.tobytes()
    decoder = comparison.decoder(code)
    theirs = iced_x86.Instruction()
    valid = np.zeros(len(rows), np.bool_)
    for i, offset in enumerate(range(0, len(code), WINDOW)):
        decoder.position = offset
        decoder.ip = offset
        decoder.decode_out(theirs)
        valid[i] = comparison.compare(code, offset, theirs)
    return valid


def run(count: int, seed: int) -> list[Comparison]:
    """Compare `count` strings, half of them mutations of valid ones; a comparison for each mode and vendor."""
    rng = np.random.default_rng(seed)
    found = [Comparison(bits, vendor) for bits, vendor in MODES]
    done = 0
    while done < count:
        size = min(20_000, count - done)
        comparison = found[rng.choice(len(MODES), p=SHARES)]
        rows = random_strings(rng, (size + 1) // 2)
        good = rows[compare_strings(comparison, rows)]
        if len(good) and size > 1:
            compare_strings(comparison, mutated(rng, good[rng.integers(0, len(good), size // 2)]))
        done += size
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="compare hvcore's decoder with iced-x86 on random strings")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binaries", type=Path, nargs="+", default=[], help="compare the .text of these files instead")
    options = parser.parse_args()
    found = [Comparison() for _ in options.binaries] or run(options.count, options.seed)
    for one, path in zip(found, options.binaries, strict=False):
        address, code = text_of(path)
        one.sweep(code, address, len(code))
    strings, valid = sum(one.strings for one in found), sum(one.valid for one in found)
    kinds: Counter[str] = sum((one.kinds for one in found), Counter())
    print(f"seed {options.seed}: {strings} strings, {valid} valid for both, {kinds.total()} differences")
    for one in found:
        print("\n".join(one.differences))
    for kind, number in kinds.most_common(50):
        print(number, kind)
    return 1 if kinds else 0


if __name__ == "__main__":
    raise SystemExit(main())
