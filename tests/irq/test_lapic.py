"""The local APIC core against the SDM's words and against a model made of Python sets."""
import random

import pytest

from hvcore._native.irqchip import InterruptController

EOI, ICR, TPR = 0x40000070, 0x40000071, 0x40000072
SELF = 1 << 18


@pytest.mark.parametrize("vector", [16, 63, 64, 127, 128, 191, 192, 255])
def test_every_word_of_the_vector_sets(vp, vector):
    vp.chip.assert_interrupt(vector)
    assert vp.chip.requested == 1 << vector
    assert vp.chip.in_service == 0
    # Class 1 is above an idle PPR of 0; class 0 could never be.
    assert vp.chip.pending_vector() == vector
    assert vp.chip.acknowledge() == vector
    assert (vp.chip.requested, vp.chip.in_service) == (0, 1 << vector)
    assert vp.chip.processor_priority == vector & 0xF0
    vp.eoi()
    assert vp.chip.in_service == 0
    assert vp.chip.delivered_interrupts() == {vector: 1}


def test_only_a_higher_class_interrupts_a_handler(vp):
    vp.chip.assert_interrupt(0x51)
    assert vp.chip.acknowledge() == 0x51
    vp.chip.assert_interrupt(0x5F)
    assert vp.chip.pending_vector() is None
    vp.chip.assert_interrupt(0x60)
    assert vp.chip.acknowledge() == 0x60
    vp.eoi()
    assert vp.chip.in_service == 1 << 0x51
    vp.eoi()
    assert vp.chip.acknowledge() == 0x5F


def test_task_priority_holds_its_own_class_back(vp):
    vp.write(TPR, 0x45)
    assert vp.chip.processor_priority == 0x45
    vp.chip.assert_interrupt(0x4F)
    assert vp.chip.pending_vector() is None
    vp.chip.assert_interrupt(0x50)
    assert vp.chip.pending_vector() == 0x50
    vp.write(TPR, 0x3F)
    assert vp.chip.acknowledge() == 0x50
    assert vp.chip.processor_priority == 0x50
    vp.write(TPR, 0x5A)
    assert vp.chip.processor_priority == 0x5A       # equal classes: PPR is TPR
    assert vp.read(TPR) == 0x5A


def test_task_priority_register_reserved_bits_fault(vp):
    vp.write(TPR, 0x20)
    assert vp.chip.write_msr(TPR, 0x100, 0) is False
    assert vp.read(TPR) == 0x20


def test_eoi_register_is_write_only(vp):
    assert vp.chip.read_msr(EOI, 0) is None
    vp.eoi()        # nothing in service: allowed, counted
    assert vp.count("eois") == 1


def test_the_eoi_of_a_level_interrupt_is_owed_to_the_parent(vp):
    vp.chip.assert_interrupt(0x31, level=True)
    vp.chip.assert_interrupt(0x41)
    assert vp.chip.level_triggered == 1 << 0x31
    assert vp.chip.acknowledge() == 0x41
    vp.eoi()
    assert vp.chip.take_level_eoi() is None
    assert vp.chip.acknowledge() == 0x31
    assert vp.chip.take_level_eoi() is None
    vp.eoi()
    assert vp.chip.take_level_eoi() == 0x31
    assert vp.chip.take_level_eoi() is None


def test_withdraw_takes_back_a_level_but_not_an_edge(vp):
    vp.chip.assert_interrupt(0x31, level=True)
    vp.chip.assert_interrupt(0x41)
    vp.chip.withdraw_interrupt(0x31)
    vp.chip.withdraw_interrupt(0x41)
    vp.chip.withdraw_interrupt(0x51)
    assert vp.chip.requested == 1 << 0x41
    assert vp.count("interrupts_withdrawn") == 1


def test_an_edge_that_merges_into_a_level_request_keeps_its_eoi(vp):
    vp.chip.assert_interrupt(0x31, level=True)
    vp.chip.assert_interrupt(0x31)
    assert vp.count("interrupts_merged") == 1
    vp.chip.acknowledge()
    vp.eoi()
    assert vp.chip.take_level_eoi() == 0x31


def test_a_disabled_apic_loses_fixed_interrupts_but_no_nmi(vp):
    vp.chip.apic_enabled = False
    vp.chip.assert_interrupt(0x31)
    vp.chip.assert_nmi()
    assert (vp.chip.requested, vp.chip.nmi_pending) == (0, True)
    assert vp.count("interrupts_lost") == 1
    vp.chip.reset()
    assert not vp.chip.apic_enabled and not vp.chip.nmi_pending      # SDM 3A 11.4.7.1


def test_nmis_merge(vp):
    assert vp.chip.acknowledge_nmi() is False
    vp.chip.assert_nmi()
    vp.chip.assert_nmi()
    assert vp.chip.acknowledge_nmi() is True
    assert vp.chip.acknowledge_nmi() is False
    assert [vp.count(f"nmis_{what}") for what in ("requested", "merged", "delivered")] == [2, 1, 1]


def test_icr_msr_writes_both_halves_at_once(vp):
    """MSR 40000071 is the ICR as a 64-bit register (TLFS 10.2.3); a write sends."""
    vp.write(ICR, SELF | 0x35)
    assert vp.chip.requested == 1 << 0x35
    vp.write(ICR, SELF | 1 << 15 | 1 << 14 | 0x36)      # an IPI is an edge
    assert vp.chip.level_triggered == 0
    vp.write(ICR, SELF | 0x0F)                          # SDM 3A 11.5.3, bit 5
    vp.chip.apic.write(0x280, 0)
    assert vp.chip.apic.read(0x280) == 1 << 5
    vp.write(ICR, 0x12345678_00000000 | SELF | 1 << 12 | 0x35)
    assert vp.read(ICR) == 0x12000000_00000000 | SELF | 0x35        # delivery status reads idle, [55:32] are reserved


@pytest.mark.parametrize("index", [0x10, 0x4000006F, 0x40000073, 0x40000086, 0x4000008F, 0x400000A0, 0x400000AF,
                                   0x400000B8, 0x40000113, 0xFFFFFFFF])
def test_other_registers_are_not_mine(vp, index):
    assert vp.chip.read_msr(index, 0) is None
    assert vp.chip.write_msr(index, 0, 0) is None


def test_misuse_names_the_argument(vp):
    for bad in (15, 256, -1):
        with pytest.raises(ValueError, match="vector"):
            vp.chip.assert_interrupt(bad)
    with pytest.raises(TypeError, match="vector"):
        vp.chip.assert_interrupt(32.0)
    with pytest.raises(ValueError, match="apic_id"):
        InterruptController(apic_id=1 << 32, message_page=bytearray(4096), event_page=bytearray(4096))
    with pytest.raises(ValueError, match="event_page"):
        InterruptController(apic_id=0, message_page=bytearray(4096), event_page=bytearray(4095))
    with pytest.raises(BufferError, match="message_page"):
        InterruptController(apic_id=0, message_page=bytes(4096), event_page=bytearray(4096))
    with pytest.raises(TypeError, match="message_page"):
        InterruptController(apic_id=0, message_page=None, event_page=bytearray(4096))


class ModelApic:
    def __init__(self):
        self.requested, self.in_service, self.level, self.owed = set(), set(), set(), []
        self.tpr, self.enabled = 0, True

    def ppr(self):
        top = max(self.in_service, default=0)
        return self.tpr if self.tpr // 16 >= top // 16 else top // 16 * 16

    def pending(self):
        top = max(self.requested, default=-1)
        return top if top >= 0 and top // 16 > self.ppr() // 16 else None

    def ask(self, vector, level):
        if self.enabled:
            level = level or (vector in self.requested and vector in self.level)
            self.requested.add(vector)
            (self.level.add if level else self.level.discard)(vector)

    def withdraw(self, vector):
        if vector in self.level:
            self.requested.discard(vector)

    def take(self):
        vector = self.pending()
        if vector is not None:
            self.requested.remove(vector)
            self.in_service.add(vector)
        return vector

    def end(self):
        if self.in_service:
            vector = max(self.in_service)
            self.in_service.remove(vector)
            if vector in self.level:
                self.owed.append(vector)


def as_bits(vectors):
    return sum(1 << vector for vector in vectors)


@pytest.mark.parametrize("seed", range(8))
def test_random_sequences_against_a_model_of_sets(vp, seed):
    print("seed", seed)
    rng, model, chip = random.Random(seed), ModelApic(), vp.chip
    few = rng.sample(range(16, 256), 12)
    for _ in range(4000):
        vector = rng.choice(few) if rng.random() < 0.7 else rng.randrange(16, 256)
        match rng.choice("aaalwttteep0"):
            case "a":
                chip.assert_interrupt(vector)
                model.ask(vector, False)
            case "l":
                chip.assert_interrupt(vector, level=True)
                model.ask(vector, True)
            case "w":
                chip.withdraw_interrupt(vector)
                model.withdraw(vector)
            case "t":
                assert chip.acknowledge() == model.take()
            case "e":
                vp.eoi()
                model.end()
                while (owed := chip.take_level_eoi()) is not None:
                    model.owed.remove(owed)
                assert model.owed == []
            case "p":
                model.tpr = rng.choice([0, 0, rng.randrange(256)])
                vp.write(TPR, model.tpr)
            case "0":
                model.enabled = chip.apic_enabled = rng.random() < 0.8
        assert chip.requested == as_bits(model.requested)
        assert chip.in_service == as_bits(model.in_service)
        assert chip.level_triggered == as_bits(model.level)
        assert chip.processor_priority == model.ppr()
        assert chip.pending_vector() == model.pending()
    counters = chip.counters()
    assert counters["interrupts_requested"] == (
        counters["interrupts_delivered"] + counters["interrupts_lost"] + counters["interrupts_merged"]
        + counters["interrupts_withdrawn"] + chip.requested.bit_count())
    assert sum(chip.delivered_interrupts().values()) == counters["interrupts_delivered"]
