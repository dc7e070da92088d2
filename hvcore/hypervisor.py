"""The machine and the hypervisor on it: memory, logical processors, the root partition, and the services that
guest code asks of it (architecture.md 6).

One thread at a time: every entry from Python goes through `exclusive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np

from hvcore import intercepts, msrs
from hvcore._native.engine import Scheduler
from hvcore._native.ports import ring
from hvcore._native.space import GpaSpace, PagePool, SystemMemory
from hvcore.arguments import MAXIMUM_TICKS, integer
from hvcore.costs import PageCosts
from hvcore.counters import Counters
from hvcore.domains import DeviceDomains
from hvcore.enums import AccessType, OverlayKind, PartitionState, Privilege, ServiceReason, Status
from hvcore.hypercalls.abi import PAGE_SIZE, Refused
from hvcore.hypercalls.guest import guest_call
from hvcore.interrupts import InterruptTrace
from hvcore.machine.pc import Machine
from hvcore.memory import LARGE_PAGE_SIZE, FreePages, parse_page_size, parse_size
from hvcore.pages import LARGE, RWX, PageOwners, RootMappings
from hvcore.partition import Partition
from hvcore.processor import VirtualProcessor
from hvcore.routing import Interrupts

_ROOT_ID = 1
_RESERVE_BASE = 64 << 20
_QUANTUM = 1, 1 << 32


class Hypervisor:
    """A machine with a hypervisor on it. `root` is its first partition.

    Parameters
    ----------
    memory : int or str
        RAM of the machine, a multiple of 2 MiB.
    processors : int
        Logical processors, each with a virtual processor of the root.
    quantum : int
        Instructions, 1 to 2**32: see the attribute.
    costs : PageCosts
        What objects take from memory pools.
    root_page_size : int or str
        Pages of the root's second level, "4 KiB" or "2 MiB".
    time : str
        "virtual": an instruction is a nanosecond, and two runs are the same. "host": between quanta time follows the
        host's monotonic clock, also between runs; halted processors wait, and no two runs are the same.

    Raises
    ------
    TypeError, ValueError
        `memory`, `processors`, `quantum`, `root_page_size` or `time` is of another type or out of range.
    """

    maximum_vps = 2048
    maximum_depth = 3
    """How many levels of partitions there may be below the root."""

    def __init__(
        self,
        *,
        memory: int | str = "1 GiB",
        processors: int = 2,
        quantum: int = 10_000,
        costs: PageCosts | None = None,
        root_page_size: int | str = "2 MiB",
        time: str = "virtual",
    ) -> None:
        size = parse_size(memory, "memory", multiple_of=LARGE_PAGE_SIZE)
        processors = integer(processors, "processors", 1, self.maximum_vps)
        quantum = integer(quantum, "quantum", *_QUANTUM)
        if not isinstance(time, str) or time not in ("virtual", "host"):
            raise ValueError(f'time must be "virtual" or "host", not {time!r}')
        self.processors = processors
        self.costs = costs or PageCosts()
        # Enough for the root's tables when every large page is split, and for overlay frames.
        self.memory = SystemMemory(size, _RESERVE_BASE + (size // LARGE) // PAGE_SIZE * PAGE_SIZE)
        self.scheduler = Scheduler(self.memory, processors, quantum, time == "host")
        self.scheduler.service = self.service
        self.interrupts = Interrupts(self)
        """The interrupt sources of the machine, and who receives them."""
        self.owners = PageOwners(size // PAGE_SIZE)
        self.free_pages = FreePages(1, size // PAGE_SIZE - 1)
        self.partitions: dict[int, Partition] = {}
        self.partition_of: dict[VirtualProcessor, Partition] = {}
        self.interrupt_trace: InterruptTrace | None = None
        """What trace_interrupts() has open."""
        self.past_counters = Counters({})
        """What partitions that are gone had counted."""
        self.last_partition_id = _ROOT_ID
        """Ids ascend and never come back."""
        self.root = self._make_root(parse_page_size(root_page_size, "root_page_size"))
        self.machine = Machine(self)
        self.domains = DeviceDomains(self)

    def __enter__(self) -> Hypervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Hypervisor(memory={self.memory.size:#x}, processors={self.processors}, partitions={len(self.partitions)})"
        )

    def close(self) -> None:
        """Let everything go, files of disks too. RAM lives on until the last NumPy view of it is gone."""
        with self.exclusive():
            for vp in self.partition_of:
                self.scheduler.remove(vp)
            for partition in self.partitions.values():
                partition.detach_platform()
            self.scheduler.service = None
            self.partition_of.clear()
            self.partitions.clear()
            self.machine.close()

    def require_open(self) -> None:
        """Raise RuntimeError after `close`."""
        if not self.partitions:
            raise RuntimeError("this Hypervisor was closed")

    def exclusive(self) -> AbstractContextManager[None]:
        """One thread at a time. Raises RuntimeError when another thread is inside."""
        return self.scheduler

    @property
    def quantum(self) -> int:
        """How many instructions a virtual processor keeps a logical processor for while others wait for it.

        It also bounds how far processors run ahead of each other. Those that interrupt each other run closely beside
        each other anyhow; those that only share memory see each other's stores up to a quantum too early or too late.
        A small quantum is nearer to hardware, a large one faster: each change costs some hundred nanoseconds of the
        host. May be set between runs; raises TypeError or ValueError when it is not 1 to 2**32.
        """
        return self.scheduler.quantum

    @quantum.setter
    def quantum(self, instructions: int) -> None:
        instructions = integer(instructions, "quantum", *_QUANTUM)
        self.require_open()
        with self.exclusive():
            self.scheduler.quantum = instructions

    def run(self, *, max_instructions: int | None = None) -> Any:
        """Run every runnable virtual processor until an exit that the caller must see, or the budget's end.

        One that is explicitly suspended, as each is when it is made, does not count; VirtualProcessor.run resumes it.

        Raises
        ------
        RuntimeError
            There is none that could ever run, or the hypervisor was closed.
        TypeError, ValueError
            `max_instructions` is no integer from 0 to 2**62.
        """
        self.require_open()
        if max_instructions is not None:
            max_instructions = integer(max_instructions, "max_instructions", 0, MAXIMUM_TICKS)
        return self.scheduler.run(None, max_instructions)

    def counters(self) -> Counters:
        """A snapshot of what all partitions counted, also those that are gone."""
        return sum((partition.counters() for partition in self.partitions.values()), self.past_counters)

    def trace_interrupts(self, *, capacity: int = 65_536, edges: Sequence[int] | None = None) -> InterruptTrace:
        """Measure latencies of interrupts and record events of all virtual processors, until it is closed.

        Parameters
        ----------
        capacity : int
            Events that are kept, the last ones, of 32 bytes each; 0: latencies alone.
        edges : sequence of int, optional
            Ascending bounds of the buckets of latencies, in ticks of 1 ns. Default: powers of two.

        Raises
        ------
        RuntimeError
            A trace is open already.
        TypeError, ValueError
            `capacity` or `edges` is not what it should be.
        """
        return InterruptTrace(self, capacity=capacity, edges=edges)

    def cancel(self) -> None:
        """Make the run that another thread is in return `Canceled` at once; without one, the next run does."""
        self.scheduler.cancel()

    def service(self, vp: VirtualProcessor, reason: int) -> bool:
        """What the run loop cannot do by itself.

        Returns
        -------
        bool
            HYPERCALL: the instruction is finished. MSR_READ, MSR_WRITE: done; False = #GP. INTERCEPT: True.
            UNMAPPED_WRITE: a doorbell took the write; False = raise the intercept. EOI: of a line. All others: True.
        """
        match reason:
            case ServiceReason.HYPERCALL:
                return guest_call(self, vp)
            case ServiceReason.MSR_READ:
                value = msrs.read(self, vp, vp.rcx & 0xFFFF_FFFF)
                if value is not None:
                    vp.rax, vp.rdx = value & 0xFFFF_FFFF, value >> 32
                return value is not None
            case ServiceReason.MSR_WRITE:
                return msrs.write(self, vp, vp.rcx & 0xFFFF_FFFF, (vp.rdx & 0xFFFF_FFFF) << 32 | vp.rax & 0xFFFF_FFFF)
            case ServiceReason.INTERCEPT:
                intercepts.deliver(self, vp, vp.intercept)
                return True
            case ServiceReason.UNMAPPED_WRITE:
                write = vp.intercept
                return ring(self.partition_of[vp].core, write.gpa, write.size, write.value)
            case ServiceReason.IO_PORT:
                access = vp.intercept
                if access.access == AccessType.READ:
                    vp.answer(self.machine.ports.read(access.port, access.size))
                else:
                    self.machine.ports.write(access.port, access.size, access.value)
                return True
            case ServiceReason.DEVICE_MEMORY:
                gpa, size, written = vp.device_access()
                if written is None:
                    vp.answer(self.machine.memory.read(gpa, size))
                else:
                    self.machine.memory.write(gpa, size, int.from_bytes(written, "little"))
                return True
            case ServiceReason.EOI:
                return self.interrupts.end_of_interrupt(vp, vp.intercept.vector)
        raise ValueError(f"reason must be a ServiceReason, not {reason}")

    def reset(self, partition: Partition) -> None:
        """What the RESET MSR does: processors, SynICs and the interrupt platform to reset state, overlays and the
        guest id gone; of the root also the machine below it."""
        if partition.platform is not None:
            partition.platform.reset()
        if partition is self.root:
            self.machine.reset()
        partition.core.guest_os_id = partition.core.hypercall_msr = 0
        partition.reference_tsc = 0
        partition.time.page_enabled = partition.time.invariant_tsc = False
        partition.time.reenlightenment.clear()
        for kind in (OverlayKind.HYPERCALL, OverlayKind.REFERENCE_TSC):
            partition.space.clear_overlay(kind, 0)
        for index, vp in partition.vps.items():
            for kind in (OverlayKind.VP_ASSIST, OverlayKind.SIM, OverlayKind.SIEF, OverlayKind.SIRB):
                partition.space.clear_overlay(kind, index)
            vp.assist_msr = 0
            vp.interrupts.assist_enabled = False
            vp.interrupts.reset()
            vp.reset()

    # Resources of the hypervisor itself.

    def new_frames(self, count: int) -> list[int]:
        """Zeroed pages of the reserve, all or none. Refuses with NO_RESOURCES."""
        frames: list[int] = []
        for _ in range(count):
            frame = self.memory.reserve_pool.allocate()
            if frame is None:
                self.free_frames(*frames)
                raise Refused(Status.NO_RESOURCES)
            frames.append(frame)
        return frames

    def free_frames(self, *frames: int) -> None:
        """Give pages back to the reserve."""
        for frame in frames:
            self.memory.reserve_pool.release(frame)

    def _make_root(self, page_size: int) -> Partition:
        space = GpaSpace(self.memory, self.memory.reserve_pool)
        space.create()
        step = page_size // PAGE_SIZE
        every_page = np.arange(0, self.memory.size // PAGE_SIZE, step, dtype=np.uint64)
        space.map(0, every_page, rights=RWX, large=step == LARGE)
        mappings = RootMappings(space, self.owners)
        frames = self.new_frames(Partition.FRAMES)
        root = Partition(self, _ROOT_ID, None, pool=PagePool(self.memory), mappings=mappings, frames=frames)
        root.privileges = sum(Privilege)
        root.core.host_managed = True
        root.state = PartitionState.ACTIVE
        self.partitions[root.id] = root
        root.attach_platform()
        for index in range(self.processors):
            root.create_vp(index)
        return root
