"""Guests for bench_interrupts.py: loops in machine code, and partitions that are wired for messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
from typing import Any, NamedTuple

import hvcore
from benchmarks.guest import CODE, DATA, STACK, child_running
from hvcore.enums import Hypercall, PortType, Privilege, ServiceReason
from hvcore.ports import Connection

VECTOR = 0x50
HANDLER = CODE + 0x1000
RECEIVER_SINT = 3
PORT_ID, CONNECTION_ID = 5, 7
INTERRUPT_GATE = 0x8E00
APIC_PAGE = 0xFEE00000
TABLES = 0x50_0000
FEATURES = sum(Privilege)
MSR_SCONTROL, MSR_SIEFP, MSR_SIMP, MSR_SINT0 = 0x40000080, 0x40000082, 0x40000083, 0x40000090

EMPTY = bytes.fromhex("90909090 90909090 48ffc9 75f3")
"""Eight NOPs; dec rcx; jnz: ten instructions, and no loop of ten is cheaper."""


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
    loop = asm("41c782 00030000") + pack("<I", 0x40000 | VECTOR)  # mov dword [r10 + ICR low], self shorthand
    loop += b"\x48\xff\xcb\x75" + pack("<b", -(len(loop) + 5))
    handler = asm("41c782 b0000000 00000000 48cf")  # mov dword [r10 + EOI], 0; iretq
    return loop, handler


def set_gate(vp: Any, ram: Any, vector: int, handler: int) -> None:
    """An interrupt gate of the IDT that `reset("long64")` has made."""
    low = (handler & 0xFFFF) | 8 << 16 | INTERRUPT_GATE << 32 | (handler >> 16 & 0xFFFF) << 48
    gate = vp.idtr.base + 16 * vector
    ram[gate : gate + 16] = pack("<QQ", low, handler >> 32)


def map_apic(vp: Any, ram: Any) -> None:
    """FEE00000 at its own address, by three tables in the guest's RAM."""
    entry = int.from_bytes(ram[vp.cr3 : vp.cr3 + 8], "little") & ~0xFFF
    for table, slot, value in ((entry, 3, TABLES), (TABLES, 0x1F7, TABLES + 0x1000), (TABLES + 0x1000, 0, APIC_PAGE)):
        ram[table + 8 * slot : table + 8 * slot + 8] = pack("<Q", value | 3)


@contextmanager
def interrupting_itself(loop: bytes, handler: bytes, *, page: bool = False) -> Iterator[Any]:
    """A processor that runs `loop` with interrupts on; `handler` is that of VECTOR. `page`: it uses the APIC's page."""
    with child_running(loop, privileges=FEATURES) as (vp, ram):
        ram[HANDLER : HANDLER + len(handler)] = handler
        set_gate(vp, ram, VECTOR, HANDLER)
        vp.interrupts.apic_enabled = True
        if page:
            map_apic(vp, ram)
            vp.r10 = APIC_PAGE
        vp.rflags = 0x202
        vp.rbx = 1 << 62
        yield vp


@contextmanager
def calling(control: int, *registers: int) -> Iterator[Any]:
    """A processor that makes one hypercall over and over: `vmcall; dec rbx; jnz`."""
    with child_running(bytes.fromhex("0f01c1 48ffcb 75f8"), privileges=FEATURES) as (vp, _):
        vp.partition.core.guest_os_id = vp.partition.core.hypercall_msr = 1
        vp.rcx, vp.rbx = control, 1 << 62
        vp.rdx, vp.r8 = (*registers, 0, 0)[:2]
        yield vp


class Wired(NamedTuple):
    """A connection between two children, and the processors at its ends."""

    sender: Any
    receiver: Any
    connection: Connection


RECEIVING = asm(
    """
    8b4610              # mov eax, [rsi + 16]: read the message
    c70600000000        # mov dword [rsi], 0: empty the slot
    f6460501 740b       # test byte [rsi + 5], 1; jz behind the EOM
    b984000040 31c0 31d2 0f30   # wrmsr(EOM, 0)
    b970000040 31c0 31d2 0f30   # wrmsr(EOI, 0)
    48cf                # iretq
    """
)
HALTING = bytes.fromhex("f4 ebfd")  # hlt; jmp back
POSTING = bytes.fromhex("b95c000000 0f01c1 84c0 75f4 48ffcb 75ef e680 ebeb")
"""again: mov ecx, PostMessage; vmcall; test al, al; jnz again; dec rbx; jnz again; out 80h, al; jmp again"""


@contextmanager
def wired(*, processors: int = 2) -> Iterator[Wired]:
    """A sender whose code posts `rbx` messages and makes an exit, and a receiver whose handler takes them."""
    with hvcore.Hypervisor(memory="640 MiB", processors=processors) as hypervisor:
        root = hypervisor.root
        sender, receiver = (root.create_partition(privileges=FEATURES) for _ in range(2))
        memories = [child.map_memory(gpa=0, size="16 MiB", page_size="4 KiB") for child in (sender, receiver)]
        for child, ram, code in zip((sender, receiver), memories, (POSTING, HALTING), strict=True):
            vp = child.vps[0]
            ram[CODE : CODE + len(code)] = code
            vp.reset("long64", rip=CODE, rsp=STACK, page_size="4 KiB")
            vp.interrupts.apic_enabled = True
            child.core.guest_os_id = child.core.hypercall_msr = 1
        taker, ram = receiver.vps[0], memories[1]
        ram[HANDLER : HANDLER + len(RECEIVING)] = RECEIVING
        set_gate(taker, ram, VECTOR, HANDLER)
        for index, value in ((MSR_SCONTROL, 1), (MSR_SINT0 + RECEIVER_SINT, VECTOR)):
            taker.interrupts.write_msr(index, value, 0)
        taker.rcx, taker.rax, taker.rdx = MSR_SIMP, DATA | 1, 0
        hypervisor.service(taker, ServiceReason.MSR_WRITE)
        taker.rsi, taker.rflags = DATA + 256 * RECEIVER_SINT, 0x202
        kind = int(PortType.MESSAGE)
        info = pack("<IIIIHHI", kind, 0, RECEIVER_SINT, 0, 0, 0, 0)
        root.hypercall(
            Hypercall.CREATE_PORT, pack("<QIBBHQ24sQ", receiver.id, PORT_ID, 0, 0, 0, sender.id, info, 0)
        )
        root.hypercall(
            Hypercall.CONNECT_PORT,
            pack("<QIBBHQII32sQ", sender.id, CONNECTION_ID, 0, 0, 0, receiver.id, PORT_ID, 0, pack("<I", kind), 0),
        )
        poster = sender.vps[0]
        memories[0][DATA : DATA + 32] = pack("<IIII16s", CONNECTION_ID, 0, 1, 16, b"payload")
        poster.rdx = DATA
        poster.rbx = 1
        for vp in (poster, taker):
            vp.explicit_suspend = False
        assert isinstance(hypervisor.run(max_instructions=1000), hvcore.exits.IoPort)
        yield Wired(poster, taker, sender.connections[CONNECTION_ID])
