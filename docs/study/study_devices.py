"""Traces of device addresses for the study: real devices of hvcore at work behind a remapping unit.

`record` runs network adapters (a ring of descriptors with buffers of 2 KiB) and disks (VirtioBlock), each in a domain
of its own, and writes what they ask the unit for. `count_in_unit` sends such a trace through a unit of any geometry.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack

import numpy as np

import hvcore as hv
from hvcore.experiments import Kind, TraceWriter, TranslationModel
from hvcore.experiments.records import Records
from hvcore.iommu import RemappingUnit, geometry_of
from hvcore.memory import parse_size

PAGE, LARGE = 4096, 2 << 20
WINDOW = 32 << 20
"""What each device reaches: its addresses start at 0, the memory behind them is its own."""
FIRST_DOMAIN = 1
PACKETS = 6
"""For one request of a disk, if adapter and disk are to ask the unit about as often."""
_TABLES = 2 << 20
_MEMORY = 8 << 20


class Adapter(hv.Device):
    """A network adapter as an IOMMU sees it: for a packet in, a store into the next buffer of 2 KiB, and into its
    descriptor; for a packet out, a load of the descriptor and of the data. Descriptors are fetched four at a time."""

    RING = 512

    def prepare(self, base: int, rng: random.Random) -> None:
        """Rings of two pages each at address 0; buffers are halves of pages, in the order in which they were free."""
        self.base, self.rng, self.packets = base, rng, 0
        halves = [page * PAGE + half for page in rng.sample(range(16, WINDOW // PAGE), self.RING) for half in (0, 2048)]
        self.incoming, pool = halves[: self.RING], halves[self.RING :]
        rng.shuffle(pool)
        self.outgoing = pool

    def step(self) -> None:
        """A packet in; for every second one, a packet out."""
        slot = self.packets % self.RING
        self.packets += 1
        size = self.rng.choice((64, 590, 1514, 1514))
        self.receive(slot, size)
        if slot % 2:
            self.send(slot, size)

    def receive(self, slot: int, size: int) -> None:
        if slot % 4 == 0:
            self.read(16 * slot, 64)
        self.write(self.incoming[slot], bytes(size))
        self.write(16 * slot, bytes(16))

    def send(self, slot: int, size: int) -> None:
        ring = 2 * PAGE
        if slot % 4 == 1:
            self.read(ring + 16 * (slot & ~3), 64)
        self.read(self.outgoing[slot], size)
        self.write(ring + 16 * slot, bytes(16))


class Disk(hv.VirtioBlock):
    """A virtio disk with a driver that reads and writes 4 to 64 KiB in scattered pages, as a page cache does."""

    QUEUE = 256
    HEADERS = 3 * PAGE

    def prepare(self, base: int, rng: random.Random) -> None:
        """Set it up by its registers (virtio 1.2, 4.1.5); the queue and the headers lie at addresses 0 to 7FFFh."""
        self.base, self.rng, self.offered_requests = base, rng, 0
        self.pages = rng.sample(range(16, WINDOW // PAGE), 2048)
        self.set(4, 2, 6)
        registers = self.bars[0].registers
        features = 1 << 32 | 1 << 33
        for offset, size, value in (
            (0x14, 1, 3), (0x08, 4, 0), (0x0C, 4, features & 0xFFFFFFFF), (0x08, 4, 1), (0x0C, 4, features >> 32),
            (0x14, 1, 11), (0x16, 2, 0), (0x18, 2, self.QUEUE), (0x20, 8, 0), (0x28, 8, PAGE), (0x30, 8, 2 * PAGE),
            (0x1C, 2, 1), (0x14, 1, 15),
        ):  # fmt: skip
            registers.write(offset, size, value)

    def store(self, iova: int, data: bytes) -> None:
        """As the driver does, past the unit."""
        self.hypervisor.memory.write(self.base + iova, data)

    def step(self) -> None:
        """One request, in its slot of the headers, its descriptors behind those of the one before."""
        count, is_read = 1 << self.rng.randrange(5), self.rng.random() < 0.7
        slot = self.HEADERS + 32 * (self.offered_requests % 64)
        sector = 8 * self.rng.randrange(self.disk.sectors // 8 - count)
        self.store(slot, pack("<IIQ", 0 if is_read else 1, 0, sector))
        parts = [(slot, 16, 0), *((PAGE * page, PAGE, 2 * is_read) for page in self.rng.sample(self.pages, count))]
        parts.append((slot + 16, 1, 2))
        first = 32 * self.offered_requests % self.QUEUE
        for i, (iova, size, flags) in enumerate(parts):
            more = i + 1 < len(parts)
            self.store(16 * (first + i), pack("<QIHH", iova, size, flags | more, first + i + 1 if more else 0))
        self.store(PAGE + 4 + 2 * (self.offered_requests % self.QUEUE), pack("<H", first))
        self.offered_requests += 1
        self.store(PAGE + 2, pack("<H", self.offered_requests & 0xFFFF))
        self.notify(0)
        assert self.status_bits == 15, "the device found the ring broken"


def build_tables(hypervisor: hv.Hypervisor, devices: int, page_size: int | str) -> tuple[int, list[int]]:
    """Root, contexts and second-level tables of domains 1, 2, ...: the root table, and where each one's memory is."""
    memory, root = hypervisor.memory, _TABLES
    contexts, free = root + PAGE, root + 2 * PAGE
    memory.write(root, pack("<QQ", contexts | 1, 0))
    bases = [_MEMORY + WINDOW * device for device in range(devices)]
    for device, base in enumerate(bases):
        top, third, second = free, free + PAGE, free + 2 * PAGE
        free += 3 * PAGE
        memory.write(top, pack("<Q", third | 3))
        memory.write(third, pack("<Q", second | 3))
        regions = base + LARGE * np.arange(WINDOW // LARGE, dtype=np.uint64) | np.uint64(0x83)
        if parse_size(page_size, "page_size") == PAGE:
            pages = base + PAGE * np.arange(WINDOW // PAGE, dtype=np.uint64) | np.uint64(3)
            memory.write(free, pages.tobytes())
            regions = free + PAGE * np.arange(WINDOW // LARGE, dtype=np.uint64) | np.uint64(3)
            free += PAGE * (WINDOW // LARGE)
        memory.write(second, regions.tobytes())
        memory.write(contexts + 16 * requester(device), pack("<QQ", top | 1, 2 | FIRST_DOMAIN + device << 8))
    return root, bases


def requester(device: int) -> int:
    """Bus 0, device 4 and up."""
    return 4 + device << 3


def switch_on(unit: RemappingUnit, root: int) -> None:
    """What a driver writes into the unit."""
    unit.write(0x20, 8, root)
    unit.write(0x18, 4, 1 << 30)
    unit.write(0x18, 4, 1 << 31)


@contextmanager
def machine(devices: int, page_size: int | str) -> Iterator[tuple[hv.Hypervisor, int, list[int]]]:
    """A root partition with tables for so many devices."""
    with hv.Hypervisor(memory=_MEMORY + WINDOW * devices, processors=1) as hypervisor:
        yield hypervisor, *build_tables(hypervisor, devices, page_size)


def record(kinds: str, steps: int, model: TranslationModel, path: Path | None = None, seed: int = 1) -> Records:
    """Run devices, "n" for an adapter and "d" for a disk, in random turns behind a unit that remembers as `model` does.

    Returns what they asked for; `path` gets it too. Raises AssertionError if model and unit, which both saw it, do not
    count the same.
    """
    rng, heard = random.Random(seed), Recorder()
    with machine(len(kinds), "4 KiB") as (hypervisor, root, bases):
        devices: list[Adapter | Disk] = []
        for number, kind in enumerate(kinds):
            if kind == "n":
                devices.append(Adapter(hypervisor, requester_id=requester(number)))
            else:
                devices.append(Disk(hypervisor, bytearray(16 << 20), requester_id=requester(number)))
        unit = hypervisor.machine.attach_unit(caches=geometry_of(model))
        switch_on(unit, root)
        for number, (device, base) in enumerate(zip(devices, bases, strict=True)):
            device.prepare(base, random.Random(f"{seed} {number}"))
            device.attach(model, heard, domain=FIRST_DOMAIN + number)
        for _ in range(steps):
            rng.choices(devices, [PACKETS if kind == "n" else 1 for kind in kinds])[0].step()
        compare(unit, model)
        assert not unit.counters()["faults"]
    trace = np.concatenate(heard.chunks)
    if path is not None:
        with TraceWriter(path) as writer:
            writer.write(trace)
    return trace


class Recorder:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.chunks: list[Records] = []

    def consume(self, records: Records) -> None:
        self.chunks.append(records)


def compare(unit: RemappingUnit, model: TranslationModel) -> None:
    """The IOTLB has counted the same in both, and the same entries were read."""
    counted, row = unit.counters(), model.counters()["iotlb"]
    found = counted["structures"]["iotlb"][:3]
    assert found == (row.lookups, row.hits, row.misses), f"the unit counts {found}, the model {row}"
    assert counted["second_level_references"] == model.counters().guest_references


def count_in_unit(trace: Records, model: TranslationModel, page_size: int | str) -> RemappingUnit:
    """A unit that remembers as `model` does, behind which the trace was asked for once more."""
    devices = int(trace["asid"].max()) - FIRST_DOMAIN + 1
    starts = np.flatnonzero(np.diff(trace["asid"], prepend=0) | np.diff(trace["kind"], prepend=0)).tolist()
    with machine(devices, page_size) as (hypervisor, root, _):
        unit = RemappingUnit(hypervisor.memory, hypervisor.root.space, caches=geometry_of(model))
        switch_on(unit, root)
        for first, last in zip(starts, [*starts[1:], len(trace)], strict=True):
            access = 2 if trace["kind"][first] == Kind.STORE else 1
            source = requester(int(trace["asid"][first]) - FIRST_DOMAIN)
            found = unit.translate(source, trace["address"][first:last].copy(), access, columns=("status",))
            assert not found["status"].any()
    return unit
