"""Guest code that uses its local APIC: page, MSRs, IPIs, timer, INIT and SIPI, shadows and the order of events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from apic_guest import (
    APIC_BASE,
    CURRENT,
    DIVIDE,
    EOI,
    ICR,
    ICR_HIGH,
    INITIAL,
    LVT_TIMER,
    MARK,
    PAGE,
    SELF,
    SVR,
    apic_guest,
    base,
    handler,
    load,
    rdmsr,
    store,
    wrmsr,
)
from support import CODE, HLT, JMP_SELF, STUBS, Guest, code, mov

from hvcore._native.exits import ApicEoi, Budget, Halt, InterruptWindow, Mmio, Unsupported

IF, FIXED, NMI = 0x200, 2, 2
COUNT = "49ffc0"  # inc r8
X2 = wrmsr(APIC_BASE, 0xFEE0_0D00)


@pytest.fixture
def guest() -> Guest:
    return apic_guest()


WAYS = {
    "page": (base() + store(SVR, 0x1FF), store(ICR, SELF | 0x40), store(EOI, 0)),
    "x2apic": (X2 + wrmsr(0x80F, 0x1FF), wrmsr(0x830, SELF | 0x40), wrmsr(0x80B, 0)),
    "self-ipi": (X2 + wrmsr(0x80F, 0x1FF), wrmsr(0x83F, 0x40), wrmsr(0x80B, 0)),
    "synthetic": (base() + store(SVR, 0x1FF), wrmsr(0x4000_0071, SELF | 0x40), wrmsr(0x4000_0070, 0)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", [10_000, 1])
def test_self_ipi(guest: Guest, way: str, cut: int) -> None:
    """Sent, taken before the next instruction, ended: three times over, however the run is cut."""
    enable, send, end = WAYS[way]
    handler(guest, 0x40, COUNT, "4c894c2430", end)
    guest.load(enable, "4d31c0 fb 90", (send + code("4d89c1")) * 3, HLT)  # mov r9, r8 behind each
    guest.vp.interrupts.apic_enabled = False
    exit_ = guest.vp.run(max_instructions=cut)
    while isinstance(exit_, Budget):
        exit_ = guest.vp.run(max_instructions=cut)
    assert isinstance(exit_, Halt)
    assert (guest.vp.r8, guest.vp.r9) == (3, 3)
    assert guest.vp.interrupts.in_service == guest.vp.interrupts.requested == 0


def test_register_accesses_never_leave_native_code(guest: Guest) -> None:
    handler(guest, 0x40, store(EOI, 0))
    guest.load(base(), store(SVR, 0x1FF), "fb", (store(ICR, SELF | 0x40) + load(SVR)) * 50, HLT)
    assert isinstance(guest.vp.run(max_instructions=10_000), Halt)
    assert guest.vp.counters()["exits"] == 0
    assert guest.vp.interrupts.counters()["eois"] == 50


def test_the_page_lies_over_ram_and_moves(guest: Guest) -> None:
    """hyperv-abi 10.1: the highest-priority overlay; where it was, the RAM is as it had been."""
    guest.write(0x30_0080, b"\x77\x66\x55\x44")
    there = 0x30_0000
    moved = wrmsr(APIC_BASE, there | 0x900)
    # mov eax, [300080h] / mov r12, rax / (move) / mov dword [300080h], 35h / mov eax, .. / mov r13, rax / (move) / ...
    read = code("8b0425 80003000")
    guest.load(read, "4989c4", moved, "c70425 80003000 35000000", read, "4989c5", wrmsr(APIC_BASE, PAGE | 0x900), read,
               HLT)  # fmt: skip
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.vp.r12, guest.vp.r13, guest.vp.rax) == (0x4455_6677, 0x35, 0x4455_6677)
    assert guest.vp.interrupts.apic.read(0x80) == 0x35


def test_accesses_of_other_sizes(guest: Guest) -> None:
    """SDM 3A 11.4.1 defines aligned accesses to four bytes; here others read 0 beyond them and write nothing."""
    byte, wide, middle = "8a83f0000000", "488b83f0000000", "8b83f4000000"
    guest.load(base(), store(SVR, 0x1FF), "31c0", byte, "4989c4", wide, "4989c5", middle, "4989c6",
               "c683f000000000 48c783f000000000000000 c783f400000000000000", load(SVR), HLT)  # fmt: skip
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.vp.r12, guest.vp.r13, guest.vp.r14, guest.vp.rax) == (0xFF, 0x1FF, 0, 0x1FF)
    assert guest.vp.interrupts.counters()["apic_accesses_ignored"] == 3


def test_without_a_page_its_address_is_memory_of_the_parent(guest: Guest) -> None:
    guest.load(X2, base(), load(SVR), HLT)
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, Mmio)
    assert exit_.gpa == PAGE + SVR


def test_read_modify_write_of_a_register(guest: Guest) -> None:
    guest.load(base(), "818bf0000000 00010000", load(SVR), HLT)  # or dword [rbx+F0h], 100h
    guest.vp.interrupts.apic_enabled = False
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert guest.vp.rax == 0x1FF


@pytest.mark.parametrize(("bits", "present"), [(0x900, True), (0xD00, True), (0x100, False)])
def test_cpuid_follows_the_enable_bit(guest: Guest, bits: int, present: bool) -> None:
    """CPUID.1:EDX[9] (11.4.3); x2APIC and TSC-deadline are offered always; EBX[31:24] is the initial id."""
    guest.load(wrmsr(APIC_BASE, PAGE | bits), "b801000000 0fa2", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert bool(guest.vp.rdx >> 9 & 1) is present
    assert guest.vp.rcx >> 21 & 1 and guest.vp.rcx >> 24 & 1
    assert guest.vp.rbx >> 24 == 0


def test_cpuid_topology() -> None:
    """Leaf 0Bh: EDX is the x2APIC id; cores of one thread, [4:0] of EAX the shift to the next level."""
    guest = apic_guest(vps=3)
    for subleaf, expected in ((0, (0, 1, 0x100)), (1, (2, 3, 0x201)), (2, (0, 0, 2))):
        guest.load(mov("rcx", subleaf), "b80b000000 0fa2", HLT, vp=guest.partition.vps[2])
        assert isinstance(guest.partition.vps[2].run(max_instructions=100), Halt)
        vp = guest.partition.vps[2]
        assert (vp.rax, vp.rbx, vp.rcx, vp.rdx) == (*expected, 2)


# The timer.

@pytest.mark.parametrize(("divide", "by"), [(0b1011, 1), (0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128)])
def test_one_shot_timer_wakes_at_the_exact_tick(guest: Guest, divide: int, by: int) -> None:
    """Figure 11-10: 5 ticks a count at a divider of 1, so that 200 MHz (MSR 40000023) is exact."""
    guest.write(STUBS + 16 * 0x50, code("0f31", HLT))
    guest.load(base(), store(DIVIDE, divide), store(LVT_TIMER, 0x50), "0f31 4989c4", store(INITIAL, 1000), "fb", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    # RDTSC, MOV, then the store: its own start is two ticks behind RDTSC's.
    assert guest.vp.rax - guest.vp.r12 == 2 + 5 * by * 1000
    assert guest.vp.interrupts.counters()["apic_timer_expired"] == 1


def test_the_frequency_msr_agrees(guest: Guest) -> None:
    guest.load(rdmsr(0x4000_0023), "4989c4", rdmsr(0x4000_0022), HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert guest.vp.rax == 5 * guest.vp.r12


def test_periodic_timer_interrupts_a_loop(guest: Guest) -> None:
    handler(guest, 0x50, COUNT, "0f31 4a8904c500002000", store(EOI, 0))  # rdtsc / mov [MARK + r8 * 8], rax
    guest.load(base(), "4d31c0", store(DIVIDE, 11), store(LVT_TIMER, 0x20050), store(INITIAL, 200), "fb", JMP_SELF)
    assert isinstance(guest.vp.run(max_instructions=100_000), Budget)
    stamps = guest.words(MARK + 8, 90)
    assert {late - early for early, late in pairwise(stamps)} == {1000}


def test_current_count_and_expiry_while_masked(guest: Guest) -> None:
    """11.5.4: the count goes on with the interrupt masked; a one-shot stays at 0."""
    guest.load(base(), store(DIVIDE, 11), store(LVT_TIMER, 0x10050), store(INITIAL, 2), load(CURRENT), "4989c4",
               "90" * 3, load(CURRENT), "4989c5", "90" * 10, load(CURRENT), "4989c6", store(LVT_TIMER, 0x50), "fb 90",
               HLT)  # fmt: skip
    exit_ = guest.vp.run(max_instructions=1000)
    assert isinstance(exit_, Halt)
    assert (guest.vp.r12, guest.vp.r13, guest.vp.r14) == (2, 1, 0)
    assert guest.taken() is None


def test_tsc_deadline(guest: Guest) -> None:
    """11.5.4.1: fires when TSC reaches the value, the MSR reads 0 then; the count registers do not move."""
    handler(guest, 0x51, "0f31 4989c5", rdmsr(0x6E0), HLT)
    guest.load(base(), wrmsr(0x10, 5_000_000), store(LVT_TIMER, 0x40051), store(INITIAL, 7), load(INITIAL), "4989c4",
               wrmsr(0x6E0, 5_123_456), "fb", HLT)  # fmt: skip
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.vp.r12, guest.vp.r13, guest.vp.rax) == (0, 5_123_457, 0)     # behind the JMP of the stub


def test_a_tsc_deadline_in_the_past_fires_at_once(guest: Guest) -> None:
    guest.load(base(), store(LVT_TIMER, 0x40051), "fb 90", wrmsr(0x6E0, 1), "90", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert guest.taken() == 0x51
    assert guest.frame()[0] == CODE + len(code(base(), store(LVT_TIMER, 0x40051), "fb 90", wrmsr(0x6E0, 1)))


# Other processors.

def test_init_and_sipi_start_a_processor_in_real_mode() -> None:
    """Table 10-1 and 9.4.1: CS = page << 8, base page << 12, RIP 0; then 16-bit code is beyond hvcore."""
    guest = apic_guest(vps=2)
    other = guest.partition.vps[1]
    guest.load(base(), store(ICR_HIGH, 1 << 24), store(ICR, 0x4500), store(ICR, 0x4000 | 6 << 8 | 0x9A), JMP_SELF)
    guest.vp.explicit_suspend = False
    exit_ = other.run(max_instructions=100_000)
    assert isinstance(exit_, Unsupported)
    assert exit_.vp is other
    assert (other.cs.selector, other.cs.base, other.cs.limit, other.rip) == (0x9A00, 0x9A000, 0xFFFF, 0)
    assert (other.cr0, other.cr3, other.cr4, other.efer, other.rflags) == (0x10, 0, 0, 0, 2), "CD and NW as they were"
    assert (other.rax, other.rdx, other.idtr.limit, other.gdtr.base) == (0, 0x6F2, 0xFFFF, 0)
    assert other.interrupts.apic.read(SVR) == 0xFF
    assert other.interrupts.apic_id == 1
    assert other.interrupts.counters()["startups_received"] == 1


@pytest.mark.parametrize("order", ["init nmi sipi", "nmi init sipi", "init sipi nmi"])
def test_an_nmi_around_a_start_up_message_is_no_way_into_real_mode(order: str) -> None:
    """9.4.1 and table 10-1: it starts at the page of the SIPI in real mode, which hvcore says it has not; no NMI wakes
    it before or goes through an IDT that is not there, and run() says the same again."""
    guest = apic_guest(vps=2)
    other = guest.partition.vps[1]
    ways = {"init": store(ICR, 0x4500), "nmi": store(ICR, 4 << 8), "sipi": store(ICR, 0x4000 | 6 << 8 | 0x9A)}
    guest.load(base(), store(ICR_HIGH, 1 << 24), *(ways[name] for name in order.split()), JMP_SELF)
    guest.load(JMP_SELF, at=0x9000, vp=other)
    if order.startswith("init"):
        other.interrupts.assert_nmi()
    guest.vp.explicit_suspend = False
    for _ in range(3):
        exit_ = other.run(max_instructions=100_000)
        assert isinstance(exit_, Unsupported)
        assert (other.cs.base, other.rip, other.cr0) == (0x9A000, 0, 0x10)
    assert other.interrupts.counters()["startups_received"] == 1
    assert other.counters()["exceptions"] == 0


def test_a_sipi_that_nobody_waits_for_is_ignored() -> None:
    guest = apic_guest(vps=2)
    other = guest.partition.vps[1]
    guest.write(0x9000, JMP_SELF)
    guest.load("90 ebfd", at=0x9000, vp=other)
    guest.load(base(), store(ICR_HIGH, 1 << 24), store(ICR, 6 << 8 | 0x9A), JMP_SELF)
    other.explicit_suspend = False
    guest.vp.run(max_instructions=50_000)
    other.run(max_instructions=50_000)
    assert other.rip in (0x9000, 0x9001)
    assert other.interrupts.counters()["startups_ignored"] == 1


def test_nmi_to_another_processor_wakes_it_with_interrupts_off() -> None:
    guest = apic_guest(vps=2)
    other = guest.partition.vps[1]
    guest.load(HLT, at=0x9000, vp=other)
    guest.load(base(), store(ICR_HIGH, 1 << 24), store(ICR, 4 << 8), JMP_SELF)
    other.explicit_suspend = False
    guest.vp.run(max_instructions=100_000)
    assert guest.taken(other) == NMI


# Shadows, masks and the order of events.

def test_an_interrupt_waits_behind_the_instruction_after_sti(guest: Guest) -> None:
    """SDM 2B, STI. The IPI is sent with interrupts off, so it is there when they come on."""
    parts = (base(), store(ICR, SELF | 0x40), "90 fb 90")
    guest.load(*parts, "90 90", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.taken(), guest.frame()[0]) == (0x40, CODE + len(code(*parts)))


def test_a_write_of_tpr_lets_a_waiting_interrupt_in_at_once(guest: Guest) -> None:
    parts = (base(), store(0x80, 0x50), "fb 90", store(ICR, SELF | 0x48), "90 90", store(0x80, 0x30))
    guest.load(*parts, "90", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.taken(), guest.frame()[0]) == (0x48, CODE + len(code(*parts)))


def test_mov_ss_holds_interrupts_and_nmis_back(guest: Guest) -> None:
    """SDM 3A 6.8.3: until the boundary behind the next instruction."""
    guest.load("b810000000 8ed0 90 90", HLT)
    assert isinstance(guest.vp.run(max_instructions=2), Budget)
    guest.vp.interrupts.assert_nmi()
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.taken(), guest.frame()[0]) == (NMI, CODE + 8)


def test_a_self_nmi_inside_its_handler_waits_for_iret(guest: Guest) -> None:
    """SDM 3A 6.7.1."""
    handler(guest, NMI, COUNT, "4983f801 7516", store(ICR, 4 << 8 | 1 << 14 | SELF), "90 4d89c1", "90" * 8)
    guest.load(base(), "4d31c0 4d31c9", store(ICR, 4 << 8 | SELF), "90", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.vp.r8, guest.vp.r9) == (2, 1)


def test_nmi_before_extint_before_irr(guest: Guest) -> None:
    """SDM 3A table 6-2 and hyperv-abi 10.2; INIT comes before all of them."""
    interrupts = guest.vp.interrupts
    for expected in (NMI, 0x21, 0x80):
        guest.load("90 90", HLT)
        guest.vp.rflags = FIXED | IF
        interrupts.assert_interrupt(0x80)
        if expected < 0x80:
            guest.vp.assert_external(0x21)
        if expected == NMI:
            interrupts.assert_nmi()
        assert isinstance(guest.vp.run(max_instructions=100), Halt)
        assert (guest.taken(), guest.frame()[0]) == (expected, CODE)
        guest.vp.external_acknowledged = False
        guest.vp.withdraw_external()
    guest.load("90 90", HLT)
    interrupts.assert_nmi()
    interrupts.apic.write(ICR, SELF | 5 << 8 | 1 << 14)
    assert isinstance(guest.vp.run(max_instructions=100), Unsupported)
    assert guest.vp.rip == 0xFFF0


def test_level_eoi_is_an_exit_for_the_parent(guest: Guest) -> None:
    """hyperv-abi 10.2: at the instruction boundary behind the EOI, and for level-triggered interrupts only."""
    handler(guest, 0x41, store(EOI, 0))
    guest.load(base(), "fb 90 90", HLT)
    guest.vp.interrupts.assert_interrupt(0x41, level=True)
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, ApicEoi)
    assert (exit_.vector, exit_.rip) == (0x41, 0x40_0000 + 0x41 * 256 + 10)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    guest.partition.core.reports_eois = True
    guest.load(base(), "fb 90 90", HLT)
    guest.vp.interrupts.assert_interrupt(0x41)
    assert isinstance(guest.vp.run(max_instructions=100), ApicEoi)


def test_interrupt_and_nmi_windows(guest: Guest) -> None:
    """DeliverabilityNotifications: one exit when the event could be delivered, then no more."""
    guest.load("90 90 fb 90 90", HLT)
    guest.vp.write_register(0x0001_0006, 2)
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, InterruptWindow)
    assert (exit_.nmi, exit_.rip, guest.vp.deliverability_notifications) == (False, CODE + 4, 0)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    handler(guest, NMI, "90")
    guest.load("90 90", HLT)
    guest.vp.interrupts.assert_nmi()
    guest.vp.deliverability_notifications = 1
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, InterruptWindow)
    assert (exit_.nmi, exit_.rip) == (True, CODE)       # behind the IRET of the handler


def test_window_of_a_priority(guest: Guest) -> None:
    guest.load("fb 90 90 31c0 440f22c0 90", HLT)        # ... xor eax, eax / mov cr8, rax
    guest.vp.cr8 = 5
    guest.vp.deliverability_notifications = 2 | 4 << 2
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, InterruptWindow)
    assert exit_.rip == CODE + 9


def test_registers_by_name(guest: Guest) -> None:
    """00084000 + MSR number (hyperv-abi 7.1); setting has no side effects (TLFS 7.9.2)."""
    vp = guest.vp
    assert [vp.read_register(0x84000 + msr) for msr in (0x802, 0x803, 0x80F, 0x80B)] == [0, 0x01060014, 0x1FF, 0]
    assert (vp.write_register(0x84808, 0x30), vp.cr8) == (0, 3)
    assert (vp.write_register(0x84830, SELF | 0x40), vp.interrupts.requested) == (0, 0)
    assert vp.read_register(0x84830) == SELF | 0x40
    assert (vp.write_register(0x84802, 5 << 24), vp.initial_apic_id) == (0, 5)
    for name in (0x84803, 0x8480A, 0x8480B, 0x84810, 0x84827, 0x84839, 0x8483F):
        assert vp.write_register(name, 0) == 5
    assert vp.write_register(0x84808, 0x100) == 0x50
    assert (vp.read_register(0x84804), vp.write_register(0x84804, 0)) == (None, 0x87)
    vp.tsc_deadline = 99            # ignored: the timer is in another mode
    assert vp.tsc_deadline == 0
    for value in (0x40, 1 << 63, -1):
        assert vp.write_register(0x10006, value) == 5


def test_local_pins_by_the_parent(guest: Guest) -> None:
    """hyperv-abi 10.2: LINT0 and LINT1 do what the local vector table says."""
    vp, apic = guest.vp, guest.vp.interrupts.apic
    vp.assert_local(1)
    assert not vp.interrupts.nmi_pending
    apic.write(0x360, 4 << 8)
    vp.assert_local(1)
    assert vp.interrupts.nmi_pending
    apic.write(0x350, 0x66)
    vp.assert_local(0)
    assert vp.interrupts.requested == 1 << 0x66
    apic.write(0x350, 7 << 8)
    vp.assert_local(0)
    assert apic.external_pending


def test_apic_base_from_python(guest: Guest) -> None:
    """Under the rules of the MSR, through the register that also drops translations."""
    guest.vp.apic_base = PAGE | 0xD00
    assert guest.vp.interrupts.apic.read_msr(0x80F) == 0x1FF
    with pytest.raises(ValueError, match="apic_base"):
        guest.vp.apic_base = PAGE | 0x900
    with pytest.raises(ValueError, match="apic_base"):
        guest.vp.interrupts.apic.write_msr(APIC_BASE, PAGE | 0x900)
