"""A measurement at every point of a grid, over any `concurrent.futures` Executor, that goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from hvcore.experiments.progress import progress_bar
from hvcore.experiments.store import Point, Store, key_of
from hvcore.experiments.table import Results, Value

Measure = Callable[[Sequence[Any]], Sequence[Mapping[str, Any]]]
"""Measures some points at once, which share what `share` names, and gives a mapping of names to values for each."""


class SweepError(RuntimeError):
    """Some points could not be measured. The others are in the store; `failures` has a reason by point."""

    def __init__(self, failures: list[tuple[Point, BaseException]]) -> None:
        self.failures = failures
        point, reason = failures[0]
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        super().__init__(f"{dict(point)}: {type(reason).__name__}: {reason}{more}")


def grid_points(grid: Mapping[str, Iterable[Value]]) -> list[Point]:
    """Every combination of the values, the last name varying fastest.

    Raises
    ------
    ValueError
        A name has no value, or a value twice.
    """
    for name, given in grid.items():
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ValueError(f"grid: {name} must be a list of values, not {given!r}")
    values = {name: given.tolist() if isinstance(given, np.ndarray) else list(given) for name, given in grid.items()}
    for name, given in values.items():
        if not given or len(set(map(repr, given))) != len(given):
            raise ValueError(f"grid: {name} must have at least one value and none twice, not {given!r}")
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def sweep(
    measure: Measure,
    grid: Mapping[str, Iterable[Value]] | Sequence[Point],
    *,
    share: Sequence[str] = (),
    executor: Executor | None = None,
    workers: int | None = None,
    store: str | Path | None = None,
    title: str | None = None,
    progress: bool | None = None,
) -> Results:
    """Measure at every point of a grid.

    Parameters
    ----------
    measure
        Called with a list of points, each a dict of the grid's names, gives a list of dicts of what was measured. It
        must be importable by other processes if the executor has some.
    grid
        Values by name, of which every combination is a point, or the points themselves.
    share
        Points that agree in these names are handed to `measure` together, as many as leave work for every worker: one
        reading of a trace then serves many configurations.
    executor
        Where to run; anything with the interface of `concurrent.futures.Executor`, also Dask's
        `Client.get_executor()` and Ray's. Default: a pool of `workers` processes, started afresh.
    workers
        How many calls can run at once; default: the number of logical processors.
    store
        File to keep results in. What it has is not measured again; a sweep that was stopped goes on.
    title
        What the store is marked with, so that another sweep's is not taken for it; default: the name of `measure`.
    progress
        Show a progress bar; default: only if standard error is a terminal.

    Returns
    -------
    Results
        A row a point, in the order of the grid.

    Raises
    ------
    SweepError
        `measure` raised for some points; all others were measured and are in the store.
    StoreError
        `store` is a file of something else.
    ValueError
        `grid` or `share` do not fit together.
    """
    if not callable(measure):
        raise TypeError(f"measure must be a function of a list of points, not {type(measure).__name__}")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must be a concurrent.futures.Executor, not {type(executor).__name__}")
    points = grid_points(grid) if isinstance(grid, Mapping) else list(grid)
    names = list(dict.fromkeys(name for point in points for name in point))
    if missing := [name for name in share if name not in names]:
        raise ValueError(f"share: {missing[0]!r} is none of the grid's names {', '.join(names)}")
    workers = workers or os.cpu_count() or 1
    title = title or str(getattr(measure, "__qualname__", type(measure).__name__))
    failures: list[tuple[Point, BaseException]] = []
    with Store(None if store is None else Path(store), title) as kept:
        owed = [point for point in points if key_of(point) not in kept.measured]
        tasks = _tasks(owed, share, workers)
        with (
            progress_bar(len(owed), unit="points", label="sweep", shown=progress) as bar,
            _own_pool(min(workers, len(tasks))) if executor is None and tasks else nullcontext(executor) as pool,
        ):
            futures = {pool.submit(measure, task): task for task in tasks} if pool is not None else {}
            try:
                for future in as_completed(futures):
                    failures += _collect(future, futures[future], kept)
                    bar.update(len(futures[future]))
            finally:
                for future in futures:
                    future.cancel()
        if failures:
            raise SweepError(failures)
        return Results([{**point, **kept.measured[key_of(point)]} for point in points], names)


def _own_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def _tasks(points: Sequence[Point], share: Sequence[str], workers: int) -> list[list[Point]]:
    """Points grouped by what they share, large groups cut so that every worker has something to do."""
    if not share:
        return [[point] for point in points]
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(key_of({name: point.get(name) for name in share}), []).append(point)
    largest = max(1, -(-len(points) // workers))
    return [group[at : at + largest] for group in groups.values() for at in range(0, len(group), largest)]


def _collect(
    future: Future[Sequence[Mapping[str, Value]]], task: Sequence[Point], kept: Store
) -> list[tuple[Point, BaseException]]:
    """Keep what a call measured; the points that it failed at."""
    try:
        measured = future.result()
        if len(measured) != len(task):
            raise ValueError(f"measure gave {len(measured)} results for {len(task)} points")
        for point, values in zip(task, measured, strict=True):
            if not isinstance(values, Mapping) or set(values) & set(point):
                raise TypeError(f"measure must give a dict of other names than {', '.join(point)}, not {values!r}")
    except Exception as reason:
        return [(point, reason) for point in task]
    for point, values in zip(task, measured, strict=True):
        kept.add(point, dict(values))
    return []
