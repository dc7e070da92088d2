"""Traces of device addresses: a TranslationModel and a RemappingUnit of the same geometry count the same.

The sets and policies are the same code, which tests/experiments compares with a plain model; when they are asked and
filled, and what that leaves to be read, is not: a unit walks real tables. Compared is every request, every count, and
what is left in each structure.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import hvcore as hv
from hvcore.experiments import RECORD, Kind, TraceWriter, TranslationModel, read_trace
from hvcore.experiments.device_traces import requests_of
from hvcore.iommu import geometry_of
from hvcore.machine.device import DmaStatus

from .unit_machine import CONTEXTS, DATA, FIRST, IOTLB, IVA, PAGE, READ, SOURCE, TOP, UnitMachine

DEVICES = 3
LARGE = 2 << 20
REGIONS = 24
"""Of 2 MiB: what the devices of a test reach."""
SHAPES = ("16/1", "64/4", "64", "48/3", "24", "128/8", "256/16")
POLICIES = ("lru", "fifo", "tree-plru", "nru", "srrip", "random")


def ring(rng, device):
    """Descriptors in one page, each for 2 KiB in half a page of a pool; a packet is a read, a write and a write."""
    buffers = [page * PAGE + half for page in rng.sample(range(16, REGIONS * 512), 96) for half in (0, 2048)]
    for packet in range(600):
        slot = packet % len(buffers)
        if slot % 4 == 0:
            yield requests_of([4096 + 16 * slot], 64, asid=device)
        yield requests_of([buffers[slot]], rng.choice((64, 590, 1514)), Kind.STORE, asid=device)
        yield requests_of([4096 + 16 * slot], 16, Kind.STORE, asid=device)


def strided(rng, device):
    for stride in (64, 512, PAGE, 3 * PAGE, 16 * PAGE, LARGE + PAGE):
        start = rng.randrange(PAGE)
        addresses = (start + stride * np.arange(300, dtype=np.uint64)) % np.uint64((REGIONS - 1) * LARGE)
        yield requests_of(addresses, 256, rng.choice((Kind.LOAD, Kind.STORE)), asid=device)


def blocks(rng, device):
    """Requests of a disk: 4 to 64 KiB at once, anywhere, some across pages."""
    for _ in range(120):
        start = rng.randrange((REGIONS - 1) * LARGE) & ~511
        yield requests_of([start], 4096 << rng.randrange(5), rng.choice((Kind.LOAD, Kind.STORE)), asid=device)
        yield requests_of([8192 + 16 * rng.randrange(256)], 16, asid=device)


def anywhere(rng, device):
    for _ in range(20):
        places = [rng.randrange((REGIONS - 1) * LARGE) for _ in range(60)]
        yield requests_of(places, rng.choice((4, 128, 5000)), asid=device)


def interleaved(rng, *kinds):
    """What several devices ask for, in turns: chunks, each of one device."""
    running = [kind(rng, device) for device, kind in enumerate(kinds)]
    while running:
        one = rng.choice(running)
        chunk = next(one, None)
        if chunk is None:
            running.remove(one)
        else:
            yield chunk


TRACES = {
    "ring": (ring,),
    "strided": (strided,),
    "blocks": (blocks,),
    "random": (anywhere,),
    "three": (ring, blocks, ring),
    "mixture": (anywhere, strided, blocks),
}


def machine_of(model, large=lambda region: False):
    """A unit that remembers as `model` does; device n is SOURCE + n in domain 7 + n. All share tables over REGIONS."""
    machine = UnitMachine(caches=geometry_of(model))
    for region in range(REGIONS):
        if large(region):
            machine.map(TOP, region * LARGE, DATA, leaf=2)
            continue
        slot = machine.map(TOP, region * LARGE, DATA)
        entries = DATA + PAGE * (np.arange(512, dtype=np.uint64) % np.uint64(256)) | np.uint64(3)
        machine.memory.write(slot, entries.tobytes())
    machine.legacy()
    for device in range(1, DEVICES):
        machine.store(CONTEXTS + 16 * (SOURCE + device & 255), TOP | 1, 2 | 7 + device << 8)
    return machine


def shifted(chunks, large):
    """The page sizes of `machine_of` in the records."""
    found = []
    for chunk in chunks:
        for record in chunk:
            record["page_shift"] = 21 if large(int(record["address"]) // LARGE) else 12
        found.append(chunk)
    return found


def through(machine, chunks):
    """References of each request."""
    found = [np.zeros(0, np.uint8)]
    for chunk in chunks:
        source = SOURCE + int(chunk["asid"][0])
        store = chunk["kind"] == Kind.STORE
        assert store.all() or not store.any()
        columns = machine.unit.translate(source, chunk["address"].copy(), 2 if store.any() else READ)
        assert not columns["status"].any()
        found.append(columns["nested_references"])
    return np.concatenate(found)


def held(contents):
    """By whom what is held is tagged is for each to choose: pages and sizes by tag, without the tags."""
    spaces = {}
    for page, tag, size in contents:
        spaces.setdefault(int(tag), set()).add((int(page), int(size)))
    return sorted(map(sorted, spaces.values()))


def same(machine, model, result, but=()):
    counts = machine.unit.counters()["structures"]
    for structure in model.structures:
        name = structure.name
        if name in but:
            continue
        row = result[name]
        assert counts[name] == (row.lookups, row.hits, row.misses, row.evictions, row.invalidations), name
        size = 0 if name == "iotlb" else 3
        assert held(machine.unit.contents(name)) == held(
            (page, tag, own - size) for page, tag, own in model.contents(name).tolist()
        ), name


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("seed", range(6))
def test_unit_and_model_count_the_same(name, seed):
    """Geometry and policy are drawn, with walk caches or without; pages of 4 KiB, of 2 MiB, of both."""
    rng = random.Random(f"{name} {seed}")
    policy = rng.choice(POLICIES)
    shape = rng.choice([one for one in SHAPES if policy != "tree-plru" or one not in ("48/3", "24")])
    known = {"pde": "16/4", "pdpte": "4/4 fifo", "pml4e": "2"}
    caches = {cache: one for cache, one in known.items() if rng.random() < 0.6}
    large = (lambda region: False, lambda region: True, lambda region: region % 3 == 1)[seed % 3]
    model = TranslationModel(dtlb=f"{shape} 4K+2M {policy} seed=9 name=iotlb", walk_caches=caches, tagged=True)
    print(f"{policy} {shape} {caches} {seed % 3}")
    chunks = shifted(interleaved(rng, *TRACES[name]), large)
    machine = machine_of(model, large)
    expected = through(machine, chunks)
    result = model.run(np.concatenate(chunks), outcomes=True)
    assert result.walks > 20
    assert np.array_equal(result.outcomes["guest_references"], expected)
    assert machine.unit.counters()["second_level_references"] == result.guest_references
    # A unit cannot know the page size beforehand: it asks the PDE cache for a page of 2 MiB too, and never has one.
    same(machine, model, result, but=("pde",) if seed % 3 else ())
    if seed % 3 and "pde" in caches:
        lookups, hits, misses, evictions, _ = machine.unit.counters()["structures"]["pde"]
        assert (hits, evictions) == (result["pde"].hits, result["pde"].evictions)
        assert lookups == result.walks and lookups > result["pde"].lookups and misses == lookups - hits


@pytest.mark.parametrize("policy", POLICIES)
def test_invalidations(policy):
    """What drivers invalidate as they unmap: a page of a domain, a domain, everything."""
    rng = random.Random(policy)
    model = TranslationModel(dtlb=f"64/4 {policy} name=iotlb", tagged=True)
    machine = machine_of(model)
    asked, records = [], []
    for chunk in interleaved(rng, ring, blocks, strided):
        asked.append(through(machine, [chunk]))
        records.append(chunk)
        if rng.random() < 0.2:
            device, page = int(chunk["asid"][0]), int(chunk["address"][-1]) & ~(PAGE - 1)
            kind = rng.choices((3, 2, 1), (20, 2, 1))[0]
            machine.unit.write(IVA, 8, page)
            machine.unit.write(IOTLB, 8, 1 << 63 | kind << 60 | 7 + device << 32)
            event = np.zeros(1, RECORD)
            event["kind"] = Kind.INVALIDATE if kind == 3 else Kind.FLUSH
            event["address"], event["asid"] = page, 0xFFFF if kind == 1 else device
            records.append(event)
    result = model.run(np.concatenate(records), outcomes=True)
    accesses = np.concatenate(records)["kind"] < Kind.FLUSH
    assert np.array_equal(result.outcomes["guest_references"][accesses], np.concatenate(asked))
    assert result["iotlb"].invalidations > 100
    same(machine, model, result)


def test_a_nested_walk_costs_what_the_model_says():
    """First level over second, 4 KiB both: 4 + 20 references for each miss."""
    rng = random.Random(24)
    model = TranslationModel(dtlb="32/4 name=iotlb", nested_levels=4, tagged=True)
    machine = UnitMachine(caches=geometry_of(model))
    for page in range(2048):
        machine.map(TOP, page * PAGE, page * PAGE)
    pages = rng.sample(range(1 << 20), 100)
    for page in pages:
        machine.map(FIRST, page * PAGE, DATA + page % 64 * PAGE, bits=7, table=7)
    machine.scalable(3, q2=0)
    asked = np.array([rng.choice(pages) * PAGE for _ in range(900)], np.uint64)
    columns = machine.unit.translate(SOURCE, asked, READ)
    assert not columns["status"].any()
    result = model.run(asked, outcomes=True)
    for column, outcome in (("references", "guest_references"), ("nested_references", "nested_references")):
        assert np.array_equal(columns[column], result.outcomes[outcome]), column
    assert result.walks > 100 and result.nested_references == 20 * result.walks
    same(machine, model, result)


@pytest.mark.parametrize("name", ["virtuoso-iommu", "vt-d-measured"])
def test_presets_are_geometries_of_a_unit(name):
    model = TranslationModel.preset(name)
    machine = machine_of(model)
    chunks = list(interleaved(random.Random(name), ring, ring, blocks))
    expected = through(machine, chunks)
    result = model.run(np.concatenate(chunks), outcomes=True)
    assert np.array_equal(result.outcomes["guest_references"], expected)
    same(machine, model, result)
    assert 0 < result["iotlb"].hits < result["iotlb"].lookups


def test_what_a_unit_has_not_got_is_named():
    for model in (TranslationModel.preset("gem5-smmuv3"), TranslationModel(dtlb="64/4"), TranslationModel(itlb="8")):
        with pytest.raises(ValueError, match=r"a unit has iotlb, .* the model also has '(utlb|dtlb|itlb)'"):
            geometry_of(model)
    assert geometry_of(TranslationModel()) == dict.fromkeys(("iotlb", "pde", "pdpte", "pml4e", "pml5e"))


def test_requests_end_with_their_page():
    rng = random.Random(5)
    for _ in range(200):
        size, count = rng.choice((1, 16, 2048, 4096, 4097, 9000, 70000)), rng.randrange(4)
        places = [rng.choice((rng.getrandbits(40), rng.getrandbits(20) << 12, 2**64 - rng.randrange(1, 9999)))
                  for _ in range(count)]  # fmt: skip
        expected = []
        for place in places:
            done = 0
            while done < size:
                at = (place + done) % 2**64
                piece = min(size - done, PAGE - at % PAGE)
                expected.append((at, piece, 3, Kind.STORE))
                done += piece
        found = requests_of(np.array(places, np.uint64), size, Kind.STORE, asid=3)
        assert [tuple(record) for record in found[["address", "size", "asid", "kind"]].tolist()] == expected
    with pytest.raises(ValueError, match="size must be positive, not 0"):
        requests_of([1], 0)


def test_a_device_shows_what_it_asks_for(tmp_path):
    """Live, by file, and by the unit's own counts: the same. A request that is blocked is one too."""
    file = tmp_path / "device.npy"
    live, again = (TranslationModel(dtlb="16/2 name=iotlb", tagged=True) for _ in range(2))
    with hv.Hypervisor(memory="16 MiB", processors=1, root_page_size="4 KiB") as hypervisor:
        unit = hypervisor.machine.attach_unit(driver="hypervisor", caches=geometry_of(live))
        device = hv.Device(hypervisor, requester_id=0x0308)
        rng = random.Random(6)
        with TraceWriter(file) as writer:
            device.attach(live, writer, domain=4)
            for _ in range(100):
                assert device.write(rng.randrange(8 << 20), bytes(rng.randrange(1, 9000))) is DmaStatus.DONE
                device.read(rng.randrange(8 << 20), rng.randrange(1, 100))
            device.read_batch(np.arange(0, 1 << 16, PAGE, dtype=np.uint64), bytearray(16 * 64))
            row = live.counters()["iotlb"]
            assert unit.counters()["structures"]["iotlb"] == (row.lookups, row.hits, row.misses, row.evictions, 0)
            assert device.write(1 << 40, b"lost") is DmaStatus.BLOCKED
            device.detach(writer)
            device.read(0, 1)
        lookups = live.counters().lookups
        assert lookups == unit.counters()["structures"]["iotlb"][0] == len(read_trace(file).read()) + 1
        device.detach()
        device.read(0, 1)
        assert live.counters().lookups == lookups
        shown = sum(device.counters[f"bytes_{done}"] for done in ("read", "written", "blocked")) - 2
    trace = read_trace(file).read()
    assert int(trace["size"].sum()) == shown and (trace["asid"] == 4).all()
    assert (trace["address"][-1], trace["kind"][-1]) == (1 << 40, Kind.STORE)
    again.run(read_trace(file))
    again.run(requests_of([0], 1, asid=4))
    assert again.counters() == live.counters()


def test_who_can_be_shown_something():
    model = TranslationModel()
    with hv.Hypervisor(memory="16 MiB", processors=1) as hypervisor:
        device = hv.Device(hypervisor, requester_id=0x0308)
        for listeners in ((model, model), (7,)):
            with pytest.raises((ValueError, TypeError), match=r"attached twice|consume\(records\), not int"):
                device.attach(*listeners)
        with pytest.raises(ValueError, match="domain must be 0 to 65534, not 65535"):
            device.attach(model, domain=0xFFFF)
        device.read(0, 1)
        assert model.counters().lookups == 0
        device.attach(model)
        assert device.read((1 << 64) - 1, 1) == b"\xff" and model.counters().lookups == 1
        device.detach(model)
        with pytest.raises(ValueError, match="not attached"):
            device.detach(model)
