"""Measures things against each other: every round measures all of them, one after the other, and gives ratios.

The machines that this runs on are shared: absolute times swing by a factor of two, neighbouring ones do not. So a
ratio is the median of the ratios of each round, never the ratio of two medians from different minutes. The clock is
that of the thread: a long measure that is preempted would else look slow next to a short one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import thread_time_ns
from typing import Any

Measure = Callable[[], float]
"""Does its work once and returns how long one unit of it took, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """What was measured: for every name one time per round."""

    times: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        return median(self.times[name])

    def ratio(self, name: str, base: str) -> float:
        """How many times longer `name` takes than `base`."""
        return median(a / b for a, b in zip(self.times[name], self.times[base], strict=True))


def timed(action: Callable[[], object], units: int = 1) -> float:
    """Processor time in nanoseconds for one of the `units` that `action` does."""
    start = thread_time_ns()
    action()
    return (thread_time_ns() - start) / units


def run_rounds(benchmark: Any, measures: Mapping[str, Measure], rounds: int) -> Rounds:
    """Measure everything `rounds` times, interleaved, under pytest-benchmark; once if that is disabled."""
    times: dict[str, list[float]] = {name: [] for name in measures}

    def one_round() -> None:
        for name, measure in measures.items():
            times[name].append(measure())

    if not benchmark.disabled:
        one_round()
        for values in times.values():
            values.clear()
    benchmark.pedantic(one_round, rounds=rounds, iterations=1)
    return Rounds(times)


def report(benchmark: Any, results: Rounds, base: str, unit: str = "ns") -> dict[str, float]:
    """Print a line per name and note all ratios to `base` in the benchmark's extra_info. Returns the ratios."""
    ratios = {name: results.ratio(name, base) for name in results.times}
    print()
    for name, ratio in ratios.items():
        print(f"  {name:40} {results.median(name):12.2f} {unit}  {ratio:8.2f} x")
        benchmark.extra_info[name] = {unit: results.median(name), f"times {base}": ratio}
    return ratios
