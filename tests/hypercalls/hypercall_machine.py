"""A machine for hypercall tests: everything by ABI bytes, packed here and not by the layouts under test."""

from collections.abc import Sequence
from struct import pack, unpack

from hvcore.costs import PageCosts
from hvcore.enums import Hypercall, Status
from hvcore.hypervisor import Hypervisor
from hvcore.partition import Partition

SELF = 0xFFFF_FFFF_FFFF_FFFF
ALL_PRIVILEGES = 0x007B_F97F_0000_FFFF | 1 << 39 | 1 << 40
UNKNOWN_ID = 999


class Machine:
    """A Hypervisor of 64 MiB, with short ways to raw hypercalls made by its root or another partition."""

    def __init__(self, costs: PageCosts | None = None) -> None:
        self.hypervisor = Hypervisor(memory="64 MiB", processors=2, costs=costs)
        self.root = self.hypervisor.root
        self.memory = self.hypervisor.memory

    def call(
        self,
        code: int,
        form: str,
        *values: int | bytes,
        elements: Sequence[int] = (),
        reps: int | None = None,
        caller: Partition | None = None,
        expect: Status = Status.SUCCESS,
    ) -> bytes:
        """Make a call with packed input; its output. The status must be `expect`."""
        input_ = pack("<" + form, *values) + pack(f"<{len(elements)}Q", *elements)
        result = (caller or self.root).hypercall(code, input_, reps=reps)
        assert result.status is expect, (Hypercall(code).name, result)
        return result.output

    def pages(self, count: int) -> list[int]:
        """Free pages of the root, consecutive."""
        first = self.hypervisor.free_pages.allocate(count)
        return list(range(first, first + count))

    def deposit(self, target: Partition, count: int) -> list[int]:
        """Pages of the root, moved into a pool."""
        pages = self.pages(max(count, 0))
        if pages:
            self.call(Hypercall.DEPOSIT_MEMORY, "Q", target.id, elements=pages)
        return pages

    def created(self) -> Partition:
        """An uninitialized child; exactly its cost is in the root's pool."""
        self.deposit(self.root, self.hypervisor.costs.partition - self.root.pool.available)
        (child_id,) = unpack("<Q", self.call(Hypercall.CREATE_PARTITION, "QQIIQQQQ", 0, 0, 0x609, 0, 0, 0, 0, 0))
        return self.root.children[child_id]

    def child(self, *, vps: int = 0, privileges: int | None = None, deposit: int = 40) -> Partition:
        """An active child with `deposit` pages more than it needed so far."""
        child = self.created()
        if privileges is not None:
            self.call(Hypercall.SET_PARTITION_PROPERTY, "QIIQ", child.id, 0x10000, 0, privileges)
        costs = self.hypervisor.costs
        self.deposit(child, costs.initialize + 1 + vps * costs.vp + deposit)
        self.call(Hypercall.INITIALIZE_PARTITION, "Q", child.id)
        for index in range(vps):
            self.call(Hypercall.CREATE_VP, "QI3xBQQQ", child.id, index, 0, 0, 0, 0)
        return child

    def map(self, child: Partition, gpn: int, count: int = 1, flags: int = 0xF) -> list[int]:
        """Pages of the root mapped into `child`."""
        pages = self.pages(count)
        self.call(Hypercall.MAP_GPA_PAGES, "QQII", child.id, gpn, flags, 0, elements=pages)
        return pages

    def finalized(self) -> Partition:
        """A finalized child with pages left in its pool."""
        child = self.child()
        self.call(Hypercall.FINALIZE_PARTITION, "Q", child.id)
        return child

    def parent_and_grandchild(self) -> tuple[Partition, Partition]:
        """A child with every privilege and RAM at page 0, and its own uninitialized child."""
        parent = self.child(privileges=ALL_PRIVILEGES)
        self.map(parent, 0, 64)
        cost = self.hypervisor.costs.partition
        self.deposit(parent, cost)
        made = self.call(Hypercall.CREATE_PARTITION, "QQIIQQQQ", 0, 0, 0x609, 0, 0, 0, 0, 0, caller=parent)
        return parent, parent.children[unpack("<Q", made)[0]]
