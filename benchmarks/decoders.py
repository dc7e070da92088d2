"""What decoders cost an instruction, hvcore's and its peers': `python -m benchmarks.decoders` prints the table.

Each measure decodes real code in a linear sweep and gives nanoseconds an instruction. The peers in Python decode a sample
of the same code. iced fills lists by bound methods, the fastest way to arrays that was found, and leaves out of the nine
columns what costs it most (which operand is the first register, which immediate is valid), in its own favour.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

import hvcore as hv
from benchmarks.corpus import corpus, sample
from benchmarks.measure import Measure, run_rounds, timed
from hvcore._native.decoder import MODES
from hvcore._native.sweep import COLUMNS, PATHS, decode_into
from hvcore.instruction_table import DTYPES

BOUNDARIES = ("length",)
MNEMONICS = ("mnemonic", "length")
OPERANDS = ("form", "length", "register", "base", "index", "scale", "operand_kinds", "displacement", "immediate")
"""The nine operand columns: 20 bytes a row."""

ZYDIS = r"""
#include <Zydis/Zydis.h>
size_t decode_all(const unsigned char *code, size_t size) {
    ZydisDecoder decoder;
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    size_t at = 0, count = 0;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (; at < size; count++)
        at += ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code + at, size - at, &instruction, operands))
              ? instruction.length : 1;
    return count;
}
"""


def sweep_of(code: bytes, names: tuple[str, ...], path: str) -> Measure:
    """hvcore, into storage that is used again."""
    arrays = {name: numpy.zeros(len(code) // 2 + 16, DTYPES[name]) for name in names}
    ordered = [arrays.get(name) for name in COLUMNS]
    capacity = len(code) // 2 + 16

    def run() -> int:
        rows, end = decode_into(code, ordered, options=MODES[64], ip=0, at=0, row=0, capacity=capacity, more=False,
                                path=path)
        assert end == len(code)
        return rows

    return _per_instruction(run)


def _per_instruction(run: Callable[[], int]) -> Measure:
    count = run()
    return lambda: timed(run, count)


def zydis(code: bytes) -> Measure | None:
    """DecodeFull of the Zydis that is installed, in C; None without it, its headers or a compiler."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "zydis.c", Path(folder) / "zydis.so"
        source.write_text(ZYDIS)
        command = [compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-lZydis"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        function = ctypes.CDLL(str(library)).decode_all
    function.restype, function.argtypes = ctypes.c_size_t, (ctypes.c_char_p, ctypes.c_size_t)
    return _per_instruction(lambda: int(function(code, len(code))))


def iced(code: bytes, fill: Callable[[Any, list[list[int]]], None], dtypes: tuple[str, ...]) -> Measure | None:
    try:
        import iced_x86
    except ImportError:
        return None

    def run() -> int:
        lists: list[list[int]] = [[] for _ in dtypes]
        fill(iced_x86.Decoder(64, code), lists)
        arrays = [numpy.array(values, dtype) for values, dtype in zip(lists, dtypes, strict=True)]
        return len(arrays[0])

    return _per_instruction(run)


def iced_mnemonics(decoder: Any, lists: list[list[int]]) -> None:
    mnemonic, length = (values.append for values in lists)
    for instruction in decoder:
        mnemonic(instruction.mnemonic)
        length(instruction.len)


def iced_operands(decoder: Any, lists: list[list[int]]) -> None:
    code, length, register, base, index, scale, kinds, displacement, immediate = (values.append for values in lists)
    for instruction in decoder:
        code(instruction.code)
        length(instruction.len)
        register(instruction.op0_register)
        base(instruction.memory_base)
        index(instruction.memory_index)
        scale(instruction.memory_index_scale)
        kinds(instruction.op0_kind << 4 | instruction.op1_kind)
        displacement(instruction.memory_displacement)
        immediate(instruction.immediate32)


def capstone(code: bytes) -> Measure | None:
    """Mnemonics and lengths: the cheapest that it has, which makes text of everything."""
    try:
        import capstone as library
    except ImportError:
        return None
    decoder = library.Cs(library.CS_ARCH_X86, library.CS_MODE_64)
    decoder.skipdata = True

    def run() -> int:
        rows = [(name, size) for _, size, name, _ in decoder.disasm_lite(code, 0)]
        return len(rows)

    return _per_instruction(run)


def measures(code: bytes, sample_bytes: int) -> dict[str, Measure]:
    """Everything that can be measured here, by name."""
    few = sample(code, sample_bytes)
    found: dict[str, Measure | None] = {}
    for path in PATHS:
        found[f"hvcore {path}, boundaries"] = sweep_of(code, BOUNDARIES, path)
        found[f"hvcore {path}, mnemonic and length"] = sweep_of(code, MNEMONICS, path)
        found[f"hvcore {path}, nine columns"] = sweep_of(code, OPERANDS, path)
    found["Zydis DecodeFull"] = zydis(code)
    found["iced-x86, mnemonic and length"] = iced(few, iced_mnemonics, ("u2", "u1"))
    dtypes = ("u2", "u1", "u2", "u2", "u2", "u1", "u2", "u8", "u8")
    found["iced-x86, nine columns"] = iced(few, iced_operands, dtypes)
    found["capstone, mnemonic and length"] = capstone(few)
    found["hv.decode_one, an object each"] = decode_one(few)
    found["iced-x86 Decoder, an object each"] = iced_objects(few)
    return {name: measure for name, measure in found.items() if measure is not None}


def decode_one(code: bytes) -> Measure:
    """Objects by calls with an offset, as code that follows branches does."""
    offsets = hv.decode(code, columns="offset").offset.tolist()

    def run() -> int:
        decode = hv.decode_one
        for offset in offsets:
            decode(code, offset=offset)
        return len(offsets)

    return _per_instruction(run)


def iced_objects(code: bytes) -> Measure | None:
    try:
        import iced_x86
    except ImportError:
        return None

    def run() -> int:
        count = 0
        for _ in iced_x86.Decoder(64, code):
            count += 1
        return count

    return _per_instruction(run)


GOALS = (
    ("nine columns", "Zydis DecodeFull", {"portable": 7.0, "avx512": 12.0}),
    ("nine columns", "iced-x86, nine columns", {PATHS[-1]: 90.0}),
    ("mnemonic and length", "iced-x86, mnemonic and length", {PATHS[-1]: 28.0}),
)
"""What of hvcore against what of a peer, and how many times faster it should be."""


class _Plain:
    """Stands in for pytest-benchmark."""

    disabled = False

    @staticmethod
    def pedantic(action: Callable[[], object], rounds: int, iterations: int) -> None:
        for _ in range(rounds * iterations):
            action()


def table(results: Any) -> str:
    """Times, and the ratios that count."""
    lines = [f"  {name:42} {results.median(name):9.2f} ns an instruction" for name in results.times]
    for what, peer, goals in GOALS:
        for path, goal in goals.items():
            mine = f"hvcore {path}, {what}"
            if peer in results.times and mine in results.times:
                lines.append(f"  {mine:42} {results.ratio(peer, mine):9.1f} x as fast as {peer} (goal {goal:g})")
    return "\n".join(lines)


def main() -> None:
    code = corpus()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"{len(code):,} bytes of .text")
    print(table(run_rounds(_Plain(), measures(code, 1 << 20), rounds)))


if __name__ == "__main__":
    main()
