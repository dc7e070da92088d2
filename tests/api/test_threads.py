"""Two threads at one machine: the one that comes second gets RuntimeError, and no structure is torn."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support import JMP_SELF, code

from hvcore._native import ports
from hvcore._native.irqchip import InterruptController, InterruptObservation, MessagePort
from hvcore._native.platform import InterruptPlatform
from hvcore._native.space import GpaSpace, PagePool, SystemMemory
from hvcore.exits import Canceled, Halt
from hvcore.hypervisor import Hypervisor
from hvcore.iommu import RemappingUnit
from hvcore.machine.device import Device

REFUSED = "this Hypervisor is in use by another thread"
CODE = 0x10_0000


class Everything:
    """A machine with one of each object that has native state."""

    def __init__(self) -> None:
        self.hypervisor = Hypervisor(memory="64 MiB", processors=1)
        self.root = self.hypervisor.root
        self.child = self.root.create_partition(vps=2)
        self.empty = self.root.create_partition(vps=0)
        self.ram = self.child.map_memory(gpa=0, size="4 MiB")
        self.ram[CODE : CODE + len(code(JMP_SELF))] = code(JMP_SELF)
        self.vp = self.child.vps[0]
        self.vp.reset("long64", rip=CODE, rsp=0x20_0000)
        self.controller = self.child.vps[1].interrupts
        for vp in self.child.vps.values():
            vp.interrupts.apic_enabled = True
        self.device = Device(self.hypervisor, requester_id=0x18)
        self.unit = self.hypervisor.machine.attach_unit()
        self.buffers = MessagePort()
        self.page = int(self.hypervisor.free_pages.allocate(1))
        self.source = self.hypervisor.interrupts.add("card", level=True)
        self.before = self.controller.save([self.buffers])

    def actions(self) -> dict[str, Callable[[], Any]]:
        """What touches it, by name; none of them needs anything but a machine that is free."""
        hypervisor, controller, device, unit = self.hypervisor, self.controller, self.device, self.unit
        core, space, platform, vp = self.child.core, self.child.space, self.root.platform, self.vp
        message = {"sint": 2, "message_type": 1, "sender": 0, "payload": b""}
        assert platform is not None
        words = np.arange(4, dtype=np.uint64)
        return {
            "controller.assert_interrupt": lambda: controller.assert_interrupt(0x40),
            "controller.withdraw_interrupt": lambda: controller.withdraw_interrupt(0x41),
            "controller.assert_nmi": controller.assert_nmi,
            "controller.acknowledge": controller.acknowledge,
            "controller.in_service": lambda: controller.in_service,
            "controller.write_msr": lambda: controller.write_msr(0x4000_0092, 0x60, 0),
            "controller.post_message": lambda: controller.post_message(self.buffers, **message),
            "controller.signal_event": lambda: controller.signal_event(sint=2, flag=1),
            "controller.save": lambda: controller.save([self.buffers]),
            "controller.restore": lambda: controller.restore(self.before, [self.buffers]),
            "controller.reset": controller.reset,
            "controller.apic_enabled": lambda: setattr(controller, "apic_enabled", True),
            "controller.awaited_sints": lambda: setattr(controller, "awaited_sints", 1),
            "apic.write": lambda: controller.apic.write(0xF0, 0x1FF),
            "apic.read": lambda: controller.apic.read(0xF0),
            "apic.set_pin": lambda: controller.apic.set_pin(0, True),
            "observation": lambda: InterruptObservation(0).attach(controller, 1, 1),
            "platform.set_pin": lambda: platform.set_pin(5, True),
            "platform.pulse": lambda: platform.pulse(6),
            "platform.entries": lambda: platform.entries,
            "platform.write_register": lambda: platform.write_register(0x10, 0x10000),
            "platform.write_port": lambda: platform.write_port(0x21, 0xFF),
            "platform.eoi": lambda: platform.eoi(0x40),
            "platform.reset": platform.reset,
            "partition.attach_platform": lambda: self.root.attach_platform(),
            "core.send_msi": lambda: core.send_msi(0xFEE0_0000, 0x41),
            "core.send_interrupt": lambda: core.send_interrupt(1, 0, 0x41),
            "core.set_io_intercept": lambda: core.set_io_intercept(0, 1, 3),
            "core.set_device_ranges": lambda: self.root.core.set_device_ranges([]),
            "core.privileges": lambda: setattr(core, "privileges", core.privileges),
            "time.restore": lambda: self.child.time.restore(5),
            "time.apic_frequency": lambda: setattr(self.empty.time, "apic_frequency", 10**8),
            "time.frozen": lambda: setattr(self.child.time, "frozen", False),
            "vp.cr3": lambda: setattr(vp, "cr3", vp.cr3),
            "vp.pkru": lambda: setattr(vp, "pkru", 0),
            "vp.write_register": lambda: vp.write_register(0x20000, 1),
            "vp.walk": lambda: vp.walk(CODE),
            "vp.reset": vp.reset,
            "vp.assert_init": lambda: self.child.vps[1].assert_init(),
            "vp.assert_startup": lambda: self.child.vps[1].assert_startup(1),
            "vp.run": lambda: self.child.vps[1].run(max_instructions=0),
            "vp.attach": lambda: vp.start_tap(),
            "scheduler.quantum": lambda: setattr(hypervisor.scheduler, "quantum", 100),
            "scheduler.set_weight": lambda: hypervisor.scheduler.set_weight(vp, 5),
            "space.map": lambda: space.map(0x800, np.array([self.page], np.uint64), rights=7),
            "space.unmap": lambda: space.unmap(0x800, 1),
            "space.set_overlay": lambda: space.set_overlay(9, 0, 1, self.page, 7),
            "space.flush": space.flush,
            "memory.write": lambda: hypervisor.memory.write(self.page << 12, b"1234"),
            "memory.zero": lambda: hypervisor.memory.zero(self.page << 12, 4),
            "pool.deposit": lambda: PagePool(hypervisor.memory).deposit(self.page),
            "unit.read": lambda: unit.read(0),
            "unit.write": lambda: unit.write(0x34, 4, 0),
            "unit.translate": lambda: unit.translate(0x18, words),
            "unit.write_memory": lambda: unit.write_memory(0x18, self.page << 12, b"12345"),
            "unit.interrupt": lambda: unit.interrupt(0x18, 0xFEE0_0000, 0x41),
            "unit.reset": unit.reset,
            "unit.disconnect": unit.disconnect,
            "device.read": lambda: device.read(0x1000, 4),
            "device.write": lambda: device.write(0x1000, b"1234"),
            "device.write_batch": lambda: device.write_batch(words << np.uint64(12), bytes(16)),
            "device.translate": lambda: device.translate(words),
            "device.send_message": lambda: device.send_message(0xFEE0_0000, 0x41),
            "ports.post": lambda: ports.post(core, 1, 1, b""),
            "ports.signal": lambda: ports.signal(core, 1, 0),
            "source.assert_": self.source.assert_,
            "source.deassert": self.source.deassert,
            "interrupts.set_entry": lambda: hypervisor.interrupts.set_entry(
                device.device_id, 0xFEE0_0000, 1, self.child, vp=0, vector=0x50
            ),
            "machine.set_line": lambda: hypervisor.machine.set_line(4, True),
        }


@pytest.fixture
def everything() -> Iterator[Everything]:
    made = Everything()
    yield made
    made.hypervisor.close()


def in_another_thread(action: Callable[[], Any]) -> BaseException | None:
    """What it raised."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def test_another_thread_is_refused_everywhere(everything: Everything) -> None:
    """And nothing has changed: afterwards each of them works."""
    for name, action in everything.actions().items():
        with everything.hypervisor.exclusive():
            error = in_another_thread(action)
        assert isinstance(error, RuntimeError) and REFUSED in str(error), (name, error)
    assert everything.controller.save([everything.buffers]) == everything.before
    for name, action in everything.actions().items():
        assert in_another_thread(action) is None, name


def test_numbers_may_be_read_and_a_run_be_canceled(everything: Everything) -> None:
    """What a display of progress needs."""
    vp, controller, unit = everything.vp, everything.controller, everything.unit
    with everything.hypervisor.exclusive():
        for look in (vp.counters, controller.counters, unit.counters, everything.hypervisor.counters, lambda: vp.rip,
                     lambda: everything.child.reference_time, everything.hypervisor.cancel):
            assert in_another_thread(look) is None
    assert isinstance(everything.vp.run(max_instructions=10), Canceled)


def test_two_threads_at_once(everything: Everything) -> None:
    """One runs guest code without end; the other does all there is. Each call is refused whole or done whole."""
    rng = random.Random(7)
    left_out = {"vp.reset", "vp.run", "vp.attach", "partition.attach_platform", "core.set_device_ranges"}
    actions = [action for name, action in everything.actions().items() if name not in left_out]
    exits: list[Any] = []

    def run() -> None:
        # Short runs too, so that calls meet the beginning and the end of one.
        while not exits or not isinstance(exits[-1], Canceled):
            exits.append(everything.vp.run(max_instructions=rng.choice([100, 10_000, 20_000_000])))

    thread = threading.Thread(target=run)
    thread.start()
    refused = done = 0
    requested = everything.controller.counters()["interrupts_requested"]
    end = time.monotonic() + 1
    mine = random.Random(8)
    while time.monotonic() < end:
        try:
            everything.controller.assert_interrupt(0x40 + done % 64)
            done += 1
        except RuntimeError as error:
            assert REFUSED in str(error)
            refused += 1
        try:
            mine.choice(actions)()
        except (RuntimeError, ValueError) as error:  # ValueError: what an action undid before
            assert isinstance(error, ValueError) or REFUSED in str(error)
    everything.vp.cancel()
    thread.join(30)
    assert not thread.is_alive()
    assert refused, "the threads never met"
    assert everything.controller.counters()["interrupts_requested"] >= requested + done


def test_views_let_go_by_another_thread_are_looked_at_before_the_next_run(everything: Everything) -> None:
    """Memory that was written through a view may be code: what was decoded of it is forgotten."""
    vp, hypervisor = everything.vp, everything.hypervisor
    memory, spa = hypervisor.memory, everything.child.space.resolve(CODE)[0]
    view: Any = np.frombuffer(memory.view(spa, 16), np.uint8)
    vp.run(max_instructions=10)
    view[:1] = 0xF4  # HLT
    with hypervisor.exclusive():
        holder = [view]
        del view
        assert in_another_thread(holder.clear) is None
    assert isinstance(vp.run(max_instructions=10), Halt)


def test_a_handler_of_the_run_is_inside(everything: Everything) -> None:
    """A device's Python code, called by the machine on its own thread, interrupts and does DMA."""
    hypervisor, root, device = everything.hypervisor, everything.root, everything.device
    seen: list[Any] = []

    class Registers:
        def read(self, offset: int, size: int) -> int:
            return 0x5A

        def write(self, offset: int, size: int, value: int) -> None:
            device.write(0x30_0000, b"DMA!")
            seen.append(device.read(0x30_0000, 4))
            hypervisor.machine.set_line(9, True)
            root.platform.set_pin(5, True)
            root.vps[0].interrupts.assert_interrupt(0x44)
            seen.append(in_another_thread(lambda: device.read(0x30_0000, 4)))

    hypervisor.machine.ports.attach(Registers(), port=0x510, count=1)
    vp = root.vps[0]
    vp.reset("long64", rip=CODE, rsp=0x20_0000, tables=0x50_0000, identity_map="8 MiB")
    program = bytes.fromhex("66ba1005 b07e ee f4")  # mov dx, 510h; mov al, 7Eh; out dx, al; hlt
    hypervisor.memory.write(CODE, program)
    vp.interrupts.apic_enabled = True
    assert isinstance(vp.run(max_instructions=100), Halt)
    assert seen[0] == b"DMA!"
    assert isinstance(seen[1], RuntimeError)
    assert vp.interrupts.requested >> 0x44 & 1


def test_free_standing_objects_need_no_machine() -> None:
    """A controller or a platform on its own has no guard: nothing of it runs without the GIL."""
    controller = InterruptController(apic_id=0, message_page=bytearray(4096), event_page=bytearray(4096))
    controller.apic_enabled = True
    platform = InterruptPlatform()
    rounds, threads = 2000, 4

    def work() -> None:
        for _ in range(rounds):
            controller.assert_interrupt(0x50)
            platform.pulse(5)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert controller.counters()["interrupts_requested"] == rounds * threads
    assert platform.pin_counters(5)["asserted"] == rounds * threads


def test_a_unit_on_its_own_has_one_thread_at_a_time() -> None:
    """Its batches let other threads run; one that would use the unit meanwhile is refused."""
    memory = SystemMemory(1 << 24, 1 << 20)
    space = GpaSpace(memory, memory.reserve_pool)
    space.create()
    space.map(0, np.arange(1 << 12, dtype=np.uint64), rights=7)
    unit = RemappingUnit(memory, space)
    iovas = np.arange(1 << 20, dtype=np.uint64)
    out = {"spa": np.zeros(iovas.size, np.uint64)}
    calls, refused, done = 20, [0], [0]

    def work() -> None:
        for _ in range(calls):
            try:
                unit.translate(0x18, iovas, out=dict(out))
                done[0] += 1
            except RuntimeError as error:
                assert REFUSED in str(error)
                refused[0] += 1

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert done[0] + refused[0] == 2 * calls
    assert unit.counters()["requests"] == done[0] * iovas.size
