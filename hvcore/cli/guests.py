"""The two ways to run: the embedded root guest in the root partition, and a program in a child of a root in Python."""

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
from hvcore.memory import LARGE_PAGE_SIZE
from hvcore.processor import VirtualProcessor

_BYTES_OF_A_LEAF = 4096 // 8 * 4096
"""What one page of second-level entries maps."""
_BYTES_FOR_POOLS = 4 << 20
_BYTES_FOR_A_VP = 32 << 10


@dataclass
class Guest:
    """A machine that is ready to run: the processor that begins, and how to go on until something ends it."""

    hypervisor: Hypervisor
    vp: VirtualProcessor
    go: Callable[[int | None], Any]
    """go(max_instructions) -> the exit that ended it."""


def root_guest(options: Namespace, put: Callable[[int], object]) -> Guest:
    """The embedded guest as the operating system of the root partition."""
    image = load(files("hvcore.guests").joinpath("root.elf").read_bytes())
    with refusals():
        hypervisor = Hypervisor(
            memory=options.memory, processors=options.processors, root_page_size=PAGE_SIZES[options.nested_pages]
        )
        hypervisor.machine.console.sink = put
        vp = hypervisor.root.vps[0]
        boot(hypervisor.root, vp, image, page_size=PAGE_SIZES[options.guest_pages])
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
        child = hypervisor.root.create_partition(vps=vps)
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
