"""A driver in guest code brings the unit up, gives a disk a domain and an interrupt, and meets a fault (issue 6, 7)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from struct import unpack

import pytest
from root_code import enter_long_mode

from hvcore.guests.build import ToolsMissing, find_tools
from hvcore.hypervisor import Hypervisor
from hvcore.machine.virtio_block import VirtioBlock

SOURCE = Path(__file__).with_name("vtd_driver.S")
CODE, RESULTS, DATA = 0x10000, 0x30000, 0x64000
PLACE = 0x18


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> bytes:
    try:
        assembler, linker = find_tools()
    except ToolsMissing as missing:
        pytest.skip(str(missing))
    where = tmp_path_factory.mktemp("driver")
    for command in (
        [assembler, "--64", "-o", where / "driver.o", SOURCE],
        [linker, "-Ttext", hex(CODE), "--oformat", "binary", "-o", where / "driver.bin", where / "driver.o"],
    ):
        subprocess.run([str(word) for word in command], check=True)
    return (where / "driver.bin").read_bytes()


@pytest.mark.parametrize("preset", ["full", "qemu-q35"])
def test_the_driver(program, preset):
    disk = bytes(range(256)) * 16
    with Hypervisor(memory="16 MiB", processors=1) as hypervisor:
        unit = hypervisor.machine.attach_unit(preset=preset)
        device = VirtioBlock(hypervisor, disk, requester_id=PLACE)
        hypervisor.memory.write(CODE, program)
        vp = hypervisor.root.vps[0]
        enter_long_mode(hypervisor.root, vp, rip=CODE, rsp=0x90000, identity_map="8 GiB")
        vp.rdi, vp.rsi = hypervisor.machine.unit_gpa, hypervisor.machine.pci.ecam
        vp.explicit_suspend = False
        stopped = vp.run(max_instructions=100_000)
        found = unpack("<8Q", hypervisor.memory.read(RESULTS, 64))
        cap, gsts, disk_interrupts, fault_interrupts, status, _, requester, step = found
        assert type(stopped).__name__ == "Halt" and step == 7, (stopped, found)
        assert (cap, requester) == (unit.cap, PLACE)
        assert gsts == 0x80000000 | 0x40000000 | 0x04000000 | 0x02000000 | 0x01000000
        assert (disk_interrupts, fault_interrupts) == (3, 2)
        assert [status >> 8 * i & 0xFF for i in range(3)] == [0, 1, 1]
        assert hypervisor.memory.read(DATA, 512) == disk[512:1024]
        for number, page in enumerate((0x7ABCD000, 0x40004000)):
            low, high = unpack("<2Q", hypervisor.memory.read(RESULTS + 64 + 16 * number, 16))
            assert low & -4096 == page
            assert (high & 0xFFFF, high >> 32 & 0xFF, high >> 62) == (PLACE, 5, 2)  # write without W; F set, T write
        assert unit.counters()["interrupts_remapped"] == 3
        assert device.counters["bytes_blocked"] == 1024
        assert unit.read(0x34, 4) & 3 == 0
