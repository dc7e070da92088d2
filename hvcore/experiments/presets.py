"""Geometries of real processors and of other simulators, each with where its numbers come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Parameters of a TranslationModel, and how far to trust them."""

    title: str
    source: str
    parameters: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {}


def find(name: str) -> Preset:
    return PRESETS[name]
