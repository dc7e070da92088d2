"""Experiments on address translation: models of TLBs and page-walk caches, traces, stack distances.

Everything is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.lazy import attributes

if TYPE_CHECKING:
    from hvcore.experiments.config import ConfigError, SweepConfig
    from hvcore.experiments.distances import StackDistances, stack_distances
    from hvcore.experiments.models import TranslationModel, run_many
    from hvcore.experiments.plots import plot
    from hvcore.experiments.presets import PRESETS, Preset
    from hvcore.experiments.records import RECORD, Kind
    from hvcore.experiments.results import TranslationResult
    from hvcore.experiments.store import StoreError
    from hvcore.experiments.structures import Structure
    from hvcore.experiments.sweeps import SweepError, sweep
    from hvcore.experiments.table import Results

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
    "TranslationModel",
    "TranslationResult",
    "plot",
    "run_many",
    "stack_distances",
    "sweep",
]

__getattr__, __dir__ = attributes(
    __name__,
    {
        "PRESETS": "presets:PRESETS",
        "RECORD": "records:RECORD",
        "Kind": "records:Kind",
        "Preset": "presets:Preset",
        "StackDistances": "distances:StackDistances",
        "Structure": "structures:Structure",
        "TranslationModel": "models:TranslationModel",
        "TranslationResult": "results:TranslationResult",
        "run_many": "models:run_many",
        "stack_distances": "distances:stack_distances",
        "ConfigError": "config:ConfigError",
        "SweepConfig": "config:SweepConfig",
        "plot": "plots:plot",
        "StoreError": "store:StoreError",
        "SweepError": "sweeps:SweepError",
        "sweep": "sweeps:sweep",
        "Results": "table:Results",
    },
)
