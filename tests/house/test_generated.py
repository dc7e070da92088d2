"""The glue that isa/generate.py makes of isa/x64.txt: the same every time, and refused when table and code disagree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .sources import NATIVE


@pytest.fixture
def isa(tmp_path: Path) -> Path:
    """A copy of the table, the generator and the semantics that a test may spoil."""
    for room in ("isa", "sem"):
        shutil.copytree(NATIVE / room, tmp_path / room, ignore=shutil.ignore_patterns("generated", "__pycache__"))
    return tmp_path


def generate(tree: Path, seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "isa.generate"], cwd=tree, capture_output=True, text=True,
                          env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}, check=False)


def outputs(tree: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((tree / "isa/generated").iterdir())}


def first_row(text: str, semantic: str) -> int:
    """Line number of the first row that names a semantic function."""
    return next(number for number, line in enumerate(text.splitlines(), 1)
                if not line.startswith("#") and f"| {semantic} " in line)


def test_generation_is_deterministic(isa: Path) -> None:
    runs = []
    for seed in ("1", "2"):
        done = generate(isa, seed)
        assert done.returncode == 0, done.stderr
        runs.append(outputs(isa))
        shutil.rmtree(isa / "isa/generated")
    assert runs[0] == runs[1]
    assert "tables.h" in runs[0]
    assert all(text.startswith((b"# Generated", b"/* Generated")) for text in runs[0].values())


def test_unchanged_output_is_not_written_again(isa: Path) -> None:
    assert generate(isa).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (isa / "isa/generated").iterdir()}
    assert generate(isa).returncode == 0
    assert before == {path: path.stat().st_mtime_ns for path in (isa / "isa/generated").iterdir()}


def test_a_missing_semantic_names_the_line(isa: Path) -> None:
    room = isa / "sem/alu.pxd"
    room.write_text(room.read_text().replace(" alu_xor(", " alu_gone("))
    done = generate(isa)
    line = first_row((isa / "isa/x64.txt").read_text(), "alu_xor")
    assert done.returncode != 0
    assert f"x64.txt:{line}:" in done.stderr and "alu_xor" in done.stderr


@pytest.mark.parametrize("head", [
    "u64 alu_nobody(vp_t* vp, u64 a, u64 b, int width)",
    "int system_nobody(vp_t* vp, const op_t* op, int width)",
    "void sse_nobody(xmm_t* a, const xmm_t* b)",
])
def test_an_unused_semantic_is_refused(isa: Path, head: str) -> None:
    room = isa / "sem/alu.pxd"
    room.write_text(room.read_text() + f"\n\ncdef inline {head} noexcept nogil:\n    pass\n")
    done = generate(isa)
    found = re.search(r"\w+_nobody", head)
    assert found is not None
    assert done.returncode != 0 and found.group() in done.stderr and "alu.pxd" in done.stderr


@pytest.mark.parametrize("row, complaint", [
    ("90 /q | nop | - | alu_add | int | - | -", "/q"),
    ("90 | nop Fq | r | alu_add | int | - | -", "Fq"),
    ("90 | nop | - | alu_add | int | q=z | -", "q=z"),
    ("90 | nop | - | alu_add | int | - | fast", "fast"),
    ("90 | nop", "7 columns"),
])
def test_a_bad_row_names_its_line(isa: Path, row: str, complaint: str) -> None:
    table = isa / "isa/x64.txt"
    text = table.read_text()
    table.write_text(text + row + "\n")
    done = generate(isa)
    assert done.returncode != 0
    assert f"x64.txt:{text.count(chr(10)) + 1}:" in done.stderr and complaint in done.stderr
