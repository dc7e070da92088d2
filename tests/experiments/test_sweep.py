"""Sweeps: order, sharing, executors, resuming, failures; over real pools and a real Dask cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import hvcore
from hvcore.experiments.store import Point, StoreError
from hvcore.experiments.sweeps import SweepError, grid_points, sweep
from hvcore.experiments.table import Results

GRID = {"size": [1, 2, 3], "name": ["a", "b"]}
CALLS: list[list[Point]] = []


def area(points: Sequence[Point]) -> list[dict[str, int | str]]:
    return [{"area": int(point["size"] or 0) ** 2, "process": os.getpid()} for point in points]


def recorded(points: Sequence[Point]) -> list[dict[str, int]]:
    CALLS.append(list(points))
    return [{"area": int(point["size"] or 0) ** 2} for point in points]


def fails_at_two(points: Sequence[Point]) -> list[dict[str, int]]:
    if any(point["size"] == 2 for point in points):
        raise ValueError("two is one too many")
    return recorded(points)


def slow(points: Sequence[Point]) -> list[dict[str, int]]:
    time.sleep(0.2)
    return [{"area": 1} for _ in points]


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def test_points_are_every_combination_the_last_name_fastest() -> None:
    assert [tuple(point.values()) for point in grid_points(GRID)] == [
        (1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"), (3, "b"),
    ]  # fmt: skip


@pytest.mark.parametrize("grid", [{"size": []}, {"size": [1, 1]}])
def test_a_grid_without_sense_names_the_column(grid: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="size"):
        grid_points(grid)


def test_the_default_pool_runs_in_other_processes_and_keeps_the_order() -> None:
    results = sweep(area, GRID, workers=2)
    assert results["area"].tolist() == [1, 1, 4, 4, 9, 9]
    assert os.getpid() not in results["process"].tolist()


def test_points_that_share_a_trace_come_together_and_leave_work_for_all() -> None:
    with ThreadPoolExecutor(1) as executor:
        sweep(recorded, GRID, share=["name"], workers=3, executor=executor)
    assert sorted(len(call) for call in CALLS) == [1, 1, 2, 2]
    assert all(len({point["name"] for point in call}) == 1 for call in CALLS)
    with pytest.raises(ValueError, match="'colour' is none of"):
        sweep(recorded, GRID, share=["colour"])


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    store = tmp_path / "sweep.jsonl"
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(SweepError, match="two is one too many") as failed:
            sweep(fails_at_two, GRID, executor=executor, store=store, title="areas")
        assert [point["size"] for point, _ in failed.value.failures] == [2, 2]
        with open(store, "a") as file:
            file.write('{"point": {"size": 2, "na')  # the process died while it wrote
        CALLS.clear()
        results = sweep(recorded, GRID, executor=executor, store=store, title="areas")
        assert [point["size"] for call in CALLS for point in call] == [2, 2]
        assert results["area"].tolist() == [1, 1, 4, 4, 9, 9]
        with pytest.raises(StoreError, match="holds the sweep 'areas'"):
            sweep(recorded, GRID, executor=executor, store=store, title="volumes")
    lines = store.read_text().splitlines()
    assert len(lines) == 7 and all(json.loads(line) for line in lines)
    store.write_text(lines[0] + "\nnonsense\n" + lines[1] + "\n")
    with pytest.raises(StoreError, match="line 2"):
        sweep(recorded, GRID, store=store, title="areas")


def test_ctrl_c_leaves_a_store_that_can_be_used(tmp_path: Path) -> None:
    store = tmp_path / "sweep.jsonl"
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(hvcore.__file__).parents[1])!r}]
from test_sweep import slow
from hvcore.experiments.sweeps import sweep
if __name__ == "__main__":
    sweep(slow, {{"size": list(range(200))}}, workers=2, store={str(store)!r})
"""
    script = tmp_path / "run.py"
    script.write_text(code)
    child = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if store.exists() and store.read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert store.exists(), "the sweep did not begin"
    measured = store.read_bytes().count(b"\n") - 1
    assert 3 <= measured < 200
    with ThreadPoolExecutor(1) as executor:
        small = sweep(slow, {"size": [0]}, executor=executor, store=store)
    assert small["area"].tolist() == [1]
    assert store.read_bytes().count(b"\n") - 1 <= measured + 1


def test_dask_s_executor_works_unchanged() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        results = sweep(np_area, GRID, executor=client.get_executor(), workers=2)
    assert results["area"].tolist() == [1, 1, 4, 4, 9, 9]


def np_area(points: Sequence[Point]) -> list[dict[str, int]]:
    return [{"area": int(np.square(point["size"]))} for point in points]


def test_results_are_columns(tmp_path: Path) -> None:
    rows = [{"size": 1, "name": "a", "rate": 0.5}, {"size": 2, "name": "b"}]
    results = Results(rows, ["size", "name"])
    assert results["size"].dtype == np.int64 and results["rate"].tolist() == [0.5, None]
    assert results.measured == ("rate",) and len(results.where(name="b")) == 1
    results.to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "size,name,rate\n1,a,0.5\n2,b,\n"
    assert results.to_text().splitlines() == ["size  name  rate", "   1  a     0.5", "   2  b     -"]
    assert json.loads(results.to_json())[0] == rows[0]
    with pytest.raises(KeyError, match="there are size, name, rate"):
        results["weight"]


def test_parquet_if_pyarrow_is_there(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    Results([{"size": 1, "name": "a"}, {"size": 2, "name": "b"}], ["size"]).to_parquet(tmp_path / "table.parquet")
    assert parquet.read_table(tmp_path / "table.parquet").to_pydict() == {"size": [1, 2], "name": ["a", "b"]}
