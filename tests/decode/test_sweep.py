"""The batch decoder against the decoder of single instructions, row by row and column by column, on every path that
this host has; its ends of buffers against a guard page; and what `hv.decode` promises about buffers, storage, streams.
"""

from __future__ import annotations

import ctypes
import io
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

import hvcore as hv
from hvcore._native.decoder import MODES, VENDORS
from hvcore._native.sweep import COLUMNS, PATHS, decode_into
from hvcore.instruction_table import DTYPES, STANDARD

SEED = 20261122
FAST_COLUMNS = tuple(name for name in COLUMNS if name != "prefixes")
"""Prefixes are left to the decoder of single instructions, which then writes all of the row."""
TILE, VECTOR_TILE, CHUNK, AHEAD = 30 * 1024, 2048, 1024, 256
"""Of batch/walk.h and batch/walk_avx512.h: where something special could happen."""
WORTH_TABLES = 4096
UNTOUCHED = 0x5A
PREFIXES = bytes.fromhex("66 f2 f3 48 41 4c 0f 0f 38 3a c4 c5 62 64 2e 67 f0 8f d5")

Columns = dict[str, NDArray[Any]]


def sweep(code: Any, path: str, names: tuple[str, ...] = FAST_COLUMNS, *, bits: int = 64, vendor: str = "intel",
          ip: int = 0xFFFF_FFFF_FFFF_F000, capacity: int | None = None, more: bool = False) -> tuple[Columns, int, int]:
    """Columns, rows and the offset behind them, of one path."""
    room = len(code) + 3 if capacity is None else capacity
    arrays = {name: numpy.full(room + 3, UNTOUCHED, DTYPES[name]) for name in names}
    rows, end = decode_into(code, [arrays.get(name) for name in COLUMNS], options=MODES[bits] | VENDORS[vendor], ip=ip,
                            at=0, row=0, capacity=room, more=more, path=path)
    return arrays, rows, end


def assert_equal(code: Any, path: str, names: tuple[str, ...] = FAST_COLUMNS, **options: Any) -> int:
    """Both give the same rows; the arrays are untouched behind them. Returns how many rows."""
    columns, rows, end = sweep(code, path, names, **options)
    expected, expected_rows, expected_end = sweep(code, "single", names, **options)
    assert (rows, end) == (expected_rows, expected_end)
    for name in names:
        different = numpy.flatnonzero(columns[name] != expected[name])
        if len(different):
            row = int(different[0])
            offset = int(expected["offset64"][row]) if "offset64" in names else -1
            pytest.fail(f"{path}: {name}[{row}] is {columns[name][row]}, not {expected[name][row]}, of "
                        f"{bytes(code[offset : offset + 16]).hex()} at {offset}; {len(different)} rows differ")
    return rows


def real_code(size: int, position: float = 0.4) -> bytes:
    """Out of the middle of NumPy's largest module: code for SSE to AVX-512 FP16, and where that ends, data."""
    modules = Path(numpy.__file__).parent.rglob("_multiarray_umath*.so")
    data = max(modules, key=lambda path: path.stat().st_size).read_bytes()
    start = int(len(data) * position)
    return data[start : start + size]


def random_code(size: int, seed: int, share_of_prefixes: float = 0.0) -> bytes:
    generator = numpy.random.default_rng(seed)
    code = generator.integers(0, 256, size, dtype=numpy.uint8)
    chosen = generator.random(size) < share_of_prefixes
    code[chosen] = numpy.frombuffer(PREFIXES, numpy.uint8)[generator.integers(0, len(PREFIXES), int(chosen.sum()))]
    return code.tobytes()


def mutated_code(size: int, seed: int) -> bytes:
    generator = numpy.random.default_rng(seed)
    code = numpy.frombuffer(real_code(size), numpy.uint8).copy()
    places = generator.integers(0, size, size // 20)
    code[places] = generator.integers(0, 256, len(places))
    return code.tobytes()


paths = pytest.mark.parametrize("path", PATHS)


@paths
@pytest.mark.parametrize("position", [0.1, 0.25, 0.4, 0.55])
def test_real_code(path: str, position: float) -> None:
    assert assert_equal(real_code(400_000, position), path) > 60_000


@paths
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_random_bytes(path: str, share: float) -> None:
    assert_equal(random_code(300_000, SEED, share), path)


@paths
def test_mutated_code(path: str) -> None:
    assert_equal(mutated_code(300_000, SEED), path)


@paths
def test_amd_reads_some_bytes_differently(path: str) -> None:
    assert_equal(random_code(100_000, SEED, 0.3), path, vendor="amd")
    assert_equal(b"\x66\xe8\x01\x02\x03\x04" * 2000, path, vendor="amd")


@paths
@pytest.mark.parametrize("bits", [16, 32])
def test_other_modes(path: str, bits: int) -> None:
    assert_equal(mutated_code(30_000, SEED), path, bits=bits)


@paths
def test_every_column(path: str) -> None:
    assert_equal(mutated_code(50_000, SEED), path, COLUMNS)


@paths
@pytest.mark.parametrize("names", [("length",), ("offset",), ("mnemonic", "length"), ("form",), ("flow",), ("base",),
                                   ("immediate", "register"), ("target",), ("register2",), ()])
def test_any_choice_of_columns(path: str, names: tuple[str, ...]) -> None:
    code = mutated_code(40_000, SEED)
    columns, rows, end = sweep(code, path, names)
    expected, expected_rows, expected_end = sweep(code, "single")
    assert (rows, end) == (expected_rows, expected_end)
    for name in names:
        assert (columns[name][:rows] == expected[name][:rows]).all() and (columns[name][rows:] == UNTOUCHED).all()


@paths
@pytest.mark.parametrize("base", [WORTH_TABLES, CHUNK * 5, VECTOR_TILE * 3, VECTOR_TILE * 3 + AHEAD, TILE,
                                  TILE + AHEAD])
def test_buffers_of_every_length(path: str, base: int) -> None:
    """The buffer ends in the middle of anything: a tile, a chunk, an instruction."""
    code = mutated_code(base + 200, SEED + base)
    for size in range(max(base - 40, WORTH_TABLES), base + 40):
        assert_equal(code[:size], path, ("offset64", "length", "form", "register", "displacement", "immediate"))


def test_short_buffers() -> None:
    code = real_code(200)
    for size in range(201):
        table = hv.decode(code[:size])
        assert table.length.sum() == size == table.end
        assert (table.form[:-15] == hv.decode(code).form[: max(len(table) - 15, 0)]).all()


@paths
def test_every_start(path: str) -> None:
    """Chunks begin anywhere, and join the code before them wherever that comes out."""
    code = real_code(CHUNK * 6)
    for start in range(64):
        assert_equal(code[start:], path, ("offset64", "length", "form"))


@paths
@pytest.mark.parametrize("unit", ["2e", "f0", "48", "0f", "b8", "90", "48b8ff", "c5", "62", "c74424",
                                  "660f1f840000000000"])
def test_code_that_never_synchronises(path: str, unit: str) -> None:
    unit_bytes = bytes.fromhex(unit)
    assert_equal((unit_bytes * (TILE // len(unit_bytes) + 99))[: TILE + 77], path)


@paths
def test_rows_run_out(path: str) -> None:
    code = mutated_code(9000, SEED)
    full, rows, _ = sweep(code, path)
    for capacity in (0, 1, 7, 500, 511, rows - 1):
        columns, written, end = sweep(code, path, capacity=capacity)
        assert written == capacity and end == full["offset64"][capacity]
        for name in FAST_COLUMNS:
            assert (columns[name][:capacity] == full[name][:capacity]).all()
            assert (columns[name][capacity:] == UNTOUCHED).all()


@paths
@pytest.mark.parametrize("code", [mutated_code(10_000, SEED), random_code(6000, SEED), b"\xc5" * 5000,
                                  b"\x62\xf1" * 2500, b"\x0f" * 5001, b"\x90" * 4096 + b"\x48\xb8",
                                  b"\x66\x0f\x3a" * 2000])
def test_nothing_is_read_beyond_the_buffer(path: str, code: bytes) -> None:
    """The buffer ends where an unreadable page begins, and begins where one ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    room = -(-len(code) // page) * page
    area = mmap.mmap(-1, room + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for at in (address, address + page + room):
        assert libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(page), 0) == 0
    expected = sweep(code, "single")
    for offset in (page, page + room - len(code)):
        area[offset : offset + len(code)] = code
        columns, rows, end = sweep(memoryview(area)[offset : offset + len(code)], path)
        assert (rows, end) == expected[1:]
        assert all((columns[name] == expected[0][name]).all() for name in FAST_COLUMNS)
    for at in (address, address + page + room):
        libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(page), 3)


# ---- hv.decode and its table


def test_a_row_is_an_instruction() -> None:
    code = real_code(20_000)
    table = hv.decode(code, ip=0x400000)
    assert set(table.columns) == set(STANDARD)
    for row in (0, 17, -1):
        instruction = table[row]
        assert instruction.ip == 0x400000 + table.offset[row] and instruction.valid == (table.form[row] != 0)
        assert instruction.form == table.form[row] or not instruction.valid
    assert len(list(table)) == len(table)
    with pytest.raises(IndexError):
        table[len(table)]
    assert hv.decode(code, columns="length")[5].form == table[5].form
    with pytest.raises(ValueError, match="'offset' or 'length'"):
        hv.decode(code, columns="form")[0]


def test_targets_of_branches() -> None:
    #                              jmp short  call         jz near          ret
    table = hv.decode(bytes.fromhex("eb05 e8fbffffff 0f8400010000 c3"), ip=0x1000)
    assert table.target.tolist() == [0x1007, 0x1002, 0x110D, 0]
    assert table.mnemonic.dtype == numpy.uint16 and table.offset.dtype == numpy.uint32


def test_operands() -> None:
    #                                mov rax,[rbx+r12*4+0x10]  add ch,dl  mov r9b,5  nop
    table = hv.decode(bytes.fromhex("4a8b44a310 00d5 41b105 90"), columns=DTYPES.keys() - {"offset64"})
    assert table.register.tolist() == [0, 149, 9, 255]
    assert table.base.tolist() == [3, 255, 255, 255] and table.index.tolist() == [12, 255, 255, 255]
    assert table.scale.tolist() == [4, 0, 0, 0] and table.displacement.tolist() == [0x10, 0, 0, 0]
    assert table.operand_kinds.tolist() == [0b1001, 0b0101, 0b1101, 0] and table.immediate.tolist() == [0, 0, 5, 0]
    assert table.register1.tolist() == [255, 2, 255, 255]


def test_invalid_bytes_and_a_cut_off_end() -> None:
    table = hv.decode(bytes.fromhex("06 90 48b8112233"))
    assert table.form[0] == 0 and table.form[1] != 0
    assert table.length.tolist()[:3] == [1, 1, 1] and table.length.sum() == 7


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda code: numpy.frombuffer(code, "u4"),
                                  lambda code: numpy.frombuffer(code, "u1").copy(), lambda code: _mapped(code)])
def test_buffers_of_any_kind(make: Any) -> None:
    code = real_code(8000)
    assert (hv.decode(make(code)).form == hv.decode(code).form).all()


def _mapped(code: bytes) -> mmap.mmap:
    area = mmap.mmap(-1, len(code))
    area[:] = code
    return area


def test_storage_is_used_again() -> None:
    code, other = real_code(30_000), real_code(9000, 0.2)
    table = hv.decode(code)
    arrays = table.storage
    again = hv.decode(other, out=table)
    assert again is table and all(table.storage[name] is arrays[name] for name in arrays)
    assert (again.form == hv.decode(other).form).all() and again.end == len(other)
    part = hv.decode(code, out={"form": numpy.empty(100, "u2"), "offset": numpy.empty(120, "u8")})
    assert len(part) == 100 == part.capacity and part.end == hv.decode(code).offset[100]
    lengths = numpy.empty(30_000, "u1")
    assert numpy.shares_memory(hv.lengths(code, out=lengths), lengths)
    assert (hv.lengths(code) == hv.decode(code).length).all()


def test_storage_grows() -> None:
    """One-byte instructions have more rows than were reserved."""
    assert len(hv.decode(b"\x90" * 50_000)) == 50_000


@pytest.mark.parametrize("chunk", [1, 7, 100, 4096, 9001])
def test_streams(chunk: int) -> None:
    code = mutated_code(600 if chunk < 7 else 20_000, SEED)
    whole = hv.decode(code, ip=0x7000)
    for source in (io.BytesIO(code), (code[at : at + chunk] for at in range(0, len(code), chunk))):
        tables = list(hv.iterate(source, chunk=chunk, ip=0x7000))
        for name in ("form", "length", "target", "immediate"):
            assert (numpy.concatenate([getattr(table, name) for table in tables]) == getattr(whole, name)).all()
        offsets = numpy.concatenate([table.offset + numpy.uint64(table.ip - 0x7000) for table in tables])
        assert (offsets == whole.offset).all()


def test_threads_decode_at_the_same_time() -> None:
    code = mutated_code(200_000, SEED)
    expected = hv.decode(code)
    with ThreadPoolExecutor(4) as pool:
        for table in pool.map(lambda _: hv.decode(code), range(8)):
            assert all((table.columns[name] == expected.columns[name]).all() for name in STANDARD)


@pytest.mark.parametrize(("options", "message"), [
    ({"bits": 48}, "bits must be 16, 32 or 64"), ({"vendor": "via"}, "vendor must be"), ({"ip": -1}, "ip must be"),
    ({"columns": ["lenght"]}, "no column 'lenght'"),
    ({"out": {"form": numpy.empty(9, "u4")}}, r"out\['form'\] must be"),
    ({"out": {"form": numpy.empty(9, "u2")[::2]}}, "contiguous"),
    ({"out": {"shape": numpy.empty(9)}}, "no column 'shape'"),
    ({"out": {"form": numpy.empty(9, "u2")}, "columns": ["length"]}, "no array for the column 'length'"),
])  # fmt: skip
def test_errors_name_the_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hv.decode(b"\x90", **options)


def test_errors_of_buffers() -> None:
    with pytest.raises(TypeError, match="buffer must be"):
        hv.decode("90")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffer must be contiguous"):
        hv.decode(numpy.zeros(10, "u1")[::2])
    with pytest.raises(AttributeError, match="no column 'base'"):
        hv.decode(b"\x90", columns="form").base  # noqa: B018


def test_an_absolute_jump_has_its_target() -> None:
    """JMPABS (APX specification): the immediate is the address, wherever the instruction lies."""
    code = bytes.fromhex("d500a11122334455667788")
    table = hv.decode(code * 2, ip=0x1000)
    assert table.target.tolist() == [0x8877665544332211] * 2
    assert hv.decode_one(code, ip=0x1000).target == 0x8877665544332211


def test_only_what_was_asked_for_can_be_seen() -> None:
    table = hv.decode(b"\x55\x48\x89\xe5\xc3")
    assert hv.decode(b"\x90" * 2, out=table, columns=["length"]) is table
    assert list(table.columns) == ["length"] and table[1].ip == 1
    with pytest.raises(AttributeError, match="no column 'mnemonic'"):
        _ = table.mnemonic


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"ip": "0x10"}, "ip"), ({"ip": 1.5}, "ip"), ({"columns": 5}, "columns"), ({"columns": ()}, "columns"),
     ({"out": 5}, "out"), ({"out": {}}, "out")],
)  # fmt: skip
def test_what_is_wrong_is_named(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises((TypeError, ValueError), match=word):
        hv.decode(b"\x90", **arguments)
