"""`hvcore decode`: listings of raw bytes, hex text and ELF files, columns, JSON, and one line for every failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hvcore as package

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
CODE = "55 4889e5 e800000000 06 c3"


def decode(*arguments: str, text: str = "", octets: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "hvcore", "decode", *arguments]
    return subprocess.run(command, capture_output=True, input=octets or text.encode(), timeout=120, env=ENVIRONMENT)


def lines(*arguments: str, text: str = CODE) -> list[str]:
    done = decode("-", "--hex", *arguments, text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def test_listing() -> None:
    assert lines("--ip", "0x401000") == [
        "00401000  55                    push rbp",
        "00401001  4889e5                mov rbp,rsp",
        "00401004  e800000000            call 0000000000401009h",
        "00401009  06                    (bad)",
        "0040100a  c3                    ret",
    ]


def test_high_addresses_modes_vendors_and_syntaxes() -> None:
    assert lines("--ip", "0xffffffff81000000")[0].startswith("ffffffff81000000  55")
    assert lines("--bits", "32")[4].endswith("  push es")
    assert lines("--syntax", "att")[1].endswith("  mov %rsp,%rbp")
    assert lines("--vendor", "amd", text="66e81000")[0].endswith("call 0014h")


def test_json() -> None:
    found = json.loads("\n".join(lines("--json")))
    assert found[1] == {"address": 1, "bytes": "4889e5", "text": "mov rbp,rsp"}
    assert [one["text"] for one in found] == ["push rbp", "mov rbp,rsp", "call 0000000000000009h", "(bad)", "ret"]
    found = json.loads("\n".join(lines("--json", "--columns", "mnemonic,flow,target")))
    assert found[2] == {"address": 4, "mnemonic": "call", "flow": "call", "target": 9}


def test_columns() -> None:
    found = lines("--columns", "length,mnemonic,target")
    assert found[0].split() == ["address", "length", "mnemonic", "target"]
    assert found[3].split() == ["0000000000000004", "5", "call", "0x9"]


def test_raw_bytes_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "code.bin"
    path.write_bytes(b"\x90" * 1_200_000)
    found = decode(str(path)).stdout.splitlines()
    assert len(found) == 1_200_000 and found[-1] == b"00124f7f  90                    nop"


def test_instructions_over_the_end_of_a_piece() -> None:
    octets = b"\x90" * ((1 << 20) - 2) + bytes.fromhex("4889e5c3")
    assert decode("-", octets=octets).stdout.decode().splitlines()[-2:] == [
        "000ffffe  4889e5                mov rbp,rsp", "00100001  c3                    ret"
    ]


def test_sections_and_functions_of_an_elf_file(tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    source = tmp_path / "one.c"
    source.write_text("int twice(int x) { return 2 * x; }\nint main(void) { return twice(21); }\n")
    path = tmp_path / "one"
    subprocess.run([compiler, "-O1", "-fno-inline", "-o", path, source], check=True, timeout=60)
    text = decode(str(path)).stdout.decode()
    assert "section .text\n" in text and "\n<twice>:\n" in text and "\n<main>:\n" in text
    body = text.partition("<twice>:\n")[2].splitlines()
    assert any(line.endswith("ret") for line in body[:4])
    raw = decode(str(path), "--raw").stdout.decode().splitlines()
    assert raw[0].startswith("00000000  7f45") and len(raw) > len(text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (("/nonexistent/file",), "", "/nonexistent/file: No such file or directory"),
        (("-",), "", "there is nothing to decode: it is empty"),
        (("-", "--hex"), "zz", "the text is not pairs of hexadecimal digits"),
        (("-", "--columns", "colour"), "x", "there is no column 'colour'; there are offset, length"),
        (("-", "--bits", "8"), "x", "--bits"),
        (("-", "--ip", "-1"), "x", "an address of 64 bits is needed, not '-1'"),
        (("-", "--syntax", "masm"), "x", "--syntax"),
        ((), "", "FILE"),
        (("-",), "\x7fELF\x02\x01\x01", "not an ELF file"),
        (("-",), "\x7fELF\x02\x01\x01" + "\0" * 60, "made for ELF machine 0, not x86 (3) or x86-64 (62)"),
    ],
)
def test_failures_are_one_line(arguments: tuple[str, ...], text: str, message: str) -> None:
    done = decode(*arguments, text=text)
    error = done.stderr.decode()
    assert done.returncode == 2 and error.count("\n") == 1 and message in error
    assert not done.stdout


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "code.bin"
    path.write_bytes(b"\x90" * 2_000_000)
    command = f"{sys.executable} -m hvcore decode {path} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, timeout=60, env=ENVIRONMENT)
    assert done.stdout.startswith(b"00000000  90") and not done.stderr
