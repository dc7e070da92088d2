"""Synthetic timers against digest 9.7, its test vectors (12.5), and a model that steps through every period."""
import random
import struct

import pytest

CONFIG, COUNT = 0x400000B0, 0x400000B1
ENABLE, PERIODIC, LAZY, AUTO_ENABLE, DIRECT = 1, 2, 4, 8, 1 << 12
NEVER = 2**64 - 1


def direct(vector):
    return DIRECT | vector << 4


def message(sint):
    return sint << 16


def test_vector_direct_one_shot_with_auto_enable(vp):
    vp.write(CONFIG, 0x1ED8)
    assert vp.read(CONFIG) == 0x1ED8
    vp.write(COUNT, 1000)
    assert vp.read(CONFIG) == 0x1ED9
    assert vp.chip.next_deadline() == 1000
    assert vp.chip.expire(999) == 0
    assert vp.chip.requested == 0
    assert vp.chip.expire(1000) == 1
    assert vp.chip.requested == 1 << 0xED
    assert vp.read(CONFIG) == 0x1ED8
    assert vp.read(COUNT) == 1000
    assert vp.chip.next_deadline() is None


def test_vector_timer_message(vp):
    vp.enable_synic()
    vp.set_sint(2, 0xF3)
    vp.write(CONFIG, 0x20008)
    vp.write(COUNT, 10_000_000)
    assert vp.chip.expire(10_000_123) == 1
    expected = bytes.fromhex("10000080 18000000") + bytes(8) + struct.pack("<IIQQ", 0, 0, 0x989680, 0x9896FB)
    assert vp.slot(2) == expected.ljust(256, b"\0")
    assert vp.chip.pending_vector() == 0xF3


def test_the_index_of_the_timer_is_in_its_message(synic):
    for timer in range(4):
        synic.write(CONFIG + 2 * timer, message(3 + timer) | AUTO_ENABLE)
        synic.write(COUNT + 2 * timer, 50 + timer)
    assert synic.chip.next_deadline() == 50
    assert synic.chip.expire(51) == 2
    assert synic.chip.next_deadline() == 52
    assert synic.chip.expire(53) == 2
    for timer in range(4):
        assert struct.unpack_from("<IIQ", synic.slot(3 + timer), 16) == (timer, 0, 50 + timer)


def test_a_count_in_the_past_fires_at_once(vp):
    vp.now = 500
    vp.write(CONFIG, direct(0x30) | AUTO_ENABLE)
    vp.write(COUNT, 499)
    assert vp.chip.requested == 1 << 0x30
    assert vp.read(CONFIG) & ENABLE == 0
    vp.chip.acknowledge()
    vp.write(COUNT, 500)
    assert vp.chip.requested == 1 << 0x30
    assert vp.chip.next_deadline() is None


def test_enabling_needs_a_count_and_a_count_needs_enable(vp):
    vp.write(CONFIG, direct(0x30) | ENABLE)
    assert vp.chip.next_deadline() is None
    vp.write(COUNT, 70)
    assert vp.chip.next_deadline() == 70
    vp.write(COUNT, 0)
    assert vp.read(CONFIG) & ENABLE == 0
    assert vp.chip.next_deadline() is None
    vp.write(COUNT, 80)                 # no auto-enable
    assert vp.chip.next_deadline() is None
    vp.write(CONFIG, direct(0x30) | ENABLE)
    assert vp.chip.next_deadline() == 80
    vp.write(CONFIG, 0)
    assert vp.chip.next_deadline() is None


def test_sint0_is_not_for_timers(synic):
    synic.write(COUNT, 10)
    synic.write(CONFIG, PERIODIC | ENABLE)
    assert synic.read(CONFIG) == PERIODIC
    synic.write(CONFIG, AUTO_ENABLE)
    synic.write(COUNT, 10)
    assert synic.read(CONFIG) == AUTO_ENABLE
    assert synic.chip.next_deadline() is None
    synic.write(CONFIG, direct(0x30) | ENABLE)      # direct mode has no SINT
    assert synic.chip.next_deadline() == 10


@pytest.mark.parametrize("value", [1 << 13, 1 << 14, 1 << 15, 1 << 20, 1 << 63, direct(15), direct(0) | ENABLE])
def test_bad_configurations_fault_and_change_nothing(vp, value):
    vp.write(CONFIG, direct(16))
    assert vp.chip.write_msr(CONFIG, value, 0) is False
    assert vp.read(CONFIG) == direct(16)


def test_periodic_starts_one_period_after_enabling_and_stays_enabled(vp):
    vp.now = 1000
    vp.write(COUNT, 100)
    vp.write(CONFIG, direct(0x30) | PERIODIC | ENABLE)
    for deadline in (1100, 1200, 1300):
        assert vp.chip.next_deadline() == deadline
        assert vp.chip.expire(deadline - 1) == 0
        assert vp.chip.expire(deadline) == 1
        assert vp.chip.acknowledge() == 0x30
        vp.eoi()
    assert vp.read(CONFIG) == direct(0x30) | PERIODIC | ENABLE
    vp.now = 1350
    vp.write(CONFIG, direct(0x31) | PERIODIC | ENABLE)      # a write while enabled starts over
    assert vp.chip.next_deadline() == 1450


@pytest.mark.parametrize(("missed", "signals"), [(0, 1), (1, 2), (3, 4), (4, 4), (1000, 4)])
def test_catch_up_is_bounded_and_keeps_the_phase(vp, missed, signals):
    vp.write(COUNT, 100)
    vp.write(CONFIG, direct(0x30) | PERIODIC | ENABLE)
    assert vp.chip.expire(100 + missed * 100 + 33) == signals
    assert vp.chip.next_deadline() == 200 + missed * 100
    assert vp.count("timers_skipped") == missed + 1 - signals


@pytest.mark.parametrize(("late", "signals"), [(0, 1), (75, 1), (76, 0), (100, 1), (399, 0), (1030, 1)])
def test_a_lazy_period_is_postponed_once_and_dropped_when_the_next_is_near(vp, late, signals):
    vp.write(COUNT, 100)
    vp.write(CONFIG, direct(0x30) | PERIODIC | LAZY | ENABLE)
    assert vp.chip.expire(100 + late) == signals
    assert vp.chip.next_deadline() == 200 + late // 100 * 100
    assert vp.count("timers_skipped") == late // 100 + 1 - signals


def test_a_second_expiry_does_not_make_a_second_waiting_message(synic):
    synic.write(COUNT, 100)
    synic.write(CONFIG, message(2) | PERIODIC | ENABLE)
    synic.chip.expire(100)          # into the slot
    synic.chip.expire(200)          # waits in the timer's buffer
    synic.chip.expire(300)          # merges
    assert synic.more_pending(2)
    assert synic.count("timers_merged") == 1
    synic.clear_slot(2)
    synic.now = 345
    synic.eom()
    assert struct.unpack_from("<QQ", synic.slot(2), 24) == (200, 345)     # nominal, and placed into the slot
    assert not synic.more_pending(2)
    synic.clear_slot(2)
    synic.eom()
    assert synic.message_type(2) == 0


def test_message_mode_waits_for_the_synic_and_direct_mode_does_not(vp):
    vp.write(CONFIG, message(2) | AUTO_ENABLE)
    vp.write(COUNT, 10)
    vp.write(CONFIG + 2, direct(0x50) | AUTO_ENABLE)
    vp.write(COUNT + 2, 10)
    assert vp.chip.expire(10) == 2
    assert vp.chip.requested == 1 << 0x50
    assert vp.message_type(2) == 0
    vp.now = 40
    vp.enable_synic()
    assert struct.unpack_from("<IIQQ", vp.slot(2), 16) == (0, 0, 10, 40)


def test_time_does_not_wrap(vp):
    vp.now = NEVER - 10
    vp.write(CONFIG, direct(0x30) | PERIODIC | AUTO_ENABLE)
    vp.write(COUNT, 100)
    assert vp.chip.next_deadline() is None
    assert vp.chip.expire(NEVER) == 0
    vp.write(COUNT, 4)
    assert vp.chip.expire(NEVER) == 2
    assert vp.chip.requested == 1 << 0x30
    assert vp.chip.next_deadline() is None


def test_reset_stops_and_forgets(synic):
    synic.write(COUNT, 100)
    synic.write(CONFIG, message(2) | PERIODIC | ENABLE)
    synic.chip.expire(200)
    synic.chip.reset()
    assert synic.chip.next_deadline() is None
    assert [synic.read(CONFIG + register) for register in range(8)] == [0] * 8
    assert synic.count("messages_discarded_reset") == 1
    synic.enable_synic()
    assert synic.message_type(2) == 0


class ModelTimer:
    """Steps through every expiry one by one; slow, and free of the arithmetic of the room."""

    def __init__(self):
        self.config = self.count = 0
        self.deadline = None
        self.fired = []

    def arm(self, now):
        armed = self.config & ENABLE and self.count
        self.deadline = (now + self.count if self.config & PERIODIC else self.count) if armed else None
        self.expire(now)

    def expire(self, now):
        due = []
        while self.deadline is not None and self.deadline <= now:
            due.append(self.deadline)
            self.deadline += self.count
            if not self.config & PERIODIC:
                self.config &= ~ENABLE
                self.deadline = None
        if due and self.config & PERIODIC and self.config & LAZY:
            due = due[-1:] if 4 * (now - due[-1]) <= 3 * self.count else []
        self.fired += due[-4:]
        return len(due[-4:])


@pytest.mark.parametrize("seed", range(6))
def test_random_sequences_against_a_stepping_model(vp, seed):
    print("seed", seed)
    rng, models = random.Random(seed), [ModelTimer() for _ in range(4)]
    for _ in range(3000):
        vp.now += rng.choice([0, 1, 5, 40, 400])
        due = [model.expire(vp.now) for model in models]
        assert vp.chip.expire(vp.now) == sum(due)
        index = rng.randrange(4)
        model = models[index]
        match rng.randrange(6):
            case 0:
                model.config = direct(0x20 + index) | rng.randrange(16)
                vp.write(CONFIG + 2 * index, model.config)
                model.arm(vp.now)
            case 1:
                # Multiples of four, so that three quarters of a period are exact.
                model.count = 4 * rng.choice([0, rng.randrange(1, 30), vp.now // 4 + rng.randrange(50)])
                if model.count == 0:
                    model.config &= ~ENABLE
                elif model.config & AUTO_ENABLE:
                    model.config |= ENABLE
                vp.write(COUNT + 2 * index, model.count)
                model.arm(vp.now)
        deadlines = [model.deadline for model in models if model.deadline is not None]
        assert vp.chip.next_deadline() == min(deadlines, default=None)
        for timer, model in enumerate(models):
            assert (vp.read(CONFIG + 2 * timer), vp.read(COUNT + 2 * timer)) == (model.config, model.count)
    assert vp.count("timers_expired") == sum(len(model.fired) for model in models)
    assert vp.count("timers_expired") == vp.count("interrupts_requested")
