"""Random bytes into every hypercall: always a legal status, never a Python exception, and the accounts stay right."""

import random
from contextlib import suppress
from struct import pack

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF

from hvcore.enums import Hypercall, Privilege, ServiceReason, Status
from hvcore.hypercalls.dispatch import execute
from hvcore.hypercalls.table import TABLE
from hvcore.machine.device import Device

SEED = 20240607
ROUNDS = 8000


# A field is a choice of values, "id" (a partition), "page" (a root page), "new" (a free one) or "any".
SMALL, FLAGS = (0, 1, 2, 3), (0, 0, 0, 1)
DEVICE = (1 << 62 | 8, 1 << 62 | 16, 1 << 62)
VP_STATES = (4, 1 << 31, 1 << 31 | 1, 1 << 31 | 2, 1 << 31 | 3)
DOMAIN = ("id", (0,), (0, 0, 1), (5, 6, 0, 0xFFFFFFFF))
PLAUSIBLE = {
    0x01: ("Q", (0x1000, 0, 1 << 60)),
    0x02: ("QQQ", (0, 0x5000), (0, 1, 2, 3, 4, 0x110, 0x400), SMALL),
    0x03: ("QQQQ", (0, 0x5000), (0, 1, 2, 3, 4, 8), SMALL, "any"),
    0x08: ("II", SMALL, (0,)),
    0x0B: ("IIQ", (0, 0x30, 0xFF, 0x100), (0, 0x10, 0x11, 0x80), SMALL),
    0x13: ("QQQQQ", (0, 0x5000), SMALL, SMALL, SMALL, SMALL),
    0x14: ("QQQQQQ", (0, 0x5000), SMALL, SMALL, SMALL, SMALL, "any"),
    0x15: ("IIQQQ", (0x30, 0xFF, 0x100), (0,), SMALL, SMALL, SMALL),
    0x40: ("QQIIQQQQ", (0, 0x100), FLAGS, (0x609,), (0,), (0,), (0,), (0,), FLAGS),
    0x41: ("Q", "id"),
    0x42: ("Q", "id"),
    0x43: ("Q", "id"),
    0x44: ("QII", "id", (0x10000, 0x20003, 0x30005, 0x60000), (0,)),
    0x45: ("QIIQ", "id", (0x10000, 0x10001, 0x20000, 0x20001, 0x20003), (0,), (ALL_PRIVILEGES, 0, 1, 100)),
    0x46: ("",),
    0x48: ("QQ", "id", "new"),
    0x49: ("QQ", "id", (0,)),
    0x4A: ("QQ", "id", (0,)),
    0x4B: ("QQIIQ", "id", "page", (0xF, 3, 1, 5, 0x10000, 0x8000000F), (0,), "page"),
    0x4C: ("QQII", "id", "page", (0, 1, 2), (0,)),
    0x4D: ("QIIQ", "id", (0, 1, 2, 3, 4), (0, 1, 2, 3, 6, 8, 12, 17), (0, 14, 0x3F8, 0xFFFF0000)),
    0x4E: ("QIIQQQ", "id", SMALL, (0,), (0,), FLAGS, FLAGS),
    0x4F: ("QII", "id", (3, 9), (0,)),
    0x50: ("QIII", "id", (0, 0, 1, 0xFFFFFFFE), (0,), (0x20000, 0x20010, 0x90001, 0xDEAD)),
    0x51: ("QIIQQQQ", "id", (0, 0, 1), (0,), (0x20000, 0x90001, 0x90002, 0xA0013), (0,), (0, 1, 0x5001), (0,)),
    0x52: ("QIIQQ", "id", SMALL, (0,), (0, 1, 7, 0x11), "page"),
    0x53: ("QIIQQ", "id", SMALL, (1, 8, 16), (0, 0x1008, 0x5000), (6,)),
    0x54: ("QIIQQQQ", "id", SMALL, (1, 8, 16), (0, 0x1008, 0x5000), (6,), "any", "any"),
    0x57: ("QIIQIIIIHHI", "id", SMALL, (0,), "id", (1, 2, 3, 4), (0,), (2,), (0,), (0,), (0, 16), (0,)),
    0x55: ("QIIQII", "id", tuple(range(10)), SMALL, SMALL, (0, 0x30, 0xFF), (0,)),
    0x56: ("Q", "id"),
    0x58: ("QII", "id", SMALL, (0,)),
    0x59: ("QIIQIIII", "id", SMALL, (0,), "id", SMALL, (0,), (1, 2, 3, 4), (0,)),
    0x5A: ("QIIII", "id", SMALL, (0,), SMALL, (0,)),
    0x5B: ("QII", "id", SMALL, FLAGS),
    0x5C: ("IIII240s", SMALL, (0,), (1, 2), (0, 8, 240), (b"",)),
    0x5D: ("IHH", SMALL, (0, 1, 16), (0,)),
    0x70: ("QIIIIQ", "id", SMALL, (0,), SMALL, (0,), (0, 1, 0xFFFFFFFF, 1 << 40)),
    0x8B: ("II", SMALL, (0,)),
    0x94: ("QIIQII", "id", tuple(range(10)), SMALL, SMALL, (0, 0x30, 0xFF), (0,)),
    0x95: ("QIIQIIIIHHIQ", "id", SMALL, (0,), "id", (1, 2, 3, 4), (0,), (2,), (0,), (0,), (0, 16), (0,), (0,)),
    0x96: ("QIIQIIIIQQQQ", "id", SMALL, (0,), "id", SMALL, (0,), (1, 2, 3, 4), (0,), (0, 0x7000), (0,), (0,), (0,)),
    0xC0: ("QIBBH", "id", SMALL, (0,), SMALL, (0, 7, 2047)),
    0xC1: ("QIB3xB3xIB251xI", "id", SMALL, (0,), SMALL, (0, 1, 0x80000000), (0, 240, 241), (0,)),
    0x103: ("QIIQQ", "id", SMALL, (0,), (0, 1000, 1 << 63), "any"),
    0x7C: ("QQ12IQ", "id", SMALL, (0,), (0,), (1, 2), (0,), (0,), (0,), (0, 1), (0, 1), (1, 4),
           (0,), (0x40,), (0, 1), SMALL),
    0x7D: ("QQ6I", "id", SMALL, (1, 2), (0,), (0xFEE00010, 0), (0, 1), (0,), (0,)),
    0x7E: ("QQ4IQIIQ", "id", SMALL, (1,), (0,), (0xFEE00010, 0xFEE00000), (0, 1), (0,), (0x40, 3), (0, 1, 2), SMALL),
    0x99: ("QII224s", "id", SMALL, (0,), (bytes(224),)),
    0x9A: ("QQI", "id", (0,), SMALL),
    0xE3: ("QIIIIQQQ", "id", SMALL, (0,), VP_STATES, (0,), (0,), (0,), "page"),
    0xE4: ("QIIIIQQQ192s", "id", SMALL, (0,), VP_STATES, (0,), (0,), (0,), "page", (b"", b"\1")),
    0xE5: ("QQBB6x", "id", SMALL, (0,), (0, 1)),
    0x82: ("QQIIQII", "id", DEVICE, (0,), (0,), (1, 2), (0,), (0,)),
    0x83: ("QQ", "id", (1, 2)),
    0xB1: ("QQIIII", *DOMAIN, FLAGS, (0,)),
    0xB2: ("QQIIQ", *DOMAIN, (1, 2, *DEVICE)),
    0xB3: ("QQIIIIQQ", *DOMAIN, (0,), (1, 3), (0, 0x5000, 1 << 47), "page"),
    0xB4: ("QQIIQ", *DOMAIN, (0, 0x5000, 1 << 47)),
    0xC4: ("QQ", "id", (1, 2, *DEVICE)),
    0xC5: ("QQII", *DOMAIN),
    0xCE: ("QQIIQQ", *DOMAIN, (0, 1, 2, 5), (0, 0x3000)),
    0xD0: ("QQIIII", *DOMAIN, (0,), (0,)),
    0x125: ("QQ", "id", (0,)),
    0x127: ("QQII", "id", (1, 2), (10, 9), (0,)),
}


def value_of(field, randomness, machine):
    if field == "id":
        return randomness.choice([*machine.hypervisor.partitions, SELF, 0, 77])
    if field == "page":
        return randomness.choice([0, 1, 512, randomness.randrange(1 << 14)])
    if field == "new":
        return machine.pages(1)[0] if machine.hypervisor.free_pages.available > 9000 else 5
    return randomness.getrandbits(64) if field == "any" else randomness.choice(field)


def random_call(randomness, machine):
    """A plausible input, an input with some bytes changed, or noise."""
    code = randomness.choice(list(TABLE))
    row = TABLE[code]
    form, *fields = PLAUSIBLE[code]
    body = bytearray(pack("<" + form, *(value_of(field, randomness, machine) for field in fields)))
    reps = randomness.choice([1, 1, 1, 2, 5, 70]) if row.rep else 0
    start = randomness.randrange(reps) if reps and randomness.random() < 0.2 else 0
    word = code | reps << 32 | start << 48
    if row.variable and randomness.random() < 0.9:
        word |= max(len(body) - row.input_size(reps), 0) // 8 << 17
    if randomness.random() < 0.05:
        word ^= 1 << randomness.randrange(64)
    length = min(row.input_size(reps, word >> 17 & 0x3FF), 4096)
    noise = randomness.random()
    if noise < 0.2:
        body = bytearray(randomness.randbytes(length))
    elif noise < 0.5 and body:
        for _ in range(randomness.randrange(1, 4)):
            body[randomness.randrange(len(body))] = randomness.getrandbits(8)
    return word, bytes(body)


def accounts_hold(machine):
    """Every page of a pool is known to the owners table, and back."""
    owners = machine.hypervisor.owners
    for partition in machine.hypervisor.partitions.values():
        held = partition.pool.available + partition.pool.in_use
        assert held == len(partition.deposits) == int((owners.pool == partition.id).sum())
    spaces = [partition.mappings for partition in machine.hypervisor.partitions.values()]
    spaces += [domain.mappings for domain in machine.hypervisor.domains._domains.values() if domain.mappings]
    counted = sum(int((chunk & 8 != 0).sum()) for space in spaces for chunk in space._chunks.values())
    assert counted == int(owners.shared.sum())


@pytest.mark.parametrize("round_", range(4))
def test_random_calls(machine, round_):
    seed = SEED + round_
    print(f"seed {seed}")
    randomness = random.Random(seed)
    seen = set()
    machine.hypervisor.machine.attach_unit(driver="hypervisor")
    devices = [Device(machine.hypervisor, requester_id=requester) for requester in (8, 16)]
    for number in range(ROUNDS):
        if number % 400 == 0:
            machine.root.privileges = sum(Privilege)
            with suppress(AssertionError):  # earlier rounds may have spoilt the pages that this takes
                child = machine.child(vps=2, privileges=ALL_PRIVILEGES)
                machine.map(child, 0, 64)
        caller = randomness.choice([machine.root, child])
        if machine.hypervisor.partitions.get(caller.id) is not caller:
            continue
        word, body = random_call(randomness, machine)
        vp = caller.vps.get(0) if randomness.random() < 0.5 else None
        result = execute(machine.hypervisor, caller, vp, word, body, limit=randomness.choice([None, 64]))
        assert isinstance(result.status, Status)
        assert result.reps_completed <= word >> 32 & 0xFFF
        randomness.choice(devices).write(randomness.randrange(1 << 26) if number % 50 == 0 else 1 << 60, b"dma")
        seen.add((word & 0xFFFF, result.status))
    accounts_hold(machine)
    assert {code for code, _ in seen} >= {int(code) for code in Hypercall}
    assert sum(status is Status.SUCCESS for _, status in seen) >= 18


def test_random_registers_at_the_guests_door(machine):
    print(f"seed {SEED}")
    randomness = random.Random(SEED)
    child = machine.child(vps=1, privileges=ALL_PRIVILEGES)
    ram = machine.map(child, 0, 16)
    vp = child.vps[0]
    vp.cr0, vp.efer = 0x80000011, 0x500
    statuses = set()
    for _ in range(4000):
        vp.cs = vp.cs._replace(attributes=randomness.choice([0xA09B, 0xC09B]))
        child.core.guest_os_id, child.core.hypercall_msr = 1, 1  # a call may have written these registers
        word, body = random_call(randomness, machine)
        machine.memory.write(ram[randomness.randrange(16)] << 12, body)
        pointers = [0, 8, 0x1000, 0x2FF8, 0xFFF8, 0x10000, randomness.getrandbits(64), randomness.getrandbits(16) & ~7]
        vp.rcx, vp.rdx, vp.r8 = word, randomness.choice(pointers), randomness.choice(pointers)
        vp.rax = 1 << 40
        vp.rbx, vp.rdi, vp.rsi = 0, 0, randomness.choice(pointers)
        for _ in range(100):
            if machine.hypervisor.service(vp, ServiceReason.HYPERCALL):
                break
        else:
            raise AssertionError("a call does not come to an end")
        statuses.add(Status(vp.rax & 0xFFFF))
    accounts_hold(machine)
    assert len(statuses) > 10
