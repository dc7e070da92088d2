"""The instructions of corner_cases.txt, on hvcore and, where it may, on the host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import native
from oracles.native import REGISTER_NAMES, STATUS_SIGNAL, STATUS_STOPPED

from hvcore._native.instructions import decode_one
from hvcore._native.isa import table

DATA = Path(__file__).with_name("corner_cases.txt")
LINE = re.compile(r'\[([0-9a-f ]+)\]\s+"([^"]*)"\s*(.*?)=>\s*([^!]*)(?:!\s*(.*))?$')
WINDOW = native.DATA_ADDRESS + native.DEFAULT_WINDOW_OFFSET
FLAGS = dict(zip("cpazso", (0x1, 0x4, 0x10, 0x40, 0x80, 0x800), strict=True))


@dataclass(frozen=True)
class Line:
    """One line of the file."""

    number: int
    code: bytes
    text: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    not_asked: str
    """Why the host is not asked."""


def lines() -> list[Line]:
    found = []
    for number, text in enumerate(DATA.read_text().splitlines(), 1):
        if not text or text.startswith("#"):
            continue
        match = LINE.match(text)
        assert match, f"{DATA.name}:{number} is not understood"
        inputs, outputs = (dict(item.split("=") for item in match[group].split()) for group in (3, 4))
        found.append(Line(number, bytes.fromhex(match[1]), match[2], inputs, outputs, match[5] or ""))
    return found


def value_of(text: str) -> int:
    return WINDOW + int(text[1:], 16) if text.startswith("@") else int(text, 16)


def flags_of(text: str) -> int:
    return sum(FLAGS[letter] for letter in text.replace("-", ""))


def case_of(line: Line) -> Any:
    cases = native.new_cases(1)
    native.set_code(cases[0], line.code)
    for name, text in line.inputs.items():
        if name in REGISTER_NAMES:
            cases["gpr"][0, REGISTER_NAMES.index(name)] = value_of(text)
        elif name.startswith("xmm"):
            cases["xmm"][0, int(name[3:])] = np.frombuffer(int(text, 16).to_bytes(16, "little"), dtype=np.uint8)
        elif name == "mem":
            cases["window"][0, : len(text) // 2] = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
        elif name == "flags":
            cases["rflags"][0] = 0x202 | flags_of(text)
        else:
            assert name == "mxcsr", name
            cases["mxcsr"][0] = int(text, 16)
    return cases


@cache
def undefined_of(code: bytes) -> int:
    """Flags that the table calls undefined; a count of one, or none, is not looked at here."""
    number = decode_one(code).table_line
    return next((row.flag_mask("u") for row in table.load() if row.line == number), 0)


def check(line: Line, case: Any, result: Any) -> None:
    """Everything that the line says, and that other registers are as they were."""
    outputs = dict(line.outputs)
    trap = outputs.pop("trap", None)
    assert result["status"] == (STATUS_STOPPED if trap is None else STATUS_SIGNAL), native.STATUS_NAMES
    if trap is not None:
        assert result["trap"] == int(trap, 16)
        assert result["error_code"] == int(outputs.pop("error", "0"), 16)
    if "cr2" in outputs:
        assert result["fault_address"] == value_of(outputs.pop("cr2"))
    if "rip" in outputs:
        assert result["rip"] == value_of(outputs.pop("rip"))
    if "flags" in outputs:
        defined = sum(FLAGS.values()) & ~undefined_of(line.code)
        assert int(result["rflags"]) & defined == flags_of(outputs.pop("flags")) & defined
    if "mxcsr" in outputs:
        assert hex(int(result["mxcsr"])) == hex(int(outputs.pop("mxcsr"), 16))
    for index, name in enumerate(REGISTER_NAMES):
        expected = value_of(outputs.pop(name)) if name in outputs else int(case["gpr"][index])
        assert hex(int(result["gpr"][index])) == hex(expected), name
    for index in range(16):
        octets = case["xmm"][index].tobytes()
        expected = int(outputs.pop(f"xmm{index}", f"{int.from_bytes(octets, 'little'):x}"), 16)
        assert hex(int.from_bytes(result["xmm"][index].tobytes(), "little")) == hex(expected), f"xmm{index}"
    assert not outputs, f"outputs that nobody understands: {outputs}"


@pytest.fixture(scope="module")
def emulated() -> Any:
    from oracles.emulated import EmulatedProcessor

    return EmulatedProcessor()


@pytest.mark.parametrize("line", lines(), ids=lambda line: f"{line.number}: {line.text}")
def test_hvcore(line: Line, emulated: Any) -> None:
    cases = case_of(line)
    check(line, cases[0], emulated.run(cases)[0])


def test_the_host_agrees() -> None:
    works, reason = native.available()
    if not works:
        pytest.skip(reason)
    with native.NativeProcessor(capacity=1) as processor:
        for line in lines():
            if line.not_asked:
                continue
            cases = case_of(line)
            try:
                check(line, cases[0], processor.run(cases)[0])
            except AssertionError as difference:
                raise AssertionError(f"{DATA.name}:{line.number}: {line.text}: {difference}") from difference
