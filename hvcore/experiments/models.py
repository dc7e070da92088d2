"""Models of a processor's address translation: which structures it has, fed by a trace or a running processor."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvcore._native.models import OUTCOME_BYTES, POLICIES, ModelCore
from hvcore.experiments import presets
from hvcore.experiments.placement import placed, require_levels
from hvcore.experiments.places import Caches, Some, place_caches, place_structures, serve, table_rows
from hvcore.experiments.records import LETTERS, LOAD_WORD, Kind, Records, Trace, as_records, chunks_of, words_of
from hvcore.experiments.results import OUTCOME, STRUCTURE_COLUMNS, TranslationResult
from hvcore.experiments.structures import page_shift


class TranslationModel:
    """TLBs of two levels, page-walk caches, and their counterparts of the nested dimension.

    Parameters
    ----------
    itlb, dtlb : first level, for fetches and for data: one structure or several for different page sizes or kinds.
    stlb : second level; unified unless its structures name kinds.
    walk_caches : by what they hold: "pde", "pdpte", "pml4e", "pml5e".
    levels : of the page tables, 1 to 5.
    nested_levels : of the second dimension's tables; 0: there is none.
    nested_tlb : guest-physical to system-physical, one structure or several for different page sizes.
    nested_walk_caches : as `walk_caches`, of the second dimension.
    reference_latency, nested_reference_latency : cycles of reading a table entry.
    prefetch_pages : pages behind one that was walked for, which are brought into the second level too.
    tagged : entries carry the address space (PCID); else a change of it empties everything but the nested dimension.
    page_size, nested_page_size : where the trace does not say.
    table_page_size : of the nested dimension for the guest's tables; None: that of the page they translate.
    name : for tables of results.

    Raises
    ------
    ValueError
        A value is out of range, or two structures of one place serve the same kind and page size.
    """

    def __init__(
        self,
        *,
        itlb: Some = None,
        dtlb: Some = None,
        stlb: Some = None,
        walk_caches: Caches = None,
        levels: int = 4,
        nested_levels: int = 0,
        nested_tlb: Some = None,
        nested_walk_caches: Caches = None,
        reference_latency: int = 0,
        nested_reference_latency: int = 0,
        prefetch_pages: int = 0,
        tagged: bool = False,
        page_size: int | str = "4 KiB",
        nested_page_size: int | str = "4 KiB",
        table_page_size: int | str | None = None,
        name: str = "",
    ) -> None:
        for argument, value, least, most in (
            ("levels", levels, 1, 5),
            ("nested_levels", nested_levels, 0, 5),
            ("reference_latency", reference_latency, 0, 1 << 20),
            ("nested_reference_latency", nested_reference_latency, 0, 1 << 20),
            ("prefetch_pages", prefetch_pages, 0, 64),
        ):
            if not least <= value <= most:
                raise ValueError(f"{argument} must be {least} to {most}, not {value!r}")
        self.name = name
        first = [*place_structures("itlb", itlb, "I"), *place_structures("dtlb", dtlb, "LSM")]
        second = place_structures("stlb", stlb, LETTERS)
        nested = place_structures("nested-tlb", nested_tlb, LETTERS)
        guest_caches = place_caches("walk_caches", walk_caches, "")
        nested_caches = place_caches("nested_walk_caches", nested_walk_caches, "nested-")
        if nested_levels == 0 and (nested or nested_caches):
            raise ValueError("nested_levels is 0: there is no nested dimension that could have caches")
        below = [*nested, *nested_caches.values()]
        self.structures = (*first, *second, *guest_caches.values(), *below)
        """What it consists of."""
        names = [one.name for one in self.structures]
        if len(set(names)) < len(names):
            raise ValueError(f"two structures have the same name: {', '.join(names)}")
        self._first, self._second = serve(first), serve(second)
        layouts = [
            (one.name, one.sets, one.associativity, POLICIES.index(one.policy), one.seed, one in below)
            for one in self.structures
        ]
        self._arguments: tuple[Any, ...] = (
            layouts,
            [(kind, size, one.name, one.latency) for (kind, size), one in self._first.items()],
            [(kind, size, one.name, one.latency) for (kind, size), one in self._second.items()],
            [(size, one.name, one.latency) for (kind, size), one in serve(nested).items() if kind == Kind.LOAD],
            (levels, reference_latency, table_rows(guest_caches)),
            (nested_levels, nested_reference_latency, table_rows(nested_caches)),
            (
                prefetch_pages,
                tagged,
                page_shift(page_size),
                page_shift(nested_page_size),
                page_shift(table_page_size) if table_page_size is not None else 0,
            ),
        )
        columns = [(column, "<i8") for column in STRUCTURE_COLUMNS]
        self._rows = np.dtype([("name", f"U{max([1, *map(len, names)])}"), *columns])
        self._core = ModelCore(*self._arguments)
        self._levels = (levels, nested_levels)
        self._faults = 0

    @classmethod
    def preset(cls, name: str, /, **changes: Any) -> TranslationModel:
        """A model with the geometry of a real processor or another simulator: see `hvcore.experiments.PRESETS`.

        `changes` are parameters that replace or add to the preset's.

        Raises
        ------
        KeyError
            There is no such preset.
        """
        return cls(**{"name": name, **presets.find(name).parameters, **changes})

    def run(self, trace: Trace, space: Any = None, *, outcomes: bool = False) -> TranslationResult:
        """Feed a trace; what the structures hold stays for the next run.

        Parameters
        ----------
        trace : records, plain addresses (each a load), or chunks of records, as `read_trace` gives them.
        space : an AddressSpace that says the page sizes and guest-physical addresses of every access, by its
            `translate`; accesses that it refuses are left out and counted as faults. Default: what the trace says.
        outcomes : note for every access where it was found and what it cost.

        Returns
        -------
        TranslationResult
            Of this run alone.

        Raises
        ------
        TypeError
            The trace is no array and gives none.
        ValueError
            `space` is walked in other levels than this model.
        RuntimeError
            Another thread is running this model.
        """
        require_levels(space, self._levels)
        before = self.counters()
        noted: list[NDArray[Any]] = []
        for chunk in chunks_of(trace):
            result = self._feed(chunk, space, outcomes)
            if result is not None:
                noted.append(result)
        used = self.counters() - before
        if not outcomes:
            return used
        together = np.concatenate(noted) if noted else np.zeros(0, OUTCOME)
        return TranslationResult(**{**vars(used), "outcomes": together})

    def consume(self, records: Records) -> None:
        """Feed one chunk: what `vp.attach(model)` calls."""
        self._feed(records, None, False)

    def _feed(self, chunk: NDArray[Any], space: Any, outcomes: bool) -> NDArray[Any] | None:
        noted = np.zeros(len(chunk), OUTCOME) if outcomes else None
        gpa, reached = None, None
        if space is not None:
            chunk, gpa, reached = placed(as_records(chunk), space)
            self._faults += len(reached) - len(chunk)
        found = noted if reached is None or noted is None else np.zeros(len(chunk), OUTCOME)
        self._core.run(words_of(chunk), LOAD_WORD, gpa, found.view(np.uint8) if found is not None else None)
        if noted is not None and found is not noted:
            noted[reached] = found
        return noted

    def counters(self) -> TranslationResult:
        """Everything since the model was new or reset."""
        counts = self._core.counters()
        accesses = counts["accesses"]
        cycles, lookups = counts["miss_cycles"], dict.fromkeys(self._core.names, 0)
        for (kind, size), one in self._first.items():
            lookups[one.name] += accesses[kind][size]
            cycles += accesses[kind][size] * one.latency
        rows = []
        for one, (behind, misses, *others) in zip(self.structures, counts["structures"], strict=True):
            total = behind + lookups[one.name]
            rows.append((one.name, total, total - misses, misses, *others, total * one.latency))
        totals = {name: counts[name] for name in ("walks", "nested_walks", "prefetch_walks", "prefetch_references")}
        return TranslationResult(
            np.array(rows, dtype=self._rows).view(np.recarray),
            np.array(accesses, dtype=np.uint64),
            np.array(counts["references"], dtype=np.uint64),
            cycles=cycles,
            faults=self._faults,
            **totals,
        )

    def contents(self, name: str) -> NDArray[Any]:
        """What a structure holds: columns `page` (address divided by the page size or by what an entry covers),
        `asid`, and `size`: 0 to 2 for the page sizes of a TLB, 3 in walk caches.

        Raises
        ------
        KeyError
            There is no structure of that name.
        """
        if name not in self._core.names:
            raise KeyError(f"there is no structure {name!r}: one of {', '.join(self._core.names)}")
        return np.array(self._core.contents(name), dtype=[("page", "<u8"), ("asid", "<u2"), ("size", "u1")])

    def flush(self, asid: int | None = None) -> None:
        """Empty the first dimension: of one address space, or (None) of all, as a load of CR3 does."""
        self._core.flush(asid)

    def invalidate(self, address: int, asid: int = 0) -> None:
        """INVLPG: forget one page, and the walk caches of its address space."""
        self._core.invalidate(address, asid)

    def reset(self) -> None:
        """Empty everything, and count from zero."""
        self._core = ModelCore(*self._arguments)
        self._faults = 0

    def save(self) -> bytes:
        """A snapshot of contents and counters, for `load` of a model with the same parameters."""
        state = self._core.save() + self._faults.to_bytes(8, "little")
        return self._digest(state) + state

    def load(self, snapshot: bytes) -> None:
        """Go back to a snapshot.

        Raises
        ------
        ValueError
            It is damaged, or of a model with other parameters.
        """
        digest, state = snapshot[:16], snapshot[16:]
        if digest != self._digest(state):
            raise ValueError("this snapshot is damaged, or of a model with other parameters")
        self._core.load(state[:-8])
        self._faults = int.from_bytes(state[-8:], "little")

    def _digest(self, state: bytes) -> bytes:
        return blake2b(pickle.dumps(self._arguments, protocol=5) + state, digest_size=16).digest()

    def __str__(self) -> str:
        """A line for each structure."""
        width = max([0, *(len(one.name) for one in self.structures)])
        return "\n".join(f"{one.name:<{width}}  {one}" for one in self.structures)


def run_many(
    models: Sequence[TranslationModel], trace: Trace, space: Any = None, *, threads: int = 1
) -> list[TranslationResult]:
    """Feed one trace to many models, reading it once; with `threads`, that many models at a time.

    Returns
    -------
    list of TranslationResult
        In the order of the models.
    """
    for model in models:
        require_levels(space, model._levels)
    before = [model.counters() for model in models]
    if len({id(model) for model in models}) < len(models):
        raise ValueError("a model is given twice")
    if threads < 1:
        raise ValueError(f"threads must be positive, not {threads}")
    with ThreadPoolExecutor(threads) as pool:
        for chunk in chunks_of(trace):
            if threads == 1:
                for model in models:
                    model._feed(chunk, space, False)
            else:
                list(pool.map(lambda model, part=chunk: model._feed(part, space, False), models))
    return [model.counters() - start for model, start in zip(models, before, strict=True)]


assert OUTCOME.itemsize == OUTCOME_BYTES
