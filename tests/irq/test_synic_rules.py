"""SynIC: retries, as-intercept, snapshots, overlays and what KVM does that is worth a test (9.2, 9.4, 11.3, 13 #40)."""

import random
import struct

import pytest

from hvcore._native.irqchip import MessagePort

SIEFP, SIMP, SCONTROL, EOM, STIMER0 = 0x40000082, 0x40000083, 0x40000080, 0x40000084, 0x400000B0
MASKED, AUTO_EOI, POLLING, AS_INTERCEPT, PROXY = 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20
RETRY = 1_000_000
EOI, SEED = 0x40000070, 20261123


def test_a_waiting_message_is_tried_again_after_a_millisecond(synic):
    """13 #40; nothing is armed while nothing waits, and what finds its slot full waits another millisecond."""
    port = MessagePort()
    assert synic.chip.next_event() is None
    synic.post(port, 2, 0)
    assert synic.chip.next_event() is None
    synic.chip.advance(500)
    synic.post(port, 2, 1)
    assert synic.chip.next_event() == 500 + RETRY
    synic.chip.advance(500 + RETRY)
    assert (synic.tag(2), synic.chip.next_event()) == (0, 500 + 2 * RETRY)
    synic.clear_slot(2)
    synic.chip.advance(500 + 2 * RETRY - 1)
    assert synic.message_type(2) == 0
    synic.chip.advance(500 + 2 * RETRY)
    assert (synic.tag(2), synic.chip.next_event()) == (1, None)
    assert synic.count("retries") == 2


def test_a_disabled_synic_is_not_tried_again(vp):
    vp.post(MessagePort(), 2, 0)
    assert vp.chip.next_event() is None


@pytest.mark.parametrize("cause", ["message", "event"])
def test_as_intercept_tells_sint0(synic, cause):
    """9.4, of the root: message 80000061 {u32 sint} on SINT0 as well; elsewhere the bit is kept and means nothing."""
    synic.set_sint(5, 0x45 | AS_INTERCEPT)
    for root, message_type in ((False, 0), (True, 0x80000061)):
        synic.chip.intercepts_sints = root
        if cause == "message":
            synic.post(MessagePort(), 5, 1)
            synic.clear_slot(5)
        else:
            synic.chip.signal_event(sint=5, flag=root)
        assert synic.message_type(0) == message_type
    assert struct.unpack_from("<IBBHQI", synic.slot(0)) == (0x80000061, 4, 0, 0, 0, 5)
    for flag in range(2, 5):
        synic.chip.signal_event(sint=5, flag=flag)
    assert (synic.count("sint_intercepts_merged"), synic.more_pending(0)) == (2, True)
    synic.clear_slot(0)
    synic.eom()
    assert (synic.message_type(0), synic.more_pending(0)) == (0x80000061, False)


def test_as_intercept_of_sint0_and_of_a_masked_sint_says_nothing(synic):
    synic.chip.intercepts_sints = True
    synic.set_sint(0, 0x40 | AS_INTERCEPT)
    synic.set_sint(5, 0x45 | AS_INTERCEPT | MASKED)
    synic.post(MessagePort(), 5, 1)
    assert synic.message_type(0) == 0
    synic.post(MessagePort(), 0, 1)
    synic.clear_slot(0)
    synic.eom()
    assert synic.message_type(0) == 0


def test_the_proxy_bit_is_preserved_and_does_nothing(synic):
    synic.set_sint(2, 0x42 | PROXY)
    assert synic.read(0x40000092) == 0x42 | PROXY
    synic.post(MessagePort(), 2, 1)
    assert synic.chip.pending_vector() == 0x42


def test_pages_keep_their_contents_when_they_move_or_are_disabled(synic):
    """11.3. KVM zeroes a page that is enabled; here only reset does."""
    synic.post(MessagePort(), 2, 7)
    synic.chip.signal_event(sint=2, flag=3)
    for value in (0x7001, 0x7000, 0, 0x9001):
        synic.write(SIMP, value)
        synic.write(SIEFP, value)
        assert (synic.message_type(2), synic.tag(2), synic.events[2 * 256]) == (1, 7, 8)
    synic.chip.reset()
    assert not any(synic.messages) and not any(synic.events)
    assert synic.count("messages_unread") == 1


def test_an_eoi_of_any_vector_scans_every_queue(synic):
    """9.2 step 5. KVM looks only at the SINTs of the vector that ends."""
    port = MessagePort()
    synic.post(port, 2, 0)
    synic.post(port, 2, 1)
    synic.clear_slot(2)
    synic.chip.assert_interrupt(0x99)
    assert synic.chip.acknowledge() == 0x99
    synic.eoi()
    assert synic.tag(2) == 1


def test_auto_eoi_counts_for_each_sint_though_the_vector_is_shared(synic):
    """KVM decides by vector: there any SINT with auto-EOI would do. Here the SINT that was raised decides (9.4)."""
    synic.set_sint(2, 0xF3)
    synic.set_sint(3, 0xF3 | AUTO_EOI)
    synic.post(MessagePort(), 2, 0)
    assert synic.chip.acknowledge() == 0xF3
    assert synic.chip.in_service == 1 << 0xF3


def test_a_timer_message_that_waits_is_not_made_twice(synic):
    """9.7, counted by timers_merged; the message keeps its place."""
    synic.post(MessagePort(), 4, 1)
    synic.now = 100
    for _ in range(3):
        synic.write(STIMER0, 0)
        synic.write(STIMER0 + 1, 50)
        synic.write(STIMER0, 1 | 4 << 16)
    assert (synic.count("timers_expired"), synic.count("timers_merged")) == (3, 2)
    synic.clear_slot(4)
    synic.eom()
    assert (synic.message_type(4), synic.more_pending(4)) == (0x80000010, False)


def test_each_reason_to_discard_has_its_counter(make_vp):
    """Port deleted, VP reset, second intercept of one VP, saved state, end of the intercepted VP."""
    vp, child = make_vp(), make_vp()
    ports = [MessagePort() for _ in range(2)]
    state = vp.chip.save()
    vp.post(ports[0], 2, 0)
    ports[0].discard()
    vp.intercept(child, 1)
    vp.intercept(child, 2)
    del child
    vp.post(ports[1], 2, 0)
    vp.chip.restore(state)
    vp.post(ports[1], 2, 0)
    vp.chip.reset()
    reasons = ("discarded_port", "overwritten", "discarded_vp", "discarded_restore", "discarded_reset")
    assert {reason: vp.count(f"messages_{reason}") for reason in reasons} == dict.fromkeys(reasons, 1)
    assert [port.free for port in ports] == [16, 16]


# Snapshots


def test_a_state_moves_to_another_controller(synic, make_vp):
    """Registers, pages, vectors and queues, in order; the first lets its messages go, the second has them."""
    port, source, target = MessagePort(), make_vp(), make_vp()
    for tag in range(4):
        synic.post(port, 2, tag)
    synic.intercept(source, 9)
    synic.chip.signal_event(sint=3, flag=5)
    assert synic.chip.acknowledge() == 0x43
    state = synic.chip.save([port], [source.chip])
    with pytest.raises(ValueError, match="no free buffer"):
        target.chip.restore(state)
    synic.chip.reset()
    target.chip.restore(state, [port], [source.chip])
    assert [target.read(SCONTROL + number) for number in (0, 2, 3)] == [1, 0x2001, 0x1001]
    assert (target.chip.in_service, target.events[3 * 256]) == (1 << 0x43, 32)
    seen = [target.tag(2)]
    while target.clear_slot(2):
        target.eom()
        seen.append(target.tag(2))
    assert seen == [0, 1, 2, 3]
    assert (target.tag(0), target.count("messages_restored"), port.free) == (9, 3, 16)


def test_states_are_checked(synic):
    port = MessagePort()
    synic.post(port, 2, 0)
    synic.post(port, 2, 1)
    with pytest.raises(ValueError, match="SINT2"):
        synic.chip.save()
    state = synic.chip.save([port])
    for wrong in (b"", state[:-1], state + b"\0", bytes(len(state))):
        with pytest.raises(ValueError, match="state"):
            synic.chip.restore(wrong, [port])
    with pytest.raises(ValueError, match="buffer"):
        synic.chip.restore(state[:-264] + struct.pack("<I", 16) + state[-260:], [port])
    assert (synic.tag(2), port.free) == (0, 15)


def test_a_damaged_state_harms_nothing(synic, make_vp):
    """Whatever stands in it: a ValueError that changed nothing, or a controller that goes on by its own rules."""
    rng = random.Random(SEED)
    port = MessagePort()
    for count in range(3):
        synic.post(port, 2, count)
    synic.chip.assert_interrupt(0x55)
    synic.chip.assert_interrupt(0x66, level=True)
    synic.chip.acknowledge()
    state = synic.chip.save([port])
    refused = 0
    for case in range(400):
        damaged = bytearray(state)
        for _ in range(rng.choice((1, 2, 20))):
            places = rng.randrange(2500), len(damaged) - 1 - rng.randrange(900), rng.randrange(len(damaged))
            damaged[rng.choice(places)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        other, room = make_vp(), MessagePort()
        before = other.chip.save([room])
        try:
            other.chip.restore(bytes(damaged), [room])
        except ValueError:
            refused += 1
            assert other.chip.save([room]) == before, (SEED, case)
            continue
        for now in (0, 10**6, 1 << 40, 1 << 62):
            other.chip.advance(now)
            other.chip.acknowledge()
            other.chip.acknowledge_nmi()
            other.chip.write_msr(EOI, 0, now)
            other.chip.write_msr(EOM, 0, now)
            if other.chip.apic.read_msr(0x1B) & 0xC00 == 0x800:     # IA32_APIC_BASE: there is a page
                for offset in range(0, 0x400, 16):
                    other.chip.apic.read(offset)
            other.chip.expire(now)
        other.chip.take_messages(sint=2, buffer=bytearray(8 * 256))
        other.chip.reset()
        assert other.chip.requested == other.chip.in_service == 0, (SEED, case)
    assert 0 < refused < 400


def test_a_direct_message_is_checked(synic):
    for wrong in (bytes(255), bytes(256), b"\x01\0\0\0\xf1".ljust(256, b"\0")):
        with pytest.raises(ValueError, match="message"):
            synic.chip.post_direct(sint=1, message=wrong)
    with pytest.raises(ValueError, match="sint"):
        synic.chip.post_direct(sint=16, message=bytes(256))
