"""A sweep of translation models as a TOML file describes it: traces, what is fixed, what varies, what to write.

    title = "entries of the second-level TLB"
    share = ["trace"]                   # optional: what points have in common when they run together

    [traces]                            # a name, and a file of any format that `read_trace` knows
    start = "true.lackey.txt.gz"        # relative to the TOML file

    [model]                             # parameters of TranslationModel that hold everywhere; or a preset
    preset = "skylake-server"
    stlb = "{entries}/12 4K+2M"         # texts may take in what varies; one that becomes a number is one

    [grid]                              # every combination is a point
    trace = ["start"]
    entries = [384, 768, 1536]
    page_size = ["4 KiB", "2 MiB"]

    [[plots]]
    file = "entries.svg"
    x = "entries"
    y = "walks"
    by = ["page_size"]
"""

from __future__ import annotations

import inspect
import json
import string
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import Any

from hvcore.experiments.models import TranslationModel, run_many
from hvcore.experiments.plots import plot
from hvcore.experiments.presets import find
from hvcore.experiments.results import TranslationResult
from hvcore.experiments.store import Point
from hvcore.experiments.sweeps import grid_points, sweep
from hvcore.experiments.table import Results, Value
from hvcore.experiments.traces import read_trace

NOTHING = "none"
"""What a configuration writes for a structure that a point does not have; TOML has no null."""
PARAMETERS = frozenset(inspect.signature(TranslationModel).parameters) - {"name"} | {"preset"}
_SECTIONS = {"title": str, "share": list, "traces": dict, "model": dict, "grid": dict, "columns": list, "plots": list}


class ConfigError(ValueError):
    """The file does not describe a sweep; the message says where and what was expected."""


@dataclass(frozen=True)
class SweepConfig:
    """A sweep over models and traces, as read from a file."""

    title: str
    traces: Mapping[str, str]
    grid: Mapping[str, Sequence[Value]]
    model: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[str] = ()
    share: Sequence[str] = ("trace",)
    plots: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def load(cls, path: str | Path, *, traces: str | Path | None = None) -> SweepConfig:
        """Read a TOML file; its traces are relative to the folder `traces`, or else to its own.

        Raises
        ------
        ConfigError
            It is no TOML, or does not describe a sweep.
        OSError
            It cannot be read.
        """
        path = Path(path)
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
            raise ConfigError(f"{path}: {broken}") from broken
        for name, value in found.items():
            if name not in _SECTIONS or not isinstance(value, _SECTIONS[name]):
                raise ConfigError(f"{path}: {name!r} is none of {', '.join(_SECTIONS)}, or of another kind than those")
        folder = path.parent if traces is None else Path(traces)
        files = {name: str(folder / file) for name, file in found.pop("traces", {}).items()}
        try:
            config = cls(**{"title": path.stem, "grid": {}} | found, traces=files)
            config.check()
        except (ValueError, KeyError, TypeError) as wrong:
            raise ConfigError(f"{path}: {wrong.args[0] if wrong.args else wrong}") from wrong
        return config

    def check(self) -> None:
        """See that every point is a model, before anything runs. Raises ValueError, TypeError or KeyError."""
        used = {name for text in _texts(self.model) for _, name, _, _ in string.Formatter().parse(text) if name}
        for name in self.grid:
            if name != "trace" and not _parameter(name) and name not in used:
                raise ValueError(f"grid: {name!r} is no parameter of TranslationModel, and no text of [model] uses it")
        if unknown := [name for name in self.model if not _parameter(name)]:
            raise ValueError(f"model: {unknown[0]!r} is no parameter of TranslationModel")
        for trace in self.grid.get("trace", [None]):
            if trace not in self.traces:
                raise ValueError(f"grid: trace {trace!r} is none of [traces]")
        for point in grid_points(self.grid):
            build_model(self.model, point)
        for one in self.plots:
            if missing := {"file", "x", "y"} - set(one):
                raise ValueError(f"plots: {sorted(missing)[0]!r} is missing in {dict(one)}")

    def run(
        self,
        *,
        executor: Executor | None = None,
        workers: int | None = None,
        store: str | Path | None = None,
        progress: bool | None = None,
    ) -> Results:
        """Run it; parameters and errors are those of `sweep`."""
        for file in self.traces.values():
            Path(file).stat()               # missing ones are named before anything runs
        fixed = None if store is None else json.dumps([dict(self.model), _contents(self.traces)], sort_keys=True)
        measure = partial(measure_translation, dict(self.model), dict(self.traces))
        results = sweep(
            measure, self.grid, share=self.share, executor=executor, workers=workers, store=store, title=fixed,
            progress=progress,
        )  # fmt: skip
        return results.select(self.columns) if self.columns else results

    def draw(self, results: Results, folder: str | Path) -> list[Path]:
        """Draw the plots into a folder. Raises ModuleNotFoundError without matplotlib."""
        files = []
        for one in self.plots:
            parameters = dict(one)
            files.append(Path(folder) / parameters.pop("file"))
            chosen = results.where(**parameters.pop("where", {}))
            plot(chosen, path=files[-1], **parameters)
        return files


def _contents(traces: Mapping[str, str]) -> dict[str, str]:
    """What a store was measured on: a digest of each trace, wherever it lies. It reads all of them."""
    digests = {}
    for name, file in traces.items():
        with open(file, "rb") as trace:
            digests[name] = file_digest(trace, "blake2b").hexdigest()[:32]
    return digests


def build_model(fixed: Mapping[str, Any], point: Point) -> TranslationModel:
    """The model of a point: the preset, what is fixed, what varies, texts filled in.

    Names like "walk_caches.pde" reach inside, also into what the preset has.
    """
    values = {name: _fill(value, point) for name, value in fixed.items()}
    values |= {name: None if value == NOTHING else value for name, value in point.items() if _parameter(name)}
    preset = values.pop("preset", None)
    parameters = dict(find(preset).parameters) if preset else {}
    for name, value in values.items():
        outer, _, inner = name.partition(".")
        parameters[outer] = {**(parameters.get(outer) or {}), inner: value} if inner else value
    for name, value in parameters.items():
        if isinstance(value, dict):
            parameters[name] = {inner: one for inner, one in value.items() if one is not None}
    return TranslationModel(name=preset or "", **parameters)


def _parameter(name: str) -> bool:
    return name.partition(".")[0] in PARAMETERS


def measure_translation(
    model: Mapping[str, Any], traces: Mapping[str, str], points: Sequence[Point]
) -> list[dict[str, Value]]:
    """Run the models of some points over their traces, each of which is read once.

    Behind the counts of `TranslationResult.to_dict` come five ratios: `references_per_walk` (of both dimensions),
    `references_per_thousand_instructions`, `walks_per_thousand_instructions`, `walks_per_thousand_accesses` (what a
    trace without instructions has, as of a device) and `cycles_per_access`; None where there is nothing to divide by.
    """
    measured: dict[int, dict[str, Value]] = {}
    for trace in dict.fromkeys(point["trace"] for point in points):
        chosen = [i for i, point in enumerate(points) if point["trace"] == trace]
        models = [build_model(model, points[i]) for i in chosen]
        for i, result in zip(chosen, run_many(models, read_trace(traces[str(trace)])), strict=True):
            measured[i] = {**result.to_dict(), **_ratios(result)}
    return [measured[i] for i in range(len(points))]


def _ratios(result: TranslationResult) -> dict[str, Value]:
    references = result.guest_references + result.nested_references - result.prefetch_references
    ratios = {
        "references_per_walk": (references, result.walks),
        "references_per_thousand_instructions": (1000 * references, result.instructions),
        "walks_per_thousand_instructions": (1000 * result.walks, result.instructions),
        "walks_per_thousand_accesses": (1000 * result.walks, result.lookups),
        "cycles_per_access": (result.cycles, result.lookups),
    }
    return {name: amount / base if base else None for name, (amount, base) in ratios.items()}


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _texts(one)]


def _fill(value: Any, point: Point) -> Any:
    if isinstance(value, str):
        filled = value.format_map(point)
        return None if filled == NOTHING else int(filled) if filled != value and filled.isdecimal() else filled
    if isinstance(value, Mapping):
        return {name: _fill(one, point) for name, one in value.items()}
    return [_fill(one, point) for one in value] if isinstance(value, list) else value
