"""Page tables in a saved memory: a dump, a file, an array."""

from __future__ import annotations

import mmap
from os import PathLike
from typing import Any

import numpy as np

from hvcore._native.translator import MemoryImage
from hvcore.paging.state import PagingState
from hvcore.paging.translator import Translator

LARGEST = 52
"""Bits of a physical address."""


class SavedAddressSpace(Translator):
    """Translates over a memory image, with the registers that were saved with it.

    Parameters
    ----------
    memory : path of a raw image, or any contiguous buffer (bytes, NumPy array, mmap); byte 0 is SPA 0
    state : PagingState
    nested_root : SPA of second-level tables in the layout of EPT; None: there is no second level
    nested : levels of these, 1 to 5
    writable : accessed and dirty bits may be set in it

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The memory is smaller than a page, not contiguous or not aligned to 8 bytes; another argument is out of range.
    """

    def __init__(
        self,
        memory: Any,
        state: PagingState,
        *,
        nested_root: int | None = None,
        nested: int = 4,
        writable: bool = False,
    ) -> None:
        if not 1 <= nested <= 5:
            raise ValueError(f"nested must be 1 to 5 levels, not {nested!r}")
        if nested_root is not None and (nested_root < 0 or nested_root % 4096 or nested_root >> LARGEST):
            raise ValueError(f"nested_root must be the address of a page, not {nested_root!r}")
        buffer = _buffer(memory, writable)
        super().__init__(
            MemoryImage(buffer if writable else memoryview(buffer).toreadonly(), writable=writable),
            state,
            nested_root=nested_root or 0,
            nested_levels=0 if nested_root is None else nested,
        )


def _buffer(memory: Any, writable: bool) -> Any:
    if isinstance(memory, (str, PathLike)):
        with open(memory, "r+b" if writable else "rb") as file:
            try:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
            except ValueError:
                raise ValueError("memory must be a page or more: the file is empty") from None
    if isinstance(memory, np.ndarray):
        if not memory.flags.c_contiguous or (writable and not memory.flags.writeable):
            raise ValueError("memory must be a C-contiguous array, and writable if `writable` is True")
        return memory.reshape(-1).view(np.uint8)
    try:
        view = memoryview(memory)
    except TypeError:
        raise TypeError(f"memory must be a path or a buffer, not {type(memory).__name__}") from None
    if not view.c_contiguous or (writable and view.readonly):
        raise ValueError("memory must be a contiguous buffer, and writable if `writable` is True")
    return memory
