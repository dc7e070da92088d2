"""Snapshots of what was counted: they add, subtract, and print as a table.

A snapshot is a mapping from names to ints. Names with a dot count one kind of something: "hypercalls.MAP_GPA_PAGES"
is part of "hypercalls". The kinds that are there depend on what happened; every other name is always there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import nan

_LINES = (
    ("instructions", "instructions"),
    ("TLB look-ups", "tlb_lookups"),
    ("TLB misses", "tlb_misses"),
    ("walk references, guest level", "guest_references"),
    ("walk references, second level", "second_level_references"),
    ("exceptions", "exceptions"),
    ("interrupts", "interrupts"),
    ("messages delivered", "messages_delivered"),
    ("events signaled", "events_signaled"),
    ("timers expired", "timers_expired"),
    ("halts", "halts"),
    ("invalid instructions", "invalid"),
    ("unimplemented instructions", "unimplemented"),
    ("hypercalls", "hypercalls"),
    ("exits", "exits"),
)
_RATIOS = {
    "tlb_lookups": ("per instruction", "lookups_per_instruction"),
    "tlb_misses": ("per look-up", "miss_ratio"),
    "guest_references": ("per miss", "guest_references_per_miss"),
    "second_level_references": ("per miss", "second_level_references_per_miss"),
}


class Counters(Mapping[str, int]):
    """One snapshot. Names without a dot are attributes too: `counters.tlb_misses`."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, int]) -> None:
        complete = {name: 0 for _, name in _LINES} | dict(values)
        self._values = {name: complete[name] for name in sorted(complete) if complete[name] or "." not in name}

    @classmethod
    def collect(cls, totals: Mapping[str, int], groups: Mapping[str, Mapping[str, int]]) -> Counters:
        """From totals and from counts by kind; a group without a total gets the sum of its kinds."""
        values = {group: sum(kinds.values()) for group, kinds in groups.items()} | dict(totals)
        for group, kinds in groups.items():
            values |= {f"{group}.{kind}": count for kind, count in kinds.items()}
        return cls(values)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> int:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"nothing is counted as {name!r}: one of {', '.join(self)}", name=name, obj=self)
        return self._values[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self if "." not in name)]

    def __add__(self, other: Counters) -> Counters:
        if not isinstance(other, Counters):
            return NotImplemented
        return Counters({name: self.get(name, 0) + other.get(name, 0) for name in {*self, *other}})

    def __sub__(self, other: Counters) -> Counters:
        if not isinstance(other, Counters):
            return NotImplemented
        return Counters({name: self.get(name, 0) - other.get(name, 0) for name in {*self, *other}})

    def by_kind(self, group: str) -> dict[str, int]:
        """The kinds of `group`, "exits" or "hypercalls", that occurred, without its name."""
        prefix = group + "."
        return {name.removeprefix(prefix): count for name, count in self.items() if name.startswith(prefix)}

    # Ratios; nan where there is nothing to divide by.

    @property
    def lookups_per_instruction(self) -> float:
        """TLB look-ups per instruction."""
        return self._ratio("tlb_lookups", "instructions")

    @property
    def miss_ratio(self) -> float:
        """TLB misses per look-up."""
        return self._ratio("tlb_misses", "tlb_lookups")

    @property
    def misses_per_thousand_instructions(self) -> float:
        """TLB misses per thousand instructions."""
        return 1000 * self._ratio("tlb_misses", "instructions")

    @property
    def guest_references_per_miss(self) -> float:
        """Entries of guest page tables that one TLB miss read."""
        return self._ratio("guest_references", "tlb_misses")

    @property
    def second_level_references_per_miss(self) -> float:
        """Entries of second-level tables that one TLB miss read."""
        return self._ratio("second_level_references", "tlb_misses")

    @property
    def references_per_miss(self) -> float:
        """Table entries of both levels that one TLB miss read."""
        return self.guest_references_per_miss + self.second_level_references_per_miss

    def _ratio(self, above: str, below: str) -> float:
        divisor = self.get(below, 0)
        return self.get(above, 0) / divisor if divisor else nan

    def __repr__(self) -> str:
        return f"Counters({', '.join(f'{name}={count}' for name, count in self.items() if count)})"

    def __str__(self) -> str:
        """A table: what was counted, how often, and ratios where they mean something."""
        rows: list[tuple[str, int, str]] = []
        for label, name in _LINES:
            unit, ratio = _RATIOS.get(name, ("", ""))
            value = getattr(self, ratio) if ratio else nan
            rows.append((label, self.get(name, 0), f"{value:.4f} {unit}" if value == value else ""))
            rows += [(f"  {kind}", count, "") for kind, count in self.by_kind(name).items()]
        label_width = max(len(label) for label, _, _ in rows)
        count_width = max(len(f"{count:,}") for _, count, _ in rows)
        lines = (f"{label:<{label_width}}  {count:>{count_width},}  {note}" for label, count, note in rows)
        return "\n".join(line.rstrip() for line in lines)
