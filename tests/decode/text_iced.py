"""hvcore's lines against those of iced-x86's formatters: over binaries, samples of every Code, and mutated bytes.

    python tests/decode/text_iced.py FILE ...           # every instruction of .text, in all three syntaxes
    python tests/decode/text_iced.py --mutated 1000000  # so many byte strings in every mode
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import iced_x86 as iced
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from hvcore._native.formatter import format_code
from hvcore._native.instructions import decode_one
from tests.decode import compare, iced_samples

SYNTAXES = {"intel": iced.FormatterSyntax.INTEL, "att": iced.FormatterSyntax.GAS, "nasm": iced.FormatterSyntax.NASM}
FORMATTERS = {name: iced.Formatter(syntax) for name, syntax in SYNTAXES.items()}
PREFIXES = (0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65)
PIECE = 100_000
"""Instructions that are compared at a time."""
EMPTY_INDEX = re.compile(r",\)")


def is_same(theirs: str, ours: str, syntax: str) -> bool:
    """Equal, or a difference that docs/decoder.md lists."""
    if theirs == ours:
        return True
    # A SIB byte with a scale and no index: iced's AT&T syntax shows the comma that would come before the index.
    return syntax == "att" and EMPTY_INDEX.sub(")", theirs) == ours


def differences(octets: bytes, bits: int, vendor: str = "intel", ip: int | None = None) -> list[str]:
    """What is not the same, for one instruction that both decode; empty for bytes that iced rejects."""
    address = iced_samples.IP[bits] if ip is None else ip
    instruction = iced_samples.decoder(octets, bits, vendor, address).decode()
    if instruction.is_invalid:
        return []
    ours = decode_one(octets, ip=address, bits=bits, vendor=vendor)
    code = octets[: len(instruction)].hex()
    if instruction.mnemonic == iced.Mnemonic.PAUSE and ours.mnemonic == "xchg":
        return []                   # F3 with REX.B: processors exchange R8
    if not ours.valid or ours.length != len(instruction):
        return [f"{bits} {code}: {iced_samples.CODES[instruction.code]} is not decoded"]
    return [f"{bits} {syntax} {code}: {theirs!r}, hvcore {line!r}" for syntax, formatter in FORMATTERS.items()
            if not is_same(theirs := formatter.format(instruction), line := ours.format(syntax), syntax)]


def mutated(seed: int, count: int, bits: int) -> Iterator[bytes]:
    """Samples of iced's Codes with bytes changed and prefixes in front."""
    rng = random.Random(seed)
    pool = [octets for found in iced_samples.samples(bits).values() for octets in found]
    for _ in range(count):
        code = bytearray(rng.choice(pool))
        if rng.random() < 0.3:
            code[-1] = rng.choice((0, 1, 16, 17, rng.randrange(32)))       # immediates that have names
        code += rng.randbytes(12)
        for _ in range(rng.randrange(3)):
            code[rng.randrange(min(len(code), 6))] = rng.randrange(256)
        yield (bytes(rng.choices(PREFIXES, k=rng.choice((0, 0, 0, 1, 1, 2, 3)))) + bytes(code))[:24]


def compare_code(code: bytes, address: int, limit: int | None = None) -> tuple[int, list[str]]:
    """(instructions, differences) of a linear sweep over code, by the batch call."""
    valid = (instruction for instruction in iced.Decoder(64, code, ip=address) if not instruction.is_invalid)
    found: list[str] = []
    count = 0
    while piece := list(islice(valid, PIECE if limit is None else min(PIECE, limit - count))):
        count += len(piece)
        offsets = np.array([instruction.ip - address for instruction in piece], dtype=np.uint32)
        for syntax, formatter in FORMATTERS.items():
            lines = format_code(code, offsets, ip=address, syntax=syntax)
            for instruction, at, line in zip(piece, offsets.tolist(), lines, strict=True):
                if not is_same(theirs := formatter.format(instruction), line, syntax):
                    octets = code[at : at + len(instruction)].hex()
                    found.append(f"{instruction.ip:#x} {octets}: {theirs!r}, hvcore {line!r}")
    return count, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--mutated", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed = False
    for path in options.files:
        address, code = compare.text_of(path)
        count, found = compare_code(code, address)
        print(f"{path}: {count} instructions, {len(found)} lines differ", *found[:20], sep="\n  ")
        failed |= bool(found)
    for bits in (64, 32, 16) if options.mutated else ():
        found = [text for octets in mutated(options.seed, options.mutated, bits) for text in differences(octets, bits)]
        print(f"seed {options.seed}, {options.mutated} strings, {bits} bits: {len(found)} lines differ", *found[:20],
              sep="\n  ")
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
