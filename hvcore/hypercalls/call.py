"""What a handler is given, and the checks that many handlers share, in the order of section 13, #42:
id (D), relation (6), state (7). The caller's privilege was checked by the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hvcore.enums import PARTITION_ID_SELF, VP_INDEX_SELF, PartitionState, Status
from hvcore.hypercalls.abi import Refused

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

ACTIVE = frozenset({PartitionState.ACTIVE})


class Progress(NamedTuple):
    """How far a rep call came in this entry: elements done, the status that stopped it, their output."""

    done: int
    status: Status = Status.SUCCESS
    output: bytes = b""


@dataclass(frozen=True, slots=True)
class Call:
    """One entry into a hypercall. For rep calls, `start`, `count` and `elements` are those of this entry."""

    hypervisor: Hypervisor
    caller: Partition
    vp: VirtualProcessor | None
    start: int = 0
    count: int = 0
    elements: Any = ()
    """A NumPy array of the list's element type; empty if the call has no list."""
    variable: bytes = b""
    """The variable part of the header, whole qwords."""

    def target(
        self,
        partition_id: int,
        states: frozenset[PartitionState] = ACTIVE,
        *,
        child: bool = True,
        caller: bool = False,
        root: bool = False,
    ) -> Partition:
        """The partition named by `partition_id`, if the caller may name it and it is in one of `states`.

        `child`: a child of the caller may be named; `caller`: the caller itself; `root`: itself, if it is the root.
        """
        itself = caller or (root and self.caller.parent is None)
        if partition_id == PARTITION_ID_SELF and (caller or root):
            target: Partition | None = self.caller
        else:
            target = self.hypervisor.partitions.get(partition_id)
        if target is None:
            raise Refused(Status.INVALID_PARTITION_ID)
        if not (child and target.parent is self.caller) and not (itself and target is self.caller):
            raise Refused(Status.ACCESS_DENIED)
        if target.state not in states:
            raise Refused(Status.INVALID_PARTITION_STATE)
        return target

    def target_vp(self, partition: Partition, index: int) -> VirtualProcessor:
        """A virtual processor of `partition`, by index or HV_VP_INDEX_SELF."""
        if index == VP_INDEX_SELF and partition is self.caller and self.vp is not None:
            return self.vp
        vp = partition.vps.get(index)
        if vp is None:
            raise Refused(Status.INVALID_VP_INDEX)
        return vp

    def each(self, elements: Iterable[Any], action: Callable[[Any], bytes]) -> Progress:
        """Run `action` on each element until one is refused."""
        output = bytearray()
        done = 0
        for element in elements:
            try:
                output += action(element)
            except Refused as refusal:
                return Progress(done, refusal.status, bytes(output))
            done += 1
        return Progress(done, Status.SUCCESS, bytes(output))
