"""How fast are the models, in times of true-LRU models written straight down in C (lru_model.c)?

The C models count nothing and have their sizes as constants. Besides: two models on two threads, and what it costs a
guest to be listened to.
"""

import ctypes
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import geometric_mean
from time import perf_counter_ns

import numpy as np
import pytest

from benchmarks.c_library import load
from benchmarks.guest import child_running
from benchmarks.measure import report, run_rounds, timed
from hvcore.experiments import TranslationModel, read_trace
from hvcore.experiments.records import make_records

TRACE = Path(__file__).parents[1] / "tests/experiments/data/true.lackey.txt.gz"
SPAN = 1 << 30
WALK_CACHES = {"pde": "32/4", "pdpte": "4/4", "pml4e": "2/2"}
GEOMETRIES = {
    "Skylake": {"itlb": "128/8", "dtlb": "64/4", "stlb": "1536/12", "walk_caches": WALK_CACHES},
    "full": {"itlb": "64", "dtlb": "64", "stlb": "2048/16", "walk_caches": WALK_CACHES},
}
PLAIN = {"Skylake": ("run_skylake",), "full": ("run_full_scan", "run_full_hash")}
MAXIMUM_RATIO = 1.2
"""The project's bar, for the geometric mean over the traces."""
LOOP = bytes.fromhex("488b06 480106 4883c608 ffc9 75f3 f4")  # mov, add [rsi], add rsi, dec, jnz; hlt


@pytest.fixture(scope="module")
def library():
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the C models with")
    found = load("lru_model.c")
    found.new_model.restype = ctypes.c_void_p
    for name in (name for names in PLAIN.values() for name in names):
        getattr(found, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
    return found


def zipf_pages(rng, pages, count):
    weights = 1 / np.arange(1, pages + 1) ** 0.99
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count))
    return rng.permutation(pages)[np.minimum(ranks, pages - 1)]


def traces(count):
    rng = np.random.default_rng(20)
    steps = np.arange(count, dtype=np.uint64)
    real = read_trace(TRACE).read()
    return {
        "lackey": np.tile(real, -(-count // len(real)))[:count],
        "sequential": make_records(steps * np.uint64(64) % np.uint64(SPAN)),
        "strided": make_records(steps * np.uint64(4096) % np.uint64(SPAN)),
        "zipf": make_records(zipf_pages(rng, SPAN >> 12, count).astype(np.uint64) << np.uint64(12)),
        "random": make_records(rng.integers(0, SPAN, count, dtype=np.uint64)),
    }


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_models(benchmark, smoke, library, geometry):
    """Nanoseconds an access, both starting empty."""
    rounds, count = (1, 1000) if smoke else (11, 1 << 20)
    measures = {}

    def ours(records):
        model = TranslationModel(**GEOMETRIES[geometry])
        return timed(lambda: model.run(records), len(records))

    def plain(function, records):
        model = library.new_model()
        try:
            run = getattr(library, function)
            return timed(lambda: run(model, records.ctypes.data, len(records)), len(records))
        finally:
            ctypes.CDLL(None).free(ctypes.c_void_p(model))

    for name, records in traces(count).items():
        measures[f"{name}, hvcore"] = lambda records=records: ours(records)
        for function in PLAIN[geometry]:
            measures[f"{name}, C {function}"] = lambda function=function, records=records: plain(function, records)
    results = run_rounds(benchmark, measures, rounds)
    print()
    for function in PLAIN[geometry]:
        ratios = {name: results.ratio(f"{name}, hvcore", f"{name}, C {function}") for name in traces(1)}
        mean = geometric_mean(ratios.values())
        for name, ratio in ratios.items():
            ours_time, plain_time = (results.median(f"{name}, {who}") for who in ("hvcore", f"C {function}"))
            print(f"  {geometry} {name:11} {ours_time:7.2f} ns, C {plain_time:7.2f} ns: {ratio:5.2f} x {function}")
        print(f"  geometric mean: {mean:.2f} x {function}")
        benchmark.extra_info[function] = ratios | {"mean": mean}
        if not smoke:
            assert mean <= MAXIMUM_RATIO


def test_threads(benchmark, smoke):
    """Two models on one thread, then on two: how much sooner is it done?"""
    records = traces(1000 if smoke else 1 << 20)["zipf"]
    rounds = 1 if smoke else 7

    def run(threads):
        models = [TranslationModel(**GEOMETRIES["Skylake"]) for _ in range(2)]
        start = perf_counter_ns()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda model: model.run(records), models))
        return (perf_counter_ns() - start) / len(records)

    results = run_rounds(benchmark, {"one thread": lambda: run(1), "two threads": lambda: run(2)}, rounds)
    report(benchmark, results, "two threads")


def test_listening(benchmark, smoke):
    """An instruction of a guest alone, and with a model attached."""
    rounds, turns = (1, 100) if smoke else (7, 100_000)

    def measure(vp):
        vp.rip, vp.rsi, vp.rcx = 0x10_0000, 0x40_0000, turns
        return timed(vp.run, 5 * turns)

    with child_running(LOOP) as (alone, _), child_running(LOOP) as (watched, _):
        model = TranslationModel.preset("skylake-server")
        watched.attach(model)
        results = run_rounds(
            benchmark, {"alone": lambda: measure(alone), "with a model": lambda: measure(watched)}, rounds
        )
        assert model.counters().instructions >= 5 * turns
    report(benchmark, results, "alone")
