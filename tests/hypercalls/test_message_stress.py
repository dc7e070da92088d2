"""Every post that returned SUCCESS is delivered exactly once and in order, or its loss is counted (9.2).

Several senders, fixed and HV_ANY_VP ports, masks, disabled pages, full slots, forgotten EOMs, moved ports, deleted
ports, VP resets and snapshots of the receiver, all by raw hypercalls.
"""

import random
from collections import defaultdict
from struct import pack, unpack_from

import pytest

from hvcore.enums import ANY_VP, Hypercall, Status

SCONTROL, SIMP, EOM, EOI, SINT0 = 0x40000080, 0x40000083, 0x40000084, 0x40000070, 0x40000090
VPS, SENDERS, SINTS = 3, 4, (1, 2, 3)
REASONS = ("port", "reset", "vp")


class Stress:
    def __init__(self, machine, seed):
        self.machine, self.rng = machine, random.Random(seed)
        self.receiver = machine.child(vps=VPS, deposit=100)
        self.senders = [machine.child(privileges=0x5FF | 1 << 36, deposit=20) for _ in range(SENDERS)]
        self.next_port = self.tag = 0
        self.links = []  # [sender, connection id, port id, fixed VP or ANY_VP]
        self.accepted = defaultdict(list)  # port id -> tags, in the order of posting
        self.taken = defaultdict(list)  # (port id, VP) -> tags, in the order of reading
        self.statuses = set()
        for sender in self.senders:
            for vp in (self.rng.randrange(VPS), ANY_VP):
                self.links.append([sender, 10 + len(self.links), None, vp])
                self.create_port(self.links[-1])
        for vp in range(VPS):
            self.open(vp)

    def call(self, code, form, *values):
        self.machine.call(code, form, *values)

    def controller(self, vp):
        return self.receiver.vps[vp].interrupts

    def page(self, vp):
        return self.machine.memory.page(self.receiver.frames[vp].message_page)

    def create_port(self, link):
        self.next_port += 1
        link[2] = self.next_port
        info = pack("<IIIIQ", 1, 0, self.rng.choice(SINTS), link[3], 0)
        values = (self.receiver.id, link[2], 0, 0, 0, link[0].id, info, 0)
        self.call(Hypercall.CREATE_PORT, "QIBBHQ24sQ", *values)
        values = (link[0].id, link[1], 0, 0, 0, self.receiver.id, link[2], 0, pack("<Q", 1), 0)
        self.call(Hypercall.CONNECT_PORT, "QIBBHQII32sQ", *values)

    def open(self, vp):
        for msr, value in ((SCONTROL, 1), (SIMP, 1)):
            self.controller(vp).write_msr(msr, value, 0)

    # Operations

    def post(self):
        sender, connection, port, _ = self.rng.choice(self.links)
        self.tag += 1
        result = sender.hypercall(Hypercall.POST_MESSAGE, pack("<IIIIQ232x", connection, 0, 1, 8, self.tag))
        self.statuses.add(result.status)
        if result.status is Status.SUCCESS:
            self.accepted[port].append(self.tag)

    def read(self, eom=0.6):
        vp, sint = self.rng.randrange(VPS), self.rng.choice(SINTS)
        self.take(vp, sint, eom)

    def take(self, vp, sint, eom):
        page = self.page(vp)
        kind, size, flags, port, tag = unpack_from("<IBB2xQQ", page, sint * 256)
        if kind:
            assert (kind, size) == (1, 8)
            self.taken[port, vp].append(tag)
            page[sint * 256 : sint * 256 + 4] = bytes(4)
            if flags & 1 and self.rng.random() < eom:
                self.controller(vp).write_msr(EOM, 0, 0)
        return bool(kind)

    def switch(self):
        vp = self.rng.randrange(VPS)
        msr, on = self.rng.choice([SCONTROL, SIMP]), self.rng.random() < 0.8
        self.controller(vp).write_msr(msr, on, 0)

    def mask(self):
        value = self.rng.choice([0x10000, 0x40, 0x40000, 0x20041])
        self.controller(self.rng.randrange(VPS)).write_msr(SINT0 + self.rng.choice(SINTS), value, 0)

    def eoi(self):
        self.controller(self.rng.randrange(VPS)).write_msr(EOI, 0, 0)

    def retry(self):
        """The hypervisor's own, after 1 ms (13 #40)."""
        for vp in range(VPS):
            due = self.controller(vp).next_event()
            if due is not None:
                self.controller(vp).advance(due)

    def move(self):
        _, _, port, fixed = self.rng.choice(self.links)
        if fixed == ANY_VP:  # moving a fixed one would end the order that it promises
            target = self.rng.choice([*range(VPS), ANY_VP])
            self.call(Hypercall.SET_PORT_PROPERTY, "QIIIIQ", self.receiver.id, port, 0, 1, 0, target)

    def snapshot(self):
        """Of all processors together, as a saved partition has them."""
        ports = [port.buffers for port in self.receiver.ports.values()]
        states = [self.controller(vp).save(ports) for vp in range(VPS)]
        for vp in range(VPS):
            self.controller(vp).restore(states[vp], ports)

    def delete(self):
        link = self.rng.choice(self.links)
        sender, connection, port, _ = link
        self.call(Hypercall.DELETE_PORT, "QII", self.receiver.id, port, 0)
        dead = sender.hypercall(Hypercall.POST_MESSAGE, pack("<IIII240x", connection, 0, 1, 8))
        assert dead.status is Status.INVALID_PORT_ID
        self.call(Hypercall.DISCONNECT_PORT, "QII", sender.id, connection, 0)
        self.create_port(link)

    def reset(self):
        self.controller(self.rng.randrange(VPS)).reset()

    def run(self, count):
        usual = [self.post] * 40 + [self.read] * 40 + [self.switch, self.mask, self.eoi, self.retry, self.move] * 2
        rare = [self.snapshot, self.snapshot, self.delete, self.reset]
        for _ in range(count):
            self.rng.choice(rare if self.rng.random() < 0.005 else usual)()

    def account(self):
        for vp in range(VPS):
            self.open(vp)
        while sum(self.take(vp, sint, eom=1.0) for vp in range(VPS) for sint in SINTS):
            for vp in range(VPS):
                self.controller(vp).write_msr(EOM, 0, 0)
        counters = self.receiver.counters()
        every = [tag for tags in self.taken.values() for tag in tags]
        assert len(every) == len(set(every)), "a message came twice"
        lost = {tag for tags in self.accepted.values() for tag in tags} - set(every)
        assert set(every) <= {tag for tags in self.accepted.values() for tag in tags}, "nobody had posted it"
        counted = sum(counters[f"messages_discarded_{reason}"] for reason in REASONS) + counters["messages_unread"]
        assert len(lost) == counted
        assert counters["messages_discarded_restore"] == counters["messages_restored"] > 0
        assert counters["messages_queued"] == sum(map(len, self.accepted.values()))
        for (port, _), tags in self.taken.items():
            assert tags == sorted(tags), f"port {port} was not served in order"
        return counters


@pytest.mark.parametrize("seed", range(3))
def test_what_was_accepted_comes_once_and_in_order_or_is_counted(machine, seed):
    print("seed", seed)
    stress = Stress(machine, seed)
    stress.run(30000)
    counters = stress.account()
    assert stress.statuses == {Status.SUCCESS, Status.INSUFFICIENT_BUFFERS, Status.INVALID_SYNIC_STATE}
    for reason in ("messages_discarded_port", "messages_discarded_reset", "messages_unread", "retries"):
        assert counters[reason], f"{reason} was not tried"
