"""Bytes of trace files to records and back. See traces.pyx."""
from typing import Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

FORMATS: Final[tuple[str, ...]]

@disjoint_base
class Parser:
    """The parsers by name, with what they carry from one piece of a file to the next."""
    @property
    def format(self) -> str: ...
    def __init__(self, format: str) -> None: ...
    def room_for(self, size_bytes: int) -> int: ...
    def parse(self, data: Buffer, records: NDArray[np.uint8]) -> tuple[int, int, str]: ...

@disjoint_base
class ChampsimPacker:
    """Puts each fetch and the accesses behind it into one record of ChampSim."""
    @property
    def dropped(self) -> int: ...
    def pack(self, records: Buffer) -> bytes: ...
    def rest(self) -> bytes: ...

def lackey_text(records: Buffer) -> tuple[bytes, int]: ...
