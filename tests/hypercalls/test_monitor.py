"""Monitored notification pages: which trigger is signaled, when, and what is discarded (hyperv-abi.md 9.5; 13 #40).

Virtual time passes because a guest runs NOPs or a loop; it sets pending bits by ordinary stores into its page.
"""

from struct import pack, pack_into, unpack_from

import pytest

from hvcore.enums import Hypercall
from hvcore.exits import Halt
from hvcore.hypervisor import Hypervisor

EVENT, MONITOR, SINT = 2, 3, 2
SCONTROL, SIEFP, SINT0 = 0x40000080, 0x40000082, 0x40000090
CODE, PAGE = 0x200000, 0x5000
UNIT, USUAL, LEAST = 100, 100_000, 10_000  # ticks


class Pair:
    """A sender that runs code, a receiver with a SIEF page, and a monitor page between them."""

    def __init__(self, hypervisor):
        self.hypervisor = hypervisor
        self.root = hypervisor.root
        self.receiver = self.root.create_partition(vps=1)
        self.sender = self.root.create_partition(vps=1, privileges=1 << 37 | 0x5FF)
        for partition in (self.receiver, self.sender):
            first = hypervisor.free_pages.allocate(4)
            pages = pack("<Q4Q", partition.id, *range(first, first + 4))
            assert self.root.hypercall(Hypercall.DEPOSIT_MEMORY, pages).status == 0
        controller = self.receiver.vps[0].interrupts
        for msr, value in ((SCONTROL, 1), (SIEFP, 1), (SINT0 + SINT, 0xF3)):
            assert controller.write_msr(msr, value, 0)
        self.link(1, pack("<IIIIHHI", EVENT, 0, SINT, 0, 100, 16, 0), EVENT, 0)
        self.link(2, pack("<IIQQ", MONITOR, 0, 0x9000, 0), MONITOR, PAGE)
        spa = self.sender.space.resolve(PAGE)[0]
        assert spa == self.receiver.space.resolve(0x9000)[0], "one page in both"
        self.page = hypervisor.memory.page(spa >> 12)
        self.monitor = self.sender.connections[2]
        self.ram = self.sender.map_memory(gpa=CODE, size="2 MiB")
        self.vp = self.sender.vps[0]

    def link(self, number, info, kind, gpa):
        port = pack("<QIIQ24sQ", self.receiver.id, number, 0, self.sender.id, info, 0)
        assert self.root.hypercall(Hypercall.CREATE_PORT, port).status == 0
        ends = pack("<QIIQII", self.sender.id, number, 0, self.receiver.id, number, 0)
        connection = ends + pack("<IIQQQQ", kind, 0, gpa, 0, 0, 0)
        assert self.root.hypercall(Hypercall.CONNECT_PORT, connection).status == 0

    def trigger(self, group, bit, *, connection=1, flag=0, latency=0):
        index = group * 32 + bit
        pack_into("<H", self.page, 576 + 2 * index, latency)
        pack_into("<IHH", self.page, 1088 + 8 * index, connection, flag, 0)

    def enable(self, state=0xF):
        pack_into("<I", self.page, 0, state)

    def set_bits(self, group, pending, armed=0):
        pack_into("<II", self.page, 8 + 8 * group, pending, armed)

    def pending(self, group):
        return unpack_from("<I", self.page, 8 + 8 * group)[0]

    def flags(self):
        page = self.hypervisor.memory.page(self.receiver.frames[0].event_page)
        return {flag for flag in range(2048) if page[SINT * 256 + flag // 8] >> flag % 8 & 1}

    def start(self, code):
        self.ram[: len(code)] = code
        self.vp.reset(mode="long64", rip=CODE, rsp=CODE + 0x80000, identity_map="4 MiB", tables=CODE + 0x100000)
        self.vp.explicit_suspend = False

    def spin(self):
        self.start(b"\xeb\xfe")

    def run(self, ticks):
        return self.vp.run(max_instructions=ticks)


@pytest.fixture
def pair():
    with Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        yield Pair(hypervisor)


def test_a_pending_bit_becomes_a_signal_within_its_latency(pair):
    """9.5: cleared, then SignalEvent(connection, flag) in the name of the sender."""
    pair.trigger(1, 7, flag=3, latency=500)
    pair.enable()
    pair.spin()
    pair.run(2 * USUAL)
    pair.set_bits(1, 1 << 7)
    pair.run(500 * UNIT)
    pair.run(2)     # the check was within the quantum that has ended
    assert pair.flags() == {103}
    assert pair.pending(1) == 0
    assert pair.receiver.vps[0].interrupts.counters()["events_signaled"] == 1
    assert pair.monitor.monitor_counters() == {"signals": 1, "refusals": 0}


@pytest.mark.parametrize("latency", [100, 250, 777])
def test_the_check_comes_at_its_time(pair, latency):
    """13 #40: each latency. Until the check the bit stands; at its tick it is gone."""
    pair.trigger(0, 0, latency=latency)
    pair.enable()
    pair.spin()
    pair.run(2 * USUAL)
    now, reference = pair.hypervisor.scheduler.now, pair.sender.core.creation_time
    (check,) = unpack_from("<I", pair.page, 64)
    due = check * UNIT + reference
    assert now < due + UNIT <= now + latency * UNIT + UNIT
    pair.set_bits(0, 1)
    pair.run(max(due - now - UNIT, 1))
    assert pair.pending(0) == 1
    pair.run(3 * UNIT)
    assert pair.pending(0) == 0


def test_a_hint_below_the_least_is_clamped(pair):
    pair.trigger(0, 0, latency=1)
    pair.enable()
    pair.spin()
    pair.run(USUAL + LEAST)
    pair.set_bits(0, 1)
    pair.run(2 * UNIT)
    assert pair.pending(0) == 1
    pair.run(LEAST)
    assert pair.pending(0) == 0


def test_an_armed_trigger_waits_one_latency_more(pair):
    pair.trigger(2, 0, latency=1000)
    pair.trigger(2, 1, latency=1000)
    pair.enable()
    pair.spin()
    pair.run(2 * USUAL)
    pair.set_bits(2, 3, armed=2)
    pair.run(USUAL + 1)
    assert pair.pending(2) == 2
    pair.run(USUAL + 1)
    assert pair.pending(2) == 0


def test_groups_and_the_whole_page_can_be_disabled(pair):
    """Trigger state: a bit for each group; b4 disables monitoring."""
    for group in range(4):
        pair.trigger(group, 0, flag=group)
        pair.set_bits(group, 1)
    pair.enable(0x1F)
    pair.spin()
    pair.run(5 * USUAL)
    assert not pair.flags()
    pair.enable(0b0101)
    pair.run(5 * USUAL)
    assert pair.flags() == {100, 102}
    assert [pair.pending(group) for group in range(4)] == [0, 1, 0, 1]


def test_errors_are_discarded_and_counted(pair):
    """A flag beyond the port's, a connection that is none, the monitor's own connection; then no privilege."""
    for bit, (connection, flag) in enumerate([(1, 16), (99, 0), (2, 0), (1, 5)]):
        pair.trigger(0, bit, connection=connection, flag=flag)
    pair.set_bits(0, 0xF)
    pair.enable()
    pair.spin()
    pair.run(4 * USUAL)
    assert (pair.flags(), pair.pending(0)) == ({105}, 0)
    assert pair.monitor.monitor_counters() == {"signals": 1, "refusals": 3}
    pair.sender.privileges &= ~(1 << 37)
    pair.set_bits(0, 8)
    pair.run(4 * USUAL)
    assert pair.monitor.monitor_counters() == {"signals": 1, "refusals": 4}


def test_the_store_of_a_guest_needs_no_exit_and_survives_its_halt(pair):
    """The sender sets the bit and halts: the page is looked at once more, then nothing keeps the clock going."""
    pair.trigger(0, 4, flag=4, latency=2000)
    pair.enable()
    # mov edi, 0x5008; or dword [rdi], 0x10; cli; hlt
    pair.start(bytes.fromhex("bf08500000 830f10 fa f4"))
    started = pair.hypervisor.scheduler.now
    exits = pair.vp.counters()["exits"]
    assert isinstance(pair.run(1000), Halt)
    assert pair.flags() == {104}
    assert pair.vp.counters()["exits"] == exits
    # The group is seen enabled one usual latency after the page was laid, and looked at one latency of its own later.
    delay = pair.hypervisor.scheduler.now - started
    assert 2000 * UNIT <= delay <= 2000 * UNIT + USUAL + 10_000
    assert isinstance(pair.run(1000), Halt)
    assert pair.hypervisor.scheduler.now - started <= delay + 10_000, "without pending bits no clock is kept going"


def test_deleting_either_end_ends_the_watch(pair):
    pair.trigger(0, 0)
    pair.enable()
    pair.spin()
    assert pair.root.hypercall(Hypercall.DELETE_PORT, pack("<QII", pair.receiver.id, 2, 0)).status == 0
    assert pair.monitor.monitor_counters() == {"signals": 0, "refusals": 0}
    pair.run(3 * USUAL)
    assert pair.sender.space.resolve(PAGE) is None
    assert pair.root.hypercall(Hypercall.DISCONNECT_PORT, pack("<QII", pair.sender.id, 2, 0)).status == 0
    pair.run(3 * USUAL)
    assert not pair.flags()
