"""Calls 40-46: lifecycle, properties, ids (hyperv-abi.md 4.2, 6.1, 6.3)."""

from struct import pack, unpack

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF, UNKNOWN_ID, Machine

from hvcore.costs import PageCosts
from hvcore.enums import Hypercall, PartitionState, Status
from hvcore.hypercalls.table import TABLE

CREATE = "QQIIQQQQ"
NO_PROXIMITY = 0


def create(machine, *, flags=0, proximity=0, isolation=0, caller=None, expect=Status.SUCCESS):
    return machine.call(
        Hypercall.CREATE_PARTITION, CREATE, flags, proximity, 0x609, 0, 0, 0, 0, isolation, caller=caller, expect=expect
    )


def test_create_gives_ascending_ids_and_charges_the_caller(machine):
    machine.deposit(machine.root, 4)
    ids = [unpack("<Q", create(machine))[0] for _ in range(2)]
    assert ids == [2, 3]
    assert (machine.root.pool.available, machine.root.pool.in_use) == (0, 4)
    child = machine.root.children[2]
    assert child.state is PartitionState.UNINITIALIZED
    assert child.pool.available == child.pool.in_use == 0
    assert child.privileges == 0x5FF


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"flags": 1 << 2}, Status.INVALID_PARAMETER),
        ({"flags": 1 << 63}, Status.INVALID_PARAMETER),
        ({"isolation": 1}, Status.INVALID_PARAMETER),
        ({"proximity": 2 << 32}, Status.INVALID_PARAMETER),
        ({"proximity": 1 << 63 | 1}, Status.INVALID_PARAMETER),
    ],
)
def test_create_refuses(machine, arguments, status):
    machine.deposit(machine.root, 2)
    create(machine, **arguments, expect=status)
    assert machine.root.pool.in_use == 0


@pytest.mark.parametrize("flags", [0, 1 << 8 | 1 << 13, 1 << 22])
def test_create_accepts_known_flags(machine, flags):
    machine.deposit(machine.root, 2)
    create(machine, flags=flags, proximity=1 << 63)


def test_create_wants_memory_first(machine):
    create(machine, expect=Status.INSUFFICIENT_MEMORY)
    machine.deposit(machine.root, 1)
    create(machine, expect=Status.INSUFFICIENT_MEMORY)
    assert (machine.root.pool.available, machine.root.pool.in_use) == (1, 0)
    machine.deposit(machine.root, 1)
    assert unpack("<Q", create(machine)) == (2,)


def test_create_needs_the_privilege_and_a_level_below(machine):
    create(machine, caller=machine.child(), expect=Status.ACCESS_DENIED)
    parent = machine.root
    for _ in range(machine.hypervisor.maximum_depth):
        parent.pool.deposit(machine.pages(1)[0])
        parent.pool.deposit(machine.pages(1)[0])
        parent = parent.new_child(0, host_managed=True)
        parent.privileges = ALL_PRIVILEGES
    create(machine, caller=parent, expect=Status.PARTITION_TOO_DEEP)


def test_whole_life(machine):
    child = machine.created()
    machine.call(Hypercall.INITIALIZE_PARTITION, "Q", child.id, expect=Status.INSUFFICIENT_MEMORY)
    machine.deposit(child, 1)
    machine.call(Hypercall.INITIALIZE_PARTITION, "Q", child.id, expect=Status.INSUFFICIENT_MEMORY)
    assert child.pool.in_use == 0
    machine.deposit(child, 1)
    machine.call(Hypercall.INITIALIZE_PARTITION, "Q", child.id)
    assert (child.state, child.pool.available, child.pool.in_use) == (PartitionState.ACTIVE, 0, 2)
    machine.call(Hypercall.DELETE_PARTITION, "Q", child.id, expect=Status.INVALID_PARTITION_STATE)
    machine.call(Hypercall.FINALIZE_PARTITION, "Q", child.id)
    assert (child.state, child.pool.available, child.pool.in_use) == (PartitionState.FINALIZED, 2, 0)
    machine.call(Hypercall.DELETE_PARTITION, "Q", child.id, expect=Status.OPERATION_DENIED)
    machine.call(Hypercall.WITHDRAW_MEMORY, "QQ", child.id, NO_PROXIMITY, reps=3, expect=Status.NO_RESOURCES)
    machine.call(Hypercall.DELETE_PARTITION, "Q", child.id)
    machine.call(Hypercall.DELETE_PARTITION, "Q", child.id, expect=Status.INVALID_PARTITION_ID)
    assert (machine.root.pool.available, machine.root.pool.in_use) == (2, 0)
    assert child.id not in machine.hypervisor.partitions


def test_finalize_frees_everything(machine):
    child = machine.child(vps=2, deposit=60, privileges=ALL_PRIVILEGES)
    machine.map(child, 0, 20)
    machine.call(Hypercall.CREATE_PORT, "QIBBHQIIII8xQ", child.id, 1, 0, 0, 0, machine.root.id, 1, 0, 2, 0xFFFFFFFF, 0)
    used = child.pool.available + child.pool.in_use
    machine.call(Hypercall.FINALIZE_PARTITION, "Q", child.id)
    assert (child.pool.available, child.pool.in_use) == (used, 0)
    assert not machine.hypervisor.owners.shared.any()
    assert not child.vps
    assert not child.ports


def test_finalize_with_children_is_denied(machine):
    parent, grandchild = machine.parent_and_grandchild()
    machine.call(Hypercall.FINALIZE_PARTITION, "Q", parent.id, expect=Status.OPERATION_DENIED)
    machine.call(Hypercall.DELETE_PARTITION, "Q", grandchild.id, caller=parent)
    machine.call(Hypercall.FINALIZE_PARTITION, "Q", parent.id)


LIFECYCLE_CALLS = [Hypercall.INITIALIZE_PARTITION, Hypercall.FINALIZE_PARTITION, Hypercall.DELETE_PARTITION]


@pytest.mark.parametrize("call", LIFECYCLE_CALLS)
def test_lifecycle_targets(machine, call):
    machine.call(call, "Q", UNKNOWN_ID, expect=Status.INVALID_PARTITION_ID)
    machine.call(call, "Q", 0, expect=Status.INVALID_PARTITION_ID)
    machine.call(call, "Q", SELF, expect=Status.INVALID_PARTITION_ID)
    machine.call(call, "Q", machine.root.id, expect=Status.ACCESS_DENIED)
    _, grandchild = machine.parent_and_grandchild()
    machine.call(call, "Q", grandchild.id, expect=Status.ACCESS_DENIED)
    machine.call(call, "Q", grandchild.id, caller=machine.child(), expect=Status.ACCESS_DENIED)


# The table of section 6.1: the states in which a call is allowed. Calls are made with parameters that fail later.
EVERYWHERE = set(PartitionState)
UNINITIALIZED, ACTIVE = {PartitionState.UNINITIALIZED}, {PartitionState.ACTIVE}
STATES = [
    (Hypercall.INITIALIZE_PARTITION, "Q", (), UNINITIALIZED),
    (Hypercall.FINALIZE_PARTITION, "Q", (), {PartitionState.ACTIVE, PartitionState.FINALIZING}),
    (Hypercall.DELETE_PARTITION, "Q", (), UNINITIALIZED | {PartitionState.FINALIZED}),
    (Hypercall.GET_PARTITION_PROPERTY, "QII", (0x10000, 0), UNINITIALIZED | ACTIVE),
    (Hypercall.GET_PARTITION_PROPERTY, "QII", (0x20003, 0), ACTIVE),
    (Hypercall.SET_PARTITION_PROPERTY, "QIIQ", (0x10000, 0, 0x7F), UNINITIALIZED | ACTIVE),
    (Hypercall.SET_PARTITION_PROPERTY, "QIIQ", (0x20003, 0, 5), ACTIVE),
    (Hypercall.DEPOSIT_MEMORY, "QQ", (0,), UNINITIALIZED | ACTIVE),
    (Hypercall.WITHDRAW_MEMORY, "QQ", (0,), EVERYWHERE),
    (Hypercall.GET_MEMORY_BALANCE, "QQ", (0,), EVERYWHERE),
    (Hypercall.MAP_GPA_PAGES, "QQIIQ", (0, 0xF, 0, 5), ACTIVE),
    (Hypercall.UNMAP_GPA_PAGES, "QQII", (0, 0, 0), ACTIVE),
    (Hypercall.INSTALL_INTERCEPT, "QIIQ", (4, 2, 1), ACTIVE),
    (Hypercall.CREATE_VP, "QIIQQQ", (5, 0, 0, 0, 0), ACTIVE),
    (Hypercall.GET_VP_REGISTERS, "QIII", (0, 0, 0x20000), ACTIVE),
    (Hypercall.SET_VP_REGISTERS, "QII32x", (0, 0), ACTIVE),
    (Hypercall.TRANSLATE_VIRTUAL_ADDRESS, "QIIQQ", (0, 0, 1, 0), ACTIVE),
    (Hypercall.READ_GPA, "QIIQQ", (0, 1, 0, 6), ACTIVE),
    (Hypercall.WRITE_GPA, "QIIQQ16x", (0, 1, 0, 6), ACTIVE),
    (Hypercall.ASSERT_VIRTUAL_INTERRUPT, "QIIQI4x", (0, 0, 0, 0x30), ACTIVE),
    (Hypercall.CREATE_PORT, "QIIQ24xQ", (1, 0, 1, 0), ACTIVE),
    (Hypercall.DELETE_PORT, "QII", (1, 0), ACTIVE),
    (Hypercall.CONNECT_PORT, "QIIQII32xQ", (1, 0, 1, 1, 0, 0), ACTIVE),
    (Hypercall.DISCONNECT_PORT, "QII", (1, 0), ACTIVE),
]


@pytest.mark.parametrize("state", list(PartitionState))
@pytest.mark.parametrize(("call", "form", "rest", "allowed"), STATES)
def test_states(machine, call, form, rest, allowed, state):
    child = machine.child() if state is not PartitionState.UNINITIALIZED else machine.created()
    child.state = state
    reps = 1 if TABLE[call].rep else None
    status = machine.root.hypercall(call, pack("<" + form, child.id, *rest), reps=reps).status
    assert (status is not Status.INVALID_PARTITION_STATE) == (state in allowed), status


PRIVILEGE_FLAGS, FEATURES = 0x10000, 0x10001


def get(machine, partition_id, code, **keywords):
    output = machine.call(Hypercall.GET_PARTITION_PROPERTY, "QII", partition_id, code, 0, **keywords)
    return unpack("<Q", output)[0] if output else None


def put(machine, partition_id, code, value, **keywords):
    machine.call(Hypercall.SET_PARTITION_PROPERTY, "QIIQ", partition_id, code, 0, value, **keywords)


@pytest.mark.parametrize(
    ("code", "default", "value"),
    [
        (0x10000, 0x5FF, 0x7F | 1 << 36),
        (0x20000, 0, 1),
        (0x20001, 0, 0x8000),
        (0x20002, 0x10000, 0x100),
        (0x20003, 100, 10000),
        (0x40000, 0, 7),
        (0x50000, 256, 512),
        (0x50003, 1, 4),
        (0x50017, 0, 1),
        (0x60006, 46, 40),
    ],
)
def test_property_round_trip(machine, code, default, value):
    child = machine.child()
    assert get(machine, child.id, code) == default
    put(machine, child.id, code, value)
    assert get(machine, child.id, code) == value


@pytest.mark.parametrize(
    ("code", "value", "status"),
    [
        (0x12345, 0, Status.UNKNOWN_PROPERTY),
        (0x20003, 0, Status.PROPERTY_VALUE_OUT_OF_RANGE),
        (0x20003, 10001, Status.PROPERTY_VALUE_OUT_OF_RANGE),
        (0x20001, 0x10001, Status.PROPERTY_VALUE_OUT_OF_RANGE),
        (0x60000, 1, Status.PROPERTY_VALUE_OUT_OF_RANGE),
        (0x70000, 1, Status.PROPERTY_VALUE_OUT_OF_RANGE),
        (0x10000, 1 << 63, Status.INVALID_PARAMETER),
        (0x10000, 1 << 41, Status.INVALID_PARAMETER),
        (0x40000, 7, Status.OBJECT_IN_USE),
    ],
)
def test_set_property_refuses(machine, code, value, status):
    put(machine, machine.child().id, 0x40000, 7)
    put(machine, machine.child().id, code, value, expect=status)


def test_property_targets(machine):
    for identifier in (SELF, machine.root.id):
        assert get(machine, identifier, PRIVILEGE_FLAGS) == machine.root.privileges
    get(machine, UNKNOWN_ID, PRIVILEGE_FLAGS, expect=Status.INVALID_PARTITION_ID)
    child = machine.child(privileges=ALL_PRIVILEGES)
    get(machine, SELF, PRIVILEGE_FLAGS, caller=child, expect=Status.ACCESS_DENIED)
    get(machine, machine.root.id, PRIVILEGE_FLAGS, caller=child, expect=Status.ACCESS_DENIED)
    get(machine, child.id, 0x12345, expect=Status.UNKNOWN_PROPERTY)


def test_tlb_page_count_is_clamped(machine):
    child = machine.child()
    put(machine, child.id, 0x50000, 1 << 40)
    assert get(machine, child.id, 0x50000) == 4096


def test_processor_features_translate_to_privileges(machine):
    child = machine.created()
    put(machine, child.id, FEATURES, 1 << 7 | 1 << 8 | 1 << 9)
    assert get(machine, child.id, PRIVILEGE_FLAGS) == 1 << 5 | 1 << 6 | 1 << 9 | 1 << 7 | 1 << 8


def test_privileges_that_the_parent_lacks_cannot_be_granted(machine):
    parent, grandchild = machine.parent_and_grandchild()
    put(machine, parent.id, PRIVILEGE_FLAGS, ALL_PRIVILEGES & ~(1 << 44))
    put(machine, grandchild.id, PRIVILEGE_FLAGS, 1 << 44, caller=parent, expect=Status.ACCESS_DENIED)


def test_get_partition_id(machine):
    assert unpack("<Q", machine.call(Hypercall.GET_PARTITION_ID, "")) == (1,)
    child = machine.child(privileges=1 << 33)
    assert unpack("<Q", machine.call(Hypercall.GET_PARTITION_ID, "", caller=child)) == (child.id,)
    machine.call(Hypercall.GET_PARTITION_ID, "", caller=machine.child(), expect=Status.ACCESS_DENIED)


def test_costs_can_be_nothing():
    free = Machine(PageCosts(partition=0, initialize=0, vp=0, port=0, connection=0))
    create(free)
