"""Translation of arrays of addresses. See translator.pyx."""
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

from hvcore._native.space import GpaSpace, SystemMemory
from hvcore._native.table_builder import TableBuilder

@disjoint_base
class MemoryImage:
    """A buffer as system memory from SPA 0, for tables that a dump holds."""
    size: int
    writable: bool
    def __new__(cls, data: Buffer, *, writable: bool = False) -> MemoryImage: ...
    def read(self, spa: int, size: int) -> bytes: ...

@disjoint_base
class TableTranslator:
    """Page tables in a memory, and the registers of the processor that uses them."""
    memory: SystemMemory | MemoryImage
    users: int
    def __new__(
        cls,
        memory: SystemMemory | MemoryImage,
        *,
        gpa_space: GpaSpace | None = None,
        nested_root: int = 0,
        nested_levels: int = 0,
        guest_tables: TableBuilder | None = None,
        second_level_tables: TableBuilder | None = None,
    ) -> TableTranslator: ...
    def set_state(
        self,
        *,
        cr0: int,
        cr3: int,
        cr4: int,
        efer: int,
        rflags: int,
        cpl: int,
        pkru: int,
        pkrs: int,
        physical_address_bits: int,
    ) -> None: ...
    def require_idle(self) -> None: ...
    def translate(
        self,
        gvas: NDArray[np.uint64],
        accesses: NDArray[np.uint8] | None,
        *,
        access: int = 1,
        privilege: int = 0,
        set_marks: bool = False,
        nested_cache: int = 0,
        gpa: NDArray[np.uint64] | None = None,
        spa: NDArray[np.uint64] | None = None,
        page_shift: NDArray[np.uint8] | None = None,
        nested_page_shift: NDArray[np.uint8] | None = None,
        status: NDArray[np.uint8] | None = None,
        error_code: NDArray[np.uint8] | None = None,
        references: NDArray[np.uint8] | None = None,
        nested_references: NDArray[np.uint8] | None = None,
    ) -> None: ...
    def translate_one(
        self, gva: int, *, access: int = 1, privilege: int = 0, set_marks: bool = False
    ) -> tuple[int, int, int, int, int, int, int, int]: ...
    def translate_runs(self, gva: int, size: int, *, access: int = 1, privilege: int = 0) -> bytes: ...
    def find(self, targets: NDArray[np.uint64], *, second: bool, room: int) -> tuple[bytes, bytes]: ...
