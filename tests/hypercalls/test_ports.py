"""Calls 58, 5B, 5C, 5D, 95, 96: ports, connections, messages, events (hyperv-abi.md 4.8, 9)."""

from struct import pack, unpack_from

import pytest
from hypercall_machine import UNKNOWN_ID

from hvcore.enums import Hypercall, Status

MESSAGE, EVENT, MONITOR, DOORBELL = 1, 2, 3, 4
ANY = 0xFFFFFFFF
SCONTROL, SIEFP, SIMP, SINT0 = 0x40000080, 0x40000082, 0x40000083, 0x40000090
SINT = 2


def message_info(sint=SINT, vp=0):
    return pack("<IIIIQ", MESSAGE, 0, sint, vp, 0)


def event_info(sint=SINT, vp=0, base=0, count=16):
    return pack("<IIIIHHI", EVENT, 0, sint, vp, base, count, 0)


def monitor_info(gpa):
    return pack("<IIQQ", MONITOR, 0, gpa, 0)


def doorbell_info(sint=SINT, vp=0):
    return pack("<IIIIQ", DOORBELL, 0, sint, vp, 0)


def create_port(machine, owner, sender, info, *, port=1, vtl=0, min_vtl=0, proximity=0, **keywords):
    values = (owner, port, vtl, min_vtl, 0, sender, info, proximity)
    machine.call(Hypercall.CREATE_PORT, "QIBBHQ24sQ", *values, **keywords)


def connect_port(machine, sender, owner, kind, *, connection=5, port=1, rest=(0, 0, 0), vtl=0, proximity=0, **keywords):
    info = pack("<IIQQQ", kind, 0, *rest)
    values = (sender, connection, vtl, owner, port, info, proximity)
    machine.call(Hypercall.CONNECT_PORT, "QIB3xQI4x32sQ", *values, **keywords)


def post(machine, *, caller=None, connection=5, kind=1, payload=b"hello", size=None, **keywords):
    values = (connection, kind, len(payload) if size is None else size, payload)
    machine.call(Hypercall.POST_MESSAGE, "I4xII240s", *values, caller=caller, **keywords)


def signal(machine, *, caller=None, connection=5, flag=0, **keywords):
    machine.call(Hypercall.SIGNAL_EVENT, "IH2x", connection, flag, caller=caller, **keywords)


def enable_synic(partition, vp, sint=SINT):
    controller = partition.vps[vp].interrupts
    for msr, value in ((SCONTROL, 1), (SIMP, 0x8001), (SIEFP, 0x9001), (SINT0 + sint, 0xF3)):
        assert controller.write_msr(msr, value, 0)


def message_slot(machine, partition, vp, sint=SINT):
    page = machine.memory.page(partition.frames[vp].message_page)
    kind, size, flags, sender = unpack_from("<IBB2xQ", page, sint * 256)
    return kind, flags, sender, bytes(page[sint * 256 + 16 : sint * 256 + 16 + size])


@pytest.fixture
def child(machine):
    return machine.child(vps=2)


def link(machine, child, info, kind, **rest):
    create_port(machine, child.id, machine.root.id, info)
    machine.deposit(machine.root, 1)
    connect_port(machine, machine.root.id, child.id, kind, **rest)


def test_message(machine, child):
    enable_synic(child, 0)
    link(machine, child, message_info(), MESSAGE)
    post(machine, kind=7, payload=b"first")
    assert message_slot(machine, child, 0) == (7, 0, 1, b"first")
    post(machine, kind=8, payload=b"second")
    assert message_slot(machine, child, 0) == (7, 1, 1, b"first")
    for _ in range(15):
        post(machine, kind=9)
    post(machine, expect=Status.INSUFFICIENT_BUFFERS)
    machine.call(Hypercall.DELETE_PORT, "QII", child.id, 1, 0)
    post(machine, expect=Status.INVALID_PORT_ID)


def test_message_to_any(machine, child):
    link(machine, child, message_info(vp=ANY), MESSAGE)
    post(machine, expect=Status.INVALID_SYNIC_STATE)
    enable_synic(child, 1)
    post(machine, kind=3)
    assert message_slot(machine, child, 1)[0] == 3


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"connection": 6}, Status.INVALID_CONNECTION_ID),
        ({"connection": 5 | 1 << 24}, Status.INVALID_CONNECTION_ID),
        ({"kind": 0}, Status.INVALID_PARAMETER),
        ({"kind": 0x80000000}, Status.INVALID_PARAMETER),
        ({"size": 241}, Status.INVALID_PARAMETER),
        ({"size": 0}, Status.SUCCESS),
        ({"size": 240, "kind": 0x7FFFFFFF}, Status.SUCCESS),
    ],
)
def test_message_parameters(machine, child, arguments, status):
    enable_synic(child, 0)
    link(machine, child, message_info(), MESSAGE)
    post(machine, **arguments, expect=status)


def test_event(machine, child):
    enable_synic(child, 1)
    link(machine, child, event_info(vp=1, base=100, count=8), EVENT)
    signal(machine, flag=3)
    page = machine.memory.page(child.frames[1].event_page)
    assert page[SINT * 256 + 103 // 8] == 1 << 103 % 8
    assert child.vps[1].interrupts.counters
    signal(machine, flag=8, expect=Status.INVALID_PARAMETER)
    signal(machine, connection=9, expect=Status.INVALID_CONNECTION_ID)
    post(machine, expect=Status.INVALID_PORT_ID)
    child.vps[1].interrupts.write_msr(SINT0 + SINT, 0x100F3, 0)
    signal(machine, flag=4, expect=Status.INVALID_SYNIC_STATE)


def test_event_needs_synic(machine, child):
    link(machine, child, event_info(vp=ANY), EVENT)
    signal(machine, expect=Status.INVALID_SYNIC_STATE)
    enable_synic(child, 1)
    signal(machine)


def test_calls_need_privileges(machine, child):
    post(machine, caller=child, expect=Status.ACCESS_DENIED)
    signal(machine, caller=child, expect=Status.ACCESS_DENIED)
    create_port(machine, child.id, 1, message_info(), caller=child, expect=Status.ACCESS_DENIED)
    connect_port(machine, child.id, 1, MESSAGE, caller=child, expect=Status.ACCESS_DENIED)
    for call in (Hypercall.DELETE_PORT, Hypercall.DISCONNECT_PORT):
        machine.call(call, "QII", child.id, 1, 0, caller=child, expect=Status.ACCESS_DENIED)


@pytest.mark.parametrize(
    ("info", "status"),
    [
        (message_info(sint=0), Status.INVALID_PARAMETER),
        (message_info(sint=16), Status.INVALID_PARAMETER),
        (message_info(vp=2), Status.INVALID_VP_INDEX),
        (message_info(vp=0xFFFFFFFE), Status.INVALID_VP_INDEX),
        (event_info(count=0), Status.INVALID_PARAMETER),
        (event_info(base=2040, count=9), Status.INVALID_PARAMETER),
        (event_info(base=2040, count=8), Status.SUCCESS),
        (event_info(sint=0), Status.INVALID_PARAMETER),
        (monitor_info(0x1008), Status.INVALID_ALIGNMENT),
        (monitor_info(1 << 46), Status.INVALID_PARAMETER),
        (doorbell_info(), Status.INVALID_PARAMETER),
        (pack("<IIIIQ", 0, 0, 2, 0, 0), Status.INVALID_PARAMETER),
        (pack("<IIIIQ", 5, 0, 2, 0, 0), Status.INVALID_PARAMETER),
    ],
)
def test_port_info(machine, child, info, status):
    create_port(machine, child.id, 1, info, expect=status)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"port": 1 << 24}, Status.INVALID_PORT_ID),
        ({"port": 1}, Status.INVALID_PORT_ID),
        ({"port": 2, "sender": UNKNOWN_ID}, Status.INVALID_PARTITION_ID),
        ({"port": 2, "owner": UNKNOWN_ID}, Status.INVALID_PARTITION_ID),
        ({"port": 2, "vtl": 0x20}, Status.INVALID_PARAMETER),
        ({"port": 2, "min_vtl": 0x11}, Status.INVALID_VTL_STATE),
        ({"port": 2, "proximity": 2 << 32}, Status.INVALID_PARAMETER),
    ],
)
def test_create_port_refuses(machine, child, arguments, status):
    create_port(machine, child.id, 1, message_info())
    create_port(machine, **{"owner": child.id, "sender": 1, "info": message_info()} | arguments, expect=status)


def test_port_relations(machine, child):
    create_port(machine, child.id, child.id, message_info(), expect=Status.INVALID_PARTITION_ID)
    _, grandchild = machine.parent_and_grandchild()
    create_port(machine, grandchild.id, 1, message_info(), expect=Status.ACCESS_DENIED)
    machine.deposit(machine.root, 1)
    create_port(machine, machine.root.id, child.id, message_info())


def test_ports_and_connections_are_charged_to_their_owners(machine):
    child = machine.child(vps=1, deposit=0)
    create_port(machine, child.id, 1, message_info(), expect=Status.INSUFFICIENT_MEMORY)
    create_port(machine, child.id, 1, monitor_info(0x1000), expect=Status.INSUFFICIENT_MEMORY)
    assert child.space.resolve(0x1000) is None
    machine.deposit(child, 1)
    create_port(machine, child.id, 1, message_info())
    assert child.pool.available == 0
    connect_port(machine, 1, child.id, MESSAGE, expect=Status.INSUFFICIENT_MEMORY)
    machine.deposit(machine.root, 1)
    connect_port(machine, 1, child.id, MESSAGE)
    machine.call(Hypercall.DISCONNECT_PORT, "QII", 1, 5, 0)
    machine.call(Hypercall.DELETE_PORT, "QII", child.id, 1, 0)
    assert (child.pool.available, machine.root.pool.available) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"connection": 1 << 24}, Status.INVALID_CONNECTION_ID),
        ({"port": 2}, Status.INVALID_PORT_ID),
        ({"owner": UNKNOWN_ID}, Status.INVALID_PARTITION_ID),
        ({"sender": UNKNOWN_ID}, Status.INVALID_PARTITION_ID),
        ({"kind": EVENT}, Status.INVALID_PARAMETER),
        ({"vtl": 0x40}, Status.INVALID_PARAMETER),
        ({"proximity": 2 << 32}, Status.INVALID_PARAMETER),
    ],
)
def test_connect_refuses(machine, child, arguments, status):
    machine.deposit(machine.root, 1)
    create_port(machine, child.id, 1, message_info())
    connect_port(machine, **{"sender": 1, "owner": child.id, "kind": MESSAGE} | arguments, expect=status)


def test_one_connection_for_a_port_and_only_its_sender(machine, child):
    other = machine.child()
    link(machine, child, message_info(), MESSAGE)
    machine.deposit(machine.root, 1)
    connect_port(machine, 1, child.id, MESSAGE, connection=6, expect=Status.INVALID_PORT_ID)
    create_port(machine, child.id, 1, message_info(), port=2)
    connect_port(machine, 1, child.id, MESSAGE, port=2, expect=Status.INVALID_CONNECTION_ID)
    connect_port(machine, other.id, child.id, MESSAGE, port=2, expect=Status.INVALID_PARTITION_ID)
    machine.call(Hypercall.DISCONNECT_PORT, "QII", 1, 5, 0)
    connect_port(machine, 1, child.id, MESSAGE)


def test_delete_and_disconnect_refuse(machine, child):
    machine.call(Hypercall.DELETE_PORT, "QII", child.id, 1, 0, expect=Status.INVALID_PORT_ID)
    machine.call(Hypercall.DELETE_PORT, "QII", UNKNOWN_ID, 1, 0, expect=Status.INVALID_PARTITION_ID)
    machine.call(Hypercall.DISCONNECT_PORT, "QII", 1, 5, 0, expect=Status.INVALID_CONNECTION_ID)
    machine.call(Hypercall.DISCONNECT_PORT, "QII", UNKNOWN_ID, 5, 0, expect=Status.INVALID_PARTITION_ID)
    link(machine, child, message_info(), MESSAGE)
    for flags in (1, 2):
        machine.call(Hypercall.DISCONNECT_PORT, "QII", 1, 5, flags, expect=Status.INVALID_PARAMETER)


def test_a_finalized_owner_leaves_a_dead_connection(machine, child):
    enable_synic(child, 0)
    link(machine, child, message_info(), MESSAGE)
    machine.call(Hypercall.FINALIZE_PARTITION, "Q", child.id)
    post(machine, expect=Status.INVALID_PORT_ID)
    machine.call(Hypercall.DISCONNECT_PORT, "QII", 1, 5, 0)


def test_a_target_vp_that_is_gone(machine, child):
    link(machine, child, message_info(vp=1), MESSAGE)
    machine.hypervisor.scheduler.remove(child.vps.pop(1))
    post(machine, expect=Status.INVALID_VP_INDEX)


def test_monitor_page_is_shared(machine, child):
    create_port(machine, machine.root.id, child.id, monitor_info(0x5000), expect=Status.INSUFFICIENT_MEMORY)
    create_port(machine, child.id, 1, monitor_info(0x5000))
    machine.deposit(machine.root, 1)
    connect_port(machine, 1, child.id, MONITOR, rest=(0x7004, 0, 0), expect=Status.INVALID_ALIGNMENT)
    connect_port(machine, 1, child.id, MONITOR, rest=(0x7000, 0, 0))
    page = child.space.resolve(0x5000)
    assert page[3]
    assert machine.root.space.resolve(0x7000)[0] == page[0]
    machine.call(Hypercall.DELETE_PORT, "QII", child.id, 1, 0)
    assert child.space.resolve(0x5000) is None
    assert not machine.root.space.resolve(0x7000)[3]


@pytest.mark.parametrize(
    ("gpa", "flags", "status"),
    [
        (0x10000, 0, Status.SUCCESS),
        (0x10FFF, 1, Status.SUCCESS),
        (0x10FFF, 2, Status.INVALID_PARAMETER),
        (0x10000, 5, Status.INVALID_PARAMETER),
        (0x10000, 8, Status.INVALID_PARAMETER),
        (0x10000, 1 << 31, Status.SUCCESS),
        (1 << 46, 0, Status.INVALID_PARAMETER),
    ],
)
def test_doorbell_connections(machine, child, gpa, flags, status):
    machine.deposit(machine.root, 1)
    create_port(machine, 1, child.id, doorbell_info())
    connect_port(machine, child.id, 1, DOORBELL, rest=(gpa, 0x55, flags), expect=status)


def test_disconnect_doorbell(machine, child):
    machine.deposit(machine.root, 1)
    create_port(machine, 1, child.id, doorbell_info())
    connect_port(machine, child.id, 1, DOORBELL, rest=(0x10000, 0, 0))
    machine.call(Hypercall.DISCONNECT_PORT, "QII", child.id, 5, 0, expect=Status.INVALID_PARAMETER)
    machine.call(Hypercall.DISCONNECT_PORT, "QII", child.id, 5, 1)
