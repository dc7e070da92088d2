"""Translation of arrays of addresses: what an AddressSpace, a saved state and a running VP have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hvcore._native.space import GpaSpace, SystemMemory
from hvcore._native.table_builder import TableBuilder
from hvcore._native.translator import MemoryImage, TableTranslator
from hvcore.memory import parse_size
from hvcore.paging.results import COLUMNS, RUN, Runs, Translation, Translations, TranslationStatus
from hvcore.paging.state import PagingState
from hvcore.paging.tables import parse_rights

PRIVILEGES = {None: 0, "user": 1, "supervisor": 2, "implicit": 3}


class Translator:
    """Translates as a processor in a given state would, over page tables in a given memory."""

    def __init__(
        self,
        memory: SystemMemory | MemoryImage,
        state: PagingState,
        *,
        gpa_space: GpaSpace | None = None,
        nested_root: int = 0,
        nested_levels: int = 0,
        guest_tables: TableBuilder | None = None,
        second_level_tables: TableBuilder | None = None,
    ) -> None:
        self.memory = memory
        self._nested = gpa_space is not None or nested_levels > 0
        self._nested_levels = nested_levels or 4 * self._nested
        self._native = TableTranslator(
            memory,
            gpa_space=gpa_space,
            nested_root=nested_root,
            nested_levels=nested_levels,
            guest_tables=guest_tables,
            second_level_tables=second_level_tables,
        )
        self.state = state

    @property
    def state(self) -> PagingState:
        """The registers. Assigning them takes effect for the next call."""
        return self._state

    @state.setter
    def state(self, state: PagingState) -> None:
        self._native.set_state(**asdict(state))
        self._state = state

    @property
    def walk_levels(self) -> tuple[int, int]:
        """Entries that the walk of a small page reads at each level of translation; PAE has its PDPTEs in registers."""
        return {3: 2}.get(self.state.levels, self.state.levels), self._nested_levels

    def require_idle(self) -> None:
        """Raise RuntimeError while another thread is translating here."""
        self._native.require_idle()

    def translate(
        self,
        gvas: ArrayLike,
        access: str | ArrayLike = "r",
        *,
        privilege: str | None = None,
        columns: Iterable[str] | None = None,
        out: Mapping[str, NDArray[Any]] | Translations | None = None,
        set_marks: bool = False,
        nested_cache: int = 0,
    ) -> Translations:
        """Translate each address.

        Parameters
        ----------
        gvas : array of unsigned integers, any shape
        access : what is to be done: "r", "w", "x" or several of them; or an array of the shape of `gvas` with sums of
            1 (read), 2 (write) and 4 (execute)
        privilege : "user", "supervisor", or "implicit" for accesses that the processor makes by itself, as to
            descriptor tables; default: by the CPL of the state
        columns : names of the columns that are wanted, of those of Translations; default: all
        out : arrays by column to write to, or the result of an earlier call; then `columns` defaults to these
        set_marks : set accessed and dirty bits, as the access would
        nested_cache : entries of a cache of second-level translations, a power of two up to 2**24, which lives for
            this call; 0: none. Results are the same; `nested_references` has what was really read.

        Raises
        ------
        TypeError, ValueError
            An argument has the wrong type, shape or content; the message names it.
        RuntimeError
            Another thread is running the machine that this belongs to.
        """
        addresses = as_addresses(gvas, "gvas")
        accesses, bits = as_accesses(access, addresses.shape)
        wanted = choose_columns(columns, out)
        found = {name: output(name, out, addresses.shape) for name in wanted}
        written = list(found.values())
        if out is not None and any(
            np.may_share_memory(one, other) for i, one in enumerate(written) for other in [addresses, *written[:i]]
        ):
            raise ValueError("out must not share memory with gvas, nor its arrays with each other")
        if not isinstance(nested_cache, int) or nested_cache & (nested_cache - 1) or not 0 <= nested_cache <= 1 << 24:
            raise ValueError(f"nested_cache must be 0 or a power of two up to 2**24, not {nested_cache!r}")
        self._check_marks(set_marks)
        self._native.translate(
            addresses.reshape(-1),
            accesses,
            access=bits,
            privilege=as_privilege(privilege),
            set_marks=set_marks,
            nested_cache=nested_cache,
            **{name: column.reshape(-1) for name, column in found.items()},
        )
        return Translations(found)

    def translate_one(
        self, gva: int, access: str | int = "r", *, privilege: str | None = None, set_marks: bool = False
    ) -> Translation:
        """Translate one address; arguments and errors as those of `translate`."""
        address = index(gva)
        if not 0 <= address < 1 << 64:
            raise ValueError(f"gva must fit in 64 bits, not {gva:#x}")
        bits = parse_rights(access, "access") if isinstance(access, str) else index(access)
        if not 1 <= bits <= 7:
            raise ValueError(f"access must be a sum of 1 (read), 2 (write) and 4 (execute), not {access!r}")
        self._check_marks(set_marks)
        gpa, spa, page_shift, nested_page_shift, status, *others = self._native.translate_one(
            address, access=bits, privilege=as_privilege(privilege), set_marks=set_marks
        )
        return Translation(gpa, spa, page_shift, nested_page_shift, TranslationStatus(status), *others)

    def translate_range(self, gva: int, size: int | str, access: str = "r", *, privilege: str | None = None) -> Runs:
        """What [gva, gva + size) goes to, as runs of consecutive places or of equal failures, in order.

        Takes a walk for each page that is mapped, and one for each entry that is not. Tables of an AddressSpace are
        made on the way.

        Raises
        ------
        ValueError
            An argument is out of range.
        RuntimeError
            Another thread is running the machine that this belongs to.
        """
        length = parse_size(size, "size")
        if length >= 1 << 64:
            raise ValueError(f"size must be below 2**64, not {length:#x}")
        if not isinstance(gva, int) or gva < 0 or gva + length > 1 << 64:
            raise ValueError(f"gva must lie in 64 bits with {length:#x} bytes behind it, not {gva!r}")
        data = self._native.translate_runs(
            gva, length, access=parse_rights(access, "access"), privilege=as_privilege(privilege)
        )
        runs = np.frombuffer(data, RUN)
        return Runs(*(np.ascontiguousarray(runs[name]) for name in Runs._fields))

    def find(
        self, *, gpa: ArrayLike | None = None, spa: ArrayLike | None = None, limit: int = 1 << 20
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Reverse look-up: every GVA that is mapped to one of the given GPAs, or SPAs, whatever its rights.

        Returns
        -------
        index, gva : for each hit the position of its target in the array that was given, and the GVA; in order of
            both

        All tables are read once, so ask for many targets in one call.

        Raises
        ------
        ValueError
            Not exactly one of `gpa` and `spa` is given, or an address is no unsigned integer.
        OverflowError
            There are more than `limit` hits: tables may lead to one page from everywhere.
        """
        if (gpa is None) == (spa is None):
            raise ValueError("give either gpa or spa")
        if not isinstance(limit, int) or not 1 <= limit <= 1 << 32:
            raise ValueError(f"limit must be 1 to 2**32, not {limit!r}")
        name, given = ("gpa", gpa) if gpa is not None else ("spa", spa)
        targets = as_addresses(given, name).reshape(-1)  # type: ignore[arg-type]
        which: NDArray[np.int64] = np.arange(targets.size, dtype=np.int64)
        if name == "spa" and self._nested:
            which, targets = self._find(which, targets, second=True, limit=limit)
        if self.state.levels:
            which, targets = self._find(which, targets, second=False, limit=limit)
        order = np.lexsort((targets, which))
        return which[order], self._signed(targets[order])

    def _find(
        self, numbers: NDArray[np.int64], targets: NDArray[np.uint64], *, second: bool, limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        order = np.argsort(targets, kind="stable")
        self._prepare_find(targets, second=second)
        which, addresses = self._native.find(targets[order], second=second, room=limit)
        return numbers[order][np.frombuffer(which, np.uint64).astype(np.int64)], np.frombuffer(addresses, np.uint64)

    def _prepare_find(self, targets: NDArray[np.uint64], *, second: bool) -> None:
        """Tables that a reverse look-up would miss because nobody asked for them yet are made."""

    def _signed(self, gvas: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """With copies of the highest bit that the tables translate."""
        levels = self.state.levels
        if levels < 4:
            return gvas
        above = np.uint64(64 - 12 - 9 * levels)
        return ((gvas << above).view(np.int64) >> above.astype(np.int64)).view(np.uint64)

    def _check_marks(self, set_marks: bool) -> None:
        if set_marks and isinstance(self.memory, MemoryImage) and not self.memory.writable:
            raise ValueError("set_marks must be False: the memory is read-only")


def as_addresses(values: ArrayLike, argument: str) -> NDArray[np.uint64]:
    """A contiguous array of uint64. Negative numbers and fractions are refused."""
    array = np.asarray(values)
    if array.dtype.kind == "u" or array.size == 0:
        return np.ascontiguousarray(array, np.uint64).reshape(array.shape)
    if array.dtype.kind == "O" and all(isinstance(one, int) and 0 <= one < 1 << 64 for one in array.flat):
        return array.astype(np.uint64)
    if array.dtype.kind != "i":
        raise TypeError(f"{argument} must be an array of unsigned integers, not of {array.dtype}")
    if (array < 0).any():
        raise ValueError(f"{argument} must not be negative: addresses are unsigned integers of 64 bits")
    return np.ascontiguousarray(array, np.uint64).reshape(array.shape)


def as_accesses(access: str | ArrayLike, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8] | None, int]:
    """An array of RIGHT_ bits and 0, or None and the bits for all."""
    if isinstance(access, str):
        return None, parse_rights(access, "access")
    array = np.asarray(access)
    if array.dtype.kind not in "ui":
        raise TypeError(f'access must be a text like "rw" or an array of integers, not of {array.dtype}')
    if array.shape != shape:
        raise ValueError(f"access must have the shape of gvas, {shape}, not {array.shape}")
    if array.size and (array.min() < 1 or array.max() > 7):
        raise ValueError("access must have sums of 1 (read), 2 (write) and 4 (execute)")
    return np.ascontiguousarray(array, np.uint8).reshape(-1), 0


def as_privilege(privilege: str | None) -> int:
    if privilege not in PRIVILEGES:
        raise ValueError(f'privilege must be "user", "supervisor", "implicit" or None, not {privilege!r}')
    return PRIVILEGES[privilege]


def choose_columns(
    columns: Iterable[str] | None, out: Mapping[str, NDArray[Any]] | Translations | None
) -> tuple[str, ...]:
    """Names in the order of COLUMNS."""
    if isinstance(columns, str):
        columns = (columns,)
    wanted = set(columns if columns is not None else COLUMNS if out is None else out)
    unknown = wanted - set(COLUMNS)
    if unknown or not wanted:
        argument = "columns" if columns is not None else "out"
        raise ValueError(f"{argument} must name some of {', '.join(COLUMNS)}, not {sorted(unknown) or 'none'}")
    return tuple(name for name in COLUMNS if name in wanted)


def output(
    name: str, out: Mapping[str, NDArray[Any]] | Translations | None, shape: tuple[int, ...]
) -> NDArray[Any]:
    """The array of the user's for a column, once it is sure that it can be written, or a new one."""
    if out is None or name not in set(out):
        return np.empty(shape, COLUMNS[name])
    array = out[name]
    expected = f"a writable C-contiguous array of {np.dtype(COLUMNS[name])} and shape {shape}"
    if not isinstance(array, np.ndarray):
        raise TypeError(f"out[{name!r}] must be {expected}, not {type(array).__name__}")
    if array.dtype != COLUMNS[name] or array.shape != shape:
        raise ValueError(f"out[{name!r}] must be {expected}, not of {array.dtype} and shape {array.shape}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"out[{name!r}] must be {expected}")
    return array
