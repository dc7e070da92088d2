"""Lines of text: equal to those of iced-x86's Intel, GAS and NASM formatters. Longer runs: `text_iced.py`."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("iced_x86", reason="iced-x86 is not installed")

import hvcore as hv

from . import iced_samples, text_iced
from .compare import text_of
from .test_iced import binaries

SEED = 2024
MUTATED = 12_000
INSTRUCTIONS = 12_000
"""Of each binary, in four places of it."""


@pytest.mark.parametrize("vendor", ["intel", "amd"])
@pytest.mark.parametrize("bits", [64, 32, 16])
def test_every_code(bits: int, vendor: str) -> None:
    samples = iced_samples.samples(bits, vendor)
    found = [text for octets in samples.values() for code in octets
             for text in text_iced.differences(code, bits, vendor)]
    assert sum(map(len, samples.values())) > 10_000
    assert not found, f"{len(found)}\n" + "\n".join(found[:30])


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_mutated_bytes(bits: int) -> None:
    print(f"seed {SEED}")
    found = [text for octets in text_iced.mutated(SEED, MUTATED, bits)
             for text in text_iced.differences(octets, bits)]
    assert not found, f"{len(found)}\n" + "\n".join(found[:30])


@pytest.mark.parametrize("name", sorted(binaries()))
def test_real_binaries(name: str) -> None:
    path: Path | None = binaries()[name]
    if path is None:
        pytest.skip(f"{name} is not on this machine")
    address, code = text_of(path)
    if not code:
        pytest.skip(f"{path} has no x86-64 .text")
    places = [random.Random(SEED).randrange(max(len(code) - 50_000, 1)) for _ in range(3)]
    for begin in (0, *places):
        count, found = text_iced.compare_code(code[begin:], address + begin, INSTRUCTIONS // 4)
        assert count > 50 or begin
        assert not found, f"{path}: {len(found)} of {count}\n" + "\n".join(found[:20])


CODE = bytes.fromhex("55 4889e5 62f17cc9585351 06 e8fbffffff f3aa c3")
LINES = ["push rbp", "mov rbp,rsp", "vaddps zmm2{k1}{z},zmm0,[rbx+1440h]", "(bad)", "call 000000000040100Ch",
         "rep stosb [rdi]", "ret"]


def test_tables_and_instructions_give_the_same_lines() -> None:
    table = hv.decode(CODE, ip=0x401000)
    assert hv.format(table) == LINES
    assert [hv.format(table[row]) for row in range(len(table))] == LINES
    assert hv.format(instruction for instruction in table) == LINES
    for syntax in ("att", "nasm"):
        assert hv.format(table, syntax=syntax) == [table[row].format(syntax) for row in range(len(table))]


def test_a_table_of_lengths_has_text() -> None:
    assert hv.format(hv.decode(CODE, ip=0x401000, columns=("length",))) == LINES
    with pytest.raises(ValueError, match="'offset' or 'length'"):
        hv.format(hv.decode(CODE, columns=("form",)))


def test_capital_letters() -> None:
    one = hv.decode_one(bytes.fromhex("8b8310000000"))
    assert hv.format(one, uppercase=True) == "MOV EAX,[RBX+10H]"
    assert hv.format(one, syntax="att", uppercase=True) == "MOV 0x10(%RBX),%EAX"


def test_lines_of_more_than_a_tile() -> None:
    code = CODE * 1000
    assert hv.format(hv.decode(code))[-len(LINES) :][:3] == LINES[:3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"syntax": "masm"}, "syntax must be one of 'intel', 'att', 'nasm', not 'masm'"),
        ({"bits": 8}, "bits must be 16, 32 or 64, not 8"),
        ({"vendor": "via"}, "vendor must be 'intel' or 'amd', not 'via'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    from hvcore._native.formatter import format_code

    with pytest.raises(ValueError, match=message):
        format_code(CODE, np.zeros(1, np.uint32), **arguments)  # type: ignore[arg-type]


def test_offsets_are_checked() -> None:
    from hvcore._native.formatter import format_code, listing

    for call in (format_code, listing):
        with pytest.raises(ValueError, match="an offset is outside the code"):
            call(CODE, np.array([len(CODE)], np.uint32))
        with pytest.raises(ValueError, match="uint32 or uint64"):
            call(CODE, np.zeros(1, np.uint8))
        assert not call(CODE, np.zeros(0, np.uint32))
