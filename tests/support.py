"""A child partition in 64-bit mode for tests: RAM, page tables, descriptor tables, and a stub for every vector.

    0x001000  code                0x700000  GDT, IDT, TSS (a page each)
    0x600000  stubs, 16 bytes     0x710000  stacks of RSP0 and IST 1 to 7, growing down from here in 0x1000 steps
              per vector: HLT     0x800000  PML4, PDPT, PD, page tables of the identity map

A stub halts, so that an event shows as a Halt with RIP behind its stub and RSP at its frame.
"""

from __future__ import annotations

import struct
from typing import Any

from hvcore._native.engine import Segment, Table, VirtualProcessor
from hvcore._native.exits import Halt
from hvcore.hypervisor import Hypervisor
from hvcore.partition import Partition

CODE, STUBS, GDT, IDT, TSS = 0x1000, 0x600000, 0x700000, 0x701000, 0x702000
RSP0, TABLES, STACK, USER_STACK = 0x710000, 0x800000, 0x500000, 0x480000
KERNEL_CS, KERNEL_SS, USER_SS, USER_CS, TR = 0x08, 0x10, 0x1B, 0x23, 0x28
PRESENT, WRITE, USER, ACCESSED, DIRTY, LARGE, NX = 1, 2, 4, 0x20, 0x40, 0x80, 1 << 63
RAM = 16 << 20
FLAT = 0xFFFF_FFFF
HLT, IRETQ, JMP_SELF = b"\xf4", b"\x48\xcf", b"\xeb\xfe"


def q(*words: int) -> bytes:
    """64-bit words as guest memory has them."""
    return struct.pack(f"<{len(words)}Q", *words)


def mov(register: str, value: int) -> bytes:
    """MOV register, imm64."""
    number = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi").index(register)
    return bytes((0x48, 0xB8 + number)) + q(value)


def code(*parts: str | bytes) -> bytes:
    """Machine code from hexadecimal text and bytes."""
    return b"".join(part if isinstance(part, bytes) else bytes.fromhex(part) for part in parts)


def gate(target: int, *, kind: int = 0x8E, ist: int = 0, selector: int = KERNEL_CS) -> bytes:
    """An IDT entry: 8E an interrupt gate, 8F a trap gate, EE an interrupt gate of DPL 3."""
    return q(target & 0xFFFF | selector << 16 | ist << 32 | kind << 40 | (target >> 16 & 0xFFFF) << 48, target >> 32)


class Guest:
    """One child partition and its first processor, ready to run 64-bit code at CPL 0.

    Parameters
    ----------
    small : map the guest's pages with 4 KiB entries instead of 2 MiB ones.
    page_size : of the second level.
    """

    def __init__(
        self,
        *,
        hypervisor: Hypervisor | None = None,
        vps: int = 1,
        processors: int = 1,
        small: bool = True,
        page_size: str = "4 KiB",
        privileges: int | None = None,
    ) -> None:
        self.hypervisor = hypervisor or Hypervisor(memory="64 MiB", processors=processors)
        self.partition: Partition = self.hypervisor.root.create_partition(vps=vps, privileges=privileges)
        self.ram: Any = self.partition.map_memory(gpa=0, size=RAM, page_size=page_size)
        self.vp: VirtualProcessor = self.partition.vps[0]
        self._write_tables(small)
        for vp in self.partition.vps.values():
            self.enter(vp)

    def _write_tables(self, small: bool) -> None:
        self.write(TABLES, q(TABLES + 0x1000 | 7))
        self.write(TABLES + 0x1000, q(TABLES + 0x2000 | 7))
        if small:
            self.write(TABLES + 0x2000, q(*(TABLES + 0x10000 + i * 0x1000 | 7 for i in range(RAM >> 21))))
            self.write(TABLES + 0x10000, q(*(i << 12 | 7 for i in range(RAM >> 12))))
        else:
            self.write(TABLES + 0x2000, q(*(i << 21 | LARGE | 7 for i in range(RAM >> 21))))
        flat = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF)
        self.write(GDT, q(*flat, 0x8B << 40 | TSS << 16 | 0x67, 0))
        self.write(IDT, b"".join(gate(STUBS + 16 * vector) for vector in range(256)))
        self.write(STUBS, (HLT + bytes(15)) * 256)
        stacks = b"".join(q(RSP0 - i * 0x1000) for i in range(1, 8))
        self.write(TSS, bytes(4) + q(RSP0, 0, 0, 0) + stacks + bytes(10) + struct.pack("<H", 0x68))

    def enter(self, vp: VirtualProcessor, *, user: bool = False) -> None:
        """Power-on state, then 64-bit mode with everything flat and the APIC software-enabled."""
        vp.reset()
        vp.start()
        vp.interrupts.apic_enabled = True
        vp.efer, vp.cr4, vp.cr3, vp.cr0 = 0xD01, 0x620, TABLES, 0x80010031
        vp.gdtr, vp.idtr = Table(GDT, 0x37), Table(IDT, 0xFFF)
        vp.tr = Segment(TSS, 0x67, TR, 0x8B)
        level = 0x60 if user else 0
        vp.cs = Segment(0, FLAT, USER_CS if user else KERNEL_CS, 0xA09B | level)
        data = Segment(0, FLAT, USER_SS if user else KERNEL_SS, 0xC093 | level)
        vp.ss = vp.ds = vp.es = data
        vp.rflags, vp.rip, vp.rsp = 2, CODE, USER_STACK if user else STACK

    def write(self, gpa: int, data: bytes) -> None:
        self.ram[gpa : gpa + len(data)] = data

    def read(self, gpa: int, size: int = 8) -> int:
        return int.from_bytes(self.ram[gpa : gpa + size], "little")

    def words(self, gpa: int, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}Q", self.ram[gpa : gpa + 8 * count])

    def load(self, *parts: str | bytes, at: int = CODE, user: bool = False, vp: VirtualProcessor | None = None) -> None:
        """Put code at an address and a fresh processor in front of it."""
        self.write(at, code(*parts))
        self.enter(vp or self.vp, user=user)
        (vp or self.vp).rip = at

    def run(self, *parts: str | bytes, user: bool = False, budget: int | None = 10_000) -> Any:
        """Load code and run it to its first exit."""
        self.load(*parts, user=user)
        return self.vp.run(max_instructions=budget)

    def halted(self, *parts: str | bytes, user: bool = False) -> None:
        """Load code and run it to its HLT."""
        exit_ = self.run(*parts, user=user)
        assert isinstance(exit_, Halt), (exit_, self.taken() if isinstance(exit_, Halt) else None)

    def taken(self, vp: VirtualProcessor | None = None) -> int | None:
        """The vector whose stub the processor has halted in."""
        offset = (vp or self.vp).rip - 1 - STUBS
        return offset // 16 if 0 <= offset < 4096 and offset % 16 == 0 else None

    def frame(self, error_code: bool = False, vp: VirtualProcessor | None = None) -> tuple[int, ...]:
        """(error code,) RIP, CS, RFLAGS, RSP, SS at RSP."""
        return self.words((vp or self.vp).rsp, 6 if error_code else 5)

    def entry(self, gva: int) -> int:
        """GPA of the 4 KiB page-table entry of an address in the identity map."""
        return TABLES + 0x10000 + (gva >> 12) * 8

    def map(self, gva: int, gpa: int, flags: int = 7) -> None:
        """Rewrite the 4 KiB entry of a page of the identity map."""
        self.write(self.entry(gva), q(gpa | flags))
