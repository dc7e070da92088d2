"""Random operations on two virtual processors, done by hvcore and by the reference: whatever differs is an error.

python tests/irq/random_synic.py --count 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import copy
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from reference_synic import AS_INTERCEPT, AUTO_EOI, MASKED, POLLING, ReferenceSynic

from hvcore._native.irqchip import InterruptController, MessagePort

EOI, SCONTROL, SIEFP, SIMP, EOM, SINT0, STIMER0 = (
    *(0x40000070, 0x40000080, 0x40000082, 0x40000083, 0x40000084, 0x40000090),
    0x400000B0,
)
PORTS, SOURCES, FLAGS = 3, 2, 40
COUNTERS = (
    *("messages_queued", "messages_delivered", "messages_overwritten", "messages_discarded_port"),
    *("messages_discarded_reset", "messages_discarded_restore", "messages_restored", "messages_unread"),
    *("messages_refused", "events_signaled", "events_merged", "events_refused", "interrupts_masked"),
    *("interrupts_polled", "timers_merged", "sint_intercepts_merged", "retries"),
)


def make_controller() -> tuple[InterruptController, bytearray, bytearray]:
    messages, events = bytearray(4096), bytearray(4096)
    chip = InterruptController(apic_id=0, message_page=messages, event_page=events)
    chip.apic_enabled = True
    return chip, messages, events


class Twin:
    """One virtual processor, twice."""

    def __init__(self, root: bool) -> None:
        self.chip, self.messages, self.events = make_controller()
        self.chip.intercepts_sints = root
        self.model = ReferenceSynic(root)
        self.saved: tuple[bytes, ReferenceSynic] | None = None

    def write(self, index: int, value: int) -> None:
        assert self.chip.write_msr(index, value, self.model.now // 100) is True, hex(index)

    def slot(self, sint: int) -> tuple[Any, bool] | None:
        kind, _, flags, _, _, word = struct.unpack_from("<IBBHQQ", self.messages, sint * 256)
        tags = {0x80000010: ("timer", word), 0x80000061: ("sint", word)}
        return (tags.get(kind, word), bool(flags & 1)) if kind else None

    def compare(self) -> None:
        model = self.model
        for sint in range(16):
            expected = model.slots[sint]
            assert self.slot(sint) == (None if expected is None else tuple(expected)), sint
        assert self.chip.requested == sum(1 << vector for vector in model.requested)
        assert self.chip.in_service == sum(1 << vector for vector in model.served)
        flags = {(sint, flag) for sint in range(16) for flag in range(FLAGS)
                 if self.events[sint * 256 + flag // 8] >> flag % 8 & 1}  # fmt: skip
        assert flags == model.flags
        counters = self.chip.counters()
        assert {name: counters[name] for name in COUNTERS} == {name: model.counts[name] for name in COUNTERS}


class Sequence:
    """The operations, one method each; `step` picks one."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ports = [MessagePort() for _ in range(PORTS)]
        self.sources = [make_controller()[0] for _ in range(SOURCES)]
        self.twins = [Twin(root=True), Twin(root=False)]
        self.sints = self.rng.sample(range(1, 16), 4)
        self.tag = 0
        self.now = 1000
        for twin in self.twins:
            twin.chip.advance(self.now)
            twin.model.advance(self.now)
        often: list[tuple[Callable[[Twin], None], int]] = [
            *((self.post, 12), (self.read, 12), (self.intercept, 4), (self.acknowledge, 8), (self.eoi, 5)),
            *((self.eom, 4), (self.mask, 2), (self.control, 2), (self.pages, 2), (self.signal, 3)),
            *((self.timer, 2), (self.direct, 2), (self.advance, 6), (self.snapshot, 1)),
        ]
        self.usual = [operation for operation, weight in often for _ in range(weight)]
        self.rare = [self.delete_port, self.reset, self.remember, self.go_back]

    def step(self) -> None:
        self.tag += 1
        twin = self.rng.choice(self.twins)
        if self.rng.random() < 0.01:
            self.rng.choice(self.rare)(twin)
        else:
            self.rng.choice(self.usual)(twin)
        for number, port in enumerate(self.ports):
            assert port.free == 16 - self.held(("port", number))
        if self.tag % 7 == 0:
            twin.compare()

    def held(self, owner: Any) -> int:
        return sum(twin.model.held_by(owner) for twin in self.twins)

    def some_sint(self) -> int:
        return self.rng.choice([0, *self.sints, *self.sints])

    def post(self, twin: Twin) -> None:
        number, sint = self.rng.randrange(PORTS), self.some_sint()
        room = self.held(("port", number)) < 16
        assert room == twin.chip.post_message(
            self.ports[number], sint=sint, message_type=1, sender=7, payload=struct.pack("<Q", self.tag)
        )
        if room:
            twin.model.post(("port", number), sint, self.tag)
        else:
            twin.model.counts["messages_refused"] += 1

    def intercept(self, twin: Twin) -> None:
        number = self.rng.randrange(SOURCES)
        for other in self.twins:
            other.model.discard(lambda owner: owner == ("source", number), "messages_overwritten")
        payload = struct.pack("<Q", self.tag)
        twin.chip.post_intercept(self.sources[number], message_type=0x80010000, sender=3, payload=payload)
        twin.model.post(("source", number), 0, self.tag)

    def direct(self, twin: Twin) -> None:
        sint = self.some_sint()
        message = struct.pack("<IBBHQQ232x", 5, 8, self.rng.randrange(2), 0, 1, self.tag)
        assert twin.chip.post_direct(sint=sint, message=message) is twin.model.post_direct(sint, self.tag)

    def read(self, twin: Twin) -> None:
        """The guest takes a message; a slow one leaves the EOM for later, a bad one forgets it."""
        sint = self.some_sint()
        if twin.model.slots[sint] is not None:
            seen = twin.slot(sint)
            assert seen is not None
            twin.messages[sint * 256 : sint * 256 + 4] = bytes(4)
            owes = twin.model.take(sint)
            assert seen == (twin.model.taken[-1][1], owes)
            if owes and self.rng.random() < 0.5:
                self.eom(twin)

    def acknowledge(self, twin: Twin) -> None:
        assert twin.chip.acknowledge() == twin.model.acknowledge()

    def eoi(self, twin: Twin) -> None:
        twin.write(EOI, 0)
        twin.model.eoi()

    def eom(self, twin: Twin) -> None:
        twin.write(EOM, self.rng.getrandbits(64))
        twin.model.scan()

    def mask(self, twin: Twin) -> None:
        sint = self.some_sint()
        value = self.rng.choice([0x40, 0x55, 0x55, 0x60 + sint])
        value |= self.rng.choice([0, 0, 0, MASKED, POLLING, AUTO_EOI, AS_INTERCEPT, AS_INTERCEPT | POLLING])
        twin.write(SINT0 + sint, value)
        twin.model.sints[sint] = value

    def control(self, twin: Twin) -> None:
        twin.model.control = self.rng.random() < 0.85
        twin.write(SCONTROL, twin.model.control)
        twin.model.scan()

    def pages(self, twin: Twin) -> None:
        """Contents stay while the pages are disabled or moved (11.3)."""
        twin.model.simp, twin.model.siefp = self.rng.random() < 0.85, self.rng.random() < 0.85
        twin.write(SIEFP, twin.model.siefp | self.rng.randrange(8) << 12)
        twin.write(SIMP, twin.model.simp | self.rng.randrange(8) << 12)
        twin.model.scan()

    def signal(self, twin: Twin) -> None:
        sint, flag = self.some_sint(), self.rng.randrange(FLAGS)
        assert twin.chip.signal_event(sint=sint, flag=flag) is twin.model.signal(sint, flag)
        if self.rng.random() < 0.5:
            twin.events[sint * 256 + flag // 8] &= ~(1 << flag % 8)
            twin.model.flags.discard((sint, flag))

    def timer(self, twin: Twin) -> None:
        """A one-shot timer whose time has passed sends its message at once; one waits at the most (9.7)."""
        number, sint = self.rng.randrange(4), self.rng.choice(self.sints)
        twin.write(STIMER0 + 2 * number, 0)
        twin.write(STIMER0 + 2 * number + 1, 1)
        twin.write(STIMER0 + 2 * number, 1 | sint << 16)
        if twin.model.held_by(("timer", number)):
            twin.model.counts["timers_merged"] += 1
        else:
            twin.model.post(("timer", number), sint, ("timer", number))

    def advance(self, twin: Twin) -> None:
        self.now += self.rng.choice([1000, 200_000, 999_999, 1_000_000])
        for each in self.twins:
            each.chip.advance(self.now)
            each.model.advance(self.now)

    def delete_port(self, twin: Twin) -> None:
        number = self.rng.randrange(PORTS)
        gone = sum(each.model.discard(lambda owner: owner == ("port", number), "port") for each in self.twins)
        assert self.ports[number].discard() == gone

    def reset(self, twin: Twin) -> None:
        twin.chip.reset()
        twin.chip.apic_enabled = True
        twin.model.reset()

    def snapshot(self, twin: Twin) -> None:
        """Saved, torn down and taken up again: nothing is lost, nothing comes twice."""
        state = twin.chip.save(self.ports, self.sources)
        twin.chip.restore(state, self.ports, self.sources)
        waiting = sum(map(len, twin.model.queues))
        twin.model.counts["messages_discarded_restore"] += waiting
        twin.model.counts["messages_restored"] += waiting
        twin.compare()

    def remember(self, twin: Twin) -> None:
        twin.saved = twin.chip.save(self.ports, self.sources), copy.deepcopy(twin.model)

    def go_back(self, twin: Twin) -> None:
        """To a state of long ago, if the buffers that it needs are not in the other processor's queues."""
        if twin.saved is None:
            return
        state, model = copy.deepcopy(twin.saved)
        (other,) = (each for each in self.twins if each is not twin)
        room = all(
            model.held_by((kind, number)) + other.model.held_by((kind, number)) <= most
            for kind, count, most in (("port", PORTS, 16), ("source", SOURCES, 1))
            for number in range(count)
        )
        if not room:
            try:
                twin.chip.restore(state, self.ports, self.sources)
            except ValueError:
                twin.compare()
                return
            raise AssertionError("a message was restored without a buffer")
        twin.chip.restore(state, self.ports, self.sources)
        model.counts = twin.model.counts
        model.counts["messages_discarded_restore"] += sum(map(len, twin.model.queues))
        model.counts["messages_restored"] += sum(map(len, model.queues))
        model.now = self.now
        twin.model = model
        twin.compare()

    def finish(self) -> None:
        """Drain: every accepted message was read once and in order, or is one of those known to be lost."""
        for twin in self.twins:
            for index, value in ((SIMP, 1), (SIEFP, 1), (SCONTROL, 1)):
                twin.write(index, value)
            twin.model.control = twin.model.simp = twin.model.siefp = True
            twin.model.scan()
            while any(twin.model.slots):
                for sint in range(16):
                    if twin.model.slots[sint] is not None:
                        seen = twin.slot(sint)
                        assert seen is not None
                        assert seen[0] == twin.model.slots[sint][0]
                        twin.messages[sint * 256 : sint * 256 + 4] = bytes(4)
                        twin.model.take(sint)
                self.eom(twin)
            twin.compare()
            lost, counters = twin.model.lost, twin.chip.counters()
            for sint in range(16):
                taken = [tag for where, tag in twin.model.taken if where == sint and isinstance(tag, int)]
                accepted = [tag for where, tag in twin.model.accepted if where == sint and isinstance(tag, int)]
                assert [tag for tag in taken if tag not in lost] == [tag for tag in accepted if tag not in lost]
                assert len(set(taken)) == len(taken)
            assert counters["messages_queued"] + counters["messages_restored"] == counters["messages_delivered"] + sum(
                counters[f"messages_{how}"]
                for how in ("overwritten", "discarded_port", "discarded_reset", "discarded_restore", "discarded_vp")
            )
        assert [port.free for port in self.ports] == [16] * PORTS


def run(count: int, seed: int) -> None:
    """`count` operations and a final account."""
    sequence = Sequence(seed)
    for _ in range(count):
        sequence.step()
    sequence.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    done = 0
    while done < options.count:
        batch = min(20_000, options.count - done)
        run(batch, options.seed + done // 20_000)
        done += batch
        print(f"{done} operations agree", flush=True)


if __name__ == "__main__":
    main()
