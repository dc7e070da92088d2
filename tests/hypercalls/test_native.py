"""Calls that native code executes: one status as guest code, as Python caller and in the plain model (4.9, 3.3)."""

import random
from struct import pack, unpack_from

import pytest
from hypercall_machine import ALL_PRIVILEGES
from plain_calls import HEADERS, LISTS, cluster_ipi, entry_status, outcome

import hvcore
from hvcore._native.space import READ, WRITE
from hvcore.enums import Hypercall, OverlayKind, Status
from hvcore.hypercalls.dispatch import execute

SEED = 5006
CODE, INPUT, STACK = 0x1000, 0x8000, 0x7000
VMCALL_AND_HALT = bytes.fromhex("0f01c1 f4")
VPS = 3


@pytest.fixture
def guest():
    """A child with three processors in 64-bit mode, interface enabled; code at CODE of VP 0 is VMCALL; HLT."""
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition(vps=VPS, privileges=ALL_PRIVILEGES)
        ram = child.map_memory(gpa=0, size="4 MiB", page_size="4 KiB")
        ram[CODE : CODE + 4] = VMCALL_AND_HALT
        child.core.guest_os_id = child.core.hypercall_msr = 1
        for index in range(VPS):
            child.vps[index].reset("long64", rip=CODE, rsp=STACK, page_size="4 KiB")
            child.vps[index].interrupts.apic_enabled = True
        yield child, ram


def call(guest, word, data, *, gpa=INPUT):
    """One hypercall by VP 0, to its end: RAX."""
    child, ram = guest
    vp = child.vps[0]
    vp.rip, vp.rcx = CODE, word
    if word >> 16 & 1:
        padded = data.ljust(112, b"\0")
        vp.rdx, vp.r8 = unpack_from("<QQ", padded)
        for number in range(6):
            setattr(vp, f"xmm{number}", int.from_bytes(padded[16 + 16 * number : 32 + 16 * number], "little"))
    else:
        vp.rdx, vp.r8 = gpa, 0xDEAD
        if gpa < len(ram):
            page = data.ljust(4096, b"\0")[: 4096 - gpa % 4096]
            ram[gpa : gpa + len(page)] = page
    assert isinstance(vp.run(max_instructions=1000), hvcore.exits.Halt)
    assert vp.rip == CODE + 4
    return vp.rax


def random_input(randomness, code, variable, count):
    """Header, variable header and list: plausible, with mistakes."""
    pick = randomness.choice
    vector = pick([0x10, 0x30, 0xFF, 0x30, 15, 0x100, randomness.getrandbits(32)])
    vtl = pick([0, 0, 0, 0x10, 0x11, 3, 0x20, 0x100, randomness.getrandbits(32)])
    space = pick([0, 0x5000, 0x5123, 1 << 46, 1 << 62, randomness.getrandbits(64)])
    flags = pick([0, 1, 2, 3, 4, 8, 9, 0x111, 0x112, 0x10, 0x100, 0x211, 0x20, randomness.getrandbits(64)])
    valid = pick([0, 1, 3, (1 << variable) - 1, randomness.getrandbits(64)])
    vps = pack("<QQ", pick([0, 0, 0, 1, 2]), valid)
    vps += b"".join(pack("<Q", pick([0, 1, 7, randomness.getrandbits(64)])) for _ in range(variable))
    mask = pack("<Q", pick([0, 1, 6, 7, randomness.getrandbits(64)]))
    head = {
        0x01: pack("<Q", space),
        0x08: pack("<II", randomness.getrandbits(32), pick([0, 1])),
        0x0B: pack("<II", vector, vtl) + mask,
        0x15: pack("<II", vector, vtl) + vps,
        0x02: pack("<QQ", space, flags) + mask,
        0x03: pack("<QQ", space, flags) + mask,
        0x13: pack("<QQ", space, flags) + vps,
        0x14: pack("<QQ", space, flags) + vps,
    }[code]
    elements = [pick([0, 0x1000, 0x7FFF1002, randomness.getrandbits(64)]) for _ in range(count if code in LISTS else 0)]
    return head + pack(f"<{len(elements)}Q", *elements)


def random_call(randomness):
    """Control word, input GPA and input."""
    code = randomness.choice(sorted(HEADERS))
    variable = randomness.choice([0, 0, 1, 2, 5]) if code in (0x13, 0x14, 0x15) or randomness.random() < 0.05 else 0
    count = randomness.choice([1, 2, 3, 9, 64, 65, 200]) if code in LISTS or randomness.random() < 0.05 else 0
    start = randomness.choice([0, 0, 1, 70]) if count else 0
    word = code | variable << 17 | count << 32 | start << 48 | (randomness.random() < 0.5) << 16
    if randomness.random() < 0.1:
        word ^= 1 << randomness.randrange(16, 64)
    gpa = randomness.choice([INPUT] * 8 + [INPUT + 4, INPUT + 0xFF0, 1 << 46, randomness.getrandbits(64) | 1])
    variable, count = word >> 17 & 0x3FF, word >> 32 & 0xFFF
    return word, gpa, random_input(randomness, code, min(variable, 64), min(count, 450))


@pytest.mark.parametrize("round_", range(4))
def test_both_doors_and_the_plain_model_agree(guest, round_):
    """The same random call as guest code, by the Python dispatch, and in plain Python: one status, one rep count."""
    print(f"seed {SEED + round_}")
    randomness = random.Random(SEED + round_)
    child, _ = guest
    vp = child.vps[0]
    statuses = set()
    for _ in range(1500):
        word, gpa, data = random_call(randomness)
        data = data[:4096]
        expected = outcome(word, INPUT if word >> 16 & 1 else gpa, data.ljust(4096, b"\0"))
        cr3 = vp.cr3
        if word & 0xFFFF == 0x01 and expected[0] == 0:
            data = pack("<Q", cr3)
        before = vp.counters()["hypercalls"]
        rax = call(guest, word, data, gpa=gpa)
        assert (rax & 0xFFFF, rax >> 32) == expected, (hex(word), hex(gpa), data.hex())
        assert vp.counters()["hypercalls"] == before + 1
        assert vp.cr3 == cr3
        if entry_status(word, gpa)[0] != Status.INVALID_ALIGNMENT or word >> 16 & 1:
            reads = entry_status(word, gpa)[1]
            if reads <= 4096:
                result = execute(child.hypervisor, child, vp, word, data[:reads])
                assert (result.status, result.reps_completed) == expected, (hex(word), data.hex())
        statuses.add(expected[0])
    assert statuses == {0, 3, 4, 5, 0x51}
    assert sum(count for count in vp.native_calls().values()) >= 6000 * 0.9 / 4
    assert vp.hypercalls_by_name.total() == 0, "the guest's calls went through Python"


def test_counts_by_name(guest):
    child, _ = guest
    for code, name in ((0x10008, "NOTIFY_LONG_SPIN_WAIT"), (0x1000B, "SEND_SYNTHETIC_CLUSTER_IPI")):
        before = child.counters()[f"hypercalls.{name}"] if f"hypercalls.{name}" in child.counters() else 0
        call(guest, code, pack("<IIQ", 0x30, 0, 0))
        assert child.counters()[f"hypercalls.{name}"] == before + 1


# Cluster IPIs.


def requested(child):
    return [child.vps[index].interrupts.requested for index in range(VPS)]


@pytest.mark.parametrize(
    ("word", "data", "targets"),
    [
        (0x0001000B, pack("<IIQ", 0x41, 0, 0b101), {0, 2}),  # fast, as in 12.5
        (0x0000000B, pack("<IIQ", 0xFF, 0, 0b110), {1, 2}),
        (0x0000000B, pack("<IIQ", 0x10, 0, ~7 & (1 << 64) - 1), set()),  # nobody of that index
        (0x00060015, pack("<II5Q", 0x42, 0, 0, 7, 0x21, 1, 4), {0}),  # 12.5: banks of {0, 5, 64, 130}
        (0x00000015, pack("<IIQQ", 0x42, 0, 1, 99), {0, 1, 2}),  # everyone
        (0x00020015, pack("<IIQQQ", 0x42, 0, 0, 1, 2), {1}),
        (0x00000015, pack("<IIQQ", 0x42, 0, 0, 0), set()),
    ],
)
@pytest.mark.parametrize("door", ["guest", "python"])
def test_cluster_ipis_arrive(guest, door, word, data, targets):
    child, _ = guest
    if door == "guest":
        assert call(guest, word, data) == 0
    else:
        assert execute(child.hypervisor, child, None, word, data) == (Status.SUCCESS, 0, b"", True)
    vector = data[0]
    assert requested(child) == [(index in targets) << vector for index in range(VPS)]
    assert not any(child.vps[index].interrupts.level_triggered for index in range(VPS))


def test_a_cluster_ipi_to_oneself_is_taken_behind_the_call(guest):
    """The guest's own interrupt: IDT, handler, IRET, and the instruction behind VMCALL."""
    child, ram = guest
    vp = child.vps[0]
    gate, handler = vp.idtr.base + 16 * 0x30, 0x3000
    low = handler & 0xFFFF | 8 << 16 | 0x8E00 << 32 | (handler >> 16) << 48
    ram[gate : gate + 16] = pack("<QQ", low, 0)
    ram[handler : handler + 5] = bytes.fromhex("48ffc3 48cf")  # inc rbx; iretq
    vp.rbx, vp.rflags = 7, 0x202
    assert call(guest, 0x1000B, pack("<IIQ", 0x30, 0, 1)) == 0
    assert vp.rbx == 8
    assert cluster_ipi(0x0B, pack("<IIQ", 0x30, 0, 1), 0) == (0, 0x30, {0})


def test_python_makes_calls_with_a_variable_header(guest):
    """`hypercall` counts the qwords behind the fixed header of a simple call."""
    child, _ = guest
    result = child.hypercall(Hypercall.SEND_SYNTHETIC_CLUSTER_IPI_EX, pack("<II5Q", 0x42, 0, 0, 7, 0x21, 1, 4))
    assert result.status is Status.SUCCESS
    assert requested(child) == [1 << 0x42, 0, 0]
    result = child.hypercall(0x15, pack("<II5Q", 0x42, 0, 0, 7, 0x21, 1, 4), variable=2)
    assert result.status is Status.INVALID_HYPERCALL_INPUT
    with pytest.raises(ValueError, match="variable must be 0 to 1023"):
        child.hypercall(0x15, bytes(24), variable=1024)


def test_an_input_page_that_is_not_there_is_left_to_python(guest):
    """One in Python as parent: INVALID_PARAMETER (3.3); the call is counted once."""
    child, _ = guest
    vp = child.vps[0]
    assert call(guest, 0x0B, b"", gpa=0x500000) == Status.INVALID_PARAMETER
    assert vp.hypercalls_by_name == {"SEND_SYNTHETIC_CLUSTER_IPI": 1}
    assert vp.counters()["hypercalls.SEND_SYNTHETIC_CLUSTER_IPI"] == 1


def test_the_input_page_may_move(guest):
    """What the door remembers of the page holds only as long as the second level is the same: an overlay covers it."""
    child, ram = guest
    assert call(guest, 0x0B, pack("<IIQ", 0x30, 0, 0)) == 0
    frame = child.frames[0].message_page
    child.hypervisor.memory.write(frame << 12, pack("<IIQ", 0x3, 0, 0))
    child.space.set_overlay(OverlayKind.SIM, 0, INPUT >> 12, frame, READ | WRITE)
    vp = child.vps[0]
    vp.rip, vp.rcx, vp.rdx = CODE, 0x0B, INPUT
    assert isinstance(vp.run(max_instructions=1000), hvcore.exits.Halt)
    assert vp.rax == Status.INVALID_PARAMETER
    child.space.clear_overlay(OverlayKind.SIM, 0)
    assert bytes(ram[INPUT : INPUT + 4]) == pack("<I", 0x30)
    assert call(guest, 0x0B, pack("<IIQ", 0x31, 0, 0)) == 0
