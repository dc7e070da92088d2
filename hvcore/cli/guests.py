"""The two ways to run: as the system of the root partition (the embedded guest, or a program), and as a program in a
child of a root in Python."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hvcore import exits
from hvcore.boot.elf import load
from hvcore.boot.program import boot
from hvcore.cli import PAGE_SIZES
from hvcore.cli.failure import refusals
from hvcore.hypervisor import Hypervisor
from hvcore.machine.pc import SerialMachine
from hvcore.machine.virtio_block import VirtioBlock
from hvcore.memory import LARGE_PAGE_SIZE
from hvcore.processor import VirtualProcessor

_BYTES_OF_A_LEAF = 4096 // 8 * 4096
"""What one page of second-level entries maps."""
_BYTES_FOR_POOLS = 4 << 20
_BYTES_FOR_A_VP = 32 << 10
_DISK = 0x0018
"""Bus 0, device 3."""


@dataclass
class Guest:
    """A machine that is ready to run: the processor that begins, and how to go on until something ends it."""

    hypervisor: Hypervisor
    vp: VirtualProcessor
    go: Callable[[int | None], Any]
    """go(max_instructions) -> the exit that ended it."""


def root_guest(options: Namespace, put: Callable[[int], object]) -> Guest:
    """The embedded guest, or a program, as the operating system of the root partition: it has the machine."""
    embedded = files("hvcore.guests").joinpath("root.elf")
    with refusals(options.program or ""):
        image = load((embedded if options.program is None else Path(options.program)).read_bytes())
    with refusals():
        hypervisor = Hypervisor(
            memory=options.memory, processors=options.processors, root_page_size=PAGE_SIZES[options.nested_pages]
        )
        machine = hypervisor.machine
        machine.console.sink = put
        if options.iommu:
            machine.attach_unit()
    if options.disk is not None:
        with refusals(options.disk):
            machine.pci.assign(VirtioBlock(hypervisor, options.disk, requester_id=_DISK))
    vp = hypervisor.root.vps[0]
    with refusals(options.program or ""):
        boot(
            hypervisor.root,
            vp,
            image,
            page_size=PAGE_SIZES[options.guest_pages],
            table=machine.dmar() if options.iommu else b"",
        )
    return Guest(hypervisor, vp, lambda maximum: hypervisor.run(max_instructions=maximum))


def child_guest(options: Namespace, put: Callable[[int], object]) -> Guest:
    """A program in a child partition, with a serial port of its own."""
    vps = options.vps or 1
    with refusals(options.program):
        image = load(Path(options.program).read_bytes())
    with refusals():
        tables = options.memory // _BYTES_OF_A_LEAF * 4096
        room = options.memory + 2 * tables + _BYTES_FOR_POOLS + vps * _BYTES_FOR_A_VP
        hypervisor = Hypervisor(memory=-(-room // LARGE_PAGE_SIZE) * LARGE_PAGE_SIZE, processors=options.processors)
        child = hypervisor.root.create_partition(vps=vps, platform=options.platform)
        child.map_memory(gpa=0, size=options.memory, page_size=PAGE_SIZES[options.nested_pages])
    vp = child.vps[0]
    with refusals(options.program):
        boot(child, vp, image, page_size=PAGE_SIZES[options.guest_pages])
    devices = SerialMachine()
    devices.console.sink = put
    return Guest(hypervisor, vp, lambda maximum: run_child(vp, devices, maximum))


def run_child(vp: VirtualProcessor, devices: SerialMachine, max_instructions: int | None) -> Any:
    """Run with the ports of `devices` and with floating memory where none is mapped, until something else happens."""
    begin = vp.counters().instructions
    left = max_instructions
    while True:
        exit_ = vp.run(max_instructions=left)
        match exit_:
            case exits.IoPort(write=True, value=int(value)):
                devices.ports.write(exit_.port, exit_.size, value)
            case exits.IoPort():
                exit_.complete(devices.ports.read(exit_.port, exit_.size))
            case exits.Mmio(write=True):
                pass
            case exits.Mmio():
                exit_.complete((1 << 8 * exit_.size) - 1)
            case _:
                return exit_
        if max_instructions is not None:
            left = max_instructions - (vp.counters().instructions - begin)
