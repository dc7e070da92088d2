"""A driver in C as guest code: the unit brought up and used as operating systems do (driver/*.c; issue 6, point 7)."""

from __future__ import annotations

from pathlib import Path
from struct import unpack
from typing import Any

import pytest
from freestanding import COMPILER, build

import hvcore
from hvcore._native.iommu import PRESETS, Geometry
from hvcore.boot.long_mode import enter_long_mode
from hvcore.hypervisor import Hypervisor
from hvcore.machine.device import Device, DmaStatus

DRIVER = Path(__file__).with_name("driver")
CODE, REPORT, DMAR, STACK, ENGINE = 0x10000, 0x8000, 0x9000, 0x1F0000, 0xFED80000
GOOD = 0x600D
NO_PASID = (1 << 64) - 1
SCENARIOS = (
    "by_register", "by_queue", "large_pages", "fault_events", "contexts", "queue_errors", "take_over", "protection",
    "addresses", "messages", "blocked_messages", "posting", "pins", "wide_destinations",
    "second_level", "first_level", "nesting", "passing", "pasids",
    "low_half_first", "high_half_first", "whole_table", "other_mode",
)  # fmt: skip
CAP, ECAP = PRESETS["full"]
UNITS: dict[str, dict[str, Any]] = {
    "full": {},
    "qemu": {"preset": "qemu-q35"},
    "caching": {"caching_mode": True},
    "legacy": {"scalable": False},
    "no caches": {"caches": None},
    "small caches": {"caches": dict.fromkeys(("contexts", "pasids", "iotlb", "pde", "interrupts"), Geometry(1, 2))},
    "write buffer, 39 bits, no PSI": {"cap": CAP & ~(1 << 39 | 12 << 8 | 63 << 16) | 1 << 4 | 38 << 16,
                                      "scalable": False},
    "one record": {"cap": CAP & ~(255 << 40)},
    # No protected memory, zero-length reads, 1 GiB pages, posting, pointers that invalidate; no device TLBs, extended
    # interrupt mode, pass-through, snoop control.
    "few capabilities": {"cap": CAP & ~(3 << 5 | 1 << 22 | 2 << 34 | 1 << 59 | 3 << 62),
                         "ecap": ECAP & ~(1 << 2 | 1 << 4 | 1 << 6 | 1 << 7)},
    "no queue, no remapping": {"ecap": ECAP & ~(1 << 1 | 1 << 3 | 1 << 4 | 1 << 43), "cap": CAP & ~(1 << 59)},
}


class Engine:
    """A device that the guest drives: requester, PASID, address, data, command, status, eight bytes each."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self.hypervisor = hypervisor
        self.devices: dict[int, Device] = {}
        self.words = [0] * 6

    def read(self, offset: int, _size: int) -> int:
        return self.words[offset // 8]

    def write(self, offset: int, _size: int, value: int) -> None:
        self.words[offset // 8] = value
        if offset == 32:
            self.words[5] = int(self.act(value & 0xFF, value >> 8))

    def act(self, size: int, kind: int) -> bool:
        """Whether it was blocked."""
        source, pasid, address, data = self.words[:4]
        if kind == 4:
            self.hypervisor.machine.set_line(address, bool(data))
            return False
        device = self.devices.get(source)
        if device is None:
            device = self.devices[source] = Device(self.hypervisor, requester_id=source)
        if kind == 3:
            return device.write(address, data.to_bytes(4, "little")) is not DmaStatus.DONE
        if pasid != NO_PASID:
            unit = self.hypervisor.machine.unit
            assert unit is not None and kind == 1
            faults = unit.counters()["faults"]
            self.words[3] = int.from_bytes(unit.read_memory(source, address, size, pasid=pasid), "little")
            return bool(unit.counters()["faults"] != faults)
        if kind == 2:
            return device.write(address, data.to_bytes(size, "little")) is not DmaStatus.DONE
        self.words[3] = int.from_bytes(device.read(address, size), "little")
        return device.status is not DmaStatus.DONE


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if COMPILER is None:
        pytest.skip("no gcc")
    where = tmp_path_factory.mktemp("driver") / "driver.bin"
    sources = [DRIVER / "main.c", *sorted(set(DRIVER.glob("*.c")) - {DRIVER / "main.c"})]  # the entry comes first
    return build(sources, where, text=CODE, options=["-Wl,--oformat=binary", "-Wl,--no-warn-rwx-segments"])


@pytest.mark.parametrize("options", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_driver(program: bytes, scenario: str, options: dict[str, Any]) -> None:
    with hvcore.Hypervisor(memory="16 MiB", processors=1) as hypervisor:
        machine = hypervisor.machine
        machine.attach_unit(**options)
        machine.memory.attach(Engine(hypervisor), gpa=ENGINE, size=0x1000)
        hypervisor.memory.write(CODE, program)
        hypervisor.memory.write(DMAR, machine.dmar())
        vp = hypervisor.root.vps[0]
        enter_long_mode(hypervisor.root, vp, rip=CODE, rsp=STACK - 8, identity_map="8 GiB")
        vp.rdi, vp.rsi, vp.rdx = SCENARIOS.index(scenario), DMAR, ENGINE
        vp.explicit_suspend = False
        stopped = vp.run(max_instructions=5_000_000)
        magic, line, found, file = unpack("<3Q16s", hypervisor.memory.read(REPORT, 40))
        where = f"{file.rstrip(bytes(1)).decode()}:{line}"
        assert type(stopped).__name__ == "Halt" and magic == GOOD, (where, hex(found), stopped, hex(vp.rip))
