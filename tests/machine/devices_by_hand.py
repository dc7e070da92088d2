"""A driver for tests, in Python: reaches devices by the buses alone, with offsets out of the specifications."""

from __future__ import annotations

from random import Random
from struct import pack, unpack

from hvcore.hypervisor import Hypervisor

PAGE = 4096


class Configuration:
    """Configuration space of one function, by ECAM."""

    def __init__(self, hypervisor: Hypervisor, requester_id: int) -> None:
        self.machine = hypervisor.machine
        self.base = self.machine.pci.ecam + (requester_id << 12)

    def read(self, offset: int, size: int) -> int:
        return self.machine.memory.read(self.base + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self.machine.memory.write(self.base + offset, size, value)

    def capabilities(self) -> list[tuple[int, int]]:
        """(id, offset) along the list."""
        found, at = [], self.read(0x34, 1)
        while at:
            found.append((self.read(at, 1), at))
            at = self.read(at + 1, 1)
        return found

    def bar(self, index: int) -> int:
        low = self.read(0x10 + 4 * index, 4)
        return low & ~15 | (self.read(0x14 + 4 * index, 4) << 32 if low & 6 == 4 else 0)


class BlockDriver:
    """Virtio-blk as virtio 1.2 tells a driver to do it. Rings and buffers lie at `base` in root RAM."""

    SIZE = 8

    def __init__(self, hypervisor: Hypervisor, requester_id: int, *, base: int = 0x100000, features: int = 0) -> None:
        self.hypervisor = hypervisor
        self.memory = hypervisor.memory
        self.bus = hypervisor.machine.memory
        self.configuration = Configuration(hypervisor, requester_id)
        self.configuration.write(4, 2, 6)
        places = {}
        for kind, at in self.configuration.capabilities():
            if kind == 9:
                places[self.configuration.read(at + 3, 1)] = self.configuration.bar(
                    self.configuration.read(at + 4, 1)
                ) + self.configuration.read(at + 8, 4)
        self.common, self.notify, self.isr, self.device = (places[kind] for kind in (1, 2, 3, 4))
        self.table, self.available, self.used = base, base + PAGE, base + 2 * PAGE
        self.buffers = base + 3 * PAGE
        self.next = self.seen = 0
        self.features = 1 << 32 | features

    def get(self, offset: int, size: int) -> int:
        return self.bus.read(self.common + offset, size)

    def put(self, offset: int, size: int, value: int) -> None:
        self.bus.write(self.common + offset, size, value)

    def offered(self) -> int:
        words = []
        for select in (0, 1):
            self.put(0, 4, select)
            words.append(self.get(4, 4))
        return words[0] | words[1] << 32

    def start(self, vector: int = 0xFFFF) -> None:
        self.put(0x14, 1, 0)
        self.put(0x14, 1, 1)
        self.put(0x14, 1, 3)
        for select in (0, 1):
            self.put(8, 4, select)
            self.put(12, 4, self.features >> 32 * select & 0xFFFFFFFF)
        self.put(0x14, 1, 11)
        assert self.get(0x14, 1) == 11
        self.put(0x16, 2, 0)
        self.put(0x18, 2, self.SIZE)
        self.put(0x1A, 2, vector)
        for offset, address in ((0x20, self.table), (0x28, self.available), (0x30, self.used)):
            self.put(offset, 8, address)
        self.put(0x1C, 2, 1)
        self.put(0x14, 1, 15)

    def describe(self, index: int, address: int, size: int, flags: int = 0, following: int = 0) -> None:
        self.memory.write(self.table + 16 * index, pack("<QIHH", address, size, flags, following))

    def offer(self, head: int) -> None:
        self.memory.write(self.available + 4 + 2 * (self.next % self.SIZE), pack("<H", head))
        self.next = self.next + 1 & 0xFFFF
        self.memory.write(self.available + 2, pack("<H", self.next))

    def kick(self) -> None:
        self.bus.write(self.notify, 2, 0)

    def request(self, kind: int, sector: int, data: bytes | int = b"") -> tuple[int, bytes]:
        """Status, and what was read when `data` is a number of bytes."""
        header, body, status = self.buffers, self.buffers + PAGE, self.buffers + 64
        self.memory.write(header, pack("<IIQ", kind, 0, sector))
        self.memory.write(status, b"\xee")
        if isinstance(data, bytes):
            self.memory.write(body, data)
        size = data if isinstance(data, int) else len(data)
        self.describe(0, header, 16, 1, 1 if size else 2)
        self.describe(1, body, size, 1 | (2 if isinstance(data, int) else 0), 2)
        self.describe(2, status, 1, 2)
        self.offer(0)
        self.kick()
        return self.memory.read(status, 1)[0], self.memory.read(body, size)

    def base_of(self, rng: Random) -> int:
        """An address that a hostile driver might choose, outside the canary at 800000h."""
        return rng.choice((self.buffers, self.table, self.used, self.buffers + PAGE, 1 << 40, 2**64 - 16, 0))

    def completed(self) -> list[tuple[int, int]]:
        """(head, bytes written) of what came back since the last call."""
        found = []
        index = unpack("<H", self.memory.read(self.used + 2, 2))[0]
        while self.seen != index:
            found.append(unpack("<II", self.memory.read(self.used + 4 + 8 * (self.seen % self.SIZE), 8)))
            self.seen = self.seen + 1 & 0xFFFF
        return found
