"""Experiments on address translation: models of TLBs and page-walk caches, traces, stack distances.

Everything is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.lazy import attributes

if TYPE_CHECKING:
    from hvcore.experiments.distances import StackDistances, stack_distances
    from hvcore.experiments.errors import TraceError
    from hvcore.experiments.models import TranslationModel, run_many
    from hvcore.experiments.presets import PRESETS, Preset
    from hvcore.experiments.records import RECORD, Kind
    from hvcore.experiments.results import TranslationResult
    from hvcore.experiments.structures import Structure
    from hvcore.experiments.trace_writers import TraceWriter
    from hvcore.experiments.traces import TraceFile, read_trace

__all__ = [
    "PRESETS",
    "RECORD",
    "Kind",
    "Preset",
    "StackDistances",
    "Structure",
    "TraceError",
    "TraceFile",
    "TraceWriter",
    "TranslationModel",
    "TranslationResult",
    "read_trace",
    "run_many",
    "stack_distances",
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
        "TraceError": "errors:TraceError",
        "TraceFile": "traces:TraceFile",
        "TraceWriter": "trace_writers:TraceWriter",
        "TranslationModel": "models:TranslationModel",
        "TranslationResult": "results:TranslationResult",
        "read_trace": "traces:read_trace",
        "run_many": "models:run_many",
        "stack_distances": "distances:stack_distances",
    },
)
