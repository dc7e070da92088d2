"""Columns of decoded instructions over whole buffers. See sweep.pyx."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import Buffer

COLUMNS: tuple[str, ...]
PATHS: tuple[str, ...]

def decode_into(
    code: Buffer,
    columns: Sequence[Any],
    *,
    options: int,
    ip: int,
    at: int,
    row: int,
    capacity: int,
    more: bool,
    path: str,
) -> tuple[int, int]: ...
