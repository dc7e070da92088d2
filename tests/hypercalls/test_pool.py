"""Calls 48-4A: the memory pool (hyperv-abi.md 4.3, 6.2)."""

from struct import iter_unpack, unpack

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF, UNKNOWN_ID

from hvcore.enums import Hypercall, PartitionState, Status


def balance(machine, partition_id, **keywords):
    return unpack("<QQ", machine.call(Hypercall.GET_MEMORY_BALANCE, "QQ", partition_id, 0, **keywords))


def deposit(machine, partition_id, pages, **keywords):
    machine.call(Hypercall.DEPOSIT_MEMORY, "Q", partition_id, elements=pages, **keywords)


def withdraw(machine, partition_id, count, **keywords):
    output = machine.call(Hypercall.WITHDRAW_MEMORY, "QQ", partition_id, 0, reps=count, **keywords)
    return [gpn for (gpn,) in iter_unpack("<Q", output)]


def test_deposit_and_withdraw(machine):
    child = machine.created()
    pages = machine.pages(5)
    for page in pages:
        machine.memory.write(page << 12, b"secret")
    deposit(machine, child.id, pages)
    assert balance(machine, child.id) == (5, 0)
    assert all(machine.root.space.resolve(page << 12) is None for page in pages)
    back = withdraw(machine, child.id, 2)
    assert set(back) < set(pages)
    assert balance(machine, child.id) == (3, 0)
    for page in back:
        assert machine.root.space.resolve(page << 12)[:2] == (page << 12, 7)
        assert machine.memory.read(page << 12, 6) == bytes(6)
    assert sorted(back + withdraw(machine, child.id, 10, expect=Status.NO_RESOURCES)) == pages


def test_withdraw_says_how_many(machine):
    child = machine.created()
    machine.deposit(child, 3)
    result = machine.root.hypercall(Hypercall.WITHDRAW_MEMORY, child.id.to_bytes(8, "little") + bytes(8), reps=5)
    assert (result.status, result.reps_completed, len(result.output)) == (Status.NO_RESOURCES, 3, 24)
    assert result.word() == 0x3_0000_001D


def test_root_has_a_pool_of_its_own(machine):
    for identifier in (SELF, machine.root.id):
        deposit(machine, identifier, machine.pages(2))
    assert balance(machine, SELF) == (4, 0)
    assert len(withdraw(machine, SELF, 4)) == 4


def test_deposit_stops_at_the_first_bad_page(machine):
    child = machine.created()
    good = machine.pages(3)
    input_ = b"".join(page.to_bytes(8, "little") for page in [child.id, *good, good[0], good[0]])
    result = machine.root.hypercall(Hypercall.DEPOSIT_MEMORY, input_)
    assert (result.status, result.reps_completed) == (Status.OPERATION_DENIED, 3)
    assert balance(machine, child.id) == (3, 0)


def test_pages_that_cannot_be_deposited(machine):
    child = machine.child()
    denied = Status.OPERATION_DENIED
    deposit(machine, child.id, [0], expect=denied)
    deposit(machine, child.id, [machine.memory.size >> 12], expect=denied)
    deposit(machine, child.id, [1 << 60], expect=denied)
    deposit(machine, child.id, machine.deposit(child, 1), expect=denied)
    deposit(machine, child.id, machine.map(child, 0), expect=denied)
    (page,) = machine.pages(1)
    machine.call(Hypercall.MAP_GPA_PAGES, "QQII", SELF, page, 1, 0, elements=[page])
    deposit(machine, child.id, [page], expect=denied)


def test_a_page_that_python_holds_is_in_use(machine):
    child = machine.root.create_partition(vps=0)
    region = child.map_memory(gpa=0, size=4096)
    page = region.spa >> 12
    deposit(machine, child.id, [page], expect=Status.OPERATION_DENIED)
    machine.call(Hypercall.UNMAP_GPA_PAGES, "QQII", child.id, 0, 0, 0, reps=1)
    deposit(machine, child.id, [page], expect=Status.OBJECT_IN_USE)


CALLS = [
    (Hypercall.DEPOSIT_MEMORY, "QQ", 1),
    (Hypercall.WITHDRAW_MEMORY, "QQ", 1),
    (Hypercall.GET_MEMORY_BALANCE, "QQ", None),
]


@pytest.mark.parametrize(("call", "form", "reps"), CALLS)
def test_targets_and_privilege(machine, call, form, reps):
    parent, grandchild = machine.parent_and_grandchild()
    machine.call(call, form, UNKNOWN_ID, 0, reps=reps, expect=Status.INVALID_PARTITION_ID)
    machine.call(call, form, grandchild.id, 0, reps=reps, expect=Status.ACCESS_DENIED)
    machine.call(call, form, SELF, 0, reps=reps, caller=parent, expect=Status.ACCESS_DENIED)
    machine.call(call, form, UNKNOWN_ID, 0, reps=reps, caller=machine.child(), expect=Status.ACCESS_DENIED)


@pytest.mark.parametrize("call", [Hypercall.WITHDRAW_MEMORY, Hypercall.GET_MEMORY_BALANCE])
@pytest.mark.parametrize("proximity", [2 << 32, 1 << 63 | 1])
def test_bad_proximity(machine, call, proximity):
    reps = 1 if call is Hypercall.WITHDRAW_MEMORY else None
    machine.call(call, "QQ", machine.child().id, proximity, reps=reps, expect=Status.INVALID_PARAMETER)


@pytest.mark.parametrize("state", [PartitionState.FINALIZED, PartitionState.FINALIZING])
def test_deposit_states(machine, state):
    child = machine.child()
    child.state = state
    deposit(machine, child.id, machine.pages(1), expect=Status.INVALID_PARTITION_STATE)


def test_a_childs_page_leaves_the_root_too_and_comes_back(machine):
    parent, grandchild = machine.parent_and_grandchild()
    spa = parent.space.resolve(0x3000)[0]
    deposit(machine, grandchild.id, [3], caller=parent)
    assert parent.space.resolve(0x3000) is None
    assert machine.root.space.resolve(spa) is None
    unmap = (Hypercall.UNMAP_GPA_PAGES, "QQII", parent.id, 3, 0, 0)
    machine.call(*unmap, reps=1, expect=Status.OBJECT_IN_USE)
    replace = (Hypercall.MAP_GPA_PAGES, "QQII", parent.id, 3, 0xF, 0)
    machine.call(*replace, elements=machine.pages(1), expect=Status.OBJECT_IN_USE)
    assert withdraw(machine, grandchild.id, 1, caller=parent) == [3]
    assert parent.space.resolve(0x3000)[:2] == (spa, 7)
    assert machine.root.space.resolve(spa)[0] == spa
    machine.call(*unmap, reps=1)


def test_a_page_shared_between_children_is_denied(machine):
    parent, grandchild = machine.parent_and_grandchild()
    (page,) = machine.map(parent, 100)
    machine.call(Hypercall.MAP_GPA_PAGES, "QQII", machine.child().id, 0, 0xF, 0, elements=[page])
    deposit(machine, grandchild.id, [100], caller=parent, expect=Status.OPERATION_DENIED)
    assert parent.privileges == ALL_PRIVILEGES


def test_tables_go_back_to_the_pool(machine):
    child = machine.child()
    before = balance(machine, child.id)
    machine.map(child, 1 << 20, 300)
    assert balance(machine, child.id)[1] == before[1] + 3
    machine.call(Hypercall.UNMAP_GPA_PAGES, "QQII", child.id, 1 << 20, 0, 0, reps=300)
    assert sum(balance(machine, child.id)) == sum(before)
