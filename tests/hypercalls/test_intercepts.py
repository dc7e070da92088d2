"""Call 4D: which intercepts can be installed, with which parameters (hyperv-abi.md 4.6, 8.1)."""

import pytest
from hypercall_machine import SELF, UNKNOWN_ID, Machine

from hvcore.costs import PageCosts
from hvcore.enums import Hypercall, Status

IO, MSR, CPUID, EXCEPTION, ALL_CPUID, HYPERCALL, MSR_INDEX, IO_RANGE = 0, 1, 2, 3, 6, 8, 0xC, 0x11


def install(machine, partition_id, access, kind, parameter, **keywords):
    machine.call(Hypercall.INSTALL_INTERCEPT, "QIIQ", partition_id, access, kind, parameter, **keywords)


@pytest.mark.parametrize(
    ("kind", "access", "parameter"),
    [
        (IO, 1, 0x3F8),
        (IO, 2, 0xFFFF),
        (IO, 3, 0),
        (MSR, 3, 0),
        (CPUID, 4, 0x40000000),
        (EXCEPTION, 4, 14),
        (ALL_CPUID, 4, 0),
        (HYPERCALL, 4, 0),
        (MSR_INDEX, 1, 0x10),
        (IO_RANGE, 3, 0x3FF << 16 | 0x3F8),
    ],
)
def test_install_and_remove(machine, kind, access, parameter):
    child = machine.child()
    install(machine, child.id, access, kind, parameter)
    install(machine, child.id, 0, kind, parameter)


@pytest.mark.parametrize(
    ("kind", "access", "parameter"),
    [
        (4, 3, 0),
        (0xD, 4, 0),
        (0x12, 4, 0),
        (0xFFFFFFFF, 1, 0),
        (IO, 4, 0),
        (IO, 8, 0),
        (IO, 3, 0x10000),
        (MSR, 1, 0),
        (MSR, 2, 0),
        (CPUID, 1, 0),
        (CPUID, 4, 1 << 32),
        (EXCEPTION, 3, 0),
        (EXCEPTION, 4, 32),
        (IO_RANGE, 3, 0x3F8 << 16 | 0x3FF),
        (IO_RANGE, 3, 1 << 32),
        (HYPERCALL, 3, 0),
    ],
)
def test_install_refuses(machine, kind, access, parameter):
    install(machine, machine.child().id, access, kind, parameter, expect=Status.INVALID_PARAMETER)


def test_targets(machine):
    child = machine.child()
    install(machine, UNKNOWN_ID, 3, IO, 0, expect=Status.INVALID_PARTITION_ID)
    install(machine, SELF, 3, IO, 0, expect=Status.INVALID_PARTITION_ID)
    install(machine, machine.root.id, 3, IO, 0, expect=Status.ACCESS_DENIED)
    install(machine, child.id, 3, IO, 0, caller=child, expect=Status.ACCESS_DENIED)
    install(machine, machine.created().id, 3, IO, 0, expect=Status.INVALID_PARTITION_STATE)


def test_only_cpuid_costs_memory():
    machine = Machine(PageCosts(cpuid_intercept=1))
    child = machine.child(deposit=0)
    install(machine, child.id, 3, IO, 0)
    install(machine, child.id, 4, CPUID, 1, expect=Status.INSUFFICIENT_MEMORY)
    machine.deposit(child, 1)
    install(machine, child.id, 4, CPUID, 1)
    install(machine, child.id, 4, CPUID, 1)
    install(machine, child.id, 4, CPUID, 2, expect=Status.INSUFFICIENT_MEMORY)
    install(machine, child.id, 0, CPUID, 1)
    install(machine, child.id, 4, CPUID, 2)
    assert child.pool.available == 0
