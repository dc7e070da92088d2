"""How much slower is a program in a child partition than as a process of the host?"""

import shutil

import pytest

from benchmarks.workloads import HEADING, NOT_AVERAGED, SIZES, compare_all, line, mean_slowdown

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to build the workloads with")

REPEATS = 3


def test_workloads(benchmark, smoke):
    rows = []

    def run_all():
        rows.extend(compare_all(SIZES, repeats=1 if smoke else REPEATS, small=smoke))

    benchmark.pedantic(run_all, rounds=1, iterations=1)
    print("\n" + HEADING)
    for row in rows:
        print(line(row))
        benchmark.extra_info[row.name] = row.slowdown
    benchmark.extra_info["mean"] = mean_slowdown(rows)
    print(f"geometric mean without {' and '.join(NOT_AVERAGED)}: {mean_slowdown(rows):.2f} x")
