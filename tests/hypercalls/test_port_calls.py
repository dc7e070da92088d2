"""Calls 57, 59, 5A, 70, 8B, C0, C1: old layouts, properties, event rings, direct messages and events (4.8, 9, 13)."""

from struct import pack, unpack, unpack_from

import pytest
from hypercall_machine import SELF, UNKNOWN_ID

from hvcore._native import ports
from hvcore.enums import ANY_VP, Hypercall, Status

SINT, RING, DIRECT_TYPE = 5, 5 * 256, 0x8000_0061
SCONTROL, SIEFP, SIMP, SIRBP, SINT0 = 0x40000080, 0x40000082, 0x40000083, 0x40000085, 0x40000090


def enable(partition, vp=0):
    controller = partition.vps[vp].interrupts
    controller.apic_enabled = True
    for msr, value in ((SCONTROL, 1), (SIMP, 0x8001), (SIEFP, 0x9001), (SINT0 + SINT, 0xF3)):
        assert controller.write_msr(msr, value, 0)
    return controller


@pytest.fixture
def child(machine):
    return machine.child(vps=2, deposit=200)


def message_port(machine, owner, sender, *, port=1, vp=0, code=0x57, expect=Status.SUCCESS):
    """By the old layout: no VTLs, no proximity domain."""
    info = pack("<IIIIQ", 1, 0, SINT, vp, 0)
    machine.call(code, "QIIQ24s", owner, port, 0, sender, info, expect=expect)


def old_connection(machine, sender, owner, *, kind=1, connection=5, port=1, expect=Status.SUCCESS):
    machine.call(0x59, "QIIQIIII", sender, connection, 0, owner, port, 0, kind, 0, expect=expect)


def post(machine, *, connection=5, size=0, caller=None, expect=Status.SUCCESS):
    machine.call(Hypercall.POST_MESSAGE, "IIII240s", connection, 0, 1, size, b"", caller=caller, expect=expect)


def test_old_layouts(machine, child):
    """13 #3: codes 57 and 59 with their own layouts."""
    enable(child)
    machine.deposit(machine.root, 1)
    message_port(machine, child.id, 1)
    message_port(machine, child.id, 1, expect=Status.INVALID_PORT_ID)
    message_port(machine, UNKNOWN_ID, 1, expect=Status.INVALID_PARTITION_ID)
    old_connection(machine, SELF, child.id, kind=2, expect=Status.INVALID_PARAMETER)
    old_connection(machine, SELF, child.id, kind=3, expect=Status.INVALID_PARAMETER)
    old_connection(machine, SELF, child.id, port=2, expect=Status.INVALID_PORT_ID)
    old_connection(machine, SELF, child.id)
    old_connection(machine, SELF, child.id, expect=Status.INVALID_CONNECTION_ID)
    post(machine)


def test_port_properties(machine, child):
    """5A and 70: post count and preferred target."""
    enable(child, 1)
    machine.deposit(machine.root, 1)
    message_port(machine, child.id, 1)
    old_connection(machine, 1, child.id)

    def get(code, *, owner=child.id, port=1, expect=Status.SUCCESS):
        found = machine.call(Hypercall.GET_PORT_PROPERTY, "QIIII", owner, port, 0, code, 0, expect=expect)
        return unpack("<Q", found)[0] if found else None

    def set_(code, value, *, owner=child.id, port=1, expect=Status.SUCCESS):
        machine.call(Hypercall.SET_PORT_PROPERTY, "QIIIIQ", owner, port, 0, code, 0, value, expect=expect)

    assert (get(0), get(1)) == (0, 0)
    post(machine, expect=Status.INVALID_SYNIC_STATE)
    set_(1, 1)
    for _ in range(17):
        post(machine)
    post(machine, expect=Status.INSUFFICIENT_BUFFERS)
    assert (get(0), get(1)) == (17, 1), "refused posts are none"
    set_(1, ANY_VP)
    assert get(1) == ANY_VP
    set_(1, 2, expect=Status.INVALID_VP_INDEX)
    set_(1, 1 << 32, expect=Status.INVALID_VP_INDEX)
    set_(0, 0, expect=Status.INVALID_PARAMETER)
    for call in (get, lambda code, **more: set_(code, 0, **more)):
        call(2, expect=Status.UNKNOWN_PROPERTY)
        call(1, port=2, expect=Status.INVALID_PORT_ID)
        call(1, owner=UNKNOWN_ID, expect=Status.INVALID_PARTITION_ID)


def test_reserved_fields_of_infos_are_checked(machine, child):
    machine.deposit(machine.root, 1)
    event_with_tail = (2, 0, SINT, 0, 1 << 32 | 16 << 16)
    for words in ((1, 1, SINT, 0, 0), (1, 0, SINT, 0, 1), (1, 0, SINT, 0, 1 << 63), event_with_tail):
        values = (child.id, 9, 0, 0, 0, 1, pack("<IIIIQ", *words), 0)
        machine.call(Hypercall.CREATE_PORT, "QIBBHQ24sQ", *values, expect=Status.INVALID_PARAMETER)
    message_port(machine, child.id, 1)
    for words in ((1, 1, 0, 0, 0), (1, 0, 1, 0, 0), (1, 0, 0, 1, 0), (1, 0, 0, 0, 1)):
        values = (1, 5, 0, 0, 0, child.id, 1, 0, pack("<IIQQQ", *words), 0)
        machine.call(Hypercall.CONNECT_PORT, "QIBBHQII32sQ", *values, expect=Status.INVALID_PARAMETER)


def direct_event(machine, target, *, vp=0, vtl=0, sint=SINT, flag=9, **keywords):
    return machine.call(Hypercall.SIGNAL_EVENT_DIRECT, "QIBBH", target, vp, vtl, sint, flag, **keywords)


def direct_message(machine, target, *, vp=0, vtl=0, sint=SINT, type=DIRECT_TYPE, size=4, payload=b"", **keywords):
    message = pack("<IBBHQ240s", type, size, 1, 0, 77, payload)
    values = (target, vp, vtl, sint, message, 0)
    machine.call(Hypercall.POST_MESSAGE_DIRECT, "QIB3xB3x256sI", *values, **keywords)


def test_signal_event_direct(machine, child):
    """C0 says whether the flag was clear before (9.3)."""
    direct_event(machine, child.id, expect=Status.INVALID_SYNIC_STATE)
    controller = enable(child)
    assert direct_event(machine, child.id) == pack("<Q", 1)
    assert direct_event(machine, child.id) == pack("<Q", 0)
    assert machine.memory.page(child.frames[0].event_page)[SINT * 256 + 1] == 2
    assert controller.pending_vector() == 0xF3


def test_post_message_direct(machine, child):
    """C1 in the layout of 13 #4: the whole HV_MESSAGE, no queue behind it."""
    direct_message(machine, child.id, expect=Status.INVALID_SYNIC_STATE)
    controller = enable(child)
    direct_message(machine, child.id, payload=b"whole")
    page = machine.memory.page(child.frames[0].message_page)
    slot = bytes(page[SINT * 256 : SINT * 256 + 256])
    assert slot == pack("<IBBHQ240s", DIRECT_TYPE, 4, 0, 0, 77, b"whole"), "MessagePending is the hypervisor's"
    assert controller.pending_vector() == 0xF3
    direct_message(machine, child.id, expect=Status.INSUFFICIENT_BUFFERS)
    assert page[SINT * 256 + 5] == 1, "the guest owes an EOM now"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"target": UNKNOWN_ID}, Status.INVALID_PARTITION_ID),
        ({"target": 1}, Status.ACCESS_DENIED),
        ({"vp": 2}, Status.INVALID_VP_INDEX),
        ({"vtl": 0x20}, Status.INVALID_PARAMETER),
        ({"vtl": 0x11}, Status.INVALID_VTL_STATE),
        ({"sint": 16}, Status.INVALID_PARAMETER),
    ],
)
def test_direct_calls_refuse(machine, child, arguments, status):
    enable(child)
    for call in (direct_event, direct_message):
        call(machine, **{"target": child.id} | arguments, expect=status)


def test_direct_calls_refuse_what_they_would_deliver(machine, child):
    enable(child)
    direct_event(machine, child.id, flag=2048, expect=Status.INVALID_PARAMETER)
    direct_message(machine, child.id, type=0, expect=Status.INVALID_PARAMETER)
    direct_message(machine, child.id, size=241, expect=Status.INVALID_PARAMETER)


def doorbell(machine, child, *, port, connection, gpa=0x5000, value=0, flags=1 << 31, vp=0, sint=SINT):
    machine.deposit(machine.root, 1)
    info = pack("<IIIIQ", 4, 0, sint, vp, 0)
    machine.call(Hypercall.CREATE_PORT, "QIBBHQ24sQ", 1, port, 0, 0, 0, child.id, info, 0)
    info = pack("<IIQQQ", 4, 0, gpa, value, flags)
    machine.call(Hypercall.CONNECT_PORT, "QIBBHQII32sQ", child.id, connection, 0, 0, 0, 1, port, 0, info, 0)


def consume(page, tail):
    """What the reader of a ring does: take the entry, store 0."""
    (port_id,) = unpack_from("<I", page, RING + 4 + 4 * tail)
    page[RING + 4 + 4 * tail : RING + 8 + 4 * tail] = bytes(4)
    return port_id


def test_a_full_ring_loses_no_doorbell(machine, child):
    """9.5: 63 entries, then ring-full; HvCallNotifyPortRingEmpty brings what is still to be told."""
    controller = enable(machine.root)
    for port in range(70):
        doorbell(machine, child, port=100 + port, connection=port + 1, gpa=0x5000 + 8 * port)
    page = machine.memory.page(machine.root.frames[0].event_ring)
    for port in range(70):
        assert ports.ring(child.core, 0x5000 + 8 * port, 4, 0)
    assert ports.ring(child.core, 0x5000 + 8 * 69, 4, 0)
    assert (page[RING], page[RING + 1]) == (1, 1)
    assert controller.acknowledge() == 0xF3
    assert controller.pending_vector() is None
    seen = [consume(page, tail) for tail in range(63)]
    assert seen == list(range(100, 163))
    page[RING + 1] = 0
    machine.call(Hypercall.NOTIFY_PORT_RING_EMPTY, "II", SINT, 0)
    assert [consume(page, tail) for tail in range(8)] == [*range(163, 170), 0]
    assert controller.pending_vector() is None, "the reader masked it while it reads"
    page[RING] = 0
    controller.write_msr(0x40000070, 0, 0)
    ports.ring(child.core, 0x5000, 4, 0)
    assert controller.pending_vector() == 0xF3
    counters = controller.counters()
    assert [counters[name] for name in ("rings", "rings_delayed", "rings_merged")] == [71, 7, 1]


def test_ring_empty_is_the_roots(machine, child):
    machine.call(Hypercall.NOTIFY_PORT_RING_EMPTY, "II", 16, 0, expect=Status.INVALID_PARAMETER)
    machine.call(Hypercall.NOTIFY_PORT_RING_EMPTY, "II", 1, 0, caller=child, expect=Status.ACCESS_DENIED)


@pytest.mark.parametrize(
    ("flags", "value", "writes"),
    [
        (1, 0x55, {(1, 0x55): True, (2, 0x55): False, (1, 0x54): False}),
        (4, 1 << 40, {(8, 1 << 40): True, (8, 0): False, (4, 0): False}),
        (0, 7, {(1, 7): True, (2, 7): True, (4, 7): True, (8, 7): True, (8, 8): False}),
        (1 << 31 | 2, 0, {(2, 9): True, (4, 9): False}),
    ],
)
def test_which_write_rings_a_doorbell(machine, child, flags, value, writes):
    doorbell(machine, child, port=3, connection=4, flags=flags, value=value)
    for (size, written), taken in writes.items():
        assert ports.ring(child.core, 0x5000, size, written) is taken
        assert ports.ring(child.core, 0x5001, size, written) is False


def test_doorbells_of_one_address_are_told_apart_by_value(machine, child):
    enable(machine.root)
    for port in range(3):
        doorbell(machine, child, port=10 + port, connection=1 + port, value=port, flags=3)
    page = machine.memory.page(machine.root.frames[0].event_ring)
    for value in (2, 0, 1):
        assert ports.ring(child.core, 0x5000, 4, value)
    assert [consume(page, tail) for tail in range(3)] == [12, 10, 11]
    machine.call(Hypercall.DELETE_PORT, "QII", 1, 11, 0)
    assert not ports.ring(child.core, 0x5000, 4, 1), "a dead doorbell is an unmapped page again"


def test_a_doorbell_that_nobody_hears_is_an_unmapped_page(machine, child):
    doorbell(machine, child, port=3, connection=4, vp=1)
    machine.hypervisor.scheduler.remove(machine.root.vps.pop(1))
    assert not ports.ring(child.core, 0x5000, 4, 0)


def test_event_ring_page(machine, child):
    """SIRBP moves its page over GPA space (11.3); as-intercept tells SINT0 too (9.4)."""
    controller = enable(machine.root)
    controller.write_msr(SINT0 + SINT, 0xF3 | 1 << 19, 0)
    vp = machine.root.vps[0]
    for gpa in (0x70000, 0x71000):
        vp.rcx, vp.rdx, vp.rax = SIRBP, 0, gpa | 1
        assert machine.hypervisor.service(vp, 2)
        vp.rcx = SIRBP
        assert machine.hypervisor.service(vp, 1)
        assert vp.rax == gpa | 1
        assert machine.root.space.resolve(gpa)[0] >> 12 == machine.root.frames[0].event_ring
    doorbell(machine, child, port=3, connection=4)
    ports.ring(child.core, 0x5000, 1, 0)
    page = machine.memory.page(machine.root.frames[0].message_page)
    assert unpack_from("<IBBHQI", page) == (0x80000061, 4, 0, 0, 0, SINT)


def test_looking_up_among_many_connections(machine, child):
    """Ids in random order, some removed: each finds its own port."""
    enable(child)
    count = 200
    machine.deposit(child, count)
    machine.deposit(machine.root, count)
    ids = [(7919 * number) % 16777213 for number in range(1, count)]
    for number, connection in enumerate(ids):
        message_port(machine, child.id, 1, port=number)
        old_connection(machine, 1, child.id, connection=connection, port=number)
    for connection in ids[::3]:
        machine.call(Hypercall.DISCONNECT_PORT, "QII", 1, connection, 0)
    for number, connection in enumerate(ids):
        post(machine, connection=connection, expect=Status.SUCCESS if number % 3 else Status.INVALID_CONNECTION_ID)
        assert child.ports[number].posts == (1 if number % 3 else 0)
    post(machine, connection=ids[1] + 1, expect=Status.INVALID_CONNECTION_ID)


def test_the_parent_hears_once_when_an_awaited_slot_is_free(machine, child):
    """DeliverabilityNotifications [63:48] (7.4): message 80000062 {u16 SINT set} to SINT0 of the parent, one shot."""
    controller = enable(child)
    vp, name = child.vps[0], 0x10006
    page = machine.memory.page(child.frames[0].message_page)
    direct_message(machine, child.id)

    def set_(value, expect=Status.SUCCESS):
        values = (child.id, 0, 0, name, 0, 0, value, 0)
        machine.call(Hypercall.SET_VP_REGISTERS, "QIIIIQQQ", *values, reps=1, expect=expect)

    set_(1 << 48 + SINT | 1 << 48 + 7)
    assert page[SINT * 256 + 5] == 1, "the guest is asked for an EOM"
    found = machine.call(Hypercall.GET_VP_REGISTERS, "QIII", child.id, 0, 0, name, reps=1)
    assert unpack("<QQ", found) == (1 << 48 + SINT, 0), "slot 7 is free already"
    assert controller.deliverable_sints == 1 << 7
    page[SINT * 256 : SINT * 256 + 4] = bytes(4)
    controller.write_msr(0x40000084, 0, 0)
    assert (controller.awaited_sints, controller.deliverable_sints) == (0, 1 << 7 | 1 << SINT)
    set_(1 << 20, expect=Status.INVALID_PARAMETER)
    # The run loop tells the parent before the child executes anything.
    enable(machine.root)
    child.core.host_managed = False
    vp.explicit_suspend = False
    machine.hypervisor.run(max_instructions=10)
    slot = machine.memory.page(machine.root.frames[0].message_page)
    assert unpack_from("<IBBHQ", slot) == (0x80000062, 48, 0, 0, child.id)
    assert unpack_from("<H", slot, 16 + 40) == (1 << 7 | 1 << SINT,)
    assert vp.intercept_suspend and not controller.deliverable_sints
    assert vp.counters()["instructions"] == 0
