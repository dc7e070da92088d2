"""Runs the kernels of tests/irq/synic_kernels: C for a partition that knows Hyper-V, on 1 to 8 processors, one of two
partitions, and does for them by OUT 0EE0h what only the root can do. A kernel ends by OUT 0F4h.

    python tests/irq/synic_runner.py messages --processors 2
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import freestanding
from support import TABLES, Guest, q

from hvcore._native.exits import ApicEoi, Halt, IoPort, Mmio
from hvcore.boot import elf
from hvcore.boot.long_mode import enter_long_mode
from hvcore.enums import Hypercall, Privilege
from hvcore.hypervisor import Hypervisor

KERNELS = Path(__file__).parent / "synic_kernels"
MAIL, LOG = 0x1F_0000, 0x50_0000
PRIVILEGES = sum(Privilege) & ~Privilege.CREATE_PORT
EVENT_RING, SINT_RING = 0x7_0000, 5


def compile_kernel(name: str, folder: Path) -> elf.Image:
    """One kernel with the library."""
    sources = [KERNELS / file for file in ("boot.S", "lib.c", f"{name}.c")]
    return elf.load(freestanding.build(sources, folder / f"{name}.elf", text=0x20_0000, options=["-Wl,-e,begin"]))


class World:
    """One or two partitions that run a kernel, and the root that serves them."""

    def __init__(self, image: elf.Image, processors: int, roles: int, root: bool = False, logical: int = 0) -> None:
        self.hypervisor = Hypervisor(memory="128 MiB", processors=logical or processors * roles)
        self.root = self.hypervisor.root
        self.root_runs = root
        self.numbers = iter(range(1, 10_000))
        self.tag = 0
        self.guests = [
            Guest(hypervisor=self.hypervisor, vps=processors, privileges=PRIVILEGES) for _ in range(roles)
        ]
        for role, guest in enumerate(self.guests):
            for segment in image.segments:
                guest.write(segment.address, segment.data.ljust(segment.memory_size, b"\0"))
            guest.write(MAIL, pack("<QQ", role, processors))
            guest.write(TABLES + 0x1000 + 8 * 3, q(TABLES + 0x3000 | 7))    # the page of the local APIC, at its address
            guest.write(TABLES + 0x3000, q(*(0xC000_0000 + (number << 21) | 0x87 for number in range(512))))
            self.deposit(guest.partition, 100)
            for index, vp in guest.partition.vps.items():
                vp.rip, vp.rdi, vp.rsp = image.entry, index, 0x10_0000
            guest.vp.explicit_suspend = False
        self.deposit(self.root, 100)
        if root:
            self.start_root(image)
        self.operations: list[Any] = [
            self.start, self.message_port, self.post, self.event_port, self.signal, self.assert_interrupt, self.suspend,
            self.resume, self.peer_message, self.peer_event, self.peer_monitor, self.doorbell, self.ring,
            self.delete_port, self.post_direct, self.signal_direct, self.freeze, self.counter, self.clear_external,
            self.give, self.message, self.route, self.line,
        ]  # fmt: skip

    def start_root(self, image: elf.Image) -> None:
        """The root's first processor runs the kernel, too, as role 2; system memory begins with its memory."""
        for segment in image.segments:
            self.hypervisor.memory.write(segment.address, segment.data.ljust(segment.memory_size, b"\0"))
        mail = pack("<QQ40xQ", 2, 1, self.guests[0].partition.id)
        self.hypervisor.memory.write(MAIL, mail)
        vp = self.root.vps[0]
        enter_long_mode(self.root, vp, rip=image.entry, rsp=0x10_0000, identity_map="8 GiB", tables=0xA0_0000)
        vp.rdi, vp.interrupts.apic_enabled, vp.explicit_suspend = 0, True, False

    def deposit(self, partition: Any, count: int) -> None:
        first = self.hypervisor.free_pages.allocate(count)
        self.call(Hypercall.DEPOSIT_MEMORY, pack(f"<Q{count}Q", partition.id, *range(first, first + count)))

    def call(self, code: int, data: bytes) -> bytes:
        result = self.root.hypercall(code, data)
        assert result.status == 0, (code, result)
        return bytes(result.output)

    def link(self, owner: Any, sender: Any, kind: int, info: bytes, connection: int = 0, ends: bytes = b"") -> int:
        number = next(self.numbers)
        port = pack("<QII Q II 16s Q", owner.id, number, 0, sender.id, kind, 0, info, 0)
        self.call(Hypercall.CREATE_PORT, port)
        head = pack("<QII QII II", sender.id, connection or number, 0, owner.id, number, 0, kind, 0)
        self.call(Hypercall.CONNECT_PORT, head + ends.ljust(24, b"\0") + bytes(8))
        return number

    def start(self, guest: Guest, *_: int) -> int:
        for vp in guest.partition.vps.values():
            vp.explicit_suspend = False
        return 0

    def message_port(self, guest: Guest, sint: int, vp: int, *_: int) -> int:
        return self.link(guest.partition, self.root, 1, pack("<IIQ", sint, vp, 0))

    def post(self, guest: Guest, connection: int, count: int, size: int, kind: int) -> int:
        """How many were taken, and the status of the last in the upper half. The first word counts up."""
        done, status = 0, 0
        for _ in range(count):
            payload = pack("<Q", self.tag + 1) * 30
            data = pack("<IIII", connection, 0, kind or 1, size) + payload[:size].ljust(240, b"\xee")
            status = self.root.hypercall(Hypercall.POST_MESSAGE, data).status
            if status:
                break
            done, self.tag = done + 1, self.tag + 1
        return done | status << 32

    def event_port(self, guest: Guest, sint: int, vp: int, base: int, count: int) -> int:
        return self.link(guest.partition, self.root, 2, pack("<IIHHI", sint, vp, base, count, 0))

    def signal(self, guest: Guest, connection: int, flag: int, *_: int) -> int:
        return int(self.root.hypercall(Hypercall.SIGNAL_EVENT, pack("<IHH", connection, flag, 0)).status)

    def assert_interrupt(self, guest: Guest, kind: int, vector: int, destination: int, control: int) -> int:
        data = pack("<QIIQIBBH", guest.partition.id, kind, control, destination, vector & 0xFFFF_FFFF, 0, 0, 0)
        return int(self.root.hypercall(Hypercall.ASSERT_VIRTUAL_INTERRUPT, data).status)

    def suspend(self, guest: Guest, vp: int, *_: int) -> int:
        guest.partition.vps[vp].explicit_suspend = True
        return 0

    def resume(self, guest: Guest, vp: int, *_: int) -> int:
        guest.partition.vps[vp].explicit_suspend = False
        return 0

    def peer(self, guest: Guest) -> Any:
        return self.guests[guest is self.guests[0]].partition

    def peer_message(self, guest: Guest, connection: int, sint: int, vp: int, _: int) -> int:
        return self.link(self.peer(guest), guest.partition, 1, pack("<IIQ", sint, vp, 0), connection)

    def peer_event(self, guest: Guest, connection: int, sint: int, vp: int, shape: int) -> int:
        info = pack("<IIHHI", sint, vp, shape & 0xFFFF, shape >> 16, 0)
        return self.link(self.peer(guest), guest.partition, 2, info, connection)

    def peer_monitor(self, guest: Guest, connection: int, here: int, there: int, _: int) -> int:
        return self.link(self.peer(guest), guest.partition, 3, pack("<QQ", there, 0), connection, pack("<Q", here))

    def doorbell(self, guest: Guest, connection: int, gpa: int, value: int, flags: int) -> int:
        chip = self.root.vps[0].interrupts
        chip.apic_enabled = True
        for msr, setting in ((0x4000_0080, 1), (0x4000_0085, EVENT_RING | 1), (0x4000_0090 + SINT_RING, 0xF3)):
            assert chip.write_msr(msr, setting, 0)
        info = pack("<IIQ", SINT_RING, 0, 0)
        return self.link(self.root, guest.partition, 4, info, connection, pack("<QQQ", gpa, value, flags))

    def ring(self, guest: Guest, index: int, *_: int) -> int:
        """An entry of the root's event ring."""
        page = self.hypervisor.memory.page(self.root.frames[0].event_ring)
        return int(unpack_from("<I", page, SINT_RING * 256 + 4 + 4 * index)[0])

    def delete_port(self, guest: Guest, port: int, *_: int) -> int:
        return int(self.root.hypercall(Hypercall.DELETE_PORT, pack("<QII", guest.partition.id, port, 0)).status)

    def post_direct(self, guest: Guest, vp: int, sint: int, kind: int, word: int) -> int:
        message = pack("<IBBHQQ", kind, 8, 0, 0, 0, word).ljust(256, b"\0")
        data = pack("<QIB3xI256sI", guest.partition.id, vp, 0, sint, message, 0)
        return int(self.root.hypercall(Hypercall.POST_MESSAGE_DIRECT, data).status)

    def signal_direct(self, guest: Guest, vp: int, sint: int, flag: int, _: int) -> int:
        result = self.root.hypercall(
            Hypercall.SIGNAL_EVENT_DIRECT, pack("<QIBBH", guest.partition.id, vp, 0, sint, flag)
        )
        return int(result.status) | (result.output[0] << 32 if result.output else 0)

    def freeze(self, guest: Guest, on: int, *_: int) -> int:
        data = pack("<QIIQ", guest.partition.id, 0x3_0003, 0, on)
        return int(self.root.hypercall(Hypercall.SET_PARTITION_PROPERTY, data).status)

    def counter(self, guest: Guest, vp: int, number: int, *_: int) -> int:
        names = ("retries", "timers_merged", "timers_skipped", "eois_saved", "messages_discarded_port")
        return guest.partition.vps[vp].interrupts.counters()[names[number]]

    def clear_external(self, guest: Guest, *_: int) -> int:
        return int(self.root.hypercall(Hypercall.CLEAR_VIRTUAL_INTERRUPT, pack("<Q", guest.partition.id)).status)

    def give(self, guest: Guest, device: int, *_: int) -> int:
        self.hypervisor.interrupts.give_device(device, guest.partition)
        return 0

    def message(self, guest: Guest, device: int, address: int, data: int, _: int) -> int:
        return self.hypervisor.interrupts.deliver_msi(device, address, data)

    def route(self, guest: Guest, vp: int, vector: int, *_: int) -> int:
        source = self.hypervisor.interrupts.add("card", level=True)
        self.hypervisor.interrupts.route(source, guest.partition, vp=vp, vector=vector)
        return 0

    def line(self, guest: Guest, level: int, *_: int) -> int:
        source = self.hypervisor.interrupts["card"]
        source.assert_() if level else source.deassert()
        return 0

    def run(self, budget: int) -> list[list[str]]:
        """The lines of each partition's log; the last of each is `end` unless it went astray."""
        running = set(range(len(self.guests)))
        stopped = ""
        while (running or self.root_runs) and not stopped:
            exit_ = self.hypervisor.run(max_instructions=budget)
            number = next((i for i, guest in enumerate(self.guests) if exit_.vp in guest.partition.vps.values()), 0)
            guest = self.guests[number]
            if isinstance(exit_, ApicEoi) or (isinstance(exit_, Mmio) and exit_.write):
                continue
            if isinstance(exit_, Halt) and not running:
                break
            if not isinstance(exit_, IoPort):
                stopped = f"FAIL stopped by {exit_} at {exit_.vp and exit_.vp.rip:#x}"
            elif exit_.port == 0xF4:
                running.discard(number)
                for vp in guest.partition.vps.values():
                    vp.explicit_suspend = True
            else:
                words = unpack_from("<4Q", guest.ram[MAIL + 16 : MAIL + 48])
                answer = self.operations[exit_.value](guest, *words)
                guest.write(MAIL + 48, pack("<Q", answer))
        logs = [bytes(guest.ram[LOG + 8 : LOG + 8 + guest.read(LOG)]).decode().splitlines() for guest in self.guests]
        logs = [[*log, stopped] if number in running else log for number, log in enumerate(logs)]
        if self.root_runs:
            (length,) = unpack_from("<Q", self.hypervisor.memory.read(LOG, 8))
            logs.append(self.hypervisor.memory.read(LOG + 8, length).decode().splitlines())
        return logs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernel")
    parser.add_argument("--processors", type=int, default=1)
    parser.add_argument("--roles", type=int, default=1)
    parser.add_argument("--root", action="store_true", help="the root runs the kernel, too")
    parser.add_argument("--all", action="store_true", help="also the checks that hold")
    arguments = parser.parse_args()
    made = compile_kernel(arguments.kernel, Path("/tmp"))
    for found in World(made, arguments.processors, arguments.roles, arguments.root).run(200_000_000):
        print("\n".join(text for text in found if arguments.all or not text.startswith("ok ")))
        print(len(found), "lines")
