"""A VT-d remapping unit as an object. See iommu.pyx."""
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Buffer, disjoint_base

from hvcore._native.engine import PartitionCore
from hvcore._native.space import GpaSpace, SystemMemory

class Geometry(NamedTuple):
    sets: int
    associativity: int = 1
    policy: str = "lru"
    seed: int = 1

PRESETS: Final[dict[str, tuple[int, int]]]
POLICIES: Final[tuple[str, ...]]
CACHE_NAMES: Final[tuple[str, ...]]
DEFAULT_CACHES: Final[dict[str, Geometry]]
COLUMNS: Final[dict[str, type[np.unsignedinteger[Any]]]]

def device_addresses(iovas: ArrayLike) -> NDArray[np.uint64]: ...
@disjoint_base
class RemappingUnit:
    def __new__(
        cls,
        memory: SystemMemory,
        space: GpaSpace,
        *,
        preset: str = "full",
        cap: int | None = None,
        ecap: int | None = None,
        scalable: bool = True,
        caching_mode: bool = False,
        host_address_bits: int | None = None,
        caches: Mapping[str, Any] | tuple[()] | None = (),
    ) -> RemappingUnit: ...
    @property
    def memory(self) -> SystemMemory: ...
    @property
    def space(self) -> GpaSpace: ...
    @property
    def cap(self) -> int: ...
    @property
    def ecap(self) -> int: ...
    @property
    def region_size(self) -> int: ...
    def read(self, offset: int, size: int = 4) -> int: ...
    def write(self, offset: int, size: int, value: int) -> None: ...
    def reset(self) -> None: ...
    def connect(self, core: PartitionCore) -> None: ...
    def disconnect(self) -> None: ...
    def messages(self) -> list[tuple[int, int]]: ...
    def counters(self) -> dict[str, Any]: ...
    def contents(self, name: str) -> list[tuple[int, int, int]]: ...
    def accept_interrupt(
        self, source: int, address: int, data: int
    ) -> tuple[Literal["send", "posted", "blocked"], Any]: ...
    def interrupt(self, source: int, address: int, data: int) -> int: ...
    def translate_into(
        self,
        source: int,
        iovas: NDArray[np.uint64],
        access: int,
        *,
        pasid: int | None = None,
        at: int = 0,
        gpa: NDArray[np.uint64] | None = None,
        spa: NDArray[np.uint64] | None = None,
        page_shift: NDArray[np.uint8] | None = None,
        nested_page_shift: NDArray[np.uint8] | None = None,
        status: NDArray[np.uint8] | None = None,
        reason: NDArray[np.uint8] | None = None,
        table_references: NDArray[np.uint8] | None = None,
        references: NDArray[np.uint8] | None = None,
        nested_references: NDArray[np.uint8] | None = None,
    ) -> None: ...
    def translate(
        self,
        source: int,
        iovas: ArrayLike,
        access: int = 1,
        *,
        pasid: int | None = None,
        at: int = 0,
        out: dict[str, NDArray[Any]] | None = None,
        columns: Any = None,
    ) -> dict[str, NDArray[Any]]: ...
    def read_memory(self, source: int, iova: int, size: int, *, pasid: int | None = None) -> bytes: ...
    def write_memory(self, source: int, iova: int, data: Buffer, *, pasid: int | None = None) -> int: ...
    def read_batch(self, source: int, iovas: ArrayLike, data: Buffer, *, pasid: int | None = None) -> int: ...
    def write_batch(self, source: int, iovas: ArrayLike, data: Buffer, *, pasid: int | None = None) -> int: ...
    def copy(
        self, source: int, iovas: NDArray[np.uint64], data: Buffer, access: int, pasid: int | None = None
    ) -> int: ...
