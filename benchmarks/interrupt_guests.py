"""Guests for bench_interrupts.py: loops in machine code, and partitions that are wired for messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
from typing import Any, NamedTuple

import hvcore
from benchmarks.guest import CODE, DATA, STACK, child_running
from hvcore import ports
from hvcore.enums import Hypercall, Privilege, PortType
from hvcore.ports import Connection

VECTOR = 0x50
HANDLER = CODE + 0x1000
RECEIVER_SINT = 3
PORT_ID, CONNECTION_ID = 5, 7
INTERRUPT_GATE = 0x8E00
FEATURES = sum(Privilege)
MSR_SCONTROL, MSR_SIEFP, MSR_SIMP, MSR_SINT0 = 0x40000080, 0x40000082, 0x40000083, 0x40000090

EMPTY = bytes.fromhex("48ffc0 48ffc3 48ffc6 48ffc7 49ffc0 49ffc1 49ffc2 49ffc3 48ffc9 75e3")
"""inc of eight registers; dec rcx; jnz: ten instructions."""


def asm(text: str) -> bytes:
    """Machine code from hex digits, comments behind #."""
    return bytes.fromhex("".join(line.split("#")[0] for line in text.splitlines()))


def self_ipi_by_msr(index: int, value: int, eoi: int) -> tuple[bytes, bytes]:
    """(loop, handler): an ICR write by WRMSR, then `dec rbx; jnz`; the handler writes EOI and returns."""
    loop = b"\xb9" + pack("<I", index) + b"\xb8" + pack("<I", value & 0xFFFFFFFF)  # mov ecx, index; mov eax, low
    loop += b"\xba" + pack("<I", value >> 32) + b"\x0f\x30"  # mov edx, high; wrmsr
    loop += b"\x48\xff\xcb\x75" + pack("<b", -(len(loop) + 5))  # dec rbx; jnz loop
    handler = b"\xb9" + pack("<I", eoi) + b"\x31\xc0\x31\xd2\x0f\x30\x48\xcf"  # ecx = eoi; edx:eax = 0; wrmsr; iretq
    return loop, handler


def self_ipi_by_page() -> tuple[bytes, bytes]:
    """(loop, handler) for the register page of an xAPIC, at FEE00000."""
    loop = asm("c70425 00 03 e0 fe") + pack("<I", 0x40000 | VECTOR)  # mov dword [icr low], self shorthand
    loop += b"\x48\xff\xcb\x75" + pack("<b", -(len(loop) + 5))
    handler = asm("c70425 b0 00 e0 fe 00000000 48cf")  # mov dword [eoi], 0; iretq
    return loop, handler


def set_gate(vp: Any, ram: Any, vector: int, handler: int) -> None:
    """An interrupt gate of the IDT that `reset("long64")` has made."""
    low = (handler & 0xFFFF) | 8 << 16 | INTERRUPT_GATE << 32 | (handler >> 16 & 0xFFFF) << 48
    gate = vp.idtr.base + 16 * vector
    ram[gate : gate + 16] = pack("<QQ", low, handler >> 32)


@contextmanager
def interrupting_itself(loop: bytes, handler: bytes) -> Iterator[Any]:
    """A processor that runs `loop` with interrupts on; `handler` is that of VECTOR."""
    with child_running(loop, privileges=FEATURES) as (vp, ram):
        ram[HANDLER : HANDLER + len(handler)] = handler
        set_gate(vp, ram, VECTOR, HANDLER)
        vp.rflags = 0x202
        vp.rbx = 1 << 62
        yield vp


@contextmanager
def calling(control: int, *registers: int) -> Iterator[Any]:
    """A processor that makes one hypercall over and over: `vmcall; dec rbx; jnz`."""
    with child_running(bytes.fromhex("0f01c1 48ffcb 75f8"), privileges=FEATURES) as (vp, ram):
        vp.partition.core.guest_os_id = vp.partition.core.hypercall_msr = 1
        vp.rcx, vp.rbx = control, 1 << 62
        vp.rdx, vp.r8 = (*registers, 0, 0)[:2]
        yield vp
