"""Flush hypercalls: stale translations of several processors are gone when the call returns, others stay (4.9)."""

from struct import pack

import numpy as np
import pytest
from hypercall_machine import ALL_PRIVILEGES
from plain_calls import pages_of

import hvcore
from hvcore.enums import Hypercall, Status
from hvcore.registers import RegisterName

CODE, INPUT, STACK = 0x1000, 0x8000, 0x7000
READ_AND_HALT = bytes.fromhex("488b06 f4")  # mov rax, [rsi]; hlt
VMCALL_AND_HALT = bytes.fromhex("0f01c1 f4")
OLD, NEW = 0x10000, 0x11000
"""Pages that a GVA is mapped to, before and after; each holds its own address."""
VPS = 3
PRESENT, WRITABLE, GLOBAL, LARGE = 1, 2, 0x100, 0x80
CR4_PGE = 0x80


class Guest:
    """Three processors over one set of page tables, in which GVAs from 1 GiB on can be mapped anew."""

    def __init__(self, hypervisor):
        self.child = hypervisor.root.create_partition(vps=VPS, privileges=ALL_PRIVILEGES)
        self.ram = self.child.map_memory(gpa=0, size="8 MiB", page_size="4 KiB")
        self.child.core.guest_os_id = self.child.core.hypercall_msr = 1
        self.ram[CODE : CODE + 4] = READ_AND_HALT
        self.ram[CODE + 16 : CODE + 20] = VMCALL_AND_HALT
        for page in (OLD, NEW):
            self.ram[page : page + 4096] = np.repeat(np.array([page], "<u8"), 512).view(np.uint8)
        for vp in self.child.vps.values():
            vp.reset("long64", rip=CODE, rsp=STACK, page_size="4 KiB")
            vp.start()
            vp.cr4 |= CR4_PGE
        self.tables = self.child.vps[0].cr3
        for vp in self.child.vps.values():
            vp.cr3 = self.tables
        # One more page directory pointer entry: 1 GiB to 2 GiB, by tables at 400000 and 401000.
        (pdpt,) = np.frombuffer(bytes(self.ram[self.tables : self.tables + 8]), "<u8") & ~np.uint64(0xFFF)
        self.put(int(pdpt) + 8, 0x400000 | PRESENT | WRITABLE)
        self.put(0x400000, 0x401000 | PRESENT | WRITABLE)

    def put(self, gpa, entry):
        self.ram[gpa : gpa + 8] = pack("<Q", entry)

    def map(self, page_number, target, flags=0):
        """GVA 1 GiB + page_number * 4 KiB."""
        self.put(0x401000 + 8 * page_number, target | PRESENT | WRITABLE | flags)

    def alone(self, index):
        """Processor `index`, with the others at rest."""
        for vp in self.child.vps.values():
            vp.explicit_suspend = vp.index != index
        return self.child.vps[index]

    def read(self, index, gva):
        """What processor `index` reads at `gva` with what its TLB holds."""
        vp = self.alone(index)
        vp.rip, vp.rsi = CODE, gva
        assert isinstance(vp.run(max_instructions=10), hvcore.exits.Halt)
        return vp.rax

    def call(self, word, data, index=0):
        vp = self.alone(index)
        self.ram[INPUT : INPUT + len(data)] = data
        vp.rip, vp.rcx, vp.rdx = CODE + 16, word, INPUT
        stopped = vp.run(max_instructions=100)
        assert isinstance(stopped, hvcore.exits.Halt)
        return vp.rax if vp.rip == CODE + 20 else None


@pytest.fixture
def guest():
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        yield Guest(hypervisor)


GVA = 1 << 30
FLUSHES = [
    (0x02, "QQQ", (0, 0, 0b011), {0, 1}),
    (0x02, "QQQ", (0, 1, 0), {0, 1, 2}),  # all processors
    (0x02, "QQQ", (0, 2, 0b100), {2}),  # all address spaces
    (0x02, "QQQ", (0, 0, 1 << 63), set()),  # nobody of that index
    (0x13 | 1 << 17, "QQQQQ", (0, 0, 0, 1, 0b110), {1, 2}),
    (0x13, "QQQQ", (0, 0, 1, 0), {0, 1, 2}),  # format 1: all
    (0x03 | 1 << 32, "QQQQ", (0, 0, 0b010, GVA), {1}),
    (0x03 | 2 << 32, "QQQQQ", (0, 1, 0, 0x5000, GVA - 0x2000 + 2), {0, 1, 2}),  # three pages, the last is it
    (0x03 | 1 << 32, "QQQQ", (0, 1, 0, GVA + 0x1000), set()),  # another page
    (0x14 | 1 << 17 | 1 << 32, "QQQQQQ", (0, 8, 0, 1, 0b001, GVA | 0x800), {0}),  # one page of 2 MiB
    (0x14 | 0 << 17 | 1 << 32, "QQQQQ", (0, 9, 0, 0, 0x1800), set()),  # 1 GiB from 0
    (0x14 | 0 << 17 | 1 << 32, "QQQQQ", (0, 9, 0, 0, 0x1801), {0, 1, 2}),  # 2 GiB from 0
    (0x14 | 0 << 17 | 1 << 32, "QQQQQ", (0, 1, 0, 0, 0x8000_0000_0000_0FFF & ~0xFFF), set()),  # no address
]


@pytest.mark.parametrize("flags", [0, GLOBAL])
@pytest.mark.parametrize("door", ["guest", "python"])
@pytest.mark.parametrize(("word", "form", "values", "flushed"), FLUSHES)
def test_targets_and_ranges(guest, door, flags, word, form, values, flushed):
    """Who is a target sees the new mapping, global or not, for code behind the call; who is not keeps the old one."""
    guest.map(0, OLD, flags)
    assert [guest.read(index, GVA) for index in range(VPS)] == [OLD] * VPS
    guest.map(0, NEW, flags)
    assert guest.read(0, GVA) == OLD, "the TLB forgets by itself: this test cannot fail"
    data = pack("<" + form, *values)
    if door == "guest":
        assert guest.call(word, data) == word & 0xFFF << 32
    else:
        variable, reps = word >> 17 & 0x3FF, word >> 32 & 0xFFF
        result = guest.child.hypercall(word & 0xFFFF, data, reps=reps or None, variable=variable)
        assert (result.status, result.reps_completed) == (Status.SUCCESS, reps)
    assert [guest.read(index, GVA) for index in range(VPS)] == [NEW if i in flushed else OLD for i in range(VPS)]


def test_only_what_is_not_global(guest):
    """Flag 4 keeps global translations."""
    guest.map(0, OLD, GLOBAL)
    guest.map(1, OLD)
    assert [guest.read(1, GVA), guest.read(1, GVA + 0x1000)] == [OLD, OLD]
    guest.map(0, NEW, GLOBAL)
    guest.map(1, NEW)
    assert guest.call(0x02, pack("<QQQ", 0, 4, 2)) == 0
    assert [guest.read(1, GVA), guest.read(1, GVA + 0x1000)] == [OLD, NEW]


def test_a_page_inside_a_large_page_flushes_all_of_it(guest):
    guest.put(0x400000, 0x400000 | LARGE | PRESENT | WRITABLE)
    first = guest.read(1, GVA + 0x1000)
    guest.read(1, GVA + 0x5000)
    guest.put(0x400000, 0x200000 | LARGE | PRESENT | WRITABLE)
    assert guest.read(1, GVA + 0x1000) == first != 0x123
    guest.ram[0x201000:0x201008] = pack("<Q", 0x123)
    assert guest.call(0x03 | 1 << 32, pack("<QQQQ", 0, 0, 2, GVA + 0x5000)) == 1 << 32
    assert guest.read(1, GVA + 0x1000) == 0x123


def test_a_long_list_goes_on_where_it_stopped(guest):
    """64 elements an entry; the guest sees an absolute count (3.4), and takes interrupts in between."""
    pages = 300
    for page in range(pages):
        guest.map(page, OLD)
    assert {guest.read(2, GVA + 4096 * page) for page in range(pages)} == {OLD}
    for page in range(pages):
        guest.map(page, NEW)
    elements = [GVA + 4096 * page for page in range(pages)]
    vp = guest.child.vps[0]
    guest.ram[INPUT : INPUT + 24 + 8 * pages] = pack(f"<QQQ{pages}Q", 0, 0, 4, *elements)
    vp.rip, vp.rcx, vp.rdx = CODE + 16, 0x03 | pages << 32, INPUT
    for entry in range(1, 5):
        assert isinstance(vp.run(max_instructions=1), hvcore.exits.Budget)
        assert (vp.rip, vp.rcx) == (CODE + 16, 0x03 | pages << 32 | 64 * entry << 48)
        assert guest.read(2, elements[64 * entry - 1]) == NEW
        assert guest.read(2, elements[64 * entry]) == OLD
    vp.run(max_instructions=1)
    assert (vp.rip, vp.rax) == (CODE + 19, pages << 32)
    assert {guest.read(2, gva) for gva in elements} == {NEW}


def test_random_ranges_against_plain_python(guest):
    """Which of 200 pages a list call drops, for both element formats."""
    seed = 77
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    for extended in (0, 8, 0, 8):
        for page in range(200):
            guest.map(page, OLD)
        guest.call(0x02, pack("<QQQ", 0, 1, 0))
        assert {guest.read(1, GVA + 4096 * page) for page in range(200)} == {OLD}
        for page in range(200):
            guest.map(page, NEW)
        starts = GVA + 4096 * random.integers(-8, 200, 4)
        elements = [int(start) | int(random.integers(0, 20 if random.random() < 0.8 else 200)) for start in starts]
        word = 0x03 | len(elements) << 32
        assert guest.call(word, pack("<QQQ4Q", 0, extended, 2, *elements)) == 4 << 32
        ranges = [pages_of(element, bool(extended)) for element in elements]
        for page in range(200):
            gva = GVA + 4096 * page
            flushed = any(first <= gva < end for first, end in ranges)
            assert guest.read(1, gva) == (NEW if flushed else OLD), hex(gva)


def test_a_flush_waits_for_who_inhibits_it(guest):
    """TlbFlushInhibit (7.4): the caller is suspended at its instruction until the parent clears the bit."""
    target, caller = guest.child.vps[1], guest.child.vps[0]
    guest.map(0, OLD)
    guest.read(1, GVA)
    guest.map(0, NEW)
    target.suspend_for_intercept(True)
    assert target.read_register(RegisterName.INTERCEPT_SUSPEND) == 3
    assert guest.call(0x02, pack("<QQQ", 0, 0, 0b010)) is None
    assert caller.rip == CODE + 16
    assert isinstance(caller.run(max_instructions=50), hvcore.exits.Halt)
    assert caller.rip == CODE + 16, "it waits"
    result = guest.child.hypercall(Hypercall.FLUSH_VIRTUAL_ADDRESS_SPACE, pack("<QQQ", 0, 0, 0b010))
    assert result.status is Status.OPERATION_DENIED, "Python cannot wait"
    assert guest.call(0x02, pack("<QQQ", 0, 0, 0b100)) is None or caller.rip == CODE + 20
    assert target.write_register(RegisterName.INTERCEPT_SUSPEND, 1) == Status.SUCCESS
    assert target.write_register(RegisterName.INTERCEPT_SUSPEND, 3) == Status.INVALID_PARAMETER
    assert guest.call(0x02, pack("<QQQ", 0, 0, 0b010)) == 0
    target.write_register(RegisterName.INTERCEPT_SUSPEND, 0)
    assert guest.read(1, GVA) == NEW


def test_a_processor_that_goes_away_lets_others_flush(guest):
    target, caller = guest.child.vps[1], guest.child.vps[0]
    target.suspend_for_intercept(True)
    assert guest.call(0x02, pack("<QQQ", 0, 1, 0)) is None
    guest.child.hypervisor.scheduler.remove(target)
    assert isinstance(caller.run(max_instructions=50), hvcore.exits.Halt)
    assert (caller.rip, caller.rax) == (CODE + 20, 0)


def test_address_space_switch(guest):
    """Call 01 loads CR3; reserved bits are refused, and nothing is loaded."""
    vp = guest.child.vps[0]
    copy = 0x500000
    guest.ram[copy : copy + 4096] = bytes(guest.ram[guest.tables : guest.tables + 4096])
    guest.map(0, OLD)
    assert guest.read(0, GVA) == OLD
    guest.map(0, NEW)
    assert guest.call(0x01, pack("<Q", copy)) == 0
    assert (vp.cr3, guest.read(0, GVA)) == (copy, NEW)
    assert guest.call(0x01, pack("<Q", copy | 1 << 50)) == Status.INVALID_PARAMETER
    assert vp.cr3 == copy
    result = guest.child.hypercall(Hypercall.SWITCH_VIRTUAL_ADDRESS_SPACE, pack("<Q", copy))
    assert result.status is Status.INVALID_VP_INDEX, "Python is no processor"
