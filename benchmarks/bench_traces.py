"""How fast are traces read, in times of a line parser in C for lackey's text (lackey_lines.c)?"""

import ctypes
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.c_library import load
from benchmarks.measure import report, run_rounds, timed
from hvcore.experiments import RECORD, TraceWriter, read_trace
from hvcore.experiments.traces import BLOCK_BYTES

TRACE = Path(__file__).parents[1] / "tests/experiments/data/true.lackey.txt.gz"
MAXIMUM_RATIO = 1 / 0.8
"""The project's bar: at least 0.8 times the C parser's rate."""


@pytest.fixture
def parse():
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the C parser with")
    function = load("lackey_lines.c").parse
    function.restype = ctypes.c_uint64
    function.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p]
    return function


def test_lackey_text(benchmark, smoke, tmp_path, parse):
    """A file of text to records in memory, a block at a time; the C parser reads the same file with the same blocks."""
    rounds, copies = (1, 1) if smoke else (11, 20)
    text = gzip.decompress(TRACE.read_bytes()) * copies
    path = tmp_path / "trace.txt"
    path.write_bytes(text)
    count = len(read_trace(path).read())

    def by_hvcore():
        found = 0
        for records in read_trace(path, format="lackey"):
            found += len(records)
        assert found == count

    def by_c():
        records = np.empty(BLOCK_BYTES // 6, RECORD)
        found, rest = 0, b""
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                data = rest + block
                whole = data.rfind(b"\n") + 1
                found += parse(data, whole, records.ctypes.data)
                rest = data[whole:]
        assert found == count

    measures = {"C line parser": lambda: timed(by_c, count), "hvcore": lambda: timed(by_hvcore, count)}
    ratios = report(benchmark, run_rounds(benchmark, measures, rounds), "C line parser")
    if not smoke:
        assert ratios["hvcore"] <= MAXIMUM_RATIO


def test_formats(benchmark, smoke, tmp_path):
    """A record of each format that hvcore writes, in times of an .npy's."""
    rounds, copies = (1, 1) if smoke else (5, 5)
    records = np.tile(read_trace(TRACE).read(), copies)
    measures = {}
    for name in ("a.npy", "a.lackey", "a.lackey.gz", "a.champsim", "a.champsim.xz"):
        with TraceWriter(tmp_path / name) as writer:
            writer.write(records)
        measures[name] = lambda path=writer.path: timed(
            lambda: sum(len(chunk) for chunk in read_trace(path)), len(records)
        )
    report(benchmark, run_rounds(benchmark, measures, rounds), "a.npy")
