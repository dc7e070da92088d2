"""The decode tables, generated from isa/x64.txt. See decoder.pyx."""
from collections.abc import Iterator
from typing import Any, Final

from typing_extensions import Buffer

FLOWS: Final[tuple[str, ...]]
FORM_COUNT: Final[int]
FORM_FEATURES: Final[list[str]]
FORM_LINES: Final[list[int]]
MNEMONICS: Final[list[str]]
MODES: Final[dict[int, int]]
VENDORS: Final[dict[str, int]]

def decode_fields(
    code: Buffer, *, bits: int = 64, offset: int = 0, vendor: str = "intel"
) -> dict[str, int]: ...
def form_fields(form: int) -> dict[str, Any]: ...
def sweep(code: Buffer) -> Iterator[tuple[int, int, str]]: ...
