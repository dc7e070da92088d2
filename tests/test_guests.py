"""The guest programs as files: the committed root image matches its sources, workloads compute what the table says."""
from __future__ import annotations

import platform
import shutil
import struct
from pathlib import Path

import pytest

from hvcore.guests import build, workloads

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
needs_x86_host = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not an x86-64 host")


def load_segments(elf: bytes) -> list[tuple[int, int]]:
    """(address, memory size) of every PT_LOAD."""
    offset, = struct.unpack_from("<Q", elf, 32)
    count, = struct.unpack_from("<H", elf, 56)
    segments = []
    for index in range(count):
        kind, _, _, address, _, _, size, _ = struct.unpack_from("<IIQQQQQQ", elf, offset + 56 * index)
        if kind == 1:
            segments.append((address, size))
    return segments


def test_root_image_matches_its_sources() -> None:
    try:
        built = build.build()
    except build.ToolsMissing as missing:
        pytest.skip(str(missing))
    assert built == build.IMAGE.read_bytes(), "run python -m hvcore.guests.build"


def test_root_image_keeps_its_loading_contract() -> None:
    elf = build.IMAGE.read_bytes()
    entry, = struct.unpack_from("<Q", elf, 24)
    segments = load_segments(elf)
    start, code_size = segments[0]
    assert start == 0x200000 and start <= entry < start + code_size
    assert all(address + size <= 64 << 20 for address, size in segments)
    assert b"GNU" not in elf and elf[40:48] == bytes(8)     # no notes, no section headers


def test_table_names_every_source() -> None:
    sources = {path.stem for path in workloads.SOURCES.glob("*.c")} - {"native_main"}
    assert sources == set(workloads.BY_NAME) and len(workloads.WORKLOADS) == 11


@needs_compiler
@needs_x86_host
@pytest.mark.parametrize("name", workloads.BY_NAME)
def test_native_checksum_of_one_round(name: str, tmp_path: Path) -> None:
    program = workloads.native_program(name, tmp_path, reps=1)
    assert [run.checksum for run in workloads.run_native(program, 2)] == [workloads.BY_NAME[name].checksum_one] * 2


@needs_compiler
@needs_x86_host
@pytest.mark.parametrize("name", workloads.BY_NAME)
def test_guest_build_keeps_its_loading_contract(name: str, tmp_path: Path) -> None:
    elf = workloads.build(name, tmp_path, reps=1).read_bytes()
    entry, = struct.unpack_from("<Q", elf, 24)
    assert entry == workloads.ENTRY
    assert all(workloads.ENTRY <= address and address + size <= workloads.ARENA
               for address, size in load_segments(elf))


@needs_compiler
def test_only_fib_takes_an_argument(tmp_path: Path) -> None:
    assert workloads.build("fib", tmp_path, arg=20).name == "fib-arg20.elf"
    with pytest.raises(ValueError):
        workloads.build("sieve", tmp_path, arg=20)
