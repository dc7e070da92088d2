"""Random operations on the interrupt platform and on the plain models beside it; every answer must be the same.

    python tests/irq/random_platform.py --count 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

from reference_ioapic import IoApic, Local
from reference_pic import Pair, bits
from reference_pit import Timer, clocks

from hvcore import Hypervisor
from hvcore._native.platform import InterruptPlatform

EOI_MSR = 0x4000_0070
PIC_PORTS = (0x20, 0x21, 0xA0, 0xA1)
ISA_LINES = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)


def nanoseconds(clock: int) -> int:
    """The first at which that many CLK pulses have passed."""
    now = clock * 1_000_000_000 // 1193182
    return now + (clocks(now) < clock)


def run_pit(count: int, rng: random.Random) -> None:
    """Counts, modes, latches and gates at random CLK pulses; short counts, so that everything ends often."""
    platform, model, now = InterruptPlatform(), Timer(), 0
    for step in range(count):
        kind = rng.randrange(10)
        if kind < 4:
            now = max(now, nanoseconds(model.passed + rng.choice((0, 1, 1, 2, 3, 5, 8, 13, 30, 200))))
            now += rng.randrange(800) if rng.random() < 0.3 else 0
            platform.advance(now)
            model.advance(now)
        elif kind < 6:
            port = rng.choice((0x40, 0x41, 0x42))
            write(platform, model, port, rng.choice((0, 1, 2, 3, 4, 5, 7, 16, 0x21, 0x99, rng.randrange(256))))
        elif kind == 6:
            word = rng.choice((rng.randrange(256), rng.choice((0, 0x40, 0x80)) | 0x10 | rng.randrange(16)))
            write(platform, model, 0x43, word)
        elif kind == 7:
            write(platform, model, 0x61, rng.randrange(256))
        else:
            port = rng.choice((0x40, 0x41, 0x42, 0x42, 0x43, 0x61))
            read, expected = platform.read_port(port), model.read(port)
            assert read == expected, f"step {step}: port {port:#x} reads {read:#x}, not {expected:#x}"
        counters = model.counters
        assert platform.counters()["timer_interrupts"] == counters[0].rising, f"step {step}: edges of OUT 0"
        assert platform.pin_level(2) == counters[0].out, f"step {step}: OUT 0"


def write(platform: InterruptPlatform, model: Timer | Pair, port: int, value: int) -> None:
    platform.write_port(port, value)
    model.write(port, value)


def run_pic(count: int, rng: random.Random) -> None:
    """Lines, commands, acknowledge cycles; an initialization now and then, mostly the usual one."""
    platform, model = InterruptPlatform(), Pair()
    for step in range(count):
        kind = rng.randrange(16)
        if step == 0 or (kind == 15 and rng.random() < 0.1):
            initialize(platform, model, rng)
        elif kind < 4:
            line, high = rng.choice(ISA_LINES), rng.random() < 0.6
            platform.set_pin(line, high)
            model.set_line(line, high)
        elif kind < 7:
            vector, expected = platform.acknowledge(), model.acknowledge()
            assert vector == expected, f"step {step}: vector {vector:#x}, not {expected:#x}"
        elif kind < 10:
            write(platform, model, rng.choice((0x20, 0xA0)), rng.randrange(8) << 5 | rng.randrange(8))
        elif kind == 10:
            write(platform, model, rng.choice((0x20, 0xA0)), 8 | rng.randrange(4) | rng.choice((0, 4, 0x40, 0x60)))
        elif kind == 11:
            write(platform, model, rng.choice((0x21, 0xA1)), rng.choice((0, rng.randrange(256))))
        elif kind == 12:
            write(platform, model, rng.choice((0x4D0, 0x4D1)), rng.randrange(256))
        else:
            port = rng.choice((*PIC_PORTS, 0x4D0, 0x4D1))
            read, expected = platform.read_port(port), model.read(port)
            assert read == expected, f"step {step}: port {port:#x} reads {read:#x}, not {expected:#x}"
        compare_pic(platform, model, step)


def initialize(platform: InterruptPlatform, model: Pair, rng: random.Random) -> None:
    usual = rng.random() < 0.7
    for port, base, wiring in ((0x20, 0x20, 4), (0xA0, 0x28, 2)):
        icw1 = 0x11 if usual else 0x10 | rng.randrange(16) | rng.choice((0, 0xE0))
        write(platform, model, port, icw1)
        write(platform, model, port + 1, base if usual else rng.randrange(256))
        if not icw1 & 2:
            write(platform, model, port + 1, wiring if usual or rng.random() < 0.8 else rng.randrange(256))
        if icw1 & 1:
            write(platform, model, port + 1, 1 if usual else rng.randrange(32))


def compare_pic(platform: InterruptPlatform, model: Pair, step: int) -> None:
    assert platform.intr == model.intr, f"step {step}: INTR"
    for found, chip in zip(platform.pics, (model.master, model.slave), strict=True):
        expected = (bits(chip.requests()), bits(chip.in_service), bits(chip.mask), chip.order[-1])
        assert (found["irr"], found["isr"], found["imr"], found["lowest"]) == expected, f"step {step}"


def run_ioapic(count: int, rng: random.Random) -> None:
    """Pins and entries of a machine with three processors, which acknowledge and end what they got."""
    hypervisor = Hypervisor(memory="64 MiB", processors=3)
    version = rng.choice((0x11, 0x20))
    platform = hypervisor.root.attach_platform(InterruptPlatform(version=version))
    chips = [vp.interrupts for vp in hypervisor.root.vps.values()]
    for chip in chips:
        chip.apic_enabled = True
    model = IoApic([Local(index) for index in range(3)], version)
    for step in range(count):
        kind = rng.randrange(12)
        if kind < 4:
            pin, high = rng.choice((3, 4, 5, 16, 17, 23)), rng.random() < 0.6
            platform.set_pin(pin, high)
            model.set_line(pin, high)
        elif kind < 7:
            index, value = entry_write(rng)
            platform.write_register(index, value)
            model.write(index, value)
        elif kind < 11:
            which = rng.randrange(3)
            use_processor(chips[which], model, which, rng)
        elif version >= 0x20:
            vector = rng.choice((0x30, 0x31, 0x41))
            platform.write_memory(0xFEC00040, vector)
            model.eoi(vector)
        index = rng.randrange(0x42)
        read, expected = platform.read_register(index), model.read(index)
        assert read == expected, f"step {step}: register {index:#x} reads {read:#x}, not {expected:#x}"
        compare_processors(chips, model, step)
    hypervisor.close()


def entry_write(rng: random.Random) -> tuple[int, int]:
    index = 0x10 + 2 * rng.choice((3, 4, 5, 16, 17, 23))
    if rng.random() < 0.3:
        return index + 1, rng.choice((0, 1, 2, 3, 0xFF)) << 24
    mode = rng.choice((0, 0, 0, 0, 1, 2, 4))
    vector = rng.choice((0x30, 0x31, 0x41, 0x5))
    flags = rng.choice((0, 1 << 13)) | rng.choice((0, 1 << 15)) | rng.choice((0, 0, 1 << 16)) | rng.choice((0, 1 << 12))
    return index, vector | mode << 8 | flags | rng.choice((0, 0, 0, 1 << 11))


def use_processor(chip: object, model: IoApic, which: int, rng: random.Random) -> None:
    local = model.locals[which]
    if rng.random() < 0.5:
        assert chip.acknowledge() == local.acknowledge()        # type: ignore[attr-defined]
        return
    chip.write_msr(EOI_MSR, 0, 0)                               # type: ignore[attr-defined]
    ended = local.eoi()
    if ended is not None:
        model.eoi(ended)


def compare_processors(chips: list[object], model: IoApic, step: int) -> None:
    for chip, local in zip(chips, model.locals, strict=True):
        assert chip.requested == sum(1 << vector for vector in local.requested), f"step {step}: IRR"  # type: ignore
        assert chip.in_service == sum(1 << vector for vector in local.in_service), f"step {step}: ISR"  # type: ignore
        assert chip.nmi_pending == local.nmi, f"step {step}: NMI"   # type: ignore[attr-defined]


RUNS: dict[str, Callable[[int, random.Random], None]] = {"pit": run_pit, "pic": run_pic, "ioapic": run_ioapic}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="operations in all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    stretch = 2000
    for number in range(-(-arguments.count // (stretch * len(RUNS)))):
        for name, run in RUNS.items():
            print(f"{name}: seed {arguments.seed + number}", flush=True)
            run(stretch, random.Random(arguments.seed + number))
    print("no difference")


if __name__ == "__main__":
    main()
