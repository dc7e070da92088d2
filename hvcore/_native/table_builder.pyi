"""Page tables built by hand, from mappings. See table_builder.pyx."""
from typing_extensions import disjoint_base

from hvcore._native.space import SystemMemory

@disjoint_base
class TableBuilder:
    """The tables of one dimension in system memory, and the mappings that they are made of when they are needed."""
    root: int
    tables: int
    extent: int
    mappings: list[tuple[int, int, int, int, int, int]]
    def __new__(
        cls,
        memory: SystemMemory,
        tables: int,
        tables_end: int,
        *,
        levels: int,
        index_bits: int,
        present: int,
        table_bits: int,
        top_bits: int,
    ) -> TableBuilder: ...
    def splits_page(self, address: int) -> int: ...
    def clear(self, start: int, size: int) -> None: ...
    def map(self, start: int, size: int, target: int, *, page_shift: int, bits: int, seed: int = 0) -> None: ...
    def protect(self, start: int, size: int, *, keep: int, bits: int) -> None: ...
    def build(self, start: int, size: int) -> None: ...
    def find(self, frame: int) -> list[int]: ...
    def target(self, address: int) -> int | None: ...
