"""The memory pool of a partition: calls 48-4A (TLFS 5.7, hyperv-abi.md 4.3, 6.2).

A deposited page leaves the depositor's GPA space until it is withdrawn, zeroed, to the same place.
"""

from typing import NamedTuple

import numpy as np

from hvcore.enums import PartitionState, Status
from hvcore.hypercalls.abi import U64, Partition, Refused, require_proximity
from hvcore.hypercalls.call import Call, Progress
from hvcore.pages import PRESENT, RWX, SPN_SHIFT

_DEPOSIT = frozenset({PartitionState.ACTIVE, PartitionState.UNINITIALIZED})
_ALL = frozenset(PartitionState)


class PoolInput(NamedTuple):
    partition_id: U64
    proximity: U64


class Balance(NamedTuple):
    available: U64
    in_use: U64


def deposit_memory(call: Call, header: Partition) -> Progress:
    """Move pages of the caller into the target's pool. System page 0 is never taken: 0 means "none" in tables.

    A page of a child of the root leaves the root's space too; one that passed through more partitions is refused.
    """
    target = call.target(header.partition_id, _DEPOSIT, root=True)
    owners = call.hypervisor.owners
    root = call.hypervisor.root
    mappings = call.caller.mappings
    own_mappings = 0 if call.caller is root else 1

    def deposit(gpn: int) -> bytes:
        entry = int(mappings.entries(np.array([gpn], np.uint64))[0])
        spn = entry >> SPN_SHIFT
        if entry & (PRESENT | RWX) != (PRESENT | RWX) or spn == 0 or owners.shared[spn] != own_mappings:
            raise Refused(Status.OPERATION_DENIED)
        if owners.held[spn] and call.caller is root:
            raise Refused(Status.OBJECT_IN_USE)
        if not mappings.lock(gpn, spn):
            raise Refused(Status.INSUFFICIENT_MEMORY)
        if call.caller is not root:
            root.mappings.lock(spn, spn)
        owners.pool[spn] = target.id
        target.deposits[spn] = gpn
        target.pool.deposit(spn)
        return b""

    return call.each((int(gpn) for gpn in call.elements), deposit)


def withdraw_memory(call: Call, header: PoolInput) -> Progress:
    """Give free pages of the target's pool back to the caller, zeroed and with every right."""
    target = call.target(header.partition_id, _ALL, root=True)
    require_proximity(header.proximity)
    root = call.hypervisor.root

    def withdraw(_: int) -> bytes:
        spn = target.pool.withdraw()
        if spn is None:
            raise Refused(Status.NO_RESOURCES)
        gpn = target.deposits[spn]
        if not call.caller.mappings.unlock(gpn, spn):
            target.pool.deposit(spn)
            raise Refused(Status.INSUFFICIENT_MEMORY)
        del target.deposits[spn]
        call.hypervisor.owners.pool[spn] = 0
        if call.caller is not root:
            root.mappings.unlock(spn, spn)
        call.hypervisor.memory.zero(spn << 12, 4096)
        return gpn.to_bytes(8, "little")

    return call.each(range(call.count), withdraw)


def get_memory_balance(call: Call, header: PoolInput) -> Balance:
    """Pages free and in use. A partition that is not the root may not look into its own pool."""
    target = call.target(header.partition_id, _ALL, root=True)
    require_proximity(header.proximity)
    return Balance(target.pool.available, target.pool.in_use)
