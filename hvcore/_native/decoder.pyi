"""The decode tables, generated from isa/x64.txt, and one instruction at a time for Python. See decoder.pyx."""
from collections.abc import Iterator
from typing import Final

from typing_extensions import Buffer, disjoint_base

FLOWS: Final[tuple[str, ...]]
FORM_COUNT: Final[int]
FORM_FEATURES: Final[list[str]]
FORM_LINES: Final[list[int]]
MNEMONICS: Final[list[str]]
MODES: Final[dict[int, int]]
VENDORS: Final[dict[str, int]]

@disjoint_base
class Instruction:
    """One decoded instruction. `valid` is False for bytes that are none; then only `length` means something."""
    @property
    def ip(self) -> int: ...
    @property
    def valid(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def length(self) -> int: ...
    @property
    def form(self) -> int: ...
    @property
    def mnemonic(self) -> str: ...
    @property
    def flow(self) -> str: ...
    @property
    def operand_size(self) -> int: ...
    @property
    def features(self) -> str: ...
    @property
    def table_line(self) -> int: ...
    @property
    def target(self) -> int | None: ...

def decode_instruction(
    code: Buffer, *, ip: int = 0, bits: int = 64, offset: int = 0, vendor: str = "intel"
) -> Instruction: ...
def sweep(code: Buffer) -> Iterator[tuple[int, int, str]]: ...
