"""Plots of sweeps that a paper could print (matplotlib, an extra)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvcore.experiments.table import Results
from hvcore.extras import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = {
    "font.family": "serif", "font.size": 9, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.3,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "savefig.bbox": "tight",
    "svg.hashsalt": "hvcore",
}  # fmt: skip
_MARKERS = "osD^vP*X"


def plot(
    results: Results,
    *,
    x: str,
    y: str,
    by: Sequence[str] = (),
    panels: str | None = None,
    logarithmic: str = "",
    labels: dict[str, str] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """A line a combination of `by`, a panel a value of `panels`; bars if `x` holds texts.

    Parameters
    ----------
    results
        What a sweep gave.
    x, y, by, panels
        Names of columns.
    logarithmic
        "x", "y" or "xy": axes with logarithmic scale (base 2 for x).
    labels
        Texts to print for names.
    path
        File to write, by its suffix PDF, SVG, PNG ...

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    KeyError
        A name is no column.
    """
    matplotlib = extra("matplotlib", "plots")
    agg, figures = extra("matplotlib.backends.backend_agg", "plots"), extra("matplotlib.figure", "plots")
    labels = labels or {}
    values = sorted(set(results[panels].tolist())) if panels else [None]
    with matplotlib.rc_context(_STYLE):
        figure: Figure = figures.Figure(figsize=(3.2 * len(values) + (1.2 if by else 0), 2.6), layout="constrained")
        agg.FigureCanvasAgg(figure)
        all_axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
        for axes, value in zip(all_axes, values, strict=True):
            _panel(axes, results if panels is None else results.where(**{panels: value}), x, y, by)
            axes.set_xlabel(labels.get(x, x))
            if panels:
                axes.set_title(f"{value}")
            if "x" in logarithmic:
                axes.set_xscale("log", base=2)
                ticks = sorted(set(results[x].tolist()))
                axes.set_xticks(ticks, [str(tick) for tick in ticks])
            if "y" in logarithmic:
                axes.set_yscale("log")
        if "y" not in logarithmic:
            all_axes[0].set_ylim(bottom=0)      # of all, and behind all: a limit that is set stays what it is
        all_axes[0].set_ylabel(labels.get(y, y))
        if by:
            lines, names = all_axes[0].get_legend_handles_labels()
            title = ", ".join(labels.get(name, name) for name in by)
            figure.legend(lines, names, title=title, fontsize=8, loc="outside right upper")
        if path is not None:
            metadata = {"Date": None} if Path(path).suffix == ".svg" else None
            figure.savefig(path, dpi=200, metadata=metadata)
    return figure


def _panel(axes: Any, results: Results, x: str, y: str, by: Sequence[str]) -> None:
    lines = list(dict.fromkeys(tuple(row[name] for name in by) for row in results.rows()))
    categories = list(dict.fromkeys(results[x].tolist()))
    bars = any(isinstance(value, str) for value in categories)
    for i, line in enumerate(lines):
        chosen = results.where(**dict(zip(by, line, strict=True)))
        label = ", ".join(map(str, line))
        if bars:
            width = 0.8 / len(lines)
            places = [categories.index(value) + (i - (len(lines) - 1) / 2) * width for value in chosen[x].tolist()]
            axes.bar(places, chosen[y], width, label=label)
        else:
            order = chosen[x].argsort(kind="stable")
            axes.plot(chosen[x][order], chosen[y][order], marker=_MARKERS[i % len(_MARKERS)], markersize=4, label=label)
    if bars:
        axes.set_xticks(range(len(categories)), [str(value) for value in categories])
