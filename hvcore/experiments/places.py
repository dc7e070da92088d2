"""Where structures stand in a model: what was given for each place, checked, named, and by whom it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from hvcore.experiments.records import Kind, kinds_of
from hvcore.experiments.structures import SIZE_NAMES, Structure

TABLES = {"pde": 2, "pdpte": 3, "pml4e": 4, "pml5e": 5}
"""Page-walk caches by the entries that they hold."""
Geometry: TypeAlias = "Structure | str"
"""A Structure, or its line of text (Structure.parse)."""
Some: TypeAlias = "Geometry | Sequence[Geometry] | None"
Caches: TypeAlias = "Mapping[str, Geometry] | None"


def place_structures(place: str, some: Some, kinds: str) -> list[Structure]:
    """What was given for one place of the model, named and with the kinds that it serves."""
    given = [] if some is None else [some] if isinstance(some, (Structure, str)) else list(some)
    found = []
    for one in given:
        structure = Structure.parse(one) if isinstance(one, str) else one
        if not isinstance(structure, Structure):
            raise TypeError(f"{place} must be Structures or texts like '64/4', not {type(one).__name__}")
        serves = structure.kinds or kinds
        sizes = "+".join(SIZE_NAMES[code] for code in structure.size_codes)
        name = place if len(given) == 1 else f"{place}-{sizes}" + (f"-{serves}" if structure.kinds else "")
        changed = Structure(**{**vars(structure), "kinds": serves})
        found.append(changed.named(name))
    return found


def serve(structures: Iterable[Structure]) -> dict[tuple[Kind, int], Structure]:
    """Which structure serves each kind and page size."""
    served: dict[tuple[Kind, int], Structure] = {}
    for one in structures:
        for kind in kinds_of(one.kinds):
            for size in one.size_codes:
                other = served.setdefault((kind, size), one)
                if other is not one:
                    raise ValueError(f"{other.name} and {one.name} both serve {kind.name} of {SIZE_NAMES[size]} pages")
    return served


def place_caches(argument: str, caches: Caches, prefix: str) -> dict[int, Structure]:
    found = {}
    for table, one in (caches or {}).items():
        if table not in TABLES:
            raise ValueError(f"{argument} must be named {', '.join(TABLES)}, not {table!r}")
        structure = Structure.parse(one) if isinstance(one, str) else one
        found[TABLES[table]] = structure.named(prefix + table)
    return found


def table_rows(caches: Mapping[int, Structure]) -> list[tuple[int, str, int]]:
    return [(table, one.name, one.latency) for table, one in caches.items()]
