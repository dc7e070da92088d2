"""Plots of sweeps: what is drawn is what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hvcore.experiments.plots import plot
from hvcore.experiments.table import Results

ROWS = [
    {"entries": entries, "pages": pages, "trace": trace, "misses": entries * (2 if pages == "4 KiB" else 1)}
    for trace in ("one", "two")
    for pages in ("4 KiB", "2 MiB")
    for entries in (64, 16, 32)
]


@pytest.fixture
def results() -> Results:
    pytest.importorskip("matplotlib")
    return Results(ROWS, ["entries", "pages", "trace"])


def test_a_line_a_combination_a_panel_a_value(results: Results, tmp_path: Path) -> None:
    figure = plot(results, x="entries", y="misses", by=["pages"], panels="trace", logarithmic="x",
                  labels={"misses": "misses of the TLB"}, path=tmp_path / "plot.pdf")  # fmt: skip
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    assert first.get_ylabel() == "misses of the TLB" and second.get_xscale() == "log"
    lines = {line.get_label(): line for line in first.lines}
    assert list(lines["4 KiB"].get_xdata()) == [16, 32, 64]
    assert list(lines["4 KiB"].get_ydata()) == [32, 64, 128]
    assert list(lines["2 MiB"].get_ydata()) == [16, 32, 64]
    assert (tmp_path / "plot.pdf").read_bytes().startswith(b"%PDF")


def test_the_axis_reaches_what_any_panel_has(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"x": x, "y": x * height, "panel": f"{height}"} for height in (1, 50, 7) for x in (1, 2)]
    figure = plot(Results(rows, ["x", "panel"]), x="x", y="y", panels="panel", path=tmp_path / "plot.svg")
    assert [axes.get_ylim()[0] for axes in figure.axes] == [0, 0, 0]
    assert all(axes.get_ylim()[1] >= 100 for axes in figure.axes)


def test_texts_become_bars(results: Results) -> None:
    (axes,) = plot(results.where(entries=16, trace="one"), x="pages", y="misses").axes
    assert [bar.get_height() for bar in axes.patches] == [32, 16]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4 KiB", "2 MiB"]


def test_the_same_results_give_the_same_file(results: Results, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot(results, x="entries", y="misses", by=["pages", "trace"], path=tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_without_matplotlib_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "hvcore\[plots\]"'):
        plot(Results(ROWS, []), x="entries", y="misses")
