"""What save has in it, and what restore refuses; messages that are delivered late, or owed an EOI (9.2, 9.7, 10.3)."""

import random
import struct

import pytest
from msr_code import wrmsr
from support import IRETQ, STUBS, Guest, code

from hvcore._native.irqchip import InterruptController, MessagePort

EOI, SCONTROL, SIMP, EOM, SINT0 = 0x40000070, 0x40000080, 0x40000083, 0x40000084, 0x40000090
STIMER0, VP_ASSIST, UNHALTED_CONFIG, UNHALTED_COUNT = 0x400000B0, 0x40000073, 0x40000114, 0x40000115
PAGE = 0x300000


def assisted(messages):
    """A controller with an assist page and a message page; SINT2 on vector F2."""
    page = bytearray(4096)
    chip = InterruptController(apic_id=0, message_page=messages, event_page=bytearray(4096), assist_page=page)
    chip.assist_enabled = chip.apic_enabled = True
    for msr, value in ((SIMP, 0x8001), (SCONTROL, 1), (SINT0 + 2, 0xF2)):
        assert chip.write_msr(msr, value, 0)
    return chip, page


def post(chip, port, tag=0):
    return chip.post_message(port, sint=2, message_type=1, sender=0, payload=struct.pack("<Q", tag))


def test_a_message_that_waits_requires_the_eoi():
    """9.2 step 5: an EOI is a retry. A guest that is spared it (10.3) would leave the second message waiting."""
    messages, port = bytearray(4096), MessagePort()
    chip, page = assisted(messages)
    post(chip, port, 1)
    assert chip.acknowledge() == 0xF2 and page[0] == 1
    post(chip, port, 2)
    assert page[0] == 0 and messages[0x205] == 1
    messages[0x200:0x204] = bytes(4)
    assert chip.write_msr(EOI, 0, 0)
    assert struct.unpack_from("<Q", messages, 0x210) == (2,) and chip.acknowledge() == 0xF2


def test_an_eoi_left_to_the_page_counts_before_the_promise_is_taken_back():
    """The guest has cleared the bit: its interrupt is over, whatever comes afterwards."""
    messages, port = bytearray(4096), MessagePort()
    chip, page = assisted(messages)
    post(chip, port, 1)
    chip.acknowledge()
    page[0] = 0
    post(chip, port, 2)
    assert chip.in_service == 0 and chip.counters()["eois_saved"] == 1


def test_a_timer_message_says_when_it_was_delivered():
    """9.7: delivery is when it came into the slot; also when a retry of the hypervisor, or a post, brought it there."""
    for by_retry in (True, False):
        messages, port = bytearray(4096), MessagePort()
        chip, _ = assisted(messages)
        post(chip, port)
        chip.write_msr(STIMER0 + 1, 50, 0)
        chip.write_msr(STIMER0, 2 << 16 | 1, 0)
        chip.advance(7_000)
        messages[0x200:0x204] = bytes(4)
        if by_retry:
            chip.advance(2_000_000)
            delivered = 20_000
        else:
            post(chip, port)
            delivered = 70
        assert struct.unpack_from("<IIIIQQ", messages, 0x200)[0] == 0x80000010
        assert struct.unpack_from("<IIQQ", messages, 0x210) == (0, 0, 50, delivered)


def test_what_the_guest_is_spared_is_saved():
    """The promise and the page: an EOI that was left to it before, or after, the state was saved is one."""
    chip, page = assisted(bytearray(4096))
    chip.assert_interrupt(0x50)
    chip.acknowledge()
    open_ = chip.save()
    page[0] = 0
    left = chip.save()
    chip.reset()
    chip.restore(open_)
    assert (page[0], chip.in_service) == (1, 1 << 0x50)
    chip.restore(left)
    assert (page[0], chip.in_service) == (0, 0)


def test_the_unhalted_timer_is_saved():
    """What is left of its period is: time that goes by between saving and restoring is none that the processor ran."""
    guest = Guest()
    guest.write(STUBS + 16 * 0x50, code("49ffc7 50 51 52", wrmsr(EOI, 0), "5a 59 58", IRETQ))
    guest.load(wrmsr(VP_ASSIST, PAGE | 1), wrmsr(UNHALTED_COUNT, 10), wrmsr(UNHALTED_CONFIG, 0x150), "fb eb fe")
    guest.vp.run(max_instructions=12 + 400)
    chip = guest.vp.interrupts
    state = chip.save()
    chip.reset()
    chip.apic_enabled = True
    guest.vp.run(max_instructions=5000)
    assert guest.vp.r15 == 0
    chip.restore(state)
    assert [chip.read_msr(msr, 0) for msr in (UNHALTED_CONFIG, UNHALTED_COUNT)] == [0x150, 10]
    guest.vp.run(max_instructions=598)
    assert guest.vp.r15 == 0
    guest.vp.run(max_instructions=10)
    assert guest.vp.r15 == 1


@pytest.mark.parametrize("seed", range(3))
def test_damaged_states_are_refused_or_harmless(seed):
    """Bits changed anywhere outside the pages: ValueError, or a controller that goes on and comes to rest."""
    print("seed", seed)
    rng = random.Random(seed)
    messages, port = bytearray(4096), MessagePort()
    chip, _ = assisted(messages)
    for tag in range(3):
        post(chip, port, tag)
    chip.write_msr(STIMER0 + 1, 50, 0)
    chip.write_msr(STIMER0, 0x1503, 0)
    chip.write_msr(UNHALTED_COUNT, 40, 0)
    chip.write_msr(UNHALTED_CONFIG, 0x150, 0)
    chip.apic.write(0x380, 1000)
    state = chip.save([port])
    parts = [*range(len(state) - 4 * 4096 - 2 * 272), *range(len(state) - 2 * 272, len(state))]
    refused = 0
    for number in range(1500):
        damaged = bytearray(state)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.choice(parts)] ^= 1 << rng.randrange(8)
        try:
            chip.restore(bytes(damaged), [port])
        except ValueError:
            refused += 1
            continue
        for msr, value in ((EOM, 0), (EOI, 0), (SINT0 + 3, 0x93), (STIMER0 + 3, 70)):
            chip.write_msr(msr, value, number)
        chip.advance(1000 * number)
        for _ in range(20):     # an asserted pin that is level-triggered has no end
            chip.acknowledge()
            chip.write_msr(EOI, 0, number)
        chip.apic.state()
        chip.timer_state()
    assert 100 < refused < 1400
    chip.restore(state, [port])
    assert chip.save([port]) == state
