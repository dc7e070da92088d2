"""What objects take from memory pools (hyperv-abi.md 6.2). The real amounts are not public, so they are parameters."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageCosts:
    """Pages that an object takes from a pool, beyond the tables that its mappings need (section 13, #41).

    CreatePartition charges the caller's pool, everything else the pool of the partition that gets the object.
    """

    partition: int = 2
    initialize: int = 1
    """Besides the root table of the GPA space."""
    vp: int = 4
    port: int = 1
    connection: int = 1
    cpuid_intercept: int = 0
    """For each leaf."""
