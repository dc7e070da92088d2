"""A partition: its lifecycle, pool, GPA space, virtual processors, ports (TLFS 5, hyperv-abi.md 6).

The state is changed by the hypercall handlers only; what Python users call here is sugar over hypercalls, which
stack.py makes. Charges are real pages of the partition's own pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from hvcore import properties, stack
from hvcore._native.engine import PartitionCore, PartitionTime
from hvcore._native.irqchip import InterruptController
from hvcore._native.space import GpaSpace, PagePool
from hvcore.arguments import integers
from hvcore.charges import Charged
from hvcore.counters import Counters
from hvcore.enums import Hypercall, PartitionProperty, PartitionState, Privilege, Status
from hvcore.hypercalls.abi import Refused, Result
from hvcore.hypercalls.python import python_call
from hvcore.pages import Mappings
from hvcore.processor import VirtualProcessor, VpFrames
from hvcore.wiring import Wiring

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.memory import MemoryRegion
    from hvcore.ports import Connection, Port


class Partition(Charged, Wiring):
    """One partition. `Hypervisor.root` is the first; `create_partition` makes its children."""

    FRAMES = 2
    """Frames in the reserve that every partition has for its overlay pages."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        partition_id: int,
        parent: Partition | None,
        *,
        pool: PagePool,
        mappings: Mappings,
        frames: list[int],
    ) -> None:
        self.hypervisor = hypervisor
        self.id = partition_id
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.space = mappings.space
        self.mappings = mappings
        super().__init__(pool)
        self.core: PartitionCore = PartitionCore(hypervisor.memory)
        self.state = PartitionState.UNINITIALIZED
        self.core.is_root = parent is None
        self.children: dict[int, Partition] = {}
        self.vps: dict[int, VirtualProcessor] = {}
        self.frames: dict[int, VpFrames] = {}
        self.ports: dict[int, Port] = {}
        self.connections: dict[int, Connection] = {}
        self.properties = properties.defaults()
        self.deposits: dict[int, int] = {}
        """Where each page of the pool came from: system page number -> page number in the depositor's space."""
        self.regions: list[MemoryRegion] = []
        self.intercepts_hypercalls = False
        self.intercepts_retargets = False
        self.reference_tsc: int = 0
        self.hypercall_frame, self.reference_tsc_frame = frames
        self.time: PartitionTime = PartitionTime(self.core, hypervisor.scheduler.now, hypervisor.memory.page(frames[1]))
        self.monitor_slots: set[int] = set()
        self.hypercalls_by_name: Counter[str] = Counter()
        """Finished hypercalls that Python made as this partition."""
        self.past_counters = Counters({})
        """What virtual processors that are gone had counted."""
        self._processors = tuple(range(hypervisor.processors))

    def __repr__(self) -> str:
        return f"Partition(id={self.id:#x}, state={self.state.name}, vps={len(self.vps)})"

    # What Python users call: sugar over hypercalls.

    def hypercall(
        self,
        call: Hypercall | int,
        input: bytes = b"",
        *,
        reps: int | None = None,
        start: int = 0,
        fast: bool = False,
        variable: int | None = None,
    ) -> Result:
        """Make a hypercall as this partition, with the bytes that guest code would have in its input page.

        Parameters
        ----------
        call : the call code; one that is not implemented gives INVALID_HYPERCALL_CODE.
        input : the whole input, header and list.
        reps : elements of a rep call; by default as many as `input` holds.
        start : the first element to process.
        fast : set the fast bit of the control word.
        variable : qwords of the variable header; by default what follows the fixed header of a simple call that may
            have one, and none of a rep call.

        Raises
        ------
        ValueError
            `input` is shorter than the call's input or longer than a page; `reps` is missing or out of range.
        """
        return python_call(self, call, input, reps=reps, start=start, fast=fast, variable=variable)

    def create_partition(
        self,
        *,
        vps: int = 1,
        flags: int = 0,
        privileges: int | None = None,
        intercept_io: bool = True,
        platform: bool = False,
    ) -> Partition:
        """A new active child with `vps` processors, with `platform` also with an I/O APIC, an 8259 pair and an 8254."""
        return stack.create_partition(self, vps, flags, privileges, intercept_io, platform)

    def map_memory(
        self, *, gpa: int, size: int | str, access: str = "rwx", page_size: int | str = "4 KiB"
    ) -> MemoryRegion:
        """Map fresh, zeroed RAM of the parent at `gpa`; it is one run of system memory."""
        return stack.map_memory(self, gpa=gpa, size=size, access=access, page_size=page_size)

    def destroy(self) -> None:
        """Finalize, withdraw all pages, delete. Raises BufferError while views of its memory live."""
        stack.destroy(self)

    def counters(self) -> Counters:
        """A snapshot of what all its virtual processors counted, and of the hypercalls that Python made as it."""
        made = Counters.collect({}, {"hypercalls": self.hypercalls_by_name})
        return sum((vp.counters() for vp in self.vps.values()), self.past_counters + made)

    # Facts that handlers and the run loop ask for.

    @property
    def state(self) -> PartitionState:
        """Where it is in its lifecycle."""
        return self._state

    @state.setter
    def state(self, state: PartitionState) -> None:
        self._state = state
        self.core.active = state is PartitionState.ACTIVE

    @property
    def privileges(self) -> int:
        """HV_PARTITION_PRIVILEGE_MASK."""
        return self.core.privileges

    @privileges.setter
    def privileges(self, mask: int) -> None:
        self.core.privileges = mask
        self.properties[PartitionProperty.PRIVILEGE_FLAGS] = mask

    @property
    def processors(self) -> tuple[int, ...]:
        """The logical processors that its virtual processors may run on, ascending: all of the machine, unless set.

        Where there are too few, those that have run least, by weight, go first in each quantum (docs/scheduling.md).
        Each virtual processor of the root runs on the logical processor of its number.

        Raises
        ------
        TypeError, ValueError
            Setting: a number is not one of the machine's, or there is none; or the partition is the root, or gone.
        """
        return self._processors

    @processors.setter
    def processors(self, processors: Iterable[int]) -> None:
        chosen = tuple(sorted(set(integers(processors, "processors", 0, self.hypervisor.processors - 1))))
        if not chosen:
            raise ValueError("processors must name at least one of the machine's")
        self.require_living()
        if self.parent is None:
            raise ValueError("processors of the root cannot be set: each of its own runs on one")
        with self.hypervisor.exclusive():
            self._processors = chosen
            for vp in self.vps.values():
                self.hypervisor.scheduler.set_processors(vp, chosen)

    @property
    def page_limit(self) -> int:
        """The number of 4 KiB pages in the GPA space."""
        return 1 << self.space.gpa_bits - 12

    @property
    def reference_time(self) -> int:
        """100 ns units of time since creation in which a processor was not explicitly suspended."""
        return self.time.reference

    # Lifecycle, called by the handlers.

    def new_child(self, flags: int, *, host_managed: bool) -> Partition:
        """An uninitialized child. `host_managed`: its intercepts become exits for Python, not messages."""
        hypervisor = self.hypervisor
        partition_id = hypervisor.last_partition_id + 1
        frames = self.charge_with_frames(("partition", partition_id), hypervisor.costs.partition, Partition.FRAMES)
        pool = PagePool(hypervisor.memory)
        mappings = Mappings(GpaSpace(hypervisor.memory, pool), hypervisor.owners)
        child = Partition(hypervisor, partition_id, self, pool=pool, mappings=mappings, frames=frames)
        child.privileges = Privilege.DEFAULT_CHILD & self.privileges
        child.core.host_managed = host_managed
        child.core.creation_flags = flags
        child.core.device_domain_bits = self.core.device_domain_bits
        hypervisor.last_partition_id = partition_id
        self.children[partition_id] = child
        self.mappings.below.append(child.mappings)
        hypervisor.partitions[partition_id] = child
        return child

    def initialize(self) -> None:
        """Uninitialized -> active."""
        self.charge("initialize", self.hypervisor.costs.initialize)
        if not self.space.create():
            self.release("initialize")
            raise Refused(Status.INSUFFICIENT_MEMORY)
        self.state = PartitionState.ACTIVE

    def create_vp(self, index: int) -> VirtualProcessor:
        """A virtual processor with an interrupt controller, explicitly suspended."""
        hypervisor = self.hypervisor
        cost = 0 if self.parent is None else hypervisor.costs.vp
        frames = VpFrames(*self.charge_with_frames(("vp", index), cost, len(VpFrames._fields)))
        pages = {name: hypervisor.memory.page(frame) for name, frame in frames._asdict().items()}
        interrupts = InterruptController(apic_id=index, **pages)
        vp = VirtualProcessor(self.core, self.space, interrupts, index)
        vp.join(self)
        vp.explicit_suspend = True
        self.frames[index] = frames
        self.vps[index] = vp
        processors = (index,) if self.parent is None else self._processors
        weight, cap = self.properties[PartitionProperty.CPU_WEIGHT], self.properties[PartitionProperty.CPU_CAP]
        hypervisor.scheduler.add(vp, processors, weight, cap)
        hypervisor.partition_of[vp] = self
        return vp

    def remove_connection(self, connection_id: int) -> None:
        """Free its port for another connection."""
        self.connections.pop(connection_id).close()
        self.release(("connection", connection_id))

    def remove_port(self, port_id: int) -> None:
        """The port's connection, if any, stays and is dead."""
        self.ports.pop(port_id).close()
        self.release(("port", port_id))

    def finalize_step(self) -> bool:
        """One step of finalization; True when it was the last."""
        self.state = PartitionState.FINALIZING
        self.hypervisor.interrupts.partition_ended(self)
        if self.vps:
            for index in list(self.vps):
                self.remove_vp(index)
            return False
        if self.ports or self.connections:
            for connection_id in list(self.connections):
                self.remove_connection(connection_id)
            for port_id in list(self.ports):
                self.remove_port(port_id)
            return False
        self.detach_platform()
        self.hypervisor.domains.release(self)
        self.mappings.clear()
        self.release_all()
        self.state = PartitionState.FINALIZED
        return True

    def delete(self) -> None:
        """Make the id invalid and give the creation pages back. Raises RuntimeError if it is not finalized."""
        assert self.parent is not None
        if self.state not in (PartitionState.UNINITIALIZED, PartitionState.FINALIZED):
            raise RuntimeError(f"delete is for finalized partitions, not {self.state.name}: call destroy()")
        self.parent.release(("partition", self.id))
        self.parent.mappings.below.remove(self.mappings)
        self.hypervisor.past_counters += self.counters()
        del self.parent.children[self.id]
        del self.hypervisor.partitions[self.id]
        self.hypervisor.free_frames(self.hypercall_frame, self.reference_tsc_frame)

    def remove_vp(self, index: int) -> None:
        """Let a virtual processor go, with what was charged for it."""
        vp = self.vps.pop(index)
        self.past_counters += vp.leave()
        self.hypervisor.scheduler.remove(vp)
        del self.hypervisor.partition_of[vp]
        self.hypervisor.free_frames(*self.frames.pop(index))
        self.release(("vp", index))
