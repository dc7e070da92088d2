"""What a model counted: arrays with names, per structure and per level, that add and subtract."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvcore.experiments.records import Kind
from hvcore.experiments.structures import SIZE_NAMES

STRUCTURE_COLUMNS = ("lookups", "hits", "misses", "evictions", "invalidations", "prefetches", "cycles")
OUTCOME = np.dtype([("level", "u1"), ("guest_references", "u1"), ("nested_references", "<u2"), ("cycles", "<u4")])
"""Per access: where it was found (0 and 1: TLB of that level, 2: by a walk), and what it cost."""


@dataclass(frozen=True, eq=False)
class TranslationResult:
    """Counts of one run, or of all since a model was new. Results of models with the same structures subtract.

    Parameters
    ----------
    structures : array with a row for each structure; columns `name` and STRUCTURE_COLUMNS.
    accesses : uint64 (6, 3), by Kind and page size (4 KiB, 2 and 4 MiB, 1 GiB); flushes and invalidations in column 0.
    references : uint64 (2, 5), table entries that walks read: of the guest's and of the nested dimension, by table from
        the page table (0) to the PML5 (4). Walks of prefetches are in it.
    walks : accesses that had to walk.
    nested_walks : walks of the nested dimension for them.
    prefetch_walks, prefetch_references : what prefetching added, references of both dimensions.
    cycles : latencies of all look-ups and references that accesses waited for; prefetches cost none.
    faults : accesses that an address space refused; they touch nothing.
    outcomes : an array of OUTCOME, one for each access, if it was asked for. Not part of differences.
    """

    structures: NDArray[Any]
    accesses: NDArray[np.uint64]
    references: NDArray[np.uint64]
    walks: int
    nested_walks: int
    prefetch_walks: int
    prefetch_references: int
    cycles: int
    faults: int = 0
    outcomes: NDArray[Any] | None = None

    def __getitem__(self, name: str) -> Any:
        """The row of a structure: its columns are attributes too.

        Raises
        ------
        KeyError
            There is no structure of that name.
        """
        for row in self.structures:
            if row["name"] == name:
                return row
        raise KeyError(f"there is no structure {name!r}: one of {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.structures["name"])

    @property
    def instructions(self) -> int:
        """Instruction fetches."""
        return int(self.accesses[Kind.FETCH].sum())

    @property
    def lookups(self) -> int:
        """Accesses of every kind."""
        return int(self.accesses[: Kind.FLUSH].sum())

    @property
    def guest_references(self) -> int:
        return int(self.references[0].sum())

    @property
    def nested_references(self) -> int:
        return int(self.references[1].sum())

    def misses_per_thousand_instructions(self, name: str) -> float:
        """MPKI of a structure; nan without instruction fetches."""
        return 1000 * int(self[name]["misses"]) / self.instructions if self.instructions else nan

    def to_dict(self) -> dict[str, int]:
        """Every count by a flat name, for tables: "dtlb.misses", "walks", "guest_references" ..."""
        flat = {"instructions": self.instructions, "lookups": self.lookups}
        flat |= {name: int(getattr(self, name)) for name in _TOTALS}
        flat |= {"guest_references": self.guest_references, "nested_references": self.nested_references}
        for row in self.structures:
            flat |= {f"{row['name']}.{column}": int(row[column]) for column in STRUCTURE_COLUMNS}
        return flat

    def _combine(self, other: TranslationResult, sign: int) -> TranslationResult:
        if self.names != other.names:
            raise ValueError(f"these results have different structures: {self.names} and {other.names}")
        structures = self.structures.copy()
        for column in STRUCTURE_COLUMNS:
            structures[column] = self.structures[column] + sign * other.structures[column]
        combined = {
            name: getattr(self, name) + (getattr(other, name) if sign > 0 else -getattr(other, name))
            for name in _TOTALS
        }
        accesses, references = (
            getattr(self, name) + getattr(other, name) if sign > 0 else getattr(self, name) - getattr(other, name)
            for name in ("accesses", "references")
        )
        return TranslationResult(structures, accesses, references, **combined)

    def __sub__(self, other: TranslationResult) -> TranslationResult:
        return self._combine(other, -1) if isinstance(other, TranslationResult) else NotImplemented

    def __add__(self, other: TranslationResult) -> TranslationResult:
        return self._combine(other, 1) if isinstance(other, TranslationResult) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TranslationResult) and self.to_dict() == other.to_dict() and bool(
            np.array_equal(self.accesses, other.accesses) and np.array_equal(self.references, other.references)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TranslationResult({', '.join(f'{name}={count}' for name, count in self.to_dict().items() if count)})"

    def __str__(self) -> str:
        """A table: a line for each structure, then the walks."""
        width = max([9, *(len(name) for name in self.names)])
        lines = [f"{'structure':<{width}}  {'look-ups':>14}  {'misses':>14}  {'miss ratio':>10}  {'MPKI':>9}"]
        for row in self.structures:
            ratio = f"{row['misses'] / row['lookups']:.4%}" if row["lookups"] else ""
            mpki = f"{self.misses_per_thousand_instructions(row['name']):.3f}" if self.instructions else ""
            lines.append(
                f"{row['name']:<{width}}  {row['lookups']:>14,}  {row['misses']:>14,}  {ratio:>10}  {mpki:>9}".rstrip()
            )
        kinds = [f"{count:,} {name}" for name, count in zip(SIZE_NAMES, self.accesses[:4].sum(axis=0), strict=True)]
        lines.append(f"{self.lookups:,} accesses ({', '.join(kinds)}), {self.instructions:,} of them fetches")
        each = (self.guest_references + self.nested_references - self.prefetch_references) / max(self.walks, 1)
        lines.append(f"{self.walks:,} walks, {each:.3f} references each" if self.walks else "no walks")
        lines.append(f"references: {self.guest_references:,} guest, {self.nested_references:,} nested")
        lines.append(f"cycles: {self.cycles:,}")
        return "\n".join(lines)


_TOTALS = tuple(
    field.name
    for field in fields(TranslationResult)
    if field.name not in ("structures", "accesses", "references", "outcomes")
)
