"""Random operations on several local APICs, native and in the model of reference_apic.py, compared at every step.

    python tests/irq/random_apic.py --count 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from reference_apic import LVTS, TIMER, Apic, Machine, Refused

from hvcore._native.irqchip import InterruptController, InterruptFabric

IDENTITIES = (0, 1, 2, 17, 18, 300)
REGISTERS = [*(0x32, 0x35) * 6, 2, 3, *range(8, 0x3A), 0x3E, 0x3F]
ROUND = 5000
"""Operations before everything is made anew."""


class Pair:
    """A machine of each kind, and the one operation that both do next."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.fabric = InterruptFabric()
        self.native = [self.fabric.add(InterruptController(
            apic_id=identity, message_page=bytearray(4096), event_page=bytearray(4096))) for identity in IDENTITIES]
        self.model = Machine(IDENTITIES)
        self.vectors = [*rng.sample(range(16, 256), 6), rng.randrange(16)]
        for apic, controller in zip(self.model.apics, self.native, strict=True):
            if rng.random() < 0.8:
                apic.write(0xF, 0x1FF)
                controller.apic.write(0xF0, 0x1FF)

    def step(self) -> str:
        """Do something; what it was."""
        which = self.rng.randrange(len(IDENTITIES))
        name = self.rng.choices(*zip(*OPERATIONS.items(), strict=True))[0]
        getattr(self, name)(self.model.apics[which], self.native[which])
        return name

    def value(self, register: int) -> int:
        """Something that makes sense for a register, mostly."""
        rng = self.rng
        if rng.random() < 0.1:
            return rng.getrandbits(32)
        vector = rng.choice(self.vectors)
        if register == TIMER:
            return vector | rng.choice([0, 0, 1 << 17, 1 << 17, 2 << 17, 3 << 17]) | (rng.random() < 0.2) << 16
        if register in LVTS:
            return vector | rng.choice([0, 0, 0, 4, 5, 7, 2, 3]) << 8 | rng.getrandbits(1) << 15 \
                | (rng.random() < 0.3) << 16
        if register in (0x30, 0x31):
            return self.command() if register == 0x30 else self.destination() << 24 & 0xFFFF_FFFF
        choices = {8: rng.choice([0, 0, rng.randrange(256)]), 0xB: 0, 0xD: rng.getrandbits(8) << 24, 0x28: 0,
                   0xE: rng.choice([0xFFFF_FFFF, 0x0FFF_FFFF]), 0x38: rng.choice([0, 3, 20, 500, 1 << 31]),
                   0xF: rng.choice([0x1FF, 0x1FF, 0x1FF, 0x3FF, 0x11FF, 0xFF]), 0x3E: rng.choice([0, 1, 3, 8, 11]),
                   0x3F: vector}  # fmt: skip
        return choices.get(register, rng.getrandbits(32))

    def command(self) -> int:
        rng = self.rng
        mode = rng.choice([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7])
        return (rng.choice(self.vectors) | mode << 8 | rng.getrandbits(1) << 11 | rng.getrandbits(2) << 14
                | rng.choice([0, 0, 0, 1, 2, 3]) << 18)  # fmt: skip

    def destination(self) -> int:
        return self.rng.choice([*IDENTITIES, 0xFF, 0xFFFF_FFFF, self.rng.getrandbits(8), 1 << 16 | 6, 7])

    # Operations.

    def page(self, apic: Apic, controller: InterruptController) -> None:
        if not apic.on or apic.x2:
            return
        register = self.rng.choice(REGISTERS)
        if self.rng.random() < 0.3:
            assert controller.apic.read(register * 16) == apic.read(register), hex(register)
        else:
            value = self.value(register)
            apic.write(register, value)
            controller.apic.write(register * 16, value)

    def msr(self, apic: Apic, controller: InterruptController) -> None:
        register = self.rng.choice([*REGISTERS, 0, 0x40, 0xFF])
        if self.rng.random() < 0.3:
            try:
                expected: int | None = apic.rdmsr(register)
            except Refused:
                expected = None
            assert controller.apic.read_msr(0x800 + register) == expected, hex(register)
            return
        value = self.value(register)
        if register == 0x30:
            value |= self.destination() << 32
        try:
            apic.wrmsr(register, value)
            done = True
        except Refused:
            done = False
        assert controller.apic.write_msr(0x800 + register, value) is done, (hex(register), hex(value))

    def command_register(self, apic: Apic, controller: InterruptController) -> None:
        command, destination = self.command(), self.destination()
        if apic.x2:
            apic.wrmsr(0x30, destination << 32 | command)
            assert controller.apic.write_msr(0x830, destination << 32 | command)
        elif apic.on:
            for register, value in ((0x31, destination << 24 & 0xFFFF_FFFF), (0x30, command)):
                apic.write(register, value)
                controller.apic.write(register * 16, value)

    def end(self, apic: Apic, controller: InterruptController) -> None:
        apic.eoi()
        controller.write_msr(0x40000070, 0, 0)

    def take(self, apic: Apic, controller: InterruptController) -> None:
        assert controller.pending_vector() == apic.pending()
        assert controller.acknowledge() == apic.take()
        assert controller.acknowledge_nmi() == apic.nmi
        apic.nmi = False
        if self.rng.random() < 0.2:
            assert controller.apic.take_reset_messages() == apic.take_reset_messages()

    def base(self, apic: Apic, controller: InterruptController) -> None:
        value = self.rng.choice([0xFEE00800, 0xFEE00C00, 0xFEE00000, 0xFEE00400, 0xFEE00900, 0xFEE00801,
                                 0xFEE00D00, 0x1000800, 1 << 46 | 0x800])  # fmt: skip
        try:
            apic.set_base(value)
            done = True
        except Refused:
            done = False
        assert controller.apic.write_msr(0x1B, value) is done, hex(value)
        if done and value & 0x800 and self.rng.random() < 0.9:      # or soon all of them are disabled
            apic.put(0xF, 0x1FF)
            assert controller.apic.write_msr(0x80F, 0x1FF) if apic.x2 else not controller.apic.write(0xF0, 0x1FF)

    def pins(self, apic: Apic, controller: InterruptController) -> None:
        pin, asserted = self.rng.randrange(2), self.rng.random() < 0.5
        assert controller.apic.set_pin(pin, asserted) == apic.set_pin(pin, asserted)

    def sources(self, apic: Apic, controller: InterruptController) -> None:
        entry, register = self.rng.choice([(1, 0x33), (2, 0x34), (6, 0x2F)])
        assert controller.apic.raise_local(entry) == apic.local(register)

    def device(self, apic: Apic, controller: InterruptController) -> None:
        address = 0xFEE00000 | (self.destination() & 0xFF) << 12 | self.rng.getrandbits(2) << 2
        data = self.rng.choice(self.vectors) | self.rng.choice([0, 0, 0, 1, 4, 5, 6, 7]) << 8 \
            | self.rng.getrandbits(2) << 14
        self.model.message(address, data)
        self.fabric.send_msi(address, data)

    def time(self, apic: Apic, controller: InterruptController) -> None:
        to = self.model.now + self.rng.choice([0, 1, 7, 100, 1500])
        self.model.advance(to)
        self.fabric.now = to

    def deadline(self, apic: Apic, controller: InterruptController) -> None:
        value = self.rng.choice([0, 1, self.model.now + self.rng.randrange(1000), (1 << 64) - 1])
        if apic.mode() == "deadline":
            apic.deadline = value
        controller.apic.write_msr(0x6E0, value)

    def image(self, apic: Apic, controller: InterruptController) -> None:
        """Its own image changes nothing but the prescaler, which starts over."""
        controller.apic.restore(controller.apic.state())
        apic.count, apic.since = apic.current() or None, self.model.now

    def compare(self) -> None:
        """Everything that can be seen."""
        self.model.advance(self.model.now)
        self.fabric.now = self.model.now
        for apic, controller in zip(self.model.apics, self.native, strict=True):
            assert controller.apic.state() == image(apic), apic.number
            seen = (controller.processor_priority, controller.pending_vector(), controller.nmi_pending,
                    controller.apic.external_pending, controller.apic.read_msr(0x1B), controller.apic.read_msr(0x6E0))
            assert seen == (apic.ppr(), apic.pending(), apic.nmi, apic.takes_external(), apic.base, apic.deadline)


OPERATIONS = {"page": 20, "msr": 16, "command_register": 12, "end": 8, "take": 12, "base": 1, "pins": 4, "sources": 3,
              "device": 8, "time": 10, "deadline": 2, "image": 2}  # fmt: skip


def image(apic: Apic) -> bytes:
    """The state image of hyperv-abi 10.4."""
    words = [apic.id, 0x01060014, apic.get(0xD), apic.dfr, apic.svr]
    words += [apic.get(register) for register in range(0x10, 0x28)]
    words += [apic.esr, apic.icr >> 32, apic.icr & 0xFFFF_FFFF]
    words += [apic.lvt[which] for which in LVTS]
    return struct.pack("<44I", *words, apic.errors, apic.initial, apic.current(), apic.divide, 0)


def run(count: int, seed: int) -> Counter[str]:
    """How often each operation was done; an AssertionError is a difference."""
    rng, done = random.Random(seed), Counter[str]()
    for number in range(count):
        if number % ROUND == 0:
            pair = Pair(rng)
        name = "?"
        try:
            name = pair.step()
            if number % 8 == 0:
                pair.compare()
        except AssertionError as difference:
            raise AssertionError(f"seed {seed}, operation {number} ({name}): {difference}") from difference
        done[name] += 1
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for name, times in sorted(run(arguments.count, arguments.seed).items()):
        print(f"{name:20}{times:12,}")


if __name__ == "__main__":
    main()
