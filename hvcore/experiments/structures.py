"""One TLB or page-walk cache of a model: its geometry, policy and latency, as a value."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hvcore._native.models import POLICIES
from hvcore.experiments.records import kinds_of
from hvcore.memory import parse_size

SIZE_CODES = {4 << 10: 0, 2 << 20: 1, 4 << 20: 1, 1 << 30: 2}
"""Page sizes as models tell them apart; 2 and 4 MiB never meet in one address space."""
SIZE_NAMES = ("4K", "2M", "1G")
SHORT_SIZES: dict[int | str, int] = {"4K": 4 << 10, "2M": 2 << 20, "4M": 4 << 20, "1G": 1 << 30}
ENTRIES_MAXIMUM = 1 << 24


@dataclass(frozen=True)
class Structure:
    """One structure. Sets need not be a power of two.

    Parameters
    ----------
    entries : how many translations it holds.
    ways : of each set; None or `entries`: fully associative.
    policy : "lru" (true), "fifo", "tree-plru" (ways a power of two), "nru", "srrip" (two bits) or "random".
    page_sizes : pages that it holds translations of; walk caches ignore it.
    latency : cycles of a look-up.
    kinds : accesses that it serves, letters of "ILSM"; empty: what its place in the model says.
    seed : of the random policy.
    name : in results; empty: by its place in the model.

    Raises
    ------
    ValueError
        A parameter is out of range or does not fit the others.
    """

    entries: int
    ways: int | None = None
    policy: str = "lru"
    page_sizes: tuple[int | str, ...] = ("4 KiB",)
    latency: int = 0
    kinds: str = ""
    seed: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.entries <= ENTRIES_MAXIMUM:
            raise ValueError(f"entries must be 1 to {ENTRIES_MAXIMUM}, not {self.entries}")
        if not 1 <= self.associativity <= self.entries or self.entries % self.associativity:
            raise ValueError(f"ways must divide the {self.entries} entries, not {self.ways}")
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {self.policy!r}")
        if self.policy == "tree-plru" and self.associativity & (self.associativity - 1):
            raise ValueError(f"tree-plru needs ways that are a power of two, not {self.associativity}")
        if not 0 <= self.latency < 1 << 20:
            raise ValueError(f"latency must be 0 to {(1 << 20) - 1} cycles, not {self.latency}")
        if not 0 < self.seed < 1 << 64:
            raise ValueError(f"seed must be a positive number of 64 bits, not {self.seed}")
        if self.kinds:
            kinds_of(self.kinds)
        if isinstance(self.page_sizes, (int, str)):
            raise ValueError(f"page_sizes must be a tuple of sizes, not {self.page_sizes!r}")
        _ = self.size_codes

    @property
    def associativity(self) -> int:
        """Ways of each set."""
        return self.entries if self.ways is None else self.ways

    @property
    def sets(self) -> int:
        return self.entries // self.associativity

    @property
    def size_codes(self) -> tuple[int, ...]:
        """Its page sizes as numbers: 0 for 4 KiB, 1 for 2 and 4 MiB, 2 for 1 GiB."""
        return tuple(sorted({size_code(size) for size in self.page_sizes}))

    def named(self, name: str) -> Structure:
        """The same, called `name` unless it has a name of its own."""
        return self if self.name else replace(self, name=name)

    @classmethod
    def parse(cls, text: str) -> Structure:
        """From a line as configurations have it: "1536/12 4K+2M srrip latency=9", or "64" for fully associative.

        Raises
        ------
        ValueError
            A word is none of `entries/ways`, a policy, page sizes joined by "+", `latency=`, `kinds=`, `seed=`,
            `name=`.
        """
        first, *words = text.split() or [""]
        geometry = re.fullmatch(r"(\d+)(?:/(\d+))?", first)
        if not geometry:
            raise ValueError(f'a structure must start with "entries/ways" or "entries", not {text!r}')
        ways = int(geometry[2]) if geometry[2] else None
        found = cls(int(geometry[1]), ways)
        for word in words:
            key, _, value = word.partition("=")
            if word in POLICIES:
                found = replace(found, policy=word)
            elif all(size in SHORT_SIZES for size in word.split("+")):
                found = replace(found, page_sizes=tuple(SHORT_SIZES[size] for size in word.split("+")))
            elif key in ("latency", "seed") and value.isdecimal():
                found = replace(found, **{key: int(value)})
            elif key in ("kinds", "name") and value:
                found = replace(found, **{key: value})
            else:
                raise ValueError(f"{word!r} says nothing about a structure: {text!r}")
        return found

    def __str__(self) -> str:
        ways = "fully associative" if self.sets == 1 else f"{self.associativity} ways"
        return f"{self.entries} entries, {ways}, {self.policy}"


def page_shift(size: int | str) -> int:
    """Bits of the offset in a page of this size.

    Raises
    ------
    ValueError
        It is not 4 KiB, 2 MiB, 4 MiB or 1 GiB.
    """
    amount = SHORT_SIZES[size] if size in SHORT_SIZES else parse_size(size, "page size")
    if amount not in SIZE_CODES:
        raise ValueError(f"a page size must be 4 KiB, 2 MiB, 4 MiB or 1 GiB, not {size!r}")
    return amount.bit_length() - 1


def size_code(size: int | str) -> int:
    """The number by which models know a page size."""
    return SIZE_CODES[1 << page_shift(size)]
