"""Hypercalls from guest code: registers, pages, continuation, faults (hyperv-abi.md 3.2-3.4)."""

from struct import pack, unpack, unpack_from

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF

from hvcore.enums import Hypercall, ServiceReason, Status

GUEST_OS_ID, HYPERCALL = 0x40000000, 0x40000001
INPUT, OUTPUT = 0x10000, 0x11000
UNDEFINED_OPCODE = 6 << 16 | 3 << 1 | 1


def write_msr(machine, vp, index, value):
    vp.rcx, vp.rdx, vp.rax = index, value >> 32, value & 0xFFFFFFFF
    return machine.hypervisor.service(vp, ServiceReason.MSR_WRITE)


@pytest.fixture
def caller(machine):
    """VP 0 of a child with RAM at 0, in 64-bit mode, hypercalls enabled."""
    child = machine.child(vps=1, privileges=ALL_PRIVILEGES)
    machine.map(child, 0, 64)
    vp = child.vps[0]
    assert write_msr(machine, vp, GUEST_OS_ID, 0x8100000606000000)
    assert write_msr(machine, vp, HYPERCALL, 0x20001)
    vp.cr0, vp.efer = 0x80000011, 0x500
    vp.cs = vp.cs._replace(attributes=0xA09B)
    return vp


def partition_of(machine, vp):
    return machine.hypervisor.partition_of[vp]


def call(machine, vp, control, *, first=INPUT, second=OUTPUT):
    vp.rcx, vp.rdx, vp.r8 = control, first, second
    return machine.hypervisor.service(vp, ServiceReason.HYPERCALL)


def put(machine, vp, gpa, data):
    machine.memory.write(partition_of(machine, vp).space.resolve(gpa)[0], data)


def get(machine, vp, gpa, size):
    return machine.memory.read(partition_of(machine, vp).space.resolve(gpa)[0], size)


def test_a_call_with_output(machine, caller):
    put(machine, caller, OUTPUT, b"\xff" * 16)
    assert call(machine, caller, 0x46)
    assert caller.rax == 0
    assert get(machine, caller, OUTPUT, 16) == pack("<Q", partition_of(machine, caller).id) + b"\xff" * 8


def test_output_is_left_alone_on_failure(machine, caller):
    put(machine, caller, OUTPUT, b"\xff" * 16)
    put(machine, caller, INPUT, pack("<QQ", 77, 0))
    assert call(machine, caller, 0x4A)
    assert caller.rax == Status.INVALID_PARTITION_ID
    assert get(machine, caller, OUTPUT, 16) == b"\xff" * 16


def test_fast_registers(machine, caller):
    assert call(machine, caller, 0x0001005D, first=5 | 3 << 32, second=0)
    assert caller.rax == Status.INVALID_CONNECTION_ID


def test_xmm_fast_set_registers(machine, caller):
    """The vector of 12.5: header in RDX, R8; element in XMM0 and XMM1."""
    caller.xmm0, caller.xmm1 = 0x20003, 0x1234
    assert call(machine, caller, 0x00000001_00010051, first=SELF, second=0xFFFFFFFE)
    assert caller.rax == 1 << 32
    assert caller.rbx == 0x1234


def test_32_bit_registers(machine, caller):
    caller.cs = caller.cs._replace(attributes=0xC09B)
    caller.rdx, caller.rax = 0xFFFFFFFF_00000000, 0xFFFFFFFF_00000046
    caller.rdi, caller.rsi = 0, OUTPUT
    assert machine.hypervisor.service(caller, ServiceReason.HYPERCALL)
    assert (caller.rax, caller.rdx) == (0, 0)
    assert unpack("<Q", get(machine, caller, OUTPUT, 8)) == (partition_of(machine, caller).id,)


@pytest.mark.parametrize(
    ("control", "first", "second", "status"),
    [
        (0x123, INPUT, OUTPUT, Status.INVALID_HYPERCALL_CODE),
        (0x4A | 1 << 32, INPUT, OUTPUT, Status.INVALID_HYPERCALL_INPUT),
        (0x4A | 1 << 17, INPUT, OUTPUT, Status.INVALID_HYPERCALL_INPUT),
        (0x4A | 1 << 27, INPUT, OUTPUT, Status.INVALID_HYPERCALL_INPUT),
        (0x4A | 1 << 31, INPUT, OUTPUT, Status.INVALID_HYPERCALL_INPUT),
        (0x4A | 1 << 16, INPUT, OUTPUT, Status.INVALID_HYPERCALL_INPUT),
        (0x50, INPUT, OUTPUT, Status.INVALID_HYPERCALL_INPUT),
        (0x50 | 3 << 32 | 3 << 48, INPUT, OUTPUT, Status.INVALID_HYPERCALL_INPUT),
        (0x4A, INPUT + 4, OUTPUT, Status.INVALID_ALIGNMENT),
        (0x4A, INPUT, OUTPUT + 1, Status.INVALID_ALIGNMENT),
        (0x4A, INPUT + 0xFF8, OUTPUT, Status.INVALID_ALIGNMENT),
        (0x4A, INPUT, OUTPUT + 0xFF8, Status.INVALID_ALIGNMENT),
        (0x4A, 1 << 46, OUTPUT, Status.INVALID_ALIGNMENT),
        (0x4A, INPUT, 1 << 46, Status.INVALID_ALIGNMENT),
        (0x4A, INPUT, INPUT + 8, Status.INVALID_ALIGNMENT),
        (0x4A, INPUT, INPUT + 16, Status.INVALID_PARTITION_ID),
        (0x41, INPUT, 3, Status.INVALID_PARTITION_ID),
        (0x46, 3, OUTPUT, Status.SUCCESS),
        (0x4A, 0x50000, OUTPUT, Status.INVALID_PARAMETER),
        (0x4A, INPUT, 0x50000, Status.INVALID_PARAMETER),
    ],
)
def test_entry_checks(machine, caller, control, first, second, status):
    put(machine, caller, INPUT, pack("<QQ", 77, 0))
    assert call(machine, caller, control, first=first, second=second)
    assert caller.rax == status


def test_privilege_comes_before_the_pages(machine, caller):
    partition_of(machine, caller).privileges = 0
    assert call(machine, caller, 0x4A, first=0x50000)
    assert caller.rax == Status.ACCESS_DENIED


@pytest.mark.parametrize("change", ["user", "real", "virtual-8086", "disabled", "no guest id"])
def test_undefined_opcode(machine, caller, change):
    match change:
        case "user":
            caller.ss = caller.ss._replace(attributes=0xC0F3)
        case "real":
            caller.cr0 = 0x10
        case "virtual-8086":
            caller.rflags |= 1 << 17
        case "disabled":
            write_msr(machine, caller, HYPERCALL, 0x20000)
        case "no guest id":
            write_msr(machine, caller, GUEST_OS_ID, 0)
    assert not call(machine, caller, 0x46)
    assert caller.pending_interruption == UNDEFINED_OPCODE


def test_long_rep_calls_go_on_without_advancing(machine, caller):
    put(machine, caller, INPUT, pack("<QII", SELF, 0xFFFFFFFE, 0) + pack("<200I", *[0x20000] * 200))
    entries = 0
    caller.rax = 0x77
    control = 0x50 | 200 << 32
    while not call(machine, caller, control, second=OUTPUT):
        entries += 1
        assert caller.rcx == 0x50 | 200 << 32 | (64 * entries) << 48
        control = caller.rcx
    assert entries == 3
    assert caller.rax == 200 << 32
    values = [unpack_from("<Q", get(machine, caller, OUTPUT, 3200), 16 * at)[0] for at in range(200)]
    assert values == [0x77] * 200


def test_a_long_rep_call_stops_at_an_error_with_an_absolute_count(machine, caller):
    names = [0x20000] * 100
    names[90] = 0xDEAD
    put(machine, caller, INPUT, pack("<QII100I", SELF, 0xFFFFFFFE, 0, *names))
    assert not call(machine, caller, 0x50 | 100 << 32)
    assert call(machine, caller, caller.rcx)
    assert caller.rax == 90 << 32 | Status.UNKNOWN_REGISTER_NAME


def test_finalize_takes_several_entries(machine, caller):
    parent = partition_of(machine, caller)
    machine.deposit(parent, 20)
    put(machine, caller, INPUT, pack("<QQIIQQQQ", 0, 0, 0x609, 0, 0, 0, 0, 0))
    assert call(machine, caller, Hypercall.CREATE_PARTITION)
    assert caller.rax == 0
    (child_id,) = unpack("<Q", get(machine, caller, OUTPUT, 8))
    child = parent.children[child_id]
    assert not child.core.host_managed
    put(machine, caller, INPUT, pack("<Q10Q", child_id, *range(40, 50)))
    assert call(machine, caller, 0x48 | 10 << 32)
    assert call(machine, caller, 0x10041, first=child_id)
    put(machine, caller, INPUT, pack("<QIIQQQ", child_id, 0, 0, 0, 0, 0))
    assert call(machine, caller, Hypercall.CREATE_VP)
    assert caller.rax == 0
    assert not call(machine, caller, 0x10042, first=child_id)
    assert child.state.name == "FINALIZING"
    assert call(machine, caller, 0x10042, first=child_id)
    assert (caller.rax, child.state.name) == (0, "FINALIZED")


def test_parameters_may_lie_in_an_overlay(machine, caller):
    assert write_msr(machine, caller, 0x40000083, 0x30001)
    put(machine, caller, 0x30000, pack("<QQ", 77, 0))
    assert call(machine, caller, 0x4A, first=0x30000)
    assert caller.rax == Status.INVALID_PARTITION_ID
    assert call(machine, caller, 0x46, second=0x20000)
    assert caller.rax == Status.INVALID_PARAMETER


def test_a_guest_parent_gets_a_message_for_a_missing_page(machine, caller):
    child = partition_of(machine, caller)
    child.core.host_managed = False
    assert not call(machine, caller, 0x4A, first=0x50000)
    assert caller.intercept_suspend


def test_unknown_calls_go_to_a_parent_that_asked(machine, caller):
    child = partition_of(machine, caller)
    machine.call(Hypercall.INSTALL_INTERCEPT, "QIIQ", child.id, 4, 8, 0)
    assert not call(machine, caller, 0x8001)
    assert caller.intercept_suspend
