"""The Hypervisor object: construction, threads, root, create_partition (api.md)."""

import threading

import pytest

from hvcore.costs import PageCosts
from hvcore.enums import Hypercall, PartitionState, Privilege
from hvcore.errors import AccessDeniedError
from hvcore.hypervisor import Hypervisor


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": "3 MiB"}, "memory must be a positive multiple of 0x200000"),
        ({"memory": "lots"}, "memory must be a size"),
        ({"processors": 0}, "processors must be 1 to 2048"),
        ({"processors": 4096}, "processors must be 1 to 2048"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Hypervisor(**arguments)


def test_root():
    with Hypervisor(memory="8 MiB", processors=3) as hypervisor:
        root = hypervisor.root
        assert (root.id, root.state, sorted(root.vps)) == (1, PartitionState.ACTIVE, [0, 1, 2])
        assert root.privileges == sum(Privilege)
        for gpa in (0, 0x1234, (8 << 20) - 1):
            assert root.space.lookup(gpa) == (gpa, 7, 21)
        assert root.space.lookup(8 << 20) is None
        assert repr(root) == "Partition(id=0x1, state=ACTIVE, vps=3)"
        assert "memory=0x800000" in repr(hypervisor)


def test_many_processors():
    with Hypervisor(memory="8 MiB", processors=2048) as hypervisor:
        assert len(hypervisor.root.vps) == 2048


def test_create_partition():
    with Hypervisor(memory="64 MiB") as hypervisor:
        child = hypervisor.root.create_partition(vps=3, privileges=Privilege.POST_MESSAGES, flags=1 << 13)
        assert sorted(child.vps) == [0, 1, 2]
        assert child.privileges == Privilege.POST_MESSAGES
        assert child.core.host_managed
        assert all(vp.explicit_suspend for vp in child.vps.values())
        with pytest.raises(ValueError, match="vps must be 0 to 2048"):
            hypervisor.root.create_partition(vps=-1)
        with pytest.raises(ValueError, match="is not the root"):
            child.create_partition()


def test_create_partition_leaves_nothing_behind_when_it_fails():
    with Hypervisor(memory="64 MiB") as hypervisor:
        hypervisor.root.privileges &= ~Privilege.DEBUGGING
        with pytest.raises(AccessDeniedError):
            hypervisor.root.create_partition(privileges=Privilege.DEBUGGING)
        assert list(hypervisor.partitions) == [1]
        assert not hypervisor.root.children


def test_costs():
    with Hypervisor(memory="64 MiB", costs=PageCosts(partition=0, initialize=0, vp=0)) as hypervisor:
        child = hypervisor.root.create_partition(vps=4)
        assert child.pool.in_use == 1


def test_another_thread_is_refused():
    errors = []
    with Hypervisor(memory="8 MiB") as hypervisor:

        def use():
            try:
                hypervisor.root.hypercall(Hypercall.GET_PARTITION_ID)
            except RuntimeError as error:
                errors.append(str(error))

        with hypervisor.exclusive():
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()
            hypervisor.root.hypercall(Hypercall.GET_PARTITION_ID)
        use()
    assert errors == ["this Hypervisor is in use by another thread: use one per thread"]


def test_reference_time_counts_virtual_time():
    with Hypervisor(memory="8 MiB") as hypervisor:
        hypervisor.root.create_partition(vps=0)
        assert hypervisor.root.reference_time == hypervisor.scheduler.now // 100
