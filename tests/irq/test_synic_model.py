"""Random SynIC traffic against a model: back-pressure, order, exactly-once delivery under masking and slow guests."""
import random

import pytest

from hvcore._native.irqchip import MessagePort

SCONTROL, SIEFP, SIMP = 0x40000080, 0x40000082, 0x40000083
MASKED, AUTO_EOI, POLLING = 1 << 16, 1 << 17, 1 << 18


class ModelSynic:
    """The rules of digest 9.2 to 9.4 on lists and dictionaries, plus the set of requested and served vectors."""

    def __init__(self):
        self.queues = [[] for _ in range(16)]       # entries [owner, tag]
        self.slots = [None] * 16                    # [tag, pending flag] while the type is not 0
        self.sints = [MASKED] * 16
        self.flags, self.requested, self.automatic, self.served = set(), set(), set(), []
        self.control = self.simp = self.siefp = False

    def interrupt(self, sint):
        value = self.sints[sint]
        if not value & (MASKED | POLLING):
            vector = value & 0xFF
            if value & AUTO_EOI:
                self.automatic.add(vector)
            elif vector not in self.requested:
                self.automatic.discard(vector)
            self.requested.add(vector)

    def scan(self):
        if not (self.control and self.simp):
            return
        for sint, queue in enumerate(self.queues):
            if queue and self.slots[sint] is None:
                tag = queue.pop(0)[1]
                self.slots[sint] = [tag, bool(queue)]
                self.interrupt(sint)
            elif queue:
                self.slots[sint][1] = True

    def held_by(self, owner):
        return sum(entry[0] == owner for queue in self.queues for entry in queue)

    def remove(self, owner):
        removed = self.held_by(owner)
        self.queues = [[entry for entry in queue if entry[0] != owner] for queue in self.queues]
        return removed

    def post(self, owner, sint, tag):
        self.queues[sint].append([owner, tag])
        self.scan()

    def signal(self, sint, flag):
        if not (self.control and self.siefp) or self.sints[sint] & MASKED:
            return None
        fresh = (sint, flag) not in self.flags
        self.flags.add((sint, flag))
        if fresh:
            self.interrupt(sint)
        return fresh

    def take(self):
        top = max(self.requested, default=0)
        if top // 16 <= max(self.served, default=0) // 16:
            return None
        self.requested.remove(top)
        if top not in self.automatic:
            self.served.append(top)
        self.automatic.discard(top)
        return top


@pytest.mark.parametrize("seed", range(10))
def test_random_sequences_against_a_model(vp, make_vp, seed):
    print("seed", seed)
    rng, model = random.Random(seed), ModelSynic()
    ports, children = [MessagePort() for _ in range(3)], [make_vp(), make_vp()]
    sints, accepted, delivered, lost = rng.sample(range(16), 4), [], [], set()
    for tag in range(1, 5001):
        sint = rng.choice(sints)
        match rng.choice("ppppppiirrrrreaaaaeeEEmcsvd" if tag % 500 else "0"):
            case "p":
                owner = rng.randrange(3)
                room = model.held_by(owner) < 16
                assert vp.post(ports[owner], sint, tag) == room
                if room:
                    accepted.append((owner, sint, tag))
                    model.post(owner, sint, tag)
            case "i":
                owner = rng.randrange(2)
                lost |= {entry[1] for queue in model.queues for entry in queue if entry[0] == 10 + owner}
                model.remove(10 + owner)
                vp.intercept(children[owner], tag)
                accepted.append((10 + owner, 0, tag))
                model.post(10 + owner, 0, tag)
            case "r":
                sint = rng.choice([0, *sints])
                if model.slots[sint] is not None:
                    delivered.append((sint, vp.tag(sint)))
                    owes_eom = vp.clear_slot(sint)
                    assert owes_eom == model.slots[sint][1]
                    model.slots[sint] = None
                    if owes_eom and rng.random() < 0.6:     # a slow guest leaves its EOM for later
                        vp.eom()
                        model.scan()
            case "a":
                assert vp.chip.acknowledge() == model.take()
            case "e":
                vp.eoi()
                if model.served:
                    model.served.remove(max(model.served))
                model.scan()
            case "E":
                vp.eom()
                model.scan()
            case "m":
                value = rng.choice([0x40, 0x55, 0x55, 0x60 + sint]) | rng.choice([0, 0, MASKED, POLLING, AUTO_EOI])
                vp.set_sint(sint, value)
                model.sints[sint] = value
            case "c":
                model.control = rng.random() < 0.8
                vp.write(SCONTROL, model.control)
                model.scan()
            case "s":
                model.simp, model.siefp = rng.random() < 0.8, rng.random() < 0.8
                vp.write(SIEFP, model.siefp)
                vp.write(SIMP, model.simp)
                model.scan()
            case "v":
                flag = rng.randrange(40)
                assert vp.chip.signal_event(sint=sint, flag=flag) is model.signal(sint, flag)
                if rng.random() < 0.5:
                    vp.events[sint * 256 + flag // 8] &= ~(1 << flag % 8)
                    model.flags.discard((sint, flag))
            case "d" if rng.random() < 0.2:
                owner = rng.randrange(3)
                lost |= {entry[1] for queue in model.queues for entry in queue if entry[0] == owner}
                assert ports[owner].discard() == model.remove(owner)
            case "0":
                lost |= {entry[1] for queue in model.queues for entry in queue}
                lost |= {slot[0] for slot in model.slots if slot is not None}
                vp.chip.reset()
                vp.chip.apic_enabled = True
                model = ModelSynic()
        assert [port.free for port in ports] == [16 - model.held_by(owner) for owner in range(3)]
        for slot in range(16):
            seen = (vp.tag(slot), vp.more_pending(slot)) if vp.message_type(slot) else None
            assert seen == (None if model.slots[slot] is None else tuple(model.slots[slot])), (tag, slot)
        assert vp.chip.requested == sum(1 << vector for vector in model.requested)
        assert vp.chip.in_service == sum(1 << vector for vector in model.served)
        assert {(slot, flag) for slot in range(16) for flag in range(40)
                if vp.events[slot * 256 + flag // 8] >> flag % 8 & 1} == model.flags
    # Drain, then: every accepted message was read exactly once, in order, or is one of those known to be lost.
    vp.enable_synic()
    model.control = model.simp = True
    for _ in range(200):
        for slot in range(16):
            if vp.message_type(slot):
                delivered.append((slot, vp.tag(slot)))
                vp.clear_slot(slot)
        vp.eom()
    assert [port.free for port in ports] == [16] * 3
    for sint in range(16):
        assert [tag for slot, tag in delivered if slot == sint and tag not in lost] == [
            tag for _, where, tag in accepted if where == sint and tag not in lost]
    counters = vp.chip.counters()
    assert counters["messages_queued"] == len(accepted) == (
        counters["messages_delivered"] + counters["messages_overwritten"] + sum(counters[f"messages_discarded_{why}"] for why in ("port", "reset", "vp")))
