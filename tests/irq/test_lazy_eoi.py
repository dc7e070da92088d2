"""Lazy EOI by the VP assist page against digest 10.3, from the controller's side and from a guest's."""
import random
import struct

import pytest
from msr_code import wrmsr
from support import HLT, IRETQ, STUBS, Guest, code

from hvcore._native.irqchip import InterruptController

VP_ASSIST, EOI, TPR, SINT0 = 0x40000073, 0x40000070, 0x40000072, 0x40000090
PAGE = 0x300000


class Assisted:
    """A controller with an enabled assist page, and what a guest does at the end of a handler."""

    def __init__(self):
        self.page, self.messages = bytearray(4096), bytearray(4096)
        self.chip = InterruptController(apic_id=0, message_page=self.messages, event_page=bytearray(4096),
                                        assist_page=self.page)
        self.chip.assist_enabled = self.chip.apic_enabled = True

    @property
    def promised(self):
        return self.page[0] & 1

    def take(self, *vectors, level=False):
        for vector in vectors:
            self.chip.assert_interrupt(vector, level=level)
            assert self.chip.acknowledge() == vector

    def finish(self):
        """Atomic test-and-clear; the EOI register only if the bit was clear. Whether the EOI was saved."""
        saved = self.promised
        self.page[0] &= ~1
        if not saved:
            assert self.chip.write_msr(EOI, 0, 0)
        return bool(saved)

    def count(self, name):
        return self.chip.counters()[name]


@pytest.fixture
def vp():
    return Assisted()


def test_the_bit_is_set_at_delivery_and_the_vector_retires_when_the_guest_clears_it(vp):
    vp.chip.assert_interrupt(0x50)
    assert not vp.promised
    assert vp.chip.acknowledge() == 0x50
    assert vp.promised and vp.chip.in_service == 1 << 0x50
    assert vp.finish()
    assert vp.chip.in_service == 0
    assert (vp.count("eois"), vp.count("eois_saved")) == (1, 1)


def test_a_plain_eoi_stays_legal_while_the_bit_is_set(vp):
    vp.take(0x50)
    vp.chip.write_msr(EOI, 0, 0)
    assert not vp.promised and vp.chip.in_service == 0
    assert (vp.count("eois"), vp.count("eois_saved")) == (1, 0)


def test_never_for_a_level_triggered_one(vp):
    vp.take(0x50, level=True)
    assert not vp.promised


def test_never_with_auto_eoi():
    """Its ISR bit is dropped at delivery (9.4): nothing is owed."""
    vp = Assisted()
    vp.chip.write_msr(SINT0 + 3, 0x20050, 0)
    for register in (0x40000080, 0x40000082):
        vp.chip.write_msr(register, 1, 0)
    assert vp.chip.signal_event(sint=3, flag=0)
    assert vp.chip.acknowledge() == 0x50 and not vp.promised


def test_never_while_a_lower_one_waits(vp):
    vp.chip.assert_interrupt(0x30)
    vp.chip.assert_interrupt(0x50)
    assert vp.chip.acknowledge() == 0x50 and not vp.promised
    assert not vp.finish()
    assert vp.chip.acknowledge() == 0x30 and vp.promised


@pytest.mark.parametrize("later", [0x30, 0x50, 0x5F])
def test_a_lower_or_equal_request_takes_the_promise_back(vp, later):
    vp.take(0x50)
    vp.chip.assert_interrupt(later)
    assert not vp.promised and vp.chip.pending_vector() is None
    assert not vp.finish()
    assert vp.chip.acknowledge() == later


def test_a_request_that_comes_after_the_guest_cleared_the_bit_finds_the_vector_retired(vp):
    vp.take(0x50)
    assert vp.finish()
    vp.chip.assert_interrupt(0x30)
    assert vp.chip.acknowledge() == 0x30
    assert vp.chip.in_service == 1 << 0x30 and vp.promised


def test_only_the_outermost_benefits(vp):
    """The nested one is not promised, and takes back what its outer one was: each writes its EOI."""
    vp.take(0x50, 0x80)
    assert not vp.promised and vp.chip.in_service == 1 << 0x50 | 1 << 0x80
    assert not vp.finish() and vp.chip.in_service == 1 << 0x50
    assert not vp.finish() and vp.chip.in_service == 0


def test_a_higher_one_that_waits_for_its_turn_leaves_the_promise(vp):
    vp.take(0x50)
    vp.chip.assert_interrupt(0x80)
    assert vp.promised, "its delivery does not depend on the end of 50h"


def test_priorities_see_an_eoi_that_was_left_to_the_page(vp):
    vp.take(0x50)
    assert vp.chip.processor_priority == 0x50
    assert vp.finish()
    assert vp.chip.processor_priority == 0


@pytest.mark.parametrize("x2apic", [False, True])
def test_the_registers_see_an_eoi_that_was_left_to_the_page(vp, x2apic):
    """10.3: the vector has retired when the bit is clear, so ISR and PPR do not have it, however they are read."""
    apic = vp.chip.apic
    if x2apic:
        apic.write_msr(0x1B, 0xFEE0_0D00)
    read = (lambda offset: apic.read_msr(0x800 + (offset >> 4))) if x2apic else apic.read
    for offset, before in ((0x120, 1 << 16), (0xA0, 0x50)):     # ISR of vectors 40h to 5Fh, PPR
        vp.take(0x50)
        assert vp.promised
        assert read(offset) == before
        assert vp.promised, "a look changes nothing"
        vp.page[0] &= ~1
        assert read(offset) == 0
        assert vp.chip.in_service == 0
    assert (vp.count("eois"), vp.count("eois_saved")) == (2, 2)


def test_switching_off_and_reset_take_the_promise_back(vp):
    vp.take(0x50)
    vp.chip.assist_enabled = False
    assert not vp.promised and vp.chip.in_service == 1 << 0x50
    vp.chip.write_msr(EOI, 0, 0)
    vp.take(0x50)
    assert not vp.promised
    vp.chip.write_msr(EOI, 0, 0)
    vp.chip.assist_enabled = True
    vp.take(0x50)
    vp.chip.reset()
    assert not vp.promised and vp.chip.in_service == 0


def test_switching_off_after_the_guest_cleared_the_bit(vp):
    vp.take(0x50)
    assert vp.finish()
    vp.chip.assist_enabled = False
    assert vp.chip.in_service == 0 and vp.count("eois_saved") == 1


@pytest.mark.parametrize("seed", range(4))
def test_with_and_without_the_page_the_same_interrupts_come_in_the_same_order(seed):
    """A guest that uses the page sees what one sees that does not."""
    print("seed", seed)
    rng = random.Random(seed)
    lazy, plain = Assisted(), Assisted()
    plain.chip.assist_enabled = False
    depth = 0
    for _ in range(4000):
        action = rng.randrange(6)
        if action == 0:
            vector, level = rng.randrange(16, 256), rng.randrange(4) == 0
            for vp in (lazy, plain):
                vp.chip.assert_interrupt(vector, level=level)
        elif action < 3:
            taken = lazy.chip.acknowledge()
            assert taken == plain.chip.acknowledge()
            depth += taken is not None
        elif depth:
            lazy.finish(), plain.finish()
            depth -= 1
        assert lazy.chip.in_service == plain.chip.in_service
        assert lazy.chip.requested == plain.chip.requested
        assert lazy.chip.take_level_eoi() == plain.chip.take_level_eoi()
    assert lazy.count("eois") == plain.count("eois")
    assert lazy.count("eois_saved") > 10 and plain.count("eois_saved") == 0


def test_a_guest_saves_its_eois():
    """Handler: LOCK BTR of bit 0; without carry the EOI MSR. A periodic timer, 30 times."""
    guest = Guest()
    guest.write(STUBS + 16 * 0x50, b"\xe9" + struct.pack("<i", 0x610000 - (STUBS + 16 * 0x50) - 5))
    eoi = code("50 51 52", wrmsr(EOI, 0), "5a 59 58")
    guest.write(0x610000, code("49ffc7", "f00fba3425", struct.pack("<I", PAGE), "00", "72", bytes([len(eoi)]), eoi,
                               IRETQ))
    guest.load(wrmsr(VP_ASSIST, PAGE | 1), wrmsr(0x400000B1, 30), wrmsr(0x400000B0, 0x1503), "fb", HLT, b"\xeb\xfd")
    guest.vp.run(max_instructions=1_000)
    counters = guest.vp.counters()
    assert guest.vp.r15 > 100
    assert counters["eois_saved"] == counters["eois"] >= guest.vp.r15 - 1
    assert counters["interrupts_delivered"] == guest.vp.r15
