"""Modelled TLBs and page-walk caches, and stack distances. See models.pyx."""
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

OUTCOME_BYTES: Final[int]
POLICIES: Final[tuple[str, ...]]

@disjoint_base
class ModelCore:
    @property
    def busy(self) -> bool: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    def __init__(
        self,
        layouts: list[tuple[str, int, int, int, int, bool]],
        first: list[tuple[int, int, str, int]],
        second: list[tuple[int, int, str, int]],
        nested_tlb: list[tuple[int, str, int]],
        guest: tuple[int, int, list[tuple[int, str, int]]],
        nested: tuple[int, int, list[tuple[int, str, int]]],
        options: tuple[int, bool, int, int, int],
    ) -> None: ...
    def run(
        self,
        address: NDArray[np.uint64],
        asid: NDArray[np.uint16],
        kind: NDArray[np.uint8],
        page_shift: NDArray[np.uint8],
        nested_page_shift: NDArray[np.uint8],
        gpa: NDArray[np.uint64] | None,
        outcomes: NDArray[np.uint8] | None,
    ) -> None: ...
    def flush(self, asid: int | None = None) -> None: ...
    def invalidate(self, address: int, asid: int) -> None: ...
    def counters(self) -> dict[str, Any]: ...
    def contents(self, name: str) -> list[tuple[int, int, int]]: ...
    def save(self) -> bytes: ...
    def load(self, state: Buffer) -> None: ...

@disjoint_base
class StackCore:
    @property
    def busy(self) -> bool: ...
    @property
    def uses(self) -> int: ...
    @property
    def cold(self) -> int: ...
    def __init__(self, sets: int) -> None: ...
    def add(
        self,
        address: NDArray[np.uint64],
        kind: NDArray[np.uint8],
        shift: int,
        kinds: int,
        distances: NDArray[np.int64] | None,
    ) -> None: ...
    def histogram(self) -> list[int]: ...
