"""Models against a plain one of lists and dicts: every policy, geometry, place and event, on random traces."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from oracles.translation_model import Reference

from hvcore.experiments import RECORD, Kind, Structure, TranslationModel, run_many
from hvcore.experiments.presets import MARKS, PRESETS
from hvcore.experiments.records import ASID_ALL, make_records
from hvcore.experiments.traces import read_trace

DATA = Path(__file__).parent / "data"
POLICIES = ("lru", "fifo", "tree-plru", "nru", "srrip", "random")
SHAPES = ("1/1", "2/1", "4/2", "8/4", "12/4", "6/3", "15/5", "16/16", "24/12", "7", "16", "24", "33", "48/24", "64/32")


def random_records(rng, count, *, pages=60, events=0.0, sizes=(0,), asids=1, nested=(0,)):
    """Accesses to few pages, often the same again, sometimes far away; some flushes and invalidations."""
    records = np.zeros(count, RECORD)
    page = 0
    for record in records:
        if rng.random() < 0.7:
            page = rng.randrange(pages) * rng.choice((1, 1, 1, 1 << 9, 1 << 18, 1 << 27))
        kind = rng.randrange(4, 6) if rng.random() < events else rng.randrange(4)
        record["address"] = (page << 12 | rng.randrange(4096)) & (1 << 57) - 1
        record["kind"], record["asid"] = kind, rng.randrange(asids) if rng.random() < 0.1 else 0
        if kind == Kind.FLUSH and rng.random() < 0.2:
            record["asid"] = ASID_ALL
        record["page_shift"], record["nested_page_shift"] = rng.choice(sizes), rng.choice(nested)
    return records


def agree(model, records):
    """Run both, compare every outcome, every count and what is left in each structure."""
    reference = Reference(model)
    expected = reference.run(records)
    result = model.run(records, outcomes=True)
    found = [tuple(map(int, outcome)) for outcome in result.outcomes]
    different = next((at for at, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]), None)
    assert different is None, f"record {different}: {found[different]}, expected {expected[different]}"
    assert result.walks == reference.count["walks"]
    assert result.prefetch_walks == reference.count["prefetch_walks"]
    assert result.prefetch_references == reference.count["prefetch_references"]
    assert result.cycles == sum(outcome[3] for outcome in expected)
    for dimension, other in zip(result.references.tolist(), (reference.guest, reference.nested), strict=True):
        assert dimension == [other.references[table] for table in range(1, 6)]
    for name, cache in reference.caches.items():
        for column in ("lookups", "misses", "invalidations"):
            assert int(result[name][column]) == cache.count[column], (name, column)
        assert sorted(map(tuple, model.contents(name).tolist())) == cache.keys(), name
    return result


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_structure(policy, shape):
    ways = Structure.parse(shape).associativity
    if policy == "tree-plru" and ways & (ways - 1):
        with pytest.raises(ValueError, match="power of two"):
            TranslationModel(dtlb=f"{shape} tree-plru")
        return
    structure = Structure.parse(f"{shape} {policy} seed=77 latency=3")
    rng = random.Random(f"{policy} {shape}")
    model = TranslationModel(dtlb=structure, itlb=f"{shape} {policy} seed=5", reference_latency=20)
    agree(model, random_records(rng, 800, pages=2 * structure.entries, events=0.02))


@pytest.mark.parametrize("seed", range(40))
def test_whole_models(seed):
    """Everything at once, drawn at random: both dimensions, all page sizes, address spaces, prefetching."""
    rng = random.Random(seed)

    def shape(name="", most=40):
        ways = rng.choice((1, 2, 3, 4, 8, 16, 20))
        policy = rng.choice([one for one in POLICIES if one != "tree-plru" or ways & (ways - 1) == 0])
        return f"{ways * rng.randrange(1, 6)}/{ways} {policy} latency={rng.randrange(9)} {name}"

    def caches(levels):
        names = ("pde", "pdpte", "pml4e", "pml5e")[: max(0, levels - 1)]
        return {name: shape() for name in names if rng.random() < 0.7}

    levels, nested = rng.choice((2, 4, 5)), rng.choice((0, 0, 1, 4, 5))
    apart = rng.random() < 0.5
    model = TranslationModel(
        itlb=shape("4K+2M+1G"),
        dtlb=[shape("4K kinds=L"), shape("4K kinds=SM"), shape("2M+1G")] if apart else shape("4K+2M"),
        stlb=rng.choice((None, shape("4K+2M"), [shape("4K kinds=I"), shape("4K kinds=LSM"), shape("2M+1G")])),
        walk_caches=caches(levels),
        levels=levels,
        nested_levels=nested,
        nested_tlb=rng.choice((None, shape("4K+2M+1G"), [shape("4K"), shape("2M")])) if nested else None,
        nested_walk_caches=caches(nested) if nested else None,
        reference_latency=rng.randrange(50),
        nested_reference_latency=rng.randrange(50),
        prefetch_pages=rng.choice((0, 0, 1, 3)),
        tagged=rng.random() < 0.5,
        page_size=rng.choice(("4 KiB", "2 MiB")),
        table_page_size=rng.choice((None, "4 KiB", "2 MiB")),
    )
    records = random_records(rng, 1500, events=0.01, sizes=(0, 12, 21, 22, 30), asids=3, nested=(0, 12, 21, 30))
    agree(model, records)


@pytest.mark.parametrize(
    ("geometry", "misses", "mpki", "walks", "references"),
    [
        (("128/8", "64/4", "1536/12"), (62, 121), 0.947, 139, (556, 148, 3336)),
        (("128/8", "64/4", "2048/16"), (62, 121), 0.947, 139, (556, 148, 3336)),
        (("64", "64", "2048/16"), (62, 80), 0.626, 139, (556, 148, 3336)),
        (("16/4", "16/4", "128/4"), (147, 1216), 9.518, 161, (644, 170, 3864)),
    ],
    ids=["Skylake", "Ice Lake", "Zen 2", "tiny"],
)
def test_published_figures(geometry, misses, mpki, walks, references):
    """A C model counted these in the same trace: instruction and data TLB, walks, and references without page-walk
    caches, with them, and with a nested dimension."""
    trace = read_trace(DATA / "true.lackey.txt.gz")
    itlb, dtlb, stlb = geometry
    caches = {"pde": "32/4", "pdpte": "4/4", "pml4e": "2/2"}
    models = [
        TranslationModel(itlb=itlb, dtlb=dtlb, stlb=stlb, walk_caches=walk_caches, nested_levels=nested)
        for walk_caches, nested in ((None, 0), (caches, 0), (None, 4))
    ]
    plain, cached, nested = run_many(models, trace)
    assert plain.instructions == 127_757 and plain.lookups == 167_424
    assert (plain["itlb"].misses, plain["dtlb"].misses) == misses
    assert round(plain.misses_per_thousand_instructions("dtlb"), 3) == mpki
    assert plain.walks == cached.walks == nested.walks == walks
    assert tuple(int(one.references.sum()) for one in (plain, cached, nested)) == references


@pytest.mark.parametrize("guest", range(1, 6))
@pytest.mark.parametrize("nested", range(1, 6))
def test_references_of_a_cold_walk(guest, nested):
    """(g + 1)(h + 1) - 1, from the counts of a model without any cache."""
    model = TranslationModel(levels=guest, nested_levels=nested)
    result = model.run(np.array([0x1234_5678_9000], np.uint64))
    assert (result.guest_references, result.nested_references) == (guest, (guest + 1) * nested)
    assert result.guest_references + result.nested_references == (guest + 1) * (nested + 1) - 1
    assert TranslationModel(levels=guest).run(np.zeros(3, np.uint64)).guest_references == 3 * guest


@pytest.mark.parametrize(
    ("guest", "nested", "references"), [(12, 21, 19), (21, 21, 15), (21, 12, 19), (30, 12, 14), (30, 30, 8)]
)
def test_references_with_large_pages(guest, nested, references):
    records = make_records([1 << 40], page_shift=guest, nested_page_shift=nested)
    result = TranslationModel(nested_levels=4).run(records)
    assert result.guest_references + result.nested_references == references


@pytest.mark.parametrize("cache, left", [("pde", 1), ("pdpte", 2), ("pml4e", 3)])
def test_references_behind_a_walk_cache(cache, left):
    model = TranslationModel(walk_caches={cache: "4"})
    model.run(np.array([0x7000], np.uint64))
    assert model.run(np.array([0x8000], np.uint64)).guest_references == left
    nested = TranslationModel(nested_levels=4, nested_tlb="64", walk_caches={cache: "4"})
    nested.run(np.array([0x7000], np.uint64))
    again = nested.run(np.array([0x7000], np.uint64))
    assert (again.guest_references, again.nested_references) == (left, 0)


def test_results_subtract_and_print():
    model = TranslationModel.preset("skylake-server", reference_latency=30)
    rng = random.Random(9)
    first, second = random_records(rng, 500), random_records(rng, 500)
    start = model.counters()
    one, two = model.run(first), model.run(second)
    assert one + two == model.counters() - start
    assert (one - one).to_dict() == dict.fromkeys(one.to_dict(), 0)
    assert one.to_dict()["dtlb-4K.misses"] == one["dtlb-4K"].misses
    text = str(one)
    assert "dtlb-4K" in text and f"{one.walks:,} walks" in text and "walks=" in repr(one)
    with pytest.raises(KeyError, match="no structure 'tlb'"):
        one["tlb"]
    with pytest.raises(ValueError, match="different structures"):
        one - TranslationModel().counters()


@pytest.mark.parametrize("policy", POLICIES)
def test_snapshots(policy):
    rng = random.Random(policy)
    shape = f"32/4 {policy} 4K"

    def model(seed=1):
        return TranslationModel(dtlb=f"{shape} seed={seed}", stlb=f"64 {policy}", nested_levels=4, nested_tlb="20")

    before, after = random_records(rng, 900), random_records(rng, 900)
    one = model()
    one.run(before)
    snapshot = one.save()
    used = one.run(after)
    other = model()
    other.load(snapshot)
    assert other.run(after) == used
    assert other.counters() == one.counters()
    one.load(snapshot)
    assert one.run(after) == used
    one.reset()
    assert one.run(before) == model().run(before)
    with pytest.raises(ValueError, match="other parameters"):
        model(seed=2).load(snapshot)
    with pytest.raises(ValueError, match="damaged"):
        one.load(snapshot[:-1])
    with pytest.raises(ValueError, match="damaged"):
        one.load(b"")


def test_many_models_share_one_reading():
    rng = random.Random(3)
    records = random_records(rng, 3000)
    read = []

    def chunks():
        for start in range(0, len(records), 1000):
            read.append(start)
            yield records[start : start + 1000]

    shapes = ("8/2", "16/4", "32", "64/8 srrip")
    results = run_many([TranslationModel(dtlb=shape) for shape in shapes], chunks(), threads=2)
    assert read == [0, 1000, 2000]
    assert results == [TranslationModel(dtlb=shape).run(records) for shape in shapes]
    model = TranslationModel()
    with pytest.raises(ValueError, match="twice"):
        run_many([model, model], records)


def test_forms_of_a_trace():
    addresses = np.arange(0, 1 << 24, 4096, dtype=np.uint64)
    model = TranslationModel(dtlb="64/4")
    expected = model.run(make_records(addresses))
    for trace in (addresses, addresses.astype(np.int64), [addresses[:99], make_records(addresses[99:])]):
        model.reset()
        assert model.run(trace) == expected
    model.reset()
    assert model.run(np.repeat(make_records(addresses), 2)[::2]) == expected
    assert model.run(addresses[:0]).lookups == 0
    assert len(model.run([], outcomes=True).outcomes) == 0
    for wrong in ("file", 7, addresses.astype(float), addresses.reshape(2, -1), [1, 2]):
        with pytest.raises(TypeError):
            model.run(wrong)


class Space:
    """What a model needs of an AddressSpace: some pages are 2 MiB, guest-physical addresses are turned around, and
    what lies above 1 GiB is not mapped."""

    def translate(self, addresses, access):
        class Found:
            status = ((addresses >> np.uint64(30) != 0) | (access & 4 != 0)).astype(np.uint8)
            page_shift = np.where(addresses >> np.uint64(21) & np.uint64(1), 21, 12).astype(np.uint8)
            nested_page_shift = np.full(len(addresses), 12, np.uint8)
            gpa = addresses ^ np.uint64(0x3FE0_0000)

        return Found()


def test_an_address_space_says_the_page_sizes():
    rng = random.Random(4)
    addresses = np.array([rng.randrange(0, 3 << 29, 64) for _ in range(2000)], np.uint64)
    shapes = {"dtlb": "64/4 4K+2M", "nested_levels": 4, "nested_tlb": "32/4"}
    model = TranslationModel(**shapes)
    result = model.run(addresses, Space(), outcomes=True)
    reference = Reference(TranslationModel(**shapes))
    mapped = addresses >> np.uint64(30) == 0
    assert result.faults == int((~mapped).sum()) > 0 and result.lookups == int(mapped.sum())
    found = Space().translate(addresses, np.ones(len(addresses), np.uint8))
    for at, address in enumerate(addresses.tolist()):
        outcome = tuple(map(int, result.outcomes[at]))
        if mapped[at]:
            assert outcome == reference.access(address, 1, 0, int(found.page_shift[at]), 12, int(found.gpa[at]))
        else:
            assert outcome == (0, 0, 0, 0)
    fetches = make_records([0x1000, 1 << 40], [Kind.FETCH, Kind.FLUSH])
    again = model.run(fetches, Space())
    assert (again.faults, again.instructions, again.accesses[Kind.FLUSH, 0]) == (1, 0, 1)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    preset = PRESETS[name]
    result = TranslationModel.preset(name, nested_levels=4).run(read_trace(DATA / "true.lackey.txt.gz"))
    if {"itlb", "stlb"} & set(preset.parameters):
        assert result.walks == 139
    else:                   # an IOTLB alone, for loads and stores: devices fetch no instructions
        assert result.walks == result.instructions + result["iotlb"].misses
    assert {fact.parameter for fact in preset.facts} == set(preset.parameters)
    assert all(fact.mark in MARKS and fact.source for fact in preset.facts)
    assert all(fact.source in str(preset) for fact in preset.facts)


def test_a_preset_can_be_changed():
    model = TranslationModel.preset("champsim", stlb="64/4", name="small")
    assert model.name == "small" and str(model).count("64 entries, 4 ways") == 3
    with pytest.raises(KeyError, match="one of skylake-server"):
        TranslationModel.preset("pentium")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"dtlb": "64/5"}, "ways must divide"),
        ({"dtlb": "0"}, "entries must be"),
        ({"dtlb": "64 belady"}, "'belady' says nothing"),
        ({"dtlb": ""}, "must start with"),
        ({"dtlb": "64 kinds=X"}, "letters of 'ILSM'"),
        ({"dtlb": ["64", "32"]}, "same name"),
        ({"dtlb": ["64 name=a", "32 name=b"]}, "both serve LOAD of 4K pages"),
        ({"walk_caches": {"pte": "8"}}, "must be named pde"),
        ({"nested_tlb": "8"}, "nested_levels is 0"),
        ({"levels": 6}, "levels must be 1 to 5"),
        ({"prefetch_pages": -1}, "prefetch_pages"),
        ({"page_size": "8 KiB"}, "page size must be"),
    ],
)
def test_refusals(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        TranslationModel(**arguments)


def test_hostile_records():
    """Any bytes are a trace: nothing crashes, every record is counted once."""
    rng = np.random.default_rng(12)
    records = rng.integers(0, 256, (20_000, 16), dtype=np.uint8).view(RECORD).reshape(-1)
    for tagged in (False, True):
        for levels in (1, 2, 5):
            model = TranslationModel(
                itlb="16/4 4K+2M+1G", dtlb="24 4K+2M+1G srrip", stlb="30/10 4K+2M+1G nru", levels=levels,
                walk_caches={"pde": "4"}, nested_levels=levels, nested_tlb="8 1G", tagged=tagged, prefetch_pages=2,
            )  # fmt: skip
            result = model.run(records, outcomes=True)
            assert int(result.accesses.sum()) == len(records) == len(result.outcomes)


def test_flush_and_invalidate():
    model = TranslationModel(dtlb="16/4", walk_caches={"pde": "4"}, tagged=True)
    model.run(make_records([0x1000, 0x2000], asid=1))
    model.run(make_records([0x1000], asid=2))
    model.invalidate(0x1FFF, asid=1)
    assert sorted(model.contents("dtlb").tolist()) == [(1, 2, 0), (2, 1, 0)]
    assert model.contents("pde").tolist() == [(0, 2, 3)]
    model.flush(1)
    assert model.contents("dtlb").tolist() == [(1, 2, 0)]
    model.flush()
    assert len(model.contents("dtlb")) == 0
    assert model.counters()["dtlb"].invalidations == 3
    assert model.run(make_records([0x1000], Kind.STORE, asid=2)).walks == 1
