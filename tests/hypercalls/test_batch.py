"""Many messages in one call from Python: the statuses, order and counts of single posts (4.8, 9.2)."""

from struct import pack, unpack

import numpy as np
import pytest
from hypercall_machine import ALL_PRIVILEGES

import hvcore
from hvcore.enums import Hypercall, PortType, ServiceReason, Status
from hvcore.ports import MESSAGE, make_messages

SINT = 4
SCONTROL, SIEFP, SIMP, SINT0 = 0x40000080, 0x40000082, 0x40000083, 0x40000090
POLLING = 1 << 18
PORT, CONNECTION = 9, 11


def wire(hypervisor, kind, flags=0):
    """(sender, receiver, connection): a child each; the receiver's SynIC is on, its SINT polls."""
    root = hypervisor.root
    sender, receiver = (root.create_partition(vps=1, privileges=ALL_PRIVILEGES) for _ in range(2))
    receiver.ram = receiver.map_memory(gpa=0, size="4 MiB", page_size="4 KiB")
    vp = receiver.vps[0]
    for index, value in ((SCONTROL, 1), (SIMP, 0x20001), (SIEFP, 0x21001), (SINT0 + SINT, POLLING | 0x50)):
        assert vp.interrupts.write_msr(index, value, 0)
    info = pack("<IIIIHHI", kind, 0, SINT, 0, 0, flags, 0)
    root.hypercall(Hypercall.CREATE_PORT, pack("<QIBBHQ24sQ", receiver.id, PORT, 0, 0, 0, sender.id, info, 0))
    made = pack("<QIBBHQII32sQ", sender.id, CONNECTION, 0, 0, 0, receiver.id, PORT, 0, pack("<I", kind), 0)
    assert root.hypercall(Hypercall.CONNECT_PORT, made).status is Status.SUCCESS
    return sender, receiver, sender.connections[CONNECTION]


@pytest.fixture
def wired():
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        yield wire(hypervisor, PortType.MESSAGE)


def numbered(count):
    payloads = np.zeros((count, 16), np.uint8)
    payloads.view("<u4")[:, 0] = np.arange(count)
    return make_messages(payloads, types=7)


def numbers(messages):
    return messages["payload"][:, :4].copy().view("<u4").ravel().tolist()


def test_what_finds_no_buffer_is_refused(wired):
    """One in the slot, sixteen in buffers (9.2), the rest INSUFFICIENT_BUFFERS; all are counted as single posts are."""
    _, receiver, connection = wired
    out = np.full(30, 0xFFFF, np.uint16)
    assert connection.post_batch(numbered(30), out=out) is out
    assert out.tolist() == [0] * 17 + [Status.INSUFFICIENT_BUFFERS] * 13
    assert receiver.vps[0].interrupts.counters()["messages_refused"] == 13
    taken = receiver.vps[0].take_messages(SINT)
    assert numbers(taken) == list(range(17))
    assert set(taken["sender"]) == {PORT} and set(taken["type"]) == {7} and set(taken["size"]) == {16}
    assert len(receiver.vps[0].take_messages(SINT)) == 0


def test_each_status_is_that_of_a_single_post(wired):
    """Random types and sizes, good and bad, against HvCallPostMessage from Python one by one."""
    sender, receiver, connection = wired
    seed = 31
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    messages = np.zeros(400, MESSAGE)
    messages["type"] = random.choice([0, 1, 7, 0x7FFFFFFF, 0x80000000], 400)
    messages["size"] = random.integers(0, 256, 400)
    messages["payload"] = random.integers(0, 256, (400, 240))
    statuses, taken = connection.exchange(messages, receiver.vps[0])
    alone, delivered = [], []
    for message in messages:
        data = pack("<IIII240s", CONNECTION, 0, message["type"], message["size"], message["payload"].tobytes())
        alone.append(sender.hypercall(Hypercall.POST_MESSAGE, data).status)
        delivered += [one.tobytes() for one in receiver.vps[0].take_messages(SINT)]
    assert statuses.tolist() == alone
    assert set(alone) == {Status.SUCCESS, Status.INVALID_PARAMETER}
    plain = [one.tobytes()[:5] + one.tobytes()[6:] for one in taken]  # but for MessagePending
    assert plain == [one[:5] + one[6:] for one in delivered]


def test_an_exchange_loses_nothing(wired):
    _, receiver, connection = wired
    statuses, taken = connection.exchange(numbered(1000), receiver.vps[0])
    assert not statuses.any()
    assert numbers(taken) == list(range(1000))
    counts = receiver.vps[0].interrupts.counters()
    assert counts["messages_queued"] == counts["messages_delivered"] == 1000


def test_an_exchange_stops_where_there_is_no_room(wired):
    """`received` full: what is queued stays queued, what follows is refused."""
    _, receiver, connection = wired
    statuses, taken = connection.exchange(numbered(100), receiver.vps[0], received=np.empty(20, MESSAGE))
    assert numbers(taken) == list(range(20))
    assert statuses.tolist() == [0] * 37 + [Status.INSUFFICIENT_BUFFERS] * 63
    assert numbers(receiver.vps[0].take_messages(SINT)) == list(range(20, 37))


HANDLER = bytes.fromhex(
    "8b4610 890487"  # mov eax, [rsi + 16]; mov [rdi + rax * 4], eax: the message's number at its place
    "c70600000000"  # mov dword [rsi], 0
    "f6460501 740b"  # test byte [rsi + 5], 1; jz behind the EOM
    "b984000040 31c0 31d2 0f30"  # wrmsr(EOM, 0)
    "b970000040 31c0 31d2 0f30 48cf"  # wrmsr(EOI, 0); iretq
)
HALT = bytes.fromhex("f4 ebfd")  # hlt; jmp back


def set_msr(vp, index, value):
    vp.rcx, vp.rdx, vp.rax = index, value >> 32, value & 0xFFFFFFFF
    assert vp.partition.hypervisor.service(vp, ServiceReason.MSR_WRITE)


def test_guest_code_receives():
    """Interrupt, handler, EOM and EOI of a guest for each message; the machine runs whenever no buffer is free."""
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        _, receiver, connection = wire(hypervisor, PortType.MESSAGE)
        vp, ram = receiver.vps[0], receiver.ram
        ram[0x1000:0x1003], ram[0x3000 : 0x3000 + len(HANDLER)] = HALT, HANDLER
        vp.reset("long64", rip=0x1000, rsp=0x7000, page_size="4 KiB")
        vp.interrupts.apic_enabled = True
        gate = vp.idtr.base + 16 * 0x50
        ram[gate : gate + 16] = pack("<QQ", 0x3000 | 8 << 16 | 0x8E00 << 32, 0)
        set_msr(vp, SIMP, 0x20001)
        vp.interrupts.write_msr(SINT0 + SINT, 0x50, 0)
        vp.rsi, vp.rdi, vp.rflags, vp.explicit_suspend = 0x20000 + 256 * SINT, 0x100000, 0x202, False
        statuses, stopped = connection.post_and_run(numbered(1000), ticks=100_000)
        assert not statuses.any()
        assert isinstance(stopped, hvcore.exits.Halt)
        hypervisor.run(max_instructions=100_000)
        assert list(unpack("<1000I", ram[0x100000:0x100FA0])) == list(range(1000))
        counts = vp.interrupts.counters()
        assert counts["messages_delivered"] == counts["interrupts_delivered"] == 1000
        vp.explicit_suspend = True
        statuses, stopped = connection.post_and_run(numbered(30), ticks=1000)
        assert statuses.tolist() == [0] * 17 + [Status.INSUFFICIENT_BUFFERS] * 13, "nobody takes them"
        assert isinstance(stopped, hvcore.exits.Halt)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (np.zeros((2, 2), MESSAGE), TypeError),
        (np.zeros(4, np.uint8), TypeError),
        (np.zeros(4, MESSAGE)[::2], ValueError),
        ([1, 2], TypeError),
    ],
)
def test_arrays_of_another_kind(wired, messages, error):
    with pytest.raises(error, match="messages must be"):
        wired[2].post_batch(messages)


def test_out_of_another_kind(wired):
    for out, error in ((np.zeros(3, np.uint32), TypeError), (np.zeros(4, np.uint16), TypeError)):
        with pytest.raises(error, match="out must be"):
            wired[2].post_batch(numbered(3), out=out)
    with pytest.raises(ValueError, match="payloads must be rows"):
        make_messages(np.zeros((2, 241), np.uint8))
    with pytest.raises(ValueError, match="sizes must be"):
        make_messages(np.zeros((2, 8), np.uint8), sizes=[8, 9])


def test_without_the_privilege_and_behind_a_dead_port(wired):
    sender, receiver, connection = wired
    sender.privileges &= ~(1 << 36)
    assert set(connection.post_batch(numbered(3))) == {Status.ACCESS_DENIED}
    sender.privileges |= 1 << 36
    receiver.remove_port(PORT)
    assert set(connection.post_batch(numbered(3))) == {Status.INVALID_PORT_ID}
    sender.remove_connection(CONNECTION)
    assert set(connection.post_batch(numbered(3))) == {Status.INVALID_CONNECTION_ID}
    assert connection.post_batch(numbered(0)).tolist() == []


def test_events():
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        sender, receiver, connection = wire(hypervisor, PortType.EVENT, flags=64)
        statuses = connection.signal_batch([0, 5, 63, 64, 5, 65535])
        assert statuses.tolist() == [0, 0, 0, Status.INVALID_PARAMETER, 0, Status.INVALID_PARAMETER]
        page = bytes(hypervisor.memory.page(receiver.frames[0].event_page))
        assert unpack("<Q", page[256 * SINT : 256 * SINT + 8]) == (1 | 1 << 5 | 1 << 63,)
        with pytest.raises(ValueError, match="flags must be"):
            connection.signal_batch([65536])
        sender.privileges &= ~(1 << 37)
        assert connection.signal_batch([1]).tolist() == [Status.ACCESS_DENIED]
