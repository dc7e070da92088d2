"""Random code and random page tables: whatever a guest does, the host lives, every run ends in a legal exit, and no
byte outside the partition's own memory changes.

HVCORE_FUZZ_SECONDS makes the search longer; a failure names its seed.
"""

from __future__ import annotations

import os
import random
import time

from support import CODE, IDT, RAM, STUBS, TABLES, Guest, code, gate, q

from hvcore._native import exits
from hvcore._native.exits import IoPort, Mmio, Msr
from hvcore.enums import Privilege
from hvcore.hypervisor import Hypervisor

SECONDS = float(os.environ.get("HVCORE_FUZZ_SECONDS", "8"))
SEED = 1
INSTRUCTIONS = 1_000_000
LEGAL = tuple(
    getattr(exits, name)
    for name in ("Budget", "Halt", "IoPort", "Mmio", "GpaViolation", "Msr", "Cpuid", "TripleFault", "Unsupported")
)
# Adds to the RIP of the frame and returns: for exceptions without and with an error code.
SKIP = code("4883042401 48cf")
SKIP_CODE = code("488344240801 4883c408 48cf")
WITH_CODE = (8, 10, 11, 12, 13, 14, 17)
CANARY = bytes(range(256)) * 16
ROOT_CANARIES = (0x10000, 0x400000)


class Arena:
    """A fuzzed guest, its neighbour, and canaries in the root's RAM and in the neighbour."""

    def __init__(self) -> None:
        self.hypervisor = Hypervisor(memory="64 MiB", processors=1)
        self.neighbour = self.hypervisor.root.create_partition().map_memory(gpa=0, size="2 MiB")
        self.guest = Guest(hypervisor=self.hypervisor, privileges=sum(Privilege))
        self.second = self.hypervisor.root.create_partition().map_memory(gpa=0, size="2 MiB")
        for region in (self.neighbour, self.second):
            region[0 : 2 << 20] = CANARY * 512
        for spa in ROOT_CANARIES:
            self.hypervisor.memory.write(spa, CANARY)
        self.clean = self.guest.ram[0:RAM]

    def check(self) -> None:
        for region in (self.neighbour, self.second):
            assert region[0 : 2 << 20] == CANARY * 512
        for spa in ROOT_CANARIES:
            assert self.hypervisor.memory.read(spa, 4096) == CANARY

    def prepare(self, rng: random.Random, *, user: bool) -> None:
        """Everything clean, a handler that skips a byte on an IST stack, random registers."""
        guest, vp = self.guest, self.guest.vp
        guest.ram[0:RAM] = self.clean
        for vector in range(32):
            guest.write(IDT + 16 * vector, gate(STUBS + 16 * vector, ist=1, kind=0xEE))
            guest.write(STUBS + 16 * vector, SKIP_CODE if vector in WITH_CODE else SKIP)
        vp.interrupts.reset()
        guest.enter(vp, user=user)
        for name in ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r15"):
            setattr(vp, name, rng.choice((rng.getrandbits(64), rng.randrange(RAM), rng.getrandbits(8), CODE)))

    def run(self, rng: random.Random, instructions: int) -> None:
        """To the end of the budget, answering what is asked, but not for long where nothing moves."""
        vp = self.guest.vp
        for _ in range(40):
            exit_ = vp.run(max_instructions=instructions)
            assert isinstance(exit_, LEGAL), exit_
            if isinstance(exit_, IoPort | Mmio | Msr):
                if not exit_.write:
                    exit_.complete(rng.getrandbits(8 * exit_.size))
            elif not isinstance(exit_, exits.Cpuid):
                return


def random_code(rng: random.Random, size: int) -> bytes:
    """Bytes, with a bias to prefixes and to the two-byte map, and short branches."""
    made = bytearray(rng.randbytes(size))
    for _ in range(size // 8):
        made[rng.randrange(size)] = rng.choice((0x48, 0x66, 0xF2, 0xF3, 0x0F, 0xF0, 0x0F, 0x4C))
    made[-2:] = b"\xeb\x80"
    return bytes(made)


def random_entry(rng: random.Random) -> int:
    address = rng.choice((TABLES, TABLES + 0x1000, TABLES + 0x2000, rng.randrange(RAM), rng.getrandbits(46)))
    return address & ~0xFFF | rng.choice((7, 7, 7, 3, 5, 0x87, rng.getrandbits(12))) | rng.choice((0, 0, 0, 1 << 63))


def rounds(name: str) -> int:
    """Instructions that ran in all, in random rounds until the time and the count are reached."""
    arena = Arena()
    done, number, end = 0, 0, time.monotonic() + SECONDS / 3
    while done < INSTRUCTIONS // 3 or time.monotonic() < end:
        rng = random.Random(f"{SEED} {name} {number}")
        print(f"seed {SEED} {name} {number}")
        arena.prepare(rng, user=name == "user")
        arena.guest.write(CODE, random_code(rng, 4096 + 64))
        if name == "tables":
            for _ in range(rng.randrange(1, 40)):
                table = rng.choice((TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x10000))
                arena.guest.write(table + 8 * rng.choice((0, 1, rng.randrange(512))), q(random_entry(rng)))
            if number % 8 == 7:
                arena.guest.vp.cr3 = rng.choice((CODE, rng.randrange(RAM), rng.getrandbits(45))) & ~0xFFF
        before = arena.guest.vp.counters()["runtime_ticks"]
        arena.run(rng, 20_000)
        done += arena.guest.vp.counters()["runtime_ticks"] - before
        number += 1
        if number % 16 == 0:
            arena.check()
        assert number < 100_000
    arena.check()
    return done


def test_random_code_at_cpl_0() -> None:
    assert rounds("kernel") >= INSTRUCTIONS // 3


def test_random_code_at_cpl_3() -> None:
    assert rounds("user") >= INSTRUCTIONS // 3


def test_random_page_tables() -> None:
    assert rounds("tables") >= INSTRUCTIONS // 3
