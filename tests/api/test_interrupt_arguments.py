"""Wrong arguments of everything about interrupts, messages and scheduling: an exception that names the argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import pack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hvcore._native.platform import InterruptPlatform
from hvcore.enums import Hypercall, PortType, Status
from hvcore.hypervisor import Hypervisor
from hvcore.ports import BUFFERS, MESSAGE, Connection, make_messages

DEVICE = 1 << 62 | 0x0010
ADDRESS, DATA, VECTOR = 0xFEE0_0000, 0x41, 0x50
FULL = BUFFERS + 2
"""Messages that do not all find room."""
NO_INTEGERS = (None, "x", b"a", 1.5, float("nan"), object(), [1], np.float64(2), np.array([1, 2]))
NO_ARRAYS = (None, "x", 1.5, -1, 1 << 70, b"a", [], {}, object(), [1, "a"])
BEYOND = 1 << 70


def wire(hypervisor: Hypervisor, kind: PortType, port: int, flags: int) -> Connection:
    """From the root to its child, SINT 2."""
    root, child = hypervisor.root, next(iter(hypervisor.root.children.values()))
    info = pack("<IIIIHHI", kind, 0, 2, 0, 0, flags, 0)
    made = root.hypercall(Hypercall.CREATE_PORT, pack("<QIBBHQ24sQ", child.id, port, 0, 0, 0, root.id, info, 0))
    assert made.status is Status.SUCCESS
    header = pack("<QIBBHQII32sQ", root.id, port + 8, 0, 0, 0, child.id, port, 0, pack("<I", kind), 0)
    assert root.hypercall(Hypercall.CONNECT_PORT, header).status is Status.SUCCESS
    return root.connections[port + 8]


def make_machine() -> SimpleNamespace:
    """What the cases use. Another hypervisor's things are `foreign`."""
    hypervisor, other = (Hypervisor(memory="32 MiB", processors=2) for _ in range(2))
    child, gone = (hypervisor.root.create_partition(vps=2) for _ in range(2))
    gone.destroy()
    return SimpleNamespace(
        hypervisor=hypervisor,
        interrupts=hypervisor.interrupts,
        source=hypervisor.interrupts.add("source"),
        child=child,
        vp=child.vps[0],
        gone=gone,
        foreign=other.root.create_partition(),
        foreign_source=other.interrupts.add("source"),
        connection=wire(hypervisor, PortType.MESSAGE, 2, 0),
        events=wire(hypervisor, PortType.EVENT, 3, 16),
        platform=InterruptPlatform(),
        messages=make_messages(np.zeros((FULL, 8), np.uint8)),
    )


@pytest.fixture(scope="module")
def machine() -> Iterator[SimpleNamespace]:
    made = make_machine()
    with made.hypervisor, made.foreign.hypervisor:
        yield made


def read_only(count: int, dtype: Any) -> Any:
    made = np.zeros(count, dtype)
    made.flags.writeable = False
    return made


Action = Callable[[SimpleNamespace, Any], object]


def route(m: SimpleNamespace, **changed: Any) -> None:
    given: dict[str, Any] = {"source": m.source, "partition": m.child, "vp": 0, "vector": VECTOR, **changed}
    m.interrupts.route(given.pop("source"), given.pop("partition"), **given)


def set_entry(m: SimpleNamespace, **changed: Any) -> None:
    given: dict[str, Any] = {"device_id": DEVICE, "address": ADDRESS, "data": DATA, "partition": m.child}
    m.interrupts.set_entry(**{**given, "vp": 0, "vector": VECTOR, **changed})


INTEGERS: list[tuple[str, Action, int, int]] = [
    ("device_id", lambda m, bad: m.interrupts.device(bad), 0, (1 << 64) - 1),
    ("device_id", lambda m, bad: m.interrupts.give_device(bad, m.child), 0, (1 << 64) - 1),
    ("device_id", lambda m, bad: set_entry(m, device_id=bad), 0, (1 << 64) - 1),
    ("device_id", lambda m, bad: m.interrupts.entry(bad, ADDRESS, DATA), 0, (1 << 64) - 1),
    ("device_id", lambda m, bad: m.interrupts.remove_entry(bad, ADDRESS, DATA), 0, (1 << 64) - 1),
    ("device_id", lambda m, bad: m.interrupts.owner_of(bad), 0, (1 << 64) - 1),
    ("device_id", lambda m, bad: m.interrupts.knows(bad), 0, (1 << 64) - 1),
    ("device_id", lambda m, bad: m.interrupts.deliver_msi(bad, ADDRESS, DATA), 0, (1 << 64) - 1),
    ("address", lambda m, bad: set_entry(m, address=bad), 0, (1 << 64) - 1),
    ("address", lambda m, bad: m.interrupts.entry(DEVICE, bad, DATA), 0, (1 << 64) - 1),
    ("address", lambda m, bad: m.interrupts.remove_entry(DEVICE, bad, DATA), 0, (1 << 64) - 1),
    ("address", lambda m, bad: m.interrupts.deliver_msi(DEVICE + 1, bad, DATA), 0xFEE0_0000, 0xFEEF_FFFF),
    ("address", lambda m, bad: m.child.send_msi(bad, DATA), 0xFEE0_0000, 0xFEEF_FFFF),
    ("data", lambda m, bad: set_entry(m, data=bad), 0, (1 << 32) - 1),
    ("data", lambda m, bad: m.interrupts.entry(DEVICE, ADDRESS, bad), 0, (1 << 32) - 1),
    ("data", lambda m, bad: m.interrupts.remove_entry(DEVICE, ADDRESS, bad), 0, (1 << 32) - 1),
    ("data", lambda m, bad: m.interrupts.deliver_msi(DEVICE, ADDRESS, bad), 0, (1 << 32) - 1),
    ("data", lambda m, bad: m.child.send_msi(ADDRESS, bad), 0, (1 << 32) - 1),
    ("requester", lambda m, bad: m.child.send_msi(ADDRESS, DATA, requester=bad), 0, (1 << 16) - 1),
    ("vector", lambda m, bad: route(m, vector=bad), 16, 255),
    ("vector", lambda m, bad: set_entry(m, vector=bad), 16, 255),
    ("quantum", lambda m, bad: setattr(m.hypervisor, "quantum", bad), 1, 1 << 32),
    ("quantum", lambda m, bad: Hypervisor(memory="32 MiB", quantum=bad).close(), 1, 1 << 32),
    ("ticks", lambda m, bad: m.connection.post_and_run(m.messages[:0], ticks=bad), 0, 1 << 62),
    ("sint", lambda m, bad: m.vp.take_messages(bad), 0, 15),
    ("value", lambda m, bad: m.platform.write_port(0x21, bad), 0, 0xFF),
    ("value", lambda m, bad: m.platform.write_port(0x20, bad, 2), 0, 0xFFFF),
    ("value", lambda m, bad: m.platform.write_memory(0xFEC0_0000, bad, 4), 0, (1 << 32) - 1),
    ("value", lambda m, bad: m.platform.write_memory(0xFEC0_0000, bad, 8), 0, (1 << 64) - 1),
]


@pytest.mark.parametrize("case", range(len(INTEGERS)), ids=[f"{n}-{case[0]}" for n, case in enumerate(INTEGERS)])
def test_integers(machine: SimpleNamespace, case: int) -> None:
    """What is none, and what is next to the bounds, is refused; the bounds and NumPy's integers are not."""
    name, action, lowest, highest = INTEGERS[case]
    for bad in NO_INTEGERS:
        with pytest.raises(TypeError, match=f"^{name} must be"):
            action(machine, bad)
    for bad in (lowest - 1, highest + 1, BEYOND):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            action(machine, bad)
    for good in (lowest, highest, np.uint64(highest)):
        action(machine, good)


PARTITIONS: list[Action] = [
    lambda m, bad: route(m, partition=bad),
    lambda m, bad: set_entry(m, partition=bad),
    lambda m, bad: m.interrupts.give_device(DEVICE, bad),
]


@pytest.mark.parametrize("case", range(len(PARTITIONS)), ids=["route", "set_entry", "give_device"])
def test_partitions(machine: SimpleNamespace, case: int) -> None:
    """One of this hypervisor that is there, and nothing is kept of one that is refused."""
    for bad in ("x", 1.5, 7, object(), [machine.child]):
        with pytest.raises(TypeError, match="partition must be a Partition"):
            PARTITIONS[case](machine, bad)
    for bad, words in ((machine.gone, "destroyed"), (machine.foreign, "another"), (machine.foreign.parent, "another")):
        with pytest.raises(ValueError, match=f"partition must .*{words}"):
            PARTITIONS[case](machine, bad)
    assert machine.interrupts.owner_of(DEVICE) in (None, machine.child)


CASES: list[tuple[str, Action, type[Exception], tuple[Any, ...]]] = [
    ("name", lambda m, bad: m.interrupts.add(bad), TypeError, (None, 1.5, [], -1, b"a", {}, object())),
    ("line", lambda m, bad: m.interrupts.add("l", line=bad), TypeError, (5, "x", [], object())),
    ("source", lambda m, bad: route(m, source=bad), TypeError, (None, 1.5, [], b"source", object())),
    ("source", lambda m, bad: m.interrupts.to_root(bad), TypeError, (None, 1.5, [], b"source", object())),
    ("source", lambda m, bad: route(m, source=m.foreign_source), ValueError, (None,)),
    ("source", lambda m, bad: m.interrupts.to_root(m.foreign_source), ValueError, (None,)),
    ("vp", lambda m, bad: route(m, vp=bad), TypeError, (None, 1.5, "0", [0.5], [None], object(), np.array(0.5))),
    ("vp", lambda m, bad: route(m, vp=bad), ValueError, (-1, 2, BEYOND, [], (), [0, 2], [0, 0], [1, 0, 1])),
    ("vp", lambda m, bad: set_entry(m, vp=bad), TypeError, (None, 1.5, "0", [0.5], [None], object())),
    ("vp", lambda m, bad: set_entry(m, vp=bad), ValueError, (-1, 2, BEYOND, [], [0, 0])),
    ("processors", lambda m, bad: setattr(m.child, "processors", bad), TypeError, (None, 5, 1.5, "0", [0.5], [None])),
    ("processors", lambda m, bad: setattr(m.child, "processors", bad), ValueError, ([], [2], [-1], [BEYOND])),
    ("processors", lambda m, bad: setattr(m.hypervisor.root, "processors", bad), ValueError, ([0],)),
    ("processors", lambda m, bad: Hypervisor(processors=bad), TypeError, NO_INTEGERS),
    ("processors", lambda m, bad: Hypervisor(processors=bad), ValueError, (0, -1, 2049, BEYOND)),
    ("time", lambda m, bad: Hypervisor(time=bad), ValueError, (None, 1, "x", np.array([1, 2]))),
    ("max_instructions", lambda m, bad: m.hypervisor.run(max_instructions=bad), TypeError, ("x", 1.5, [])),
    ("max_instructions", lambda m, bad: m.hypervisor.run(max_instructions=bad), ValueError, (-1, BEYOND)),
    ("platform", lambda m, bad: m.child.attach_platform(bad), TypeError, (5, "x", object())),
    ("messages", lambda m, bad: m.connection.post_batch(bad), TypeError, (*NO_ARRAYS, np.zeros((2, 2), MESSAGE))),
    ("messages", lambda m, bad: m.connection.post_batch(bad), ValueError, (np.zeros(4, MESSAGE)[::2],)),
    ("messages", lambda m, bad: m.connection.exchange(bad, m.vp), TypeError, NO_ARRAYS),
    ("messages", lambda m, bad: m.connection.post_and_run(bad, ticks=1), TypeError, NO_ARRAYS),
    ("out", lambda m, bad: m.connection.post_batch(m.messages, out=bad), TypeError,
     (*NO_ARRAYS[1:], np.zeros(FULL + 1, np.uint16), np.zeros(FULL, np.uint32))),
    ("out", lambda m, bad: m.connection.post_batch(m.messages, out=bad), ValueError,
     (read_only(FULL, np.uint16), np.zeros(2 * FULL, np.uint16)[::2])),
    ("out", lambda m, bad: m.events.signal_batch([0, 1], out=bad), ValueError, (read_only(2, np.uint16),)),
    ("receiver", lambda m, bad: m.connection.exchange(m.messages, bad), TypeError, NO_ARRAYS),
    ("receiver", lambda m, bad: m.connection.exchange(m.messages, m.foreign.vps[0]), ValueError, (None,)),
    ("receiver", lambda m, bad: m.connection.exchange(m.messages, m.hypervisor.root.vps[0]), ValueError, (None,)),
    ("received", lambda m, bad: m.connection.exchange(m.messages, m.vp, received=bad), TypeError, NO_ARRAYS[1:]),
    ("received", lambda m, bad: m.connection.exchange(m.messages, m.vp, received=bad), ValueError,
     (read_only(3, MESSAGE), np.zeros(4, MESSAGE)[::2])),
    ("out", lambda m, bad: m.vp.take_messages(2, out=bad), TypeError, (*NO_ARRAYS[1:], np.zeros(256, np.uint8))),
    ("out", lambda m, bad: m.vp.take_messages(2, out=bad), ValueError,
     (read_only(3, MESSAGE), np.zeros(4, MESSAGE)[::2])),
    ("flags", lambda m, bad: m.events.signal_batch(bad), TypeError, (None, "x", ["a"], [1.5], [1, "a"], object())),
    ("flags", lambda m, bad: m.events.signal_batch(bad), ValueError, (5, [-1], [65536], [[1]], [[1], [1, 2]])),
    ("payloads", lambda m, bad: make_messages(bad), TypeError, (None, "x", [[1.5]], [["a"]], [[None]])),
    ("payloads", lambda m, bad: make_messages(bad), ValueError,
     (1, [1, 2], [[300]], [[-1]], [[BEYOND]], [[1], [1, 2]], np.zeros((1, 241), np.uint8))),
    ("types", lambda m, bad: make_messages([[1]], types=bad), TypeError, (None, "x", 1.5, [1.5], ["a"])),
    ("types", lambda m, bad: make_messages([[1]], types=bad), ValueError, (0, -1, 1 << 31, 1 << 32, BEYOND, [1, 2])),
    ("sizes", lambda m, bad: make_messages([[1, 2]], sizes=bad), TypeError, ("x", 1.5, [1.5])),
    ("sizes", lambda m, bad: make_messages([[1, 2]], sizes=bad), ValueError, (-1, 3, 256, BEYOND, [1, 2], [[1]])),
    ("edges", lambda m, bad: m.hypervisor.trace_interrupts(edges=bad), TypeError, (5, 1.5, "x", [1.5], [None])),
    ("edges", lambda m, bad: m.hypervisor.trace_interrupts(edges=bad), ValueError, ([], [-1], [1 << 64], [2, 1])),
    ("capacity", lambda m, bad: m.hypervisor.trace_interrupts(capacity=bad), TypeError, NO_INTEGERS),
    ("capacity", lambda m, bad: m.hypervisor.trace_interrupts(capacity=bad), ValueError, (-1, (1 << 28) + 1, BEYOND)),
    ("ports", lambda m, bad: m.vp.interrupts.save(ports=bad), TypeError, (None, 5, "x", [1], [None])),
    ("sources", lambda m, bad: m.vp.interrupts.save(sources=bad), TypeError, (None, 5, "x", [1], [None])),
    ("pin", lambda m, bad: m.platform.pulse(bad), TypeError, NO_INTEGERS),
]


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_arguments(machine: SimpleNamespace, case: int) -> None:
    name, action, error, values = CASES[case]
    for bad in values:
        with pytest.raises(error, match=rf"^(each of )?{name}\b"):
            action(machine, bad)


def test_what_is_refused_leaves_no_trace(machine: SimpleNamespace) -> None:
    """No source of that name, no trace that is open, no exit of a run."""
    assert "l" not in list(machine.interrupts)
    assert machine.hypervisor.interrupt_trace is None
    assert machine.child.processors == (0, 1)


def test_latencies_are_of_a_processor(machine: SimpleNamespace) -> None:
    with machine.hypervisor.trace_interrupts() as trace:
        for bad in ("x", 1.5, 0, [], object()):
            with pytest.raises(TypeError, match=r"^vp must be"):
                trace.latencies(bad)
        with pytest.raises(ValueError, match=r"^vp must be"):
            trace.latencies(machine.foreign.vps[0])


def test_destroyed_partition_takes_nothing(machine: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="does not exist any more"):
        machine.gone.processors = [0]
    with pytest.raises(ValueError, match="does not exist any more"):
        machine.gone.send_msi(ADDRESS, DATA)
    with pytest.raises(ValueError, match="does not exist any more"):
        machine.gone.attach_platform()


CLOSED: dict[str, Callable[[SimpleNamespace], object]] = {
    "add": lambda m: m.interrupts.add("new"),
    "device": lambda m: m.interrupts.device(77),
    "route": route,
    "to_root": lambda m: m.interrupts.to_root(m.source),
    "give_device": lambda m: m.interrupts.give_device(DEVICE, None),
    "set_entry": set_entry,
    "deliver_msi": lambda m: m.interrupts.deliver_msi(DEVICE, ADDRESS, DATA),
    "assert_": lambda m: m.source.assert_(),
    "pulse": lambda m: m.source.pulse(),
    "trace_interrupts": lambda m: m.hypervisor.trace_interrupts(),
    "quantum": lambda m: setattr(m.hypervisor, "quantum", 5),
    "run": lambda m: m.hypervisor.run(max_instructions=5),
}


def test_closed_hypervisor_takes_nothing() -> None:
    machine = make_machine()
    machine.hypervisor.close()
    for name, action in CLOSED.items():
        with pytest.raises(RuntimeError, match="was closed"):
            print(name, action(machine))
    machine.hypervisor.close()
    machine.foreign.hypervisor.close()
