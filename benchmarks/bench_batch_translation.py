"""What does a batch of translations cost, in walks of a C program with the same checks, and in NumPy's gathers?"""

from __future__ import annotations

from math import prod
from threading import Thread
from time import perf_counter_ns

import numpy as np
import pytest

from benchmarks.measure import Rounds, run_rounds, timed
from benchmarks.page_walkers import COMPILER, SPAN, Peers, traces
from hvcore.paging import AddressSpace

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the peers with")

COUNT = 2 << 20
CACHE_ENTRIES = 1 << 16
MAXIMUM_FLAT, MAXIMUM_NUMPY, MAXIMUM_NESTED, MAXIMUM_CACHED_ZIPF = 1.1, 0.75, 1.15, 0.5
"""The project's bars: ratios to the C walk, NumPy's, the nested C walk, and the same by Zipf's law with a cache."""


@pytest.fixture
def sizes(smoke):
    """Rounds, and addresses a trace."""
    return (1, 5000) if smoke else (7, COUNT)


def make_space(nested):
    space = AddressSpace(4, nested)
    space.map(gva=0, gpa=1 << 30, size=SPAN, frames="permuted", seed=1)
    return space


def columns(count, nested):
    names = ("status", "references", "nested_references") if nested else ("status", "references")
    return {"spa": np.zeros(count, np.uint64)} | {name: np.zeros(count, np.uint8) for name in names}


def mean(ratios):
    """Geometric."""
    return prod(ratios) ** (1 / len(ratios))


def show(benchmark, results: Rounds, names, base, label):
    """Print ratios of `label` to `base` for each trace and their mean, which is returned."""
    ratios = {name: results.ratio(f"{label} {name}", f"{base} {name}") for name in names}
    ratios["mean"] = mean(list(ratios.values()))
    nanoseconds = {name: results.median(f"{label} {name}") for name in names}
    print(
        f"  {label} in {base}: "
        + ", ".join(f"{name} {ratio:.2f} x" for name, ratio in ratios.items())
        + f"; {min(nanoseconds.values()):.1f} to {max(nanoseconds.values()):.1f} ns"
    )
    benchmark.extra_info[f"{label} in {base}"] = ratios
    return ratios["mean"]


@pytest.mark.parametrize("kind", ["flat", "nested"])
def test_batch(benchmark, smoke, sizes, tmp_path, kind):
    """1 GiB of 4 KiB pages in permuted frames, at both levels if nested; marks are set by everybody but NumPy."""
    rounds, count = sizes
    space = make_space(4 if kind == "nested" else None)
    addresses = traces(count)
    peers = Peers(space, tmp_path)
    ours, theirs = columns(count, kind == "nested"), columns(count, kind == "nested")
    measures = {}
    for name, gvas in addresses.items():

        def batch(gvas=gvas, cache=0):
            space.translate(gvas, out=ours, set_marks=True, nested_cache=cache)

        def in_c(gvas=gvas):
            peers.walk_in_c(kind, gvas, theirs)

        batch()
        in_c()
        assert all((ours[column] == theirs[column]).all() for column in ours) and not ours["status"].any()
        measures[f"hvcore {name}"] = lambda batch=batch: timed(batch, count)
        measures[f"C {name}"] = lambda in_c=in_c: timed(in_c, count)
        if kind == "nested":
            cached = lambda batch=batch: timed(lambda: batch(cache=CACHE_ENTRIES), count)  # noqa: E731
            measures[f"hvcore with a cache {name}"] = cached
        else:
            gathers = lambda gvas=gvas: peers.walk_in_numpy(gvas)  # noqa: E731
            assert (gathers() == ours["spa"]).all()
            measures[f"NumPy {name}"] = lambda gathers=gathers: timed(gathers, count)
    results = run_rounds(benchmark, measures, rounds)
    print()
    in_walks = show(benchmark, results, addresses, "C", "hvcore")
    if kind == "flat":
        in_gathers = show(benchmark, results, addresses, "NumPy", "hvcore")
        assert smoke or (in_walks <= MAXIMUM_FLAT and in_gathers <= MAXIMUM_NUMPY)
    else:
        show(benchmark, results, addresses, "C", "hvcore with a cache")
        on_zipf = results.ratio("hvcore with a cache zipf", "C zipf")
        assert smoke or (in_walks <= MAXIMUM_NESTED and on_zipf <= MAXIMUM_CACHED_ZIPF)


def test_two_threads(benchmark, smoke, sizes):
    """Two calls at once on one address space, against the same two one after the other, by the clock on the wall."""
    rounds, count = sizes
    space = make_space(4)
    gvas = traces(count)["random"]
    outputs = [columns(count, True) for _ in range(2)]

    def call(out):
        space.translate(gvas, out=out)

    def one_after_the_other():
        for out in outputs:
            call(out)

    def at_once():
        threads = [Thread(target=call, args=(out,)) for out in outputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def wall(action):
        start = perf_counter_ns()
        action()
        return perf_counter_ns() - start

    one_after_the_other()
    measures = {"in turn": lambda: wall(one_after_the_other), "at once": lambda: wall(at_once)}
    results = run_rounds(benchmark, measures, rounds)
    gain = results.ratio("in turn", "at once")
    benchmark.extra_info["gain"] = gain
    print(f"\n  two threads: {gain:.2f} times one")
