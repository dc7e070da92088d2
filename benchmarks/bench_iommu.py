"""What does the remapping unit cost: an IOTLB hit, a nested walk, and a million DMA writes?

A hit is one element of a batch whose pages the IOTLB holds, with columns `spa` and `status`, at random among 64 pages;
beside it, without a bar, the same with every column, and by an IOTLB of 64 sets of 4 ways under LRU.
The processor's hit is one load instruction of guest code whose page its fast TLB holds, among 64 pages too, dispatch
and all; a run of 64 loads and the branch that closes the loop count as 64. Walks are those of `walkers.c` over the same
tables: four levels over four.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.bench_batch_translation import show
from benchmarks.guest import CODE, DATA, child_running
from benchmarks.measure import report, run_rounds, timed
from benchmarks.page_walkers import COMPILER, SPAN, Peers, traces
from hvcore._native.iommu import COLUMNS, Geometry, RemappingUnit
from hvcore._native.space import GpaSpace, PagePool
from hvcore.paging import AddressSpace

MAXIMUM_HIT, MAXIMUM_WALK, MAXIMUM_WRITES = 2.0, 1.15, 3.0
"""The project's bars: ratios to the processor's hit, the nested C walk, and NumPy's scatter."""
SOURCE, PAGE, PAGES, LINE = 8, 4096, 64, 64
POOL, TABLES, DATA_PAGES = 5 << 30, 6 << 30, 1 << 30
GIB = 1 << 18


def identity(memory):
    """A partition that has all of a memory where it is, with its tables in pages that nothing else uses."""
    pool = PagePool(memory)
    for page in range(64):
        pool.deposit((POOL >> 12) + page)
    space = GpaSpace(memory, pool)
    space.create()
    total = (memory.size + memory.reserve) >> 12
    space.map(0, np.arange(0, total // GIB * GIB, GIB, dtype=np.uint64), rights=7, huge=True)
    rest = np.arange(total // GIB * GIB, total // 512 * 512, 512, dtype=np.uint64)
    space.map(total // GIB * GIB, rest, rights=7, large=True)
    return space


def store(memory, gpa, *words):
    memory.write(gpa, np.array(words, np.uint64).tobytes())


def nested_unit(space, caches=()):
    """A unit in scalable mode that translates for one device by the tables of an AddressSpace, nested."""
    memory = space.memory
    unit = RemappingUnit(memory, identity(memory), caches=caches)
    root, contexts, directory, pasids = (TABLES + PAGE * i for i in range(4))
    store(memory, root, contexts | 1)
    store(memory, contexts + 32 * SOURCE, directory | 1, 0, 0, 0)
    store(memory, directory, pasids | 1)
    store(memory, pasids, space.nested_root | 2 << 2 | 3 << 6 | 1, 1, space.state.cr3 & ~0xFFF, 0)
    unit.write(0x20, 8, root | 1 << 10)
    unit.write(0x18, 4, 1 << 30)
    unit.write(0x18, 4, 1 << 31)
    return unit


def make_space():
    space = AddressSpace(4, 4, memory="16 GiB")
    space.map(gva=0, gpa=DATA_PAGES, size=SPAN, frames="permuted", seed=1)
    return space


def loads():
    """64 loads from 64 pages, and the loop around them: mov rax, [rbx + n]; ...; dec rcx; jnz; hlt."""
    body = b"".join(bytes.fromhex("488b83") + (page * PAGE + page * LINE % PAGE).to_bytes(4, "little")
                    for page in range(PAGES))
    body += bytes.fromhex("48ffc9")
    back = -(len(body) + 6) & 0xFFFFFFFF
    return body + bytes.fromhex("0f85") + back.to_bytes(4, "little") + b"\xf4"


def test_hit(benchmark, smoke):
    """A batch whose pages the IOTLB holds, in loads of guest code whose pages the TLB holds."""
    rounds, count = (1, 5000) if smoke else (15, 1 << 20)
    space = make_space()
    unit = nested_unit(space)
    random = np.random.default_rng(1)
    iovas = (random.integers(0, PAGES, count) * PAGE + random.integers(0, PAGE, count)).astype(np.uint64)
    space.translate(np.arange(0, PAGES * PAGE, PAGE, dtype=np.uint64), set_marks=True)
    out = {"spa": np.zeros(count, np.uint64), "status": np.zeros(count, np.uint8)}
    every = {name: np.zeros(count, kind) for name, kind in COLUMNS.items()}
    ways = nested_unit(space, caches={"iotlb": Geometry(64, 4)})
    with child_running(loads(), memory="32 MiB") as (vp, _):

        def guest():
            vp.rip, vp.rbx, vp.rcx = CODE, DATA, count // PAGES
            return timed(vp.run, count // PAGES * PAGES)

        def hits():
            return timed(lambda: unit.translate_into(SOURCE, iovas, 1, **out), count)

        def all_columns():
            return timed(lambda: unit.translate_into(SOURCE, iovas, 1, **every), count)

        def in_ways():
            return timed(lambda: ways.translate_into(SOURCE, iovas, 1, **out), count)

        guest(), hits(), in_ways()
        before = unit.counters()["structures"]["iotlb"]
        results = run_rounds(benchmark, {"load that hits the TLB": guest, "IOTLB hit": hits,
                                         "IOTLB hit, all columns": all_columns, "IOTLB hit, 64/4": in_ways}, rounds)
        after = unit.counters()["structures"]["iotlb"]
    assert after[2] == before[2] and not out["status"].any()
    ratios = report(benchmark, results, "load that hits the TLB")
    assert smoke or ratios["IOTLB hit"] <= MAXIMUM_HIT


@pytest.mark.skipif(COMPILER is None, reason="no C compiler to build the peers with")
def test_nested_walk(benchmark, smoke, tmp_path):
    """Every request walks four levels over four: no caches, tables behind the partition's own space."""
    rounds, count = (1, 5000) if smoke else (7, 1 << 20)
    space = make_space()
    unit = nested_unit(space, caches={"iotlb": None, "pde": None, "pdpte": None, "pml4e": None, "pml5e": None})
    peers = Peers(space, tmp_path)
    addresses = traces(count)
    ours = {"spa": np.zeros(count, np.uint64), "status": np.zeros(count, np.uint8),
            "references": np.zeros(count, np.uint8), "nested_references": np.zeros(count, np.uint8)}
    theirs = {name: column.copy() for name, column in ours.items()}
    measures = {}
    for name, iovas in addresses.items():
        space.translate(iovas, set_marks=True)

        def walk(iovas=iovas):
            unit.translate_into(SOURCE, iovas, 1, **ours)

        def in_c(iovas=iovas):
            peers.walk_in_c("nested", iovas, theirs)

        walk()
        in_c()
        assert all((ours[column] == theirs[column]).all() for column in ours) and not ours["status"].any()
        measures[f"unit {name}"] = lambda walk=walk: timed(walk, count)
        measures[f"C {name}"] = lambda in_c=in_c: timed(in_c, count)
    results = run_rounds(benchmark, measures, rounds)
    print()
    ratio = show(benchmark, results, addresses, "C", "unit")
    assert smoke or ratio <= MAXIMUM_WALK


def test_writes(benchmark, smoke):
    """A million writes of 64 bytes through the unit, in NumPy's scatter of the same rows to the same places."""
    rounds, count = (1, 5000) if smoke else (5, 1_000_000)
    space = make_space()
    unit = nested_unit(space)
    random = np.random.default_rng(2)
    data = random.integers(0, 256, (count, LINE), dtype=np.uint8)
    memory = np.frombuffer(space.memory.view(0, space.memory.size), np.uint8).reshape(-1, LINE)
    measures, bases = {}, []
    for pages in (512, SPAN // PAGE):
        lines = random.permutation(pages * PAGE // LINE)[:count] if pages * PAGE // LINE >= count else (
            random.integers(0, pages * PAGE // LINE, count))
        iovas = (lines * LINE).astype(np.uint64)
        places = (space.translate(iovas, set_marks=True).spa // LINE).astype(np.int64)

        def write(iovas=iovas):
            assert unit.write_batch(SOURCE, iovas, data) == data.nbytes

        def scatter(places=places):
            memory[places] = data

        write(), scatter()
        if len(set(places.tolist())) == count:
            assert (memory[places] == data).all()
        bases.append(f"{pages} pages")
        measures[f"unit {pages} pages"] = lambda write=write: timed(write, count)
        measures[f"NumPy {pages} pages"] = lambda scatter=scatter: timed(scatter, count)
    results = run_rounds(benchmark, measures, rounds)
    print()
    ratio = show(benchmark, results, bases, "NumPy", "unit")
    assert smoke or ratio <= MAXIMUM_WRITES
