"""Experiments on address translation: models of TLBs and page-walk caches, traces, stack distances.

Everything is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.lazy import attributes

if TYPE_CHECKING:
    from hvcore.experiments.config import ConfigError, SweepConfig
    from hvcore.experiments.distances import StackDistances, stack_distances
    from hvcore.experiments.errors import TraceError
    from hvcore.experiments.models import TranslationModel, run_many
    from hvcore.experiments.plots import plot
    from hvcore.experiments.presets import PRESETS, Preset
    from hvcore.experiments.records import RECORD, Kind
    from hvcore.experiments.results import TranslationResult
    from hvcore.experiments.store import StoreError
    from hvcore.experiments.structures import Structure
    from hvcore.experiments.sweeps import SweepError, sweep
    from hvcore.experiments.table import Results
    from hvcore.experiments.trace_writers import TraceWriter
    from hvcore.experiments.traces import TraceFile, read_trace

__all__ = [
    "PRESETS",
    "RECORD",
    "ConfigError",
    "Kind",
    "Preset",
    "Results",
    "StackDistances",
    "StoreError",
    "Structure",
    "SweepConfig",
    "SweepError",
    "TraceError",
    "TraceFile",
    "TraceWriter",
    "TranslationModel",
    "TranslationResult",
    "plot",
    "read_trace",
    "run_many",
    "stack_distances",
    "sweep",
]

if not TYPE_CHECKING:  # checkers know the names by the imports above, and misspelt ones as wrong
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "PRESETS": "presets:PRESETS",
            "RECORD": "records:RECORD",
            "ConfigError": "config:ConfigError",
            "Kind": "records:Kind",
            "Preset": "presets:Preset",
            "Results": "table:Results",
            "StackDistances": "distances:StackDistances",
            "StoreError": "store:StoreError",
            "Structure": "structures:Structure",
            "SweepConfig": "config:SweepConfig",
            "SweepError": "sweeps:SweepError",
            "TraceError": "errors:TraceError",
            "TraceFile": "traces:TraceFile",
            "TraceWriter": "trace_writers:TraceWriter",
            "TranslationModel": "models:TranslationModel",
            "TranslationResult": "results:TranslationResult",
            "plot": "plots:plot",
            "read_trace": "traces:read_trace",
            "run_many": "models:run_many",
            "stack_distances": "distances:stack_distances",
            "sweep": "sweeps:sweep",
        },
    )
