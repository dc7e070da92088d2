"""Random and mutated byte strings, decoded by hvcore and by iced-x86: `python tests/decode/fuzz_iced.py --count 10000000`.

Strings are biased to prefixes, VEX, EVEX, XOP and groups, and mutated from the ones that were valid, in all three modes
and for both vendors. What disagrees is printed, the rest counted; the seed makes a run repeatable.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import iced_x86
import numpy as np
from numpy.typing import NDArray

from hvcore._native.decoder import MNEMONICS, decode_instruction

WINDOW = 16
"""Bytes a string; an instruction has at most 15."""
LEGACY = np.array([0x66, 0xF2, 0xF3, 0xF0, 0x67, 0x64, 0x65, 0x2E, 0x26, 0x36, 0x3E], np.uint8)
NAMES = {value: name.lower() for name, value in vars(iced_x86.Mnemonic).items() if isinstance(value, int)}
CODES = {value: name for name, value in vars(iced_x86.Code).items() if isinstance(value, int)}
MODES = ((64, "intel"), (32, "intel"), (16, "intel"), (64, "amd"), (32, "amd"), (16, "amd"))
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
    rows[number[three], lead[three]] = rng.choice(np.array([0x38, 0x3A, 0x0F], np.uint8), int(three.sum()), p=(0.5, 0.4, 0.1))
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


class Comparison:
    """Decodes with both and keeps what differs."""

    def __init__(self) -> None:
        self.differences: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.strings = self.valid = 0
        self.codes: defaultdict[int, set[int]] = defaultdict(set)

    def compare(self, rows: Bytes, bits: int, vendor: str) -> NDArray[np.bool_]:
        """Compare all rows in one mode; which of them are valid for both."""
        code = rows.tobytes()
        options = iced_x86.DecoderOptions.AMD if vendor == "amd" else iced_x86.DecoderOptions.NONE
        decoder = iced_x86.Decoder(bits, code, options)
        theirs = iced_x86.Instruction()
        valid = np.zeros(len(rows), np.bool_)
        for i, offset in enumerate(range(0, len(code), WINDOW)):
            decoder.position = offset
            decoder.decode_out(theirs)
            ours = decode_instruction(code, offset=offset, bits=bits, vendor=vendor)
            if theirs.is_invalid:
                if ours.valid:
                    self.note(code[offset : offset + ours.length], bits, vendor, f"valid {ours.mnemonic}", "invalid")
            elif not ours.valid:
                self.note(code[offset : offset + theirs.len], bits, vendor, "invalid", CODES[theirs.code])
            else:
                valid[i] = True
                self.codes[ours.form].add(theirs.code)
                if ours.length != theirs.len:
                    self.note(code[offset : offset + theirs.len], bits, vendor, f"length {ours.length}",
                              CODES[theirs.code])
                elif ours.mnemonic != NAMES[theirs.mnemonic]:
                    self.note(code[offset : offset + theirs.len], bits, vendor, f"name {ours.mnemonic}",
                              CODES[theirs.code])
        self.strings += len(rows)
        self.valid += int(valid.sum())
        return valid

    def note(self, octets: bytes, bits: int, vendor: str, ours: str, theirs: str) -> None:
        self.kinds[f"{ours} / {theirs}"] += 1
        if self.kinds[f"{ours} / {theirs}"] <= 3:
            self.differences.append(f"{octets.hex(' ')} ({bits}-bit, {vendor}): {ours}, iced says {theirs}")


def chunks(rng: np.random.Generator, count: int) -> Iterator[tuple[Bytes, int, str]]:
    """Strings with the mode that they are to be decoded in."""
    done = 0
    while done < count:
        size = min(20_000, count - done)
        bits, vendor = MODES[rng.choice(len(MODES), p=(0.4, 0.2, 0.16, 0.12, 0.06, 0.06))]
        yield random_strings(rng, size), bits, vendor
        done += size


def run(count: int, seed: int) -> Comparison:
    """Compare `count` strings; half of them are mutations of valid ones."""
    rng = np.random.default_rng(seed)
    comparison = Comparison()
    for rows, bits, vendor in chunks(rng, count // 2):
        valid = comparison.compare(rows, bits, vendor)
        good: Any = rows[valid]
        if len(good):
            comparison.compare(mutated(rng, good[rng.integers(0, len(good), len(rows))]), bits, vendor)
    return comparison


def main() -> int:
    parser = argparse.ArgumentParser(description="compare hvcore's decoder with iced-x86 on random strings")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = run(options.count, options.seed)
    print(f"seed {options.seed}: {found.strings} strings, {found.valid} valid for both, {sum(found.kinds.values())} differ")
    for line in found.differences:
        print(line)
    for kind, number in found.kinds.most_common():
        print(number, kind)
    for form, codes in sorted(found.codes.items()):
        if len(codes) > 1:
            print(f"form {form}: {', '.join(CODES[code] for code in sorted(codes))}")
    return 1 if found.kinds else 0


if __name__ == "__main__":
    raise SystemExit(main())
