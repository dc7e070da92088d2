"""Instructions as lines of text, one or a whole buffer of them. See formatter.pyx."""
from typing import Any, Final

from numpy.typing import NDArray
from typing_extensions import Buffer

SYNTAXES: Final[tuple[str, ...]]

def format_code(
    code: Buffer, offsets: NDArray[Any], *, ip: int = 0, bits: int = 64, vendor: str = "intel", syntax: str = "intel"
) -> list[str]: ...
def listing(
    code: Buffer, offsets: NDArray[Any], *, ip: int = 0, bits: int = 64, vendor: str = "intel", syntax: str = "intel",
    digits: int = 16
) -> bytes: ...
