"""Each register of the local APIC against the words of SDM 3A chapter 11, through the page and through MSRs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvcore._native.irqchip import InterruptController, InterruptFabric

ID, VERSION, TPR, APR, PPR, EOI, REMOTE, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, CMCI, ICR, ICR_HIGH = 0x100, 0x180, 0x200, 0x280, 0x2F0, 0x300, 0x310
TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
INITIAL, CURRENT, DIVIDE, SELF_IPI = 0x380, 0x390, 0x3E0, 0x3F0
SELF, ALL, OTHERS = 1 << 18, 2 << 18, 3 << 18
BASE, DEADLINE = 0x1B, 0x6E0
Make = Callable[..., list[InterruptController]]


class Machine(list[InterruptController]):
    """Controllers of one fabric, software-enabled unless told otherwise."""

    def __init__(self, *identities: int, enabled: bool = True, x2apic: bool = False) -> None:
        self.fabric = InterruptFabric()
        for identity in identities or (0,):
            controller = InterruptController(
                apic_id=identity, message_page=bytearray(4096), event_page=bytearray(4096)
            )
            self.append(self.fabric.add(controller))
            if enabled:
                controller.apic.write(SVR, 0x1FF)
            if x2apic:
                enter_x2apic(controller)


def enter_x2apic(controller: InterruptController) -> None:
    base = controller.apic.read_msr(BASE)
    assert base is not None
    assert controller.apic.write_msr(BASE, base | 1 << 10)


def msr(offset: int) -> int:
    return 0x800 + (offset >> 4)


RESET = {ID: 0, VERSION: 0x01060014, TPR: 0, APR: 0, PPR: 0, REMOTE: 0, LDR: 0, DFR: 0xFFFF_FFFF, SVR: 0xFF, ESR: 0,
         ICR: 0, ICR_HIGH: 0, CMCI: 0x10000, TIMER: 0x10000, THERMAL: 0x10000, PERFORMANCE: 0x10000, LINT0: 0x10000,
         LINT1: 0x10000, ERROR: 0x10000, INITIAL: 0, CURRENT: 0, DIVIDE: 0}  # fmt: skip
RESET |= {start + 16 * word: 0 for start in (ISR, TMR, IRR) for word in range(8)}


@pytest.mark.parametrize(("offset", "value"), RESET.items())
def test_values_after_power_up(offset: int, value: int) -> None:
    """11.4.7.1: IRR, ISR, TMR, ICR, LDR and TPR 0; timer 0; DFR all ones; LVT 0 but for the mask bits; SVR FF."""
    assert Machine(enabled=False)[0].apic.read(offset) == value


@pytest.mark.parametrize(("offset", "value"), RESET.items())
def test_values_after_init(offset: int, value: int) -> None:
    """11.4.7.3: as after power-up, but the APIC ID stays."""
    apic = Machine(0, 5)[1].apic
    for one in (TPR, LDR, DFR, ICR, TIMER, LINT1, INITIAL, DIVIDE):
        apic.write(one, 0x0900_0033)
    apic.write(ICR, SELF | 5 << 8)
    assert apic.take_reset_messages() == (True, None)
    assert apic.read(offset) == (5 << 24 if offset == ID else value)


WRITABLE = {TPR: 0xFF, LDR: 0xFF00_0000, SVR: 0x13FF, ICR_HIGH: 0xFF00_0000, TIMER: 0x700FF, CMCI: 0x107FF,
            THERMAL: 0x107FF, PERFORMANCE: 0x107FF, LINT0: 0x1A7FF, LINT1: 0x1A7FF, ERROR: 0x100FF, DIVIDE: 0xB,
            INITIAL: 0xFFFF_FFFF}  # fmt: skip


@pytest.mark.parametrize(("offset", "mask"), WRITABLE.items())
def test_bits_that_can_be_written(offset: int, mask: int) -> None:
    """Figures 11-8 to 11-23: reserved and read-only bits read as zero whatever is written."""
    apic = Machine()[0].apic
    value = mask & ~(3 << 17) if offset == TIMER else mask      # both mode bits together are reserved
    for bits in (0xFFFF_FFFF & ~(3 << 17 if offset == TIMER else 0), 0, value):
        apic.write(offset, bits)
        assert apic.read(offset) == bits & mask
    assert apic.read(ESR) == 0


@pytest.mark.parametrize("model", [0xF, 0x0])
def test_dfr_has_four_bits(model: int) -> None:
    """Figure 11-14: the low 28 bits are reserved, all ones."""
    apic = Machine()[0].apic
    apic.write(DFR, model << 28)
    assert apic.read(DFR) == model << 28 | 0x0FFF_FFFF


@pytest.mark.parametrize("offset", [ID, VERSION, APR, PPR, REMOTE, CURRENT, ISR, TMR, IRR + 0x70])
def test_read_only_registers_ignore_writes(offset: int) -> None:
    apic = Machine(3)[0].apic
    before = apic.read(offset)
    apic.write(offset, 0xFFFF_FFFF)
    apic.write(ESR, 0)
    assert (apic.read(offset), apic.read(ESR)) == (before, 0)


@pytest.mark.parametrize("offset", [0x000, 0x010, 0x040, 0x070, 0x290, 0x2E0, 0x3A0, 0x3D0, 0x3F0, 0x400, 0xFE0])
def test_reserved_registers_are_an_error(offset: int) -> None:
    """Table 11-1 and 11.5.3: illegal register address, bit 7, in xAPIC mode."""
    for write in (False, True):
        apic = Machine()[0].apic
        if write:
            apic.write(offset, 0)
        else:
            assert apic.read(offset) == 0
        assert apic.read(ESR) == 0      # not before it was written
        apic.write(ESR, 0)
        assert apic.read(ESR) == 1 << 7
        apic.write(ESR, 0x55)
        assert apic.read(ESR) == 0


def test_esr_shows_what_came_since_its_last_write() -> None:
    """11.5.3: "This write clears any previously logged errors and updates the ESR with any errors detected since"."""
    apic = Machine()[0].apic
    apic.write(ICR, SELF | 0x0F)
    apic.read(0x40)
    apic.write(ESR, 0)
    assert apic.read(ESR) == 1 << 5 | 1 << 7
    apic.read(0x40)
    assert apic.read(ESR) == 1 << 5 | 1 << 7
    apic.write(ESR, 0)
    assert apic.read(ESR) == 1 << 7


def test_error_interrupt_is_raised_once_until_esr_is_written() -> None:
    """11.5.3: the write of ESR "also rearms the APIC error interrupt triggering mechanism"."""
    controller = Machine()[0]
    apic = controller.apic
    apic.write(ERROR, 0x55)
    apic.read(0x40)
    assert controller.acknowledge() == 0x55
    controller.write_msr(0x40000070, 0, 0)
    apic.read(0x40)
    assert controller.pending_vector() is None
    apic.write(ESR, 0)
    apic.read(0x40)
    assert controller.acknowledge() == 0x55
    assert controller.counters()["apic_errors"] == 3


def test_illegal_vectors_sent_and_received() -> None:
    """11.5.3: bits 5 and 6, for vectors 0 to 15; an illegal vector of the error entry itself makes no interrupt."""
    machine = Machine(0, 1)
    machine[0].apic.write(ICR_HIGH, 1 << 24)
    machine[0].apic.write(ICR, 0x0F)
    machine.fabric.send_msi(0xFEE01000, 0x0E)
    for controller, error in zip(machine, (1 << 5, 1 << 6), strict=True):
        controller.apic.write(ESR, 0)
        assert controller.apic.read(ESR) == error
        assert controller.requested == 0
    machine[0].apic.write(ERROR, 3)
    machine[0].apic.read(0x40)
    machine[0].apic.write(ESR, 0)
    assert machine[0].apic.read(ESR) == 1 << 7 | 1 << 6


@pytest.mark.parametrize("vector", [16, 31, 32, 95, 96, 255])
def test_images_of_irr_isr_and_tmr(vector: int) -> None:
    """11.8.4: bit v % 32 of register v / 32."""
    controller = Machine()[0]
    where = 16 * (vector // 32)

    def images() -> list[int]:
        return [controller.apic.read(start + where) >> vector % 32 & 1 for start in (IRR, ISR, TMR)]

    controller.assert_interrupt(vector, level=True)
    assert images() == [1, 0, 1]
    assert controller.acknowledge() == vector
    assert images() == [0, 1, 1]
    controller.assert_interrupt(vector)
    assert images() == [1, 1, 0]        # TMR is set or cleared upon acceptance
    controller.apic.write(EOI, 0)
    assert images() == [1, 0, 0]


@pytest.mark.parametrize(
    ("tpr", "service", "requested", "ppr", "apr"),
    [(0, None, None, 0, 0), (0x35, None, None, 0x35, 0x35), (0x35, 0x31, None, 0x35, 0x30),
     (0x35, 0x41, None, 0x40, 0x40), (0x35, None, 0x3F, 0x35, 0x35), (0x35, 0x21, 0x9A, 0x35, 0x90)],
)  # fmt: skip
def test_priority_registers(tpr: int, service: int | None, requested: int | None, ppr: int, apr: int) -> None:
    """PPR of 11.8.3.1 and APR of 11.6.2.4."""
    controller = Machine()[0]
    if service is not None:
        controller.assert_interrupt(service)
        assert controller.acknowledge() == service
    if requested is not None:
        controller.assert_interrupt(requested)
    controller.apic.write(TPR, tpr)
    assert (controller.apic.read(PPR), controller.apic.read(APR)) == (ppr, apr)


def test_software_disabling_masks_the_table_and_keeps_requests() -> None:
    """11.4.7.2: the mask bits of all LVT entries are set and cannot be reset; pending requests are held."""
    controller = Machine()[0]
    apic = controller.apic
    entries = (TIMER, CMCI, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR)
    for entry in entries:
        apic.write(entry, 0x40)
    controller.assert_interrupt(0x50)
    apic.write(SVR, 0xFF)
    for entry in entries:
        assert apic.read(entry) == 0x10040
        apic.write(entry, 0x41)
        assert apic.read(entry) == 0x10041
    controller.assert_interrupt(0x60)
    assert controller.requested == 1 << 0x50
    assert controller.counters()["interrupts_lost"] == 1
    assert controller.acknowledge() == 0x50
    apic.write(SVR, 0x1FF)
    assert apic.read(TIMER) == 0x10041      # enabling unmasks nothing


def test_a_software_disabled_apic_still_sends_and_takes_nmi_init_and_sipi() -> None:
    """11.4.7.2."""
    machine = Machine(0, 1, enabled=False)
    machine[1].apic.write(SVR, 0x1FF)
    machine[0].apic.write(ICR_HIGH, 1 << 24)
    machine[0].apic.write(ICR, 0x44)
    assert machine[1].requested == 1 << 0x44
    machine[1].apic.write(ICR, 4 << 8)
    machine[1].apic.write(ICR, 5 << 8 | 1 << 14)
    machine[1].apic.write(ICR, 6 << 8 | 0x99)
    assert machine[0].nmi_pending
    assert machine[0].apic.take_reset_messages() == (True, 0x99)


# x2APIC.

READ_WRITE = (TPR, SVR, ESR, CMCI, ICR, TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR, INITIAL, DIVIDE)
READ_ONLY = (ID, VERSION, PPR, LDR, CURRENT, *range(ISR, ESR, 16))
WRITE_ONLY = (EOI, SELF_IPI)


@pytest.mark.parametrize("register", range(0x100))
def test_which_msrs_exist(register: int) -> None:
    """Table 11-6: RDMSR of a write-only one, WRMSR of a read-only one and both of a reserved one are #GP."""
    apic, offset = Machine(x2apic=True)[0].apic, register << 4
    readable = offset in READ_WRITE + READ_ONLY
    writable = offset in READ_WRITE + WRITE_ONLY
    assert (apic.read_msr(0x800 + register) is not None) == readable
    assert apic.write_msr(0x800 + register, 0x20 if offset == SELF_IPI else 0) == writable


RESERVED = {TPR: 0xFF, EOI: 0, SVR: 0x13FF, ESR: 0, SELF_IPI: 0xFF, INITIAL: 0xFFFF_FFFF, DIVIDE: 0xB,
            ICR: 0xFFFF_FFFF_000C_DFFF, TIMER: 0x710FF, CMCI: 0x117FF, THERMAL: 0x117FF, PERFORMANCE: 0x117FF,
            LINT0: 0x1F7FF, LINT1: 0x1F7FF, ERROR: 0x110FF}  # fmt: skip


@pytest.mark.parametrize(("offset", "legal"), RESERVED.items())
def test_reserved_bits_of_msrs_are_general_protection(offset: int, legal: int) -> None:
    """11.12.1.3: "writing non-zero values to reserved bits raises a general protection exception"."""
    for bit in range(64):
        apic = Machine(x2apic=True)[0].apic
        before = apic.read_msr(msr(offset))
        assert apic.write_msr(msr(offset), 1 << bit) == bool(legal >> bit & 1), bit
        if not legal >> bit & 1:
            assert apic.read_msr(msr(offset)) == before


def test_x2apic_ids() -> None:
    """11.12.10.2: logical id = [19:4] of the id in the upper half, 1 << [3:0] in the lower."""
    machine = Machine(0, 0x1F, 0x12345, x2apic=True)
    assert [one.apic.read_msr(0x802) for one in machine] == [0, 0x1F, 0x12345]
    assert [one.apic.read_msr(0x80D) for one in machine] == [1, 1 << 16 | 1 << 15, 0x1234 << 16 | 1 << 5]


def test_x2apic_icr_is_one_register_of_64_bits() -> None:
    """11.12.9."""
    machine = Machine(0, 300, x2apic=True)
    assert machine[0].apic.write_msr(0x830, 300 << 32 | 0x66)
    assert machine[1].requested == 1 << 0x66
    assert machine[0].apic.read_msr(0x830) == 300 << 32 | 0x66
    assert machine[0].apic.write_msr(0x830, 1 << 12 | SELF | 0x67)
    assert machine[0].apic.read_msr(0x830) == SELF | 0x67       # the status bit is read-only


def test_self_ipi_register() -> None:
    """11.12.11: as a fixed edge IPI to oneself; the ICR stays; vectors below 16 are a send error."""
    controller = Machine(x2apic=True)[0]
    assert controller.apic.write_msr(0x83F, 0x77)
    assert (controller.requested, controller.apic.read_msr(0x830)) == (1 << 0x77, 0)
    assert controller.apic.write_msr(0x83F, 7)
    assert controller.apic.write_msr(0x828, 0)
    assert controller.apic.read_msr(0x828) == 1 << 5


def test_without_x2apic_mode_its_msrs_are_general_protection() -> None:
    apic = Machine()[0].apic
    assert apic.read_msr(0x803) is None
    assert apic.write_msr(0x808, 0) is False


# IA32_APIC_BASE.

OFF, XAPIC, INVALID, X2 = 0x000, 0x800, 0x400, 0xC00


@pytest.mark.parametrize(
    ("path", "legal"),
    [((XAPIC,), True), ((OFF,), True), ((X2,), True), ((INVALID,), False), ((X2, XAPIC), False), ((X2, OFF), True),
     ((X2, INVALID), False), ((OFF, X2), False), ((OFF, XAPIC, X2), True), ((OFF, INVALID), False), ((X2, X2), True),
     ((X2, OFF, XAPIC), True)],
)  # fmt: skip
def test_mode_changes(path: tuple[int, ...], legal: bool) -> None:
    """Figure 11-27 and 11.12.5: what is not drawn there is #GP."""
    apic = Machine()[0].apic
    for mode in path[:-1]:
        assert apic.write_msr(BASE, 0xFEE00100 | mode)
    before = apic.read_msr(BASE)
    assert apic.write_msr(BASE, 0xFEE00100 | path[-1]) is legal
    assert apic.read_msr(BASE) == (0xFEE00100 | path[-1] if legal else before)


@pytest.mark.parametrize("bit", [0, 1, 7, 9, 46, 51, 52, 63])
def test_reserved_bits_of_apic_base(bit: int) -> None:
    apic = Machine()[0].apic
    assert apic.write_msr(BASE, 0xFEE00900 | 1 << bit) is False


def test_bootstrap_flag_and_relocation() -> None:
    """11.4.4: processor 0 is the BSP; the base can be moved, up to MAXPHYADDR."""
    machine = Machine(0, 1)
    assert [one.apic.read_msr(BASE) for one in machine] == [0xFEE00900, 0xFEE00800]
    assert machine[1].apic.write_msr(BASE, (1 << 45) | 0x800)
    assert machine[1].apic.read(SVR) == 0x1FF


def test_disabling_forgets_the_registers() -> None:
    """11.4.3: "the APIC may return to the state described in 11.4.7.1"; it takes no message at all."""
    machine = Machine(0, 1)
    machine[1].apic.write(LDR, 0xFF00_0000)
    assert machine[1].apic.write_msr(BASE, 0xFEE00000)
    with pytest.raises(ValueError, match="page"):
        machine[1].apic.read(SVR)
    for command in (OTHERS | 0x40, OTHERS | 4 << 8, OTHERS | 5 << 8 | 1 << 14):
        machine[0].apic.write(ICR, command)
    assert not machine[1].nmi_pending
    assert machine[1].apic.take_reset_messages() == (False, None)
    assert machine[0].counters()["ipis_unanswered"] == 3
    assert machine[1].apic.write_msr(BASE, 0xFEE00800)
    assert (machine[1].apic.read(SVR), machine[1].apic.read(LDR)) == (0xFF, 0)


def test_entering_x2apic_keeps_the_registers() -> None:
    """11.12.5.1: state other than ids and ICR destination is carried over."""
    controller = Machine()[0]
    controller.apic.write(TIMER, 0x20055)
    controller.assert_interrupt(0x80)
    enter_x2apic(controller)
    assert (controller.apic.read_msr(0x832), controller.apic.read_msr(0x80F)) == (0x20055, 0x1FF)
    assert controller.acknowledge() == 0x80


def test_misuse_names_the_argument() -> None:
    apic = Machine()[0].apic
    for offset in (1, 8, -16, 4096):
        with pytest.raises(ValueError, match="offset"):
            apic.read(offset)
    with pytest.raises(ValueError, match="value"):
        apic.write(TPR, 1 << 32)
    with pytest.raises(ValueError, match="index"):
        apic.read_msr(0x900)
    with pytest.raises(ValueError, match="pin"):
        apic.set_pin(2, True)
    with pytest.raises(ValueError, match="entry"):
        apic.raise_local(3)
    with pytest.raises(TypeError, match="LocalApic"):
        type(apic)()
