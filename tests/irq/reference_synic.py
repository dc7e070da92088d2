"""The rules of digest 9.1 to 9.4 and 13 once more, slowly: lists, sets and dictionaries, for comparison with the SynIC.

It shares nothing with hvcore. A message is (owner, tag): who owns its buffer, and what its payload says.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

MASKED, AUTO_EOI, POLLING, AS_INTERCEPT = 1 << 16, 1 << 17, 1 << 18, 1 << 19
RETRY_TICKS = 1_000_000


class ReferenceSynic:
    """One virtual processor: queues, slots, flags, and the vectors that are requested and in service."""

    def __init__(self, root: bool) -> None:
        self.root = root
        self.counts: Counter[str] = Counter()
        self.accepted: list[tuple[int, Any]] = []
        self.taken: list[tuple[int, Any]] = []
        self.lost: set[Any] = set()
        self.now = 0
        self.clear()

    def clear(self) -> None:
        self.queues: list[list[tuple[Any, Any]]] = [[] for _ in range(16)]
        self.slots: list[list[Any] | None] = [None] * 16  # [tag, pending flag] while the type is not 0
        self.sints = [MASKED] * 16
        self.flags: set[tuple[int, int]] = set()
        self.requested: set[int] = set()
        self.automatic: set[int] = set()
        self.served: list[int] = []
        self.control = self.simp = self.siefp = False
        self.retry_at: int | None = None

    def reset(self) -> None:
        self.discard(lambda owner: True, "reset")
        self.counts["messages_unread"] += sum(slot is not None for slot in self.slots)
        self.lost |= {slot[0] for slot in self.slots if slot is not None}
        self.clear()

    # Queues

    def held_by(self, owner: Any) -> int:
        return sum(entry[0] == owner for queue in self.queues for entry in queue)

    def discard(self, condition: Any, reason: str) -> int:
        gone = [entry for queue in self.queues for entry in queue if condition(entry[0])]
        self.queues = [[entry for entry in queue if not condition(entry[0])] for queue in self.queues]
        self.counts[reason if reason == "messages_overwritten" else f"messages_discarded_{reason}"] += len(gone)
        self.lost |= {tag for _, tag in gone}
        return len(gone)

    def post(self, owner: Any, sint: int, tag: Any) -> None:
        self.queues[sint].append((owner, tag))
        self.accepted.append((sint, tag))
        self.counts["messages_queued"] += 1
        self.scan()

    def post_direct(self, sint: int, tag: Any) -> bool | None:
        if not (self.control and self.simp):
            return None
        if self.queues[sint] or self.slots[sint]:
            if self.slots[sint]:
                self.slots[sint][1] = True
            self.counts["messages_refused"] += 1
            return False
        self.accepted.append((sint, tag))
        self.slots[sint] = [tag, False]
        self.counts["messages_queued"] += 1
        self.counts["messages_delivered"] += 1
        self.announce(sint)
        return True

    def scan(self) -> None:
        """Step 4 and 5 of 9.2: at most one message of each SINT moves."""
        if not (self.control and self.simp):
            return
        joined = False
        for sint in [sint for sint in range(16) if self.queues[sint]]:
            joined |= self.deliver(sint)
        if joined:
            self.deliver(0)

    def deliver(self, sint: int) -> bool:
        """Whether a message joined the queue of SINT0 because of it."""
        queue, slot = self.queues[sint], self.slots[sint]
        if slot is not None:
            slot[1] = True
            self.arm_retry()
            return False
        self.slots[sint] = [queue.pop(0)[1], bool(queue)]
        if queue:
            self.arm_retry()
        self.counts["messages_delivered"] += 1
        return self.interrupt(sint)

    def arm_retry(self) -> None:
        if self.retry_at is None:
            self.retry_at = self.now + RETRY_TICKS

    def take(self, sint: int) -> bool:
        """The guest reads a message and clears its slot; whether MessagePending asks it for an EOM."""
        slot = self.slots[sint]
        assert slot is not None
        self.taken.append((sint, slot[0]))
        self.slots[sint] = None
        return bool(slot[1])

    def advance(self, now: int) -> None:
        self.now = now
        if self.retry_at is not None and self.retry_at <= now:
            self.retry_at = None
            if any(self.queues):
                self.counts["retries"] += 1
                self.scan()

    # Interrupts

    def interrupt(self, sint: int) -> bool:
        """9.4. Whether a message joined the queue of SINT0 (as-intercept)."""
        value = self.sints[sint]
        if value & MASKED:
            self.counts["interrupts_masked"] += 1
            return False
        if value & POLLING:
            self.counts["interrupts_polled"] += 1
        else:
            vector = value & 0xFF
            if value & AUTO_EOI:
                self.automatic.add(vector)
            elif vector not in self.requested:
                self.automatic.discard(vector)
            self.requested.add(vector)
        if not (value & AS_INTERCEPT and self.root and sint):
            return False
        if self.held_by(("sint", sint)):
            self.counts["sint_intercepts_merged"] += 1
            return False
        self.queues[0].append((("sint", sint), ("sint", sint)))
        self.counts["messages_queued"] += 1
        return True

    def announce(self, sint: int) -> None:
        if self.interrupt(sint) and self.control and self.simp:
            self.deliver(0)

    def signal(self, sint: int, flag: int) -> bool | None:
        if not (self.control and self.siefp) or self.sints[sint] & MASKED:
            self.counts["events_refused"] += 1
            return None
        if (sint, flag) in self.flags:
            self.counts["events_merged"] += 1
            return False
        self.flags.add((sint, flag))
        self.counts["events_signaled"] += 1
        self.announce(sint)
        return True

    def acknowledge(self) -> int | None:
        top = max(self.requested, default=0)
        if top // 16 <= max(self.served, default=0) // 16:
            return None
        self.requested.remove(top)
        if top not in self.automatic:
            self.served.append(top)
        self.automatic.discard(top)
        return top

    def eoi(self) -> None:
        if self.served:
            self.served.remove(max(self.served))
        self.scan()
