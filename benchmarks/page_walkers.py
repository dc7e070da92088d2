"""What batch translation is measured against: walkers.c, compiled here, and NumPy's four gathers; and the addresses."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvcore.paging import AddressSpace

COMPILER = shutil.which("gcc") or shutil.which("cc")
SPAN = 1 << 30
PAGE = 4096
LINE = 64
ZIPF_EXPONENT = 0.99
ENTRY_ADDRESS = np.uint64(0x000FFFFFFFFFF000)
INDEX, OFFSET, ENTRY_SHIFT = np.uint64(511), np.uint64(PAGE - 1), np.uint64(3)
Addresses = NDArray[np.uint64]


def traces(count: int, seed: int = 1) -> Mapping[str, Addresses]:
    """Four orders of addresses over SPAN: lines in order, pages in order, pages by Zipf's law, and random ones."""
    random = np.random.default_rng(seed)
    pages = SPAN // PAGE
    weights = np.arange(1, pages + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(count))
    zipf = random.permutation(pages)[np.minimum(ranks, pages - 1)] * PAGE + random.integers(0, PAGE, count)
    return {
        "sequential": (np.arange(count, dtype=np.uint64) * np.uint64(LINE)) % np.uint64(SPAN),
        "strided": (np.arange(count, dtype=np.uint64) * np.uint64(PAGE)) % np.uint64(SPAN),
        "zipf": zipf.astype(np.uint64),
        "random": random.integers(0, SPAN, count, dtype=np.uint64),
    }


class Machine(ctypes.Structure):
    """struct machine of walkers.c."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("memory", "size", "cr3", "second_root", "reserved")),
        *((name, ctypes.c_uint32) for name in ("write", "execute", "user", "write_protect", "smep", "smap")),
    ]


class Columns(ctypes.Structure):
    """struct columns of walkers.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("spa", "status", "references", "nested_references")]


class Peers:
    """The C walkers and NumPy's over the tables of an address space."""

    def __init__(self, space: AddressSpace, folder: Path) -> None:
        assert COMPILER is not None
        library = folder / "walkers.so"
        source = Path(__file__).parent / "walkers.c"
        subprocess.run([COMPILER, "-O3", "-shared", "-fPIC", "-o", library, source], check=True)
        self._library = ctypes.CDLL(str(library))
        memory: Any = space.memory
        size = memory.size + memory.reserve
        export: Any = memory.view(0, size)
        self._bytes = np.frombuffer(export, np.uint8)
        self._words = self._bytes.view(np.uint64)
        self._machine = Machine(
            memory=self._bytes.ctypes.data,
            size=size,
            cr3=space.state.cr3,
            second_root=space.nested_root or 0,
            write_protect=1,
        )
        self._root = np.uint64(space.state.cr3)

    def walk_in_c(self, name: str, gvas: Addresses, out: Mapping[str, NDArray[Any]]) -> None:
        """`name` is "flat" or "nested"; the columns are those of hvcore."""
        columns = Columns(**{column: array.ctypes.data for column, array in out.items()})
        function = self._library[f"walk_{name}"]
        function(
            ctypes.byref(self._machine), ctypes.c_void_p(gvas.ctypes.data), ctypes.c_size_t(gvas.size),
            ctypes.byref(columns),
        )  # fmt: skip

    def walk_in_numpy(self, gvas: Addresses) -> Addresses:
        """Four gathers and no check of anything."""
        entries = np.broadcast_to(self._root, gvas.shape)
        for shift in (39, 30, 21, 12):
            slots = (entries & ENTRY_ADDRESS) >> ENTRY_SHIFT
            entries = self._words[slots + ((gvas >> np.uint64(shift)) & INDEX)]
        return (entries & ENTRY_ADDRESS) | (gvas & OFFSET)
