"""What a trace file is: its compression and its format, by content where that says it, else by name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import IO, cast

from hvcore._native.traces import FORMATS as PARSED
from hvcore.experiments.errors import TraceError

FORMATS = (*PARSED, "npy", "npz")
GEM5_MAGIC = b"gem5"
NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"
HEAD_BYTES = 4096
_CHATTER = re.compile(rb"\r?\n|(==|--|\*\*)[^\n]*\n")
_LINE = re.compile(rb"(I  | [LSM] )[0-9a-fA-F]{1,16},\d+\r?\n")
_COMPRESSIONS: tuple[tuple[bytes, Callable[[BufferedReader], IO[bytes]]], ...] = (
    (b"\x1f\x8b", lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file))),
    (b"\xfd7zXZ\x00", lambda file: cast(IO[bytes], lzma.LZMAFile(file))),
    (b"BZh", lambda file: cast(IO[bytes], bz2.BZ2File(file))),
)
DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error)
"""What decompression raises on bytes that are cut or wrong."""


def decompressed(file: BufferedReader, path: Path) -> IO[bytes]:
    """The content of an open file.

    Raises
    ------
    TraceError
        It is compressed with zstandard, which Python's library cannot read.
    """
    start = file.peek(6)[:6]        # not read and sought: it may be a pipe
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        raise TraceError(path, "zstandard is not understood: decompress it, or pipe it through gzip -1")
    for magic, opener in _COMPRESSIONS:
        if start.startswith(magic):
            return opener(file)
    return file


def format_of(path: Path) -> str:
    """The format of a file: one of FORMATS.

    ChampSim's records have no mark. They are taken for what they are if nothing else fits, the branch bytes of the
    first ones are 0 or 1, and no other width fits as well; "cloudsuite" in the name decides between the two.

    Raises
    ------
    TraceError
        Nothing fits, or more than one format does.
    """
    try:
        with path.open("rb") as file:
            head = decompressed(file, path).read(HEAD_BYTES)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TraceError(path, f"it cannot be decompressed: {error}", record=1, offset=0) from None
    if head.startswith(GEM5_MAGIC):
        return "gem5"
    if head.startswith(NPY_MAGIC):
        return "npy"
    if head.startswith(ZIP_MAGIC):
        return "npz"
    if _is_lackey(head):
        return "lackey"
    if head[:2] == b"\x19\x00" and 0 < int.from_bytes(head[4:12], "little") < 256:
        return "drmemtrace"
    return _width_of(head, path)


def _is_lackey(head: bytes) -> bool:
    place = 0
    while found := _CHATTER.match(head, place):
        place = found.end()
    return bool(_LINE.match(head, place)) or (0 < place and place == len(head))


def _width_of(head: bytes, path: Path) -> str:
    named = "cloudsuite" if "cloudsuite" in path.name.lower() else "champsim"
    fitting = [name for name, width in (("champsim", 64), ("cloudsuite", 96)) if _fits(head, width)]
    if named in fitting:
        return named
    if len(fitting) == 1:
        return fitting[0]
    raise TraceError(path, f"the format is not recognized: say format=, one of {', '.join(FORMATS)}")


def _fits(head: bytes, width: int) -> bool:
    """Whether records of this width have branch bytes where they must be, and an instruction pointer in each."""
    starts = range(0, len(head) - width + 1, width)
    return bool(starts) and all(
        head[at + 8] < 2 and head[at + 9] < 2 and head[at : at + 8] != bytes(8) for at in starts
    )
