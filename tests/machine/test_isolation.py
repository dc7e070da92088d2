"""Isolation under change: two devices, two partitions, and every way to map, unmap, give, take and translate.

A stateful property test (hypothesis). The model is a dictionary a device: what each page of its addresses should show.
Every page of memory that nobody here owns is a canary, as are the pages of the other partition: no device may read
or change one, whatever happened before. `python tests/machine/test_isolation.py --count 1000` runs longer.
"""

from __future__ import annotations

import argparse
import sys
from struct import pack

import pytest

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Phase, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hvcore.enums import Status  # noqa: E402
from hvcore.hypervisor import Hypervisor  # noqa: E402
from hvcore.machine.device import Device, DmaStatus  # noqa: E402

PAGES = 6
"""Of each partition, GPA pages 0 to 5. Device addresses use the same numbers, and 8 to 13 beside them."""
WINDOW = 14
CANARIES = 4
SECOND, FIRST, NULL = 0, 1, 0xFFFF_FFFF
HEAD = "<QB7xII"

partitions = st.integers(0, 1)
devices = st.integers(0, 1)
numbers = st.sampled_from([1, 2])
gpns = st.integers(0, PAGES - 1)
iovas = st.integers(0, WINDOW - 1)
rights = st.sampled_from([1, 3])


class Isolation(RuleBasedStateMachine):
    """The model: `owner` of each device, `domain` of each, `maps` of each domain, and what each partition still has."""

    @initialize(caches=st.booleans())
    def begin(self, caches):
        self.hypervisor = Hypervisor(memory="16 MiB", processors=1)
        self.root = self.hypervisor.root
        self.memory = self.hypervisor.memory
        options = {} if caches else {"caches": None}
        self.unit = self.hypervisor.machine.attach_unit(driver="hypervisor", **options)
        first = self.hypervisor.free_pages.allocate(CANARIES)
        self.canaries = {first + i: bytes([0xC0 + i]) * 4096 for i in range(CANARIES)}
        for page, content in self.canaries.items():
            self.memory.write(page << 12, content)
        self.children, self.pages = [], []
        for number in range(2):
            child = self.root.create_partition(vps=0)
            page = self.hypervisor.free_pages.allocate(PAGES)
            self.pages.append([page + i for i in range(PAGES)])
            self.children.append(child)
            self.call(0x4B, "<QQII", child.id, 0, 0x3, 0, elements=self.pages[number])
            for i in range(PAGES):
                self.memory.write(page + i << 12, self.stamp(number, i) * 4096)
        self.present = [dict.fromkeys(range(PAGES), 3) for _ in range(2)]
        self.devices = [Device(self.hypervisor, requester_id=0x100 + 8 * i) for i in range(2)]
        for page in (pages[0] for pages in self.pages):
            self.memory.write(page << 12, b"\x77" * 8)
        self.owner = [None, None]
        self.domain = [None, None]
        self.maps = {}
        self.writes = 0
        self.deposit()
        for number in range(2):     # a state from which every rule has something to do
            self.give(number, number)
            self.create(number, 1, SECOND)
            self.map(number, 1, 8, number, 3)

    @staticmethod
    def stamp(partition, gpn):
        return bytes([partition << 4 | gpn | 0x80 * partition])

    def deposit(self):
        for child in self.children:
            first = self.hypervisor.free_pages.allocate(32)
            self.call(0x48, "<Q", child.id, elements=list(range(first, first + 32)))

    def call(self, code, form, *values, elements=(), reps=None, expect=Status.SUCCESS):
        result = self.root.hypercall(code, pack(form, *values) + pack(f"<{len(elements)}Q", *elements), reps=reps)
        assert result.status is expect, (hex(code), values, result.status)

    # Devices come and go.

    @rule(device=devices, partition=partitions)
    def give(self, device, partition):
        free = self.owner[device] is None
        device_id = self.devices[device].device_id
        self.call(0x82, "<QQIB3xQIHH", self.children[partition].id, device_id, 0, 0, device, 0, 0, 0,
                  expect=Status.SUCCESS if free else Status.INVALID_DEVICE_STATE)  # fmt: skip
        if free:
            self.owner[device] = partition

    @precondition(lambda self: self.writes % 3 == 2)
    @rule(device=devices)
    def take(self, device):
        owner = self.owner[device]
        if owner is not None:
            self.call(0x83, "<QQ", self.children[owner].id, device)
            self.owner[device] = self.domain[device] = None

    # Domains.

    @rule(partition=partitions, number=numbers, kind=st.sampled_from([SECOND, FIRST]))
    def create(self, partition, number, kind):
        new = (partition, number) not in self.maps
        self.call(0xB1, HEAD + "II", self.children[partition].id, 0, kind, number, 0, 0,
                  expect=Status.SUCCESS if new else Status.INVALID_PARAMETER)  # fmt: skip
        if new:
            self.maps[partition, number] = {} if kind == SECOND else "all"

    @rule(partition=partitions, number=numbers)
    def delete(self, partition, number):
        key = (partition, number)
        if key in self.maps and key not in self.domain:
            self.call(0xC5, HEAD, self.children[partition].id, 0, self.kind(key), number)
            del self.maps[key]

    def kind(self, key):
        return SECOND if isinstance(self.maps[key], dict) else FIRST

    @rule(device=devices, number=st.sampled_from([1, 1, 2, NULL]))
    def attach(self, device, number):
        owner = self.owner[device]
        if owner is None or self.domain[device] is not None:
            return
        key = (owner, number)
        if number == NULL or key in self.maps:
            kind = SECOND if number == NULL else self.kind(key)
            self.call(0xB2, HEAD + "Q", self.children[owner].id, 0, kind, number, device)
            self.domain[device] = "null" if number == NULL else key

    @rule(device=devices)
    def detach(self, device):
        owner = self.owner[device]
        if owner is not None:
            there = self.domain[device] is not None
            self.call(0xC4, "<QQ", self.children[owner].id, device,
                      expect=Status.SUCCESS if there else Status.INVALID_DEVICE_STATE)  # fmt: skip
            self.domain[device] = None

    @rule(partition=partitions, number=numbers, at=iovas, gpn=gpns, flags=rights)
    def map(self, partition, number, at, gpn, flags):
        maps = self.maps.get((partition, number))
        if isinstance(maps, dict):
            fits = flags & ~self.present[partition].get(gpn, 0) == 0
            self.call(0xB3, HEAD + "B3xIQ", self.children[partition].id, 0, SECOND, number, 0, flags, at << 12,
                      elements=[gpn], expect=Status.SUCCESS if fits else Status.INVALID_PARAMETER)  # fmt: skip
            if fits:
                maps[at] = (gpn, flags)

    @rule(partition=partitions, number=numbers, at=iovas, count=st.integers(1, 4))
    def unmap(self, partition, number, at, count):
        maps = self.maps.get((partition, number))
        if isinstance(maps, dict):
            self.call(0xB4, HEAD + "Q", self.children[partition].id, 0, SECOND, number, at << 12, reps=count)
            for i in range(at, at + count):
                maps.pop(i, None)

    @rule(partition=partitions, number=numbers, choice=st.sampled_from([0, 2]))
    def configure(self, partition, number, choice):
        key = (partition, number)
        if key in self.maps and self.kind(key) == FIRST:
            self.call(0xCE, HEAD + "QQ", self.children[partition].id, 0, FIRST, number, choice, 0)
            self.maps[key] = "none" if choice else "all"

    @rule(partition=partitions, number=numbers)
    def flush(self, partition, number):
        if (partition, number) in self.maps:
            kind = self.kind((partition, number))
            self.call(0xD0, HEAD + "II", self.children[partition].id, 0, kind, number, 0, 0)

    # The partitions' own memory changes below.

    @rule(partition=partitions, gpn=gpns)
    def lose(self, partition, gpn):
        self.call(0x4C, "<QQII", self.children[partition].id, gpn, 0, 0, reps=1)
        self.forget(partition, gpn, 0)

    @rule(partition=partitions, gpn=gpns, flags=rights)
    def regain(self, partition, gpn, flags):
        page = self.pages[partition][gpn]
        self.call(0x4B, "<QQII", self.children[partition].id, gpn, flags, 0, elements=[page])
        self.forget(partition, gpn, flags)

    def forget(self, partition, gpn, flags):
        """Lesser rights take the page out of every domain."""
        if self.present[partition].get(gpn, 0) & ~flags:
            for (owner, _), maps in self.maps.items():
                if owner == partition and isinstance(maps, dict):
                    for at in [at for at, (page, _) in maps.items() if page == gpn]:
                        del maps[at]
        self.present[partition][gpn] = flags

    # What devices do.

    def store(self, device, iova, data):
        """A write, after which the other partition is as it was."""
        other = self.pages[1 - self.owner[device]]
        before = self.memory.read(other[0] << 12, PAGES << 12)
        status = self.devices[device].write(iova, data)
        assert self.memory.read(other[0] << 12, PAGES << 12) == before
        return status

    def expected(self, device, at):
        """(system page, rights) that the model says, or None."""
        owner, domain = self.owner[device], self.domain[device]
        if owner is None:
            return None     # the root's: not looked at here, but for canaries
        if domain == "null":
            return None
        maps = "all" if domain is None else self.maps[domain]
        if maps == "none":
            return None
        gpn, flags = (at, 3) if maps == "all" else maps.get(at, (0, 0))
        flags &= self.present[owner].get(gpn, 0)
        return (self.pages[owner][gpn], flags) if flags else None

    @rule(device=devices, at=iovas)
    def read(self, device, at):
        if self.owner[device] is None:
            return
        data = self.devices[device].read(at << 12, 64)
        found = self.expected(device, at)
        if found is None:
            assert self.devices[device].status is DmaStatus.BLOCKED and data == b"\xff" * 64
        else:
            assert self.devices[device].status is DmaStatus.DONE
            assert data == self.memory.read(found[0] << 12, 64)

    @rule(device=devices, at=iovas, offset=st.integers(0, 4096 - 8))
    def write(self, device, at, offset):
        if self.owner[device] is None:
            return
        self.writes += 1
        data = pack("<Q", self.writes)
        found = self.expected(device, at)
        done = self.store(device, (at << 12) + offset, data) is DmaStatus.DONE
        assert done == (found is not None and bool(found[1] & 2))
        if done:
            assert self.memory.read((found[0] << 12) + offset, 8) == data

    @rule(device=devices, start=st.integers(0, WINDOW), size=st.integers(1, 3 * 4096))
    def write_over_pages(self, device, start, size):
        if self.owner[device] is not None:
            self.store(device, start << 12, b"\x33" * size)

    @rule(device=devices, wild=st.integers(0, 2**64 - 64))
    def write_anywhere(self, device, wild):
        if self.owner[device] is not None and not 0xFEE00000 <= wild <= 0xFEEFFFFF:
            self.store(device, wild, b"\x44" * 64)

    @rule(device=devices, which=st.integers(0, CANARIES - 1))
    def reach_for_a_canary(self, device, which):
        if self.owner[device] is not None:
            page = list(self.canaries)[which]
            assert self.devices[device].read(page << 12, 16) == b"\xff" * 16
            assert self.store(device, page << 12, b"\x55" * 16) is DmaStatus.BLOCKED

    @rule(device=devices)
    def translate(self, device):
        if self.owner[device] is not None:
            found = self.devices[device].translate([at << 12 for at in range(WINDOW)])
            for at in range(WINDOW):
                expected = self.expected(device, at)
                assert (found.status[at] == 0) == (expected is not None)
                assert expected is None or found.spa[at] == expected[0] << 12

    @invariant()
    def canaries_live(self):
        for page, content in getattr(self, "canaries", {}).items():
            assert self.memory.read(page << 12, 4096) == content

    @invariant()
    def every_device_reads_what_it_may(self):
        """After every step, so that whatever the unit remembers of the last one meets the new state."""
        for number, device in enumerate(getattr(self, "devices", [])):
            if self.owner[number] is not None:
                out = bytearray(16 * WINDOW)
                device.read_batch([at << 12 for at in range(WINDOW)], out)
                for at in range(WINDOW):
                    found = self.expected(number, at)
                    wanted = b"\xff" * 16 if found is None else self.memory.read(found[0] << 12, 16)
                    assert out[16 * at : 16 * at + 16] == wanted, (number, at, found)

    def teardown(self):
        if hasattr(self, "hypervisor"):
            self.hypervisor.close()


def check(count, *, quick=False):
    run_state_machine_as_test(
        Isolation,
        settings=settings(
            max_examples=count,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,) if quick else tuple(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_isolation():
    check(30, quick=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    check(parser.parse_args().count)
    sys.exit(0)
