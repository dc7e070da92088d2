"""`hvcore translate`: tables, JSON, runs, standard input, exit status, refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from hvcore.cli import main
from hvcore.paging import AddressSpace


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, AddressSpace]:
    """The memory of a small space with 64 KiB at 4 MiB, as a file."""
    space = AddressSpace(4, 4, memory="4 MiB")
    space.map(gva=0x40_0000, gpa=0x10_0000, size="64 KiB", access="rx", frames="permuted", seed=2)
    space.build()
    file: Path = tmp_path_factory.mktemp("image") / "memory.raw"
    file.write_bytes(space.memory.read(0, space.memory.size + space.memory.reserve))
    return str(file), space


def arguments(image: tuple[str, AddressSpace], *more: str) -> list[str]:
    file, space = image
    return ["translate", file, "--cr3", hex(space.state.cr3), "--nested-root", hex(space.nested_root or 0), *more]


def test_json(image: tuple[str, AddressSpace], capsys: pytest.CaptureFixture[str]) -> None:
    gvas = [0x40_0123, 0x40_5FFF]
    assert main(arguments(image, "--json", "--access", "x", *map(hex, gvas))) == 0
    rows = json.loads(capsys.readouterr().out)
    for row, gva in zip(rows, gvas, strict=True):
        one = image[1].translate_one(gva, "x")
        assert row["status"] == "OK" and row["gva"] == hex(gva)
        assert (row["gpa"], row["spa"]) == (hex(one.gpa), hex(one.spa))
        assert (row["references"], row["nested_references"], row["page_shift"]) == (4, 20, 12)


def test_table_and_status(image: tuple[str, AddressSpace], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(image, "0x400000", "0x800000")) == 1
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["gva", "gpa", "spa"] and "OK" in first and "NOT_PRESENT" in second
    assert main(arguments(image, "0x400000", "--access", "w", "--user")) == 1
    assert "DENIED" in capsys.readouterr().out and len({len(line) for line in (head, first, second)}) == 1


def test_without_a_second_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = AddressSpace(3, None, memory="4 MiB")
    space.map(gva=0, gpa=0x10_0000, size="4 KiB")
    space.build()
    file = tmp_path / "memory.raw"
    file.write_bytes(space.memory.read(0, space.memory.size))
    assert main(["translate", str(file), "--levels", "3", "--cr3", hex(space.state.cr3), "--json", "5"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["spa"] == hex(0x10_0005)


def test_runs(image: tuple[str, AddressSpace], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(image, "--json", "--range", "64 KiB", "0x400000")) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sum(int(row["size"], 16) for row in rows) == 64 << 10 and rows[0]["gva"] == "0x400000"


def test_standard_input(
    image: tuple[str, AddressSpace], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("0x400000\n0x401000 4202496\n"))
    assert main(arguments(image, "--json", "-")) == 0
    assert [row["gva"] for row in json.loads(capsys.readouterr().out)] == ["0x400000", "0x401000", "0x402000"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--access", "q", "0"], "access"),
        (["where"], "address"),
        (["0x10000000000000000"], "64 bits"),
        (["--range", "lots", "0"], "size"),
    ],
)
def test_refusals_are_one_line(
    image: tuple[str, AddressSpace], capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    assert main(arguments(image, *more)) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", "/nowhere/memory.raw", "--cr3", "0", "0"]) == 2
    assert "/nowhere/memory.raw" in capsys.readouterr().err
