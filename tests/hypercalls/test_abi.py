"""Control word, result word and the checks of hyperv-abi.md 3.3, with the test vectors of 12.5."""

from struct import calcsize, pack

import pytest
from hypercall_machine import SELF

from hvcore.enums import Hypercall, Status
from hvcore.errors import ERRORS, HypercallError, check
from hvcore.hypercalls.abi import Control, Layout, Result
from hvcore.hypercalls.dispatch import execute
from hvcore.hypercalls.table import TABLE

VECTORS = [
    (Control(0x4B, rep_count=10), 0x0000000A_0000004B),
    (Control(0x4B, rep_count=10, rep_start=4), 0x0004000A_0000004B),
    (Control(0x5D, fast=True), 0x0001005D),
    (Control(0x0B, fast=True), 0x0001000B),
    (Control(0x41, fast=True), 0x00010041),
    (Control(0x15, variable_qwords=3), 0x00060015),
    (Control(0x14, variable_qwords=3, rep_count=5), 0x00000005_00060014),
    (Control(0x50, rep_count=2), 0x00000002_00000050),
    (Control(0x51, fast=True, rep_count=1), 0x00000001_00010051),
]


@pytest.mark.parametrize(("parts", "word"), VECTORS)
def test_control_words(parts, word):
    assert parts.word() == word
    assert Control.parse(word) == parts


def test_result_word():
    assert Result(Status.INVALID_PARAMETER, 7, b"").word() == 0x00000007_00000005


# Code, input header, output, input element and output element in bytes, from the digest's sections 4.2-4.8.
SIZES = {
    0x01: (8, 0, 0, 0),
    0x02: (24, 0, 0, 0),
    0x03: (24, 0, 8, 0),
    0x08: (8, 0, 0, 0),
    0x0B: (16, 0, 0, 0),
    0x13: (32, 0, 0, 0),
    0x14: (32, 0, 8, 0),
    0x15: (24, 0, 0, 0),
    0x40: (56, 8, 0, 0),
    0x41: (8, 0, 0, 0),
    0x42: (8, 0, 0, 0),
    0x43: (8, 0, 0, 0),
    0x44: (16, 8, 0, 0),
    0x45: (24, 0, 0, 0),
    0x46: (0, 8, 0, 0),
    0x48: (8, 0, 8, 0),
    0x49: (16, 0, 0, 8),
    0x4A: (16, 16, 0, 0),
    0x4B: (24, 0, 8, 0),
    0x4C: (24, 0, 0, 0),
    0x4D: (24, 0, 0, 0),
    0x4E: (40, 0, 0, 0),
    0x4F: (16, 0, 0, 0),
    0x50: (16, 0, 4, 16),
    0x51: (16, 0, 32, 0),
    0x52: (32, 16, 0, 0),
    0x53: (32, 24, 0, 0),
    0x54: (48, 8, 0, 0),
    0x55: (32, 0, 0, 0),
    0x56: (8, 0, 0, 0),
    0x57: (48, 0, 0, 0),
    0x58: (16, 0, 0, 0),
    0x59: (40, 0, 0, 0),
    0x5A: (24, 8, 0, 0),
    0x5B: (16, 0, 0, 0),
    0x5C: (256, 0, 0, 0),
    0x5D: (8, 0, 0, 0),
    0x70: (32, 0, 0, 0),
    0x7C: (72, 56, 0, 0),
    0x7D: (40, 0, 0, 0),
    0x7E: (56, 0, 0, 0),
    0x8B: (8, 0, 0, 0),
    0x94: (32, 0, 0, 0),
    0x95: (56, 0, 0, 0),
    0x96: (72, 0, 0, 0),
    0x99: (240, 0, 0, 0),
    0x9A: (16, 0, 4, 4),
    0xB1: (32, 0, 0, 0),
    0xB2: (32, 0, 0, 0),
    0xB3: (40, 0, 8, 0),
    0xB4: (32, 0, 0, 0),
    0xC0: (16, 8, 0, 0),
    0xC1: (280, 0, 0, 0),
    0xC4: (16, 0, 0, 0),
    0xC5: (24, 0, 0, 0),
    0xCE: (40, 0, 0, 0),
    0xD0: (32, 0, 0, 0),
    0xE3: (40, 200, 0, 0),
    0xE4: (40, 0, 0, 0),
    0xE5: (24, 528, 0, 0),
    0x103: (32, 0, 0, 0),
    0x125: (16, 24, 0, 0),
    0x127: (24, 8, 0, 0),
    0x82: (40, 0, 0, 0),
    0x83: (16, 0, 0, 0),
}

VARIABLE = {0x13, 0x14, 0x15, 0x7C, 0x7E, 0xE3, 0xE4}


def test_variable_headers_are_those_of_the_specification():
    assert {code for code, row in TABLE.items() if row.variable} == VARIABLE


def test_the_table_is_complete_and_has_the_sizes_of_the_specification():
    rows = {
        code: (row.input.size, row.output.size, row.element_in.itemsize, row.element_out.itemsize)
        for code, row in TABLE.items()
    }
    assert rows == SIZES
    assert set(TABLE) == {int(code) for code in Hypercall}


def run(machine, word, input_=b""):
    return execute(machine.hypervisor, machine.root, None, word, input_)


@pytest.mark.parametrize("code", [*sorted(set(range(0x200)) - set(SIZES)), 0x8001, 0xFFFF])
def test_unknown_codes(machine, code):
    assert run(machine, code) == (Status.INVALID_HYPERCALL_CODE, 0, b"", True)


SIZE_OF_A_VARIABLE_HEADER = range(17, 27)
NEVER_SET = [
    (code, bit)
    for code in sorted(SIZES)
    for bit in (*range(17, 32), *range(44, 48), *range(60, 64))
    if not (code in VARIABLE and bit in SIZE_OF_A_VARIABLE_HEADER)
]


@pytest.mark.parametrize(("code", "bit"), NEVER_SET)
def test_reserved_and_variable_bits(machine, code, bit):
    reps = 1 if TABLE[code].rep else 0
    assert run(machine, code | reps << 32 | 1 << bit).status is Status.INVALID_HYPERCALL_INPUT


@pytest.mark.parametrize("code", sorted(SIZES))
def test_rep_fields(machine, code):
    wrong = [(0, 0), (1, 1), (5, 7)] if TABLE[code].rep else [(1, 0), (0, 1), (4095, 4095)]
    for count, start in wrong:
        assert run(machine, code | count << 32 | start << 48).status is Status.INVALID_HYPERCALL_INPUT


@pytest.mark.parametrize("code", sorted(SIZES))
def test_fast_only_without_output_and_within_registers(machine, code):
    header, output, element, element_out = SIZES[code]
    reps = 1 if TABLE[code].rep else 0
    status = run(machine, code | 1 << 16 | reps << 32).status
    fits = output == element_out == 0 and header + reps * element <= 112
    assert (status is not Status.INVALID_HYPERCALL_INPUT) == fits


def test_fast_lists_end_with_the_registers(machine):
    assert run(machine, 0x00000003_00010051).status is Status.INVALID_PARTITION_ID
    assert run(machine, 0x00000004_00010051).status is Status.INVALID_HYPERCALL_INPUT


@pytest.mark.parametrize(("code", "reps"), [(0x48, 512), (0x4B, 510), (0x49, 513), (0x50, 257), (0x51, 128)])
def test_lists_longer_than_a_page(machine, code, reps):
    assert run(machine, code | reps << 32).status is Status.INVALID_ALIGNMENT
    assert run(machine, code | reps - 1 << 32).status is not Status.INVALID_ALIGNMENT


def test_layouts_are_packed():
    for row in TABLE.values():
        assert isinstance(row.input, Layout)
        assert row.input.size % 8 == 0
    assert calcsize("<QQIIQQQQ") == TABLE[0x40].input.size


def test_python_callers_hear_which_argument_is_wrong(machine):
    root = machine.root
    with pytest.raises(ValueError, match="input of GET_MEMORY_BALANCE must have 16 bytes, not 8"):
        root.hypercall(Hypercall.GET_MEMORY_BALANCE, bytes(8))
    with pytest.raises(ValueError, match="reps"):
        root.hypercall(Hypercall.GET_MEMORY_BALANCE, bytes(16), reps=1)
    with pytest.raises(ValueError, match="reps"):
        root.hypercall(Hypercall.WITHDRAW_MEMORY, bytes(16))
    with pytest.raises(ValueError, match="reps"):
        root.hypercall(Hypercall.WITHDRAW_MEMORY, bytes(16), reps=4096)
    with pytest.raises(ValueError, match="start"):
        root.hypercall(Hypercall.WITHDRAW_MEMORY, bytes(16), reps=1, start=-1)
    with pytest.raises(ValueError, match="call must be a call code"):
        root.hypercall(0x10046)
    with pytest.raises(ValueError, match="input has 4097 bytes"):
        root.hypercall(Hypercall.DEPOSIT_MEMORY, bytes(4097))
    assert root.hypercall(0x8001).status is Status.INVALID_HYPERCALL_CODE


def test_a_deleted_partition_makes_no_calls(machine):
    child = machine.created()
    machine.call(Hypercall.DELETE_PARTITION, "Q", child.id)
    with pytest.raises(ValueError, match="does not exist"):
        child.hypercall(Hypercall.GET_PARTITION_ID)


def test_fast_from_python(machine):
    child = machine.created()
    machine.deposit(child, 2)
    input_ = pack("<Q", child.id)
    assert machine.root.hypercall(Hypercall.INITIALIZE_PARTITION, input_, fast=True).status is Status.SUCCESS
    balance = pack("<QQ", SELF, 0)
    refused = machine.root.hypercall(Hypercall.GET_MEMORY_BALANCE, balance, fast=True)
    assert refused.status is Status.INVALID_HYPERCALL_INPUT


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.SUCCESS])
def test_every_status_raises(status):
    with pytest.raises(HypercallError, match=f"CREATE_PARTITION.*{status.name}") as caught:
        check(status, Hypercall.CREATE_PARTITION)
    assert caught.value.status is status
    assert caught.value.call is Hypercall.CREATE_PARTITION
    assert type(caught.value) is ERRORS.get(status, HypercallError)


@pytest.mark.parametrize(
    ("status", "builtin"),
    [
        (Status.INVALID_PARAMETER, ValueError),
        (Status.ACCESS_DENIED, PermissionError),
        (Status.INSUFFICIENT_MEMORY, MemoryError),
        (Status.INVALID_PARTITION_ID, LookupError),
        (Status.INVALID_PARTITION_STATE, RuntimeError),
        (Status.INVALID_HYPERCALL_CODE, NotImplementedError),
    ],
)
def test_statuses_are_also_builtin_exceptions(status, builtin):
    with pytest.raises(builtin):
        check(status, Hypercall.CREATE_PARTITION)
