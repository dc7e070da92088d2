"""Trace files: every format built here from its published layout, read back, cut anywhere, and damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import re
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from hvcore.experiments import RECORD, Kind, TraceError, TraceWriter, TranslationModel, read_trace
from hvcore.experiments.numpy_files import COLUMNS
from hvcore.experiments.records import make_records
from hvcore.experiments.traces import BLOCK_BYTES

TRUE = Path(__file__).parent / "data/true.lackey.txt.gz"
LETTERS = {"I": 0, "L": 1, "S": 2, "M": 3}


def rows(trace):
    """What a trace says, as plain tuples."""
    records = trace.read()
    return list(zip(*(records[name].tolist() for name in ("kind", "address", "size")), strict=True))


def varint(value):
    text = b""
    while value > 127:
        text, value = text + bytes([value & 127 | 128]), value >> 7
    return text + bytes([value])


def gem5_file(packets):
    """Magic number, header, and packets {field: number}, each behind its length."""

    def message(fields):
        return b"".join(
            varint(number << 3) + varint(value) if isinstance(value, int) else varint(number << 3 | 2) + value
            for number, value in fields.items()
        )

    header = message({1: varint(6) + b"system", 2: 0, 3: 10**12, 4: varint(3) + b"\x08\x01\x12"})
    messages = [header, *(message(packet) for packet in packets)]
    return b"gem5" + b"".join(varint(len(text)) + text for text in messages)


def champsim(ip, targets=(), sources=(), taken=0):
    targets, sources = [*targets, 0, 0][:2], [*sources, 0, 0, 0, 0][:4]
    return struct.pack("<Q8B6Q", ip, taken, taken, 6, 0, 6, 25, 0, 0, *targets, *sources)


def cloudsuite(ip, targets=(), sources=()):
    targets, sources = [*targets, 0, 0, 0, 0][:4], [*sources, 0, 0, 0, 0][:4]
    return struct.pack("<Q2B4B4B6x8Q2B6x", ip, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, *targets, *sources, 1, 0)


def entries(*rows):
    return b"".join(struct.pack("<HHQ", *row) for row in rows)


DRMEMTRACE = entries(
    (25, 0, 5), (28, 3, 7), (22, 0, 99), (24, 0, 98), (47, 3, 0x90), (10, 3, 0x401000), (0, 8, 0x7000), (1, 4, 0x8000),
    (17, 2, 0x0503), (0, 16, 0x9000), (29, 4, 0x401010), (49, 2, 0x401020), (4, 1, 0x123), (20, 64, 0x55), (23, 0, 99),
    (26, 0, 0),
)  # fmt: skip
FILES = {
    "lackey": (
        b"==7== Lackey\n\nI  04001000,3\n L 1ffeffe7e,4\r\n S 1ffeffe78,8\n--7-- note\n M 0421c7cc,4\n"
        b"** 1\nI  ffffffffffffffff,1\n",
        [(0, 0x4001000, 3), (1, 0x1FFEFFE7E, 4), (2, 0x1FFEFFE78, 8), (3, 0x421C7CC, 4), (0, (1 << 64) - 1, 1)],
    ),
    "champsim": (
        champsim(0x400100, (0x1000, 0x2000), (0x3000, 0x2000, 0x3000)) + champsim(0x400104, taken=1),
        [(0, 0x400100, 0), (1, 0x3000, 0), (1, 0x3000, 0), (2, 0x1000, 0), (3, 0x2000, 0), (0, 0x400104, 0)],
    ),
    "cloudsuite": (
        cloudsuite(0x400100, (0x1000,), (0x3000, 0x4000)) + cloudsuite(0x400107, (0, 0, 0, 0x5000)),
        [(0, 0x400100, 0), (1, 0x3000, 0), (1, 0x4000, 0), (2, 0x1000, 0), (0, 0x400107, 0), (2, 0x5000, 0)],
    ),
    "drmemtrace": (
        DRMEMTRACE,
        [(0, 0x401000, 3), (1, 0x7000, 8), (2, 0x8000, 4), (0, 0x401003, 3), (0, 0x401006, 5), (1, 0x9000, 16),
         (0, 0x401020, 2)],
    ),
    "gem5": (
        gem5_file([
            {1: 500, 2: 1, 3: 0x8000_0000, 4: 64, 5: 0x100, 6: 1, 7: 0x400},
            {1: 600, 2: 1, 3: 0x1_2345_6789, 4: 8, 5: 0},
            {1: 700, 2: 2, 3: 0x1_2345_6789, 4: 8},
            {1: 800, 2: 4, 3: 0xFFFF_FFFF_FFFF_FFFF, 4: 70_000, 9: 5},
            {1: 900, 2: 34, 3: 0x10, 4: 4},
            {1: 901, 2: 7, 3: 0x10, 4: 64},
        ]),
        [(0, 0x8000_0000, 64), (1, 0x1_2345_6789, 8), (2, (1 << 64) - 1, 65535), (3, 0x10, 4)],
    ),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress], ids=["plain", "gz", "xz", "bz2"])
@pytest.mark.parametrize("format", FILES)
def test_formats(format, pack, tmp_path):
    content, expected = FILES[format]
    path = tmp_path / "a.trace"
    path.write_bytes(pack(content))
    assert rows(read_trace(path, format=format)) == expected
    recognized = read_trace(path)
    assert recognized.format == format and rows(recognized) == expected == rows(recognized)


def test_the_shipped_trace():
    """Against a regular expression, line by line."""
    expected = [
        (LETTERS[found[1]], int(found[2], 16), int(found[3]))
        for line in gzip.open(TRUE, "rt")
        if (found := re.fullmatch(r" ?([ILSM]) {1,2}([0-9a-f]+),(\d+)\n", line))
    ]
    trace = read_trace(TRUE)
    assert rows(trace) == expected
    counts = np.bincount(trace.read()["kind"]).tolist()
    assert counts == [127_757, 27_897, 10_266, 1504]


@pytest.mark.parametrize("format", FILES)
def test_cut_anywhere(format, tmp_path):
    """A cut file gives the records before the cut, then says where it is, or ends if the cut is between records."""
    content, expected = FILES[format]
    path = tmp_path / "a.trace"
    ends = 0
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found, error = [], None
        try:
            for chunk in read_trace(path, format=format):
                found += zip(*(chunk[name].tolist() for name in ("kind", "address", "size")), strict=True)
        except TraceError as damage:
            error = damage
        assert found == expected[: len(found)]
        if error is None:
            ends += 1
        else:
            assert error.record == len(found) + 1 and 0 <= error.offset <= length
            assert str(path) in str(error) and f"record {error.record:,} at byte" in str(error)
    assert 0 < ends < len(content) / 3
    path.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(TraceError, match="cannot be decompressed"):
        read_trace(path, format=format).read()


@pytest.mark.parametrize("format", FILES)
def test_damaged_anywhere(format, tmp_path):
    """Random bytes in any place: records or a TraceError, nothing else."""
    content, _ = FILES[format]
    path = tmp_path / "a.trace"
    rng = random.Random(f"damage {format}")
    for _ in range(150):
        spoiled = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        path.write_bytes(bytes(spoiled) if rng.random() < 0.8 else rng.randbytes(rng.randrange(3000)))
        for reader in (lambda: read_trace(path, format=format), lambda: read_trace(path)):
            try:
                TranslationModel(dtlb="4").run(reader())
            except TraceError as error:
                assert path.name in str(error)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"J  04001000,3\n", "a line must start"),
        (b" X 04001000,3\n", "a line must start"),
        (b"I 04001000,3\n", "blanks"),
        (b" L  4001000,3\n", "an address must be"),
        (b" L 4001000;3\n", "an address must be"),
        (b" L 12345678123456781,3\n", "an address must be"),
        (b" L 4001000,\n", "a size must be"),
        (b" L 4001000,3 \n", "something follows"),
        (b" L", "ends within a record"),
        (b" L 4001000,3", "ends within a record"),
    ],
)
def test_damaged_lines(line, problem, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"== ==\nI  1,1\n L 2,2\n" + line)
    with pytest.raises(TraceError, match=problem) as caught:
        read_trace(path, format="lackey").read()
    assert (caught.value.record, caught.value.offset) == (3, 20)


@pytest.mark.parametrize(
    ("format", "content", "problem", "record", "offset"),
    [
        ("champsim", champsim(1) + champsim(2, taken=2), "is_branch", 2, 64),
        ("drmemtrace", entries((10, 1, 1), (17, 9, 0)), "a bundle", 2, 12),
        ("drmemtrace", entries((10, 1, 1), (50, 9, 0)), "no such type", 2, 12),
        ("gem5", gem5_file([]) + b"\xff" * 11, "no number", 1, len(gem5_file([]))),
        ("gem5", gem5_file([]) + varint(1 << 20), "longer than any packet", 1, len(gem5_file([]))),
        ("gem5", gem5_file([]) + b"\x02\x0f\x01", "no protobuf", 1, len(gem5_file([]))),
        ("gem5", b"mega", "must start with", 1, 0),
    ],
    ids=range(7),
)
def test_damaged_binary(format, content, problem, record, offset, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=problem) as caught:
        read_trace(path, format=format).read()
    assert (caught.value.record, caught.value.offset) == (record, offset)


def test_long_files_are_read_in_pieces(tmp_path):
    path = tmp_path / "a.txt"
    lines = b"".join(b"I  %08x,4\n" % address for address in range(0, 400_000, 2))
    path.write_bytes(lines)
    assert len(lines) > 2 * BLOCK_BYTES
    chunks = list(read_trace(path))
    assert len(chunks) > 2
    assert np.array_equal(np.concatenate(chunks)["address"], np.arange(0, 400_000, 2, dtype=np.uint64))
    path.write_bytes(b"== " + b"x" * (3 << 20))
    with pytest.raises(TraceError, match="a record does not end"):
        read_trace(path, format="lackey").read()


def test_numpy_files(tmp_path):
    records = make_records([0x1000, 0x2FFF], [Kind.FETCH, Kind.STORE], size=4, page_shift=21, asid=7)
    np.save(tmp_path / "records.npy", records)
    np.save(tmp_path / "addresses.npy", records["address"])
    np.save(tmp_path / "some.npy", records[["address", "kind"]])
    np.savez(tmp_path / "one.npz", whatever=records)
    np.savez_compressed(tmp_path / "columns.npz", **{name: records[name] for name in COLUMNS})
    np.savez(tmp_path / "sizes.npz", address=records["address"], size=np.array([1, 1 << 20]), more=np.zeros(9))
    (tmp_path / "packed.npy.gz").write_bytes(gzip.compress((tmp_path / "records.npy").read_bytes()))
    for name in ("records.npy", "one.npz", "columns.npz", "packed.npy.gz"):
        assert np.array_equal(read_trace(tmp_path / name).read(), records), name
    assert rows(read_trace(tmp_path / "addresses.npy")) == [(1, 0x1000, 0), (1, 0x2FFF, 0)]
    assert rows(read_trace(tmp_path / "some.npy")) == [(0, 0x1000, 0), (2, 0x2FFF, 0)]
    assert rows(read_trace(tmp_path / "sizes.npz")) == [(1, 0x1000, 1), (1, 0x2FFF, 65535)]


@pytest.mark.parametrize(
    ("name", "arrays", "problem"),
    [
        ("a.npy", np.zeros((2, 2), np.uint64), "one dimension"),
        ("a.npy", np.array([None, 1]), "plain records"),
        ("a.npy", np.zeros(3), "integer `address`"),
        ("a.npz", {"one": np.zeros(3, np.uint64), "two": np.zeros(3, np.uint64)}, "one array, or `address`"),
        ("a.npz", {"address": np.zeros(3, np.uint64), "kind": np.zeros(2, np.uint8)}, "differ in length"),
        ("a.npz", {"address": np.zeros(3)}, "integer `address`"),
    ],
)
def test_numpy_files_that_are_no_traces(name, arrays, problem, tmp_path):
    if isinstance(arrays, dict):
        np.savez(tmp_path / name, **arrays)
    else:
        np.save(tmp_path / name, arrays)
    with pytest.raises(TraceError, match=problem):
        read_trace(tmp_path / name).read()


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_numpy_files_cut_or_damaged(name, tmp_path):
    whole = tmp_path / name
    records = make_records(np.arange(50))
    if name == "a.npy":
        np.save(whole, records)
    else:
        np.savez_compressed(whole, records=records)
    content = whole.read_bytes()
    rng = random.Random(name)
    for at in range(300):
        spoiled = bytearray(content[: rng.randrange(len(content))] if at % 2 else content)
        if spoiled and at % 2 == 0:
            spoiled[rng.randrange(len(spoiled))] ^= rng.randrange(1, 256)
        whole.write_bytes(bytes(spoiled))
        try:
            found = read_trace(whole, format=name[2:]).read()
        except TraceError:
            continue
        assert found.dtype == RECORD


def test_writers(tmp_path):
    trace = read_trace(TRUE)
    records = trace.read()
    for name in ("a.npy", "a.lackey", "a.txt.gz", "a.lackey.xz"):
        with TraceWriter(tmp_path / name) as writer:
            writer.write(trace)
        assert (writer.count, writer.dropped) == (len(records), 0)
        assert np.array_equal(read_trace(tmp_path / name).read(), records)
    assert np.array_equal(np.load(tmp_path / "a.npy"), records)
    original = [line for line in gzip.open(TRUE, "rb") if not line.startswith(b"==")]
    assert (tmp_path / "a.lackey").read_bytes() == b"".join(original)


def test_champsim_writer(tmp_path):
    """The published conversion of this trace: 127 757 records, 8 176 448 bytes, 128 operands that do not fit."""
    path = tmp_path / "true.champsimtrace"
    with TraceWriter(path) as writer:
        writer.write(read_trace(TRUE))
    assert writer.dropped == 128 and path.stat().st_size == 8_176_448
    again = read_trace(path)
    assert again.format == "champsim" and int((again.read()["kind"] == Kind.FETCH).sum()) == 127_757
    with TraceWriter(tmp_path / "b.champsim.xz") as writer:
        events = make_records([0, 0x1000, 0x2000, 0], [Kind.LOAD, Kind.FETCH, Kind.MODIFY, Kind.LOAD])
        writer.write([events, make_records([5], Kind.FLUSH), make_records([0x3000], Kind.FETCH)])
    assert (writer.count, writer.dropped) == (6, 3)
    assert rows(read_trace(writer.path)) == [(0, 0x1000, 0), (3, 0x2000, 0), (0, 0x3000, 0)]


def test_writer_refusals(tmp_path):
    for name in ("a", "a.bin", "a.npy.gz"):
        with pytest.raises(ValueError, match=r"format must be npy|without compression"):
            TraceWriter(tmp_path / name)
    writer = TraceWriter(tmp_path / "a", format="lackey")
    writer.write(make_records([1, 2], [Kind.FLUSH, Kind.LOAD]))
    writer.close()
    writer.close()
    assert writer.dropped == 1 and (tmp_path / "a").read_text() == " L 00000002,0\n"
    with pytest.raises(ValueError, match="closed"):
        writer.write(make_records([1]))


def test_reader_refusals(tmp_path):
    path = tmp_path / "a"
    for content in (b"", b"hello", bytes(64), b"\x28\xb5\x2f\xfd\x00"):
        path.write_bytes(content)
        with pytest.raises(TraceError, match=r"not recognized|zstandard"):
            read_trace(path)
    with pytest.raises(ValueError, match="format must be one of"):
        read_trace(path, format="elf")
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "missing")


def test_a_pipe(tmp_path):
    """Whoever says the format can read what is just being written."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = gzip.decompress(TRUE.read_bytes())
    writer = threading.Thread(target=lambda: pipe.write_bytes(content))
    writer.start()
    assert len(read_trace(pipe, format="lackey").read()) == 167_424
    writer.join()


def test_progress(tmp_path, capsys, monkeypatch):
    """Without tqdm a line of text."""
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    read_trace(TRUE, progress=True).read()
    assert capsys.readouterr().err.endswith("true.lackey.txt.gz: 100 %\n")
