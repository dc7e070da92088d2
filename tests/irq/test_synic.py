"""SynIC: registers, delivery, back-pressure, intercepts and event flags, against digest 9 and 13."""
import struct

import pytest

from hvcore._native.irqchip import MessagePort

SCONTROL, SVERSION, SIEFP, SIMP, EOM, SINT0 = 0x40000080, 0x40000081, 0x40000082, 0x40000083, 0x40000084, 0x40000090
MASKED, AUTO_EOI, POLLING = 1 << 16, 1 << 17, 1 << 18


# Registers

def test_reset_values(vp):
    for _ in range(2):
        assert [vp.read(register) for register in (SCONTROL, SIEFP, SIMP, EOM)] == [0] * 4
        assert vp.read(SVERSION) == 1
        assert [vp.read(SINT0 + sint) for sint in range(16)] == [MASKED] * 16
        assert not vp.chip.accepts_messages and not vp.chip.accepts_events
        assert not any(vp.messages) and not any(vp.events)
        vp.enable_synic()
        vp.set_sint(2, 0xF3)
        vp.post(MessagePort(), 2, 1)
        vp.chip.signal_event(sint=2, flag=9)
        vp.chip.reset()


def test_reserved_bits_are_kept(vp):
    for register in (SCONTROL, SIEFP, SIMP):
        vp.write(register, 0xFFFFFFFF_FFFFFFFE)
        assert vp.read(register) == 0xFFFFFFFF_FFFFFFFE
    assert not vp.chip.accepts_messages
    vp.set_sint(3, 0xFFFFFFFF_FFF000F3)
    assert vp.read(SINT0 + 3) == 0xFFFFFFFF_FFF000F3


def test_version_is_read_only(vp):
    assert vp.chip.write_msr(SVERSION, 1, 0) is False


@pytest.mark.parametrize(("value", "accepted"), [
    (0, False), (15, False), (AUTO_EOI | 15, False), (16, True), (0xFF, True), (0x200F3, True), (0xF3, True),
    (MASKED, True), (MASKED | 15, True), (POLLING, True), (MASKED | POLLING, True)])
def test_sint_vectors_below_16_fault_only_where_they_could_be_raised(vp, value, accepted):
    vp.set_sint(5, 0x20)
    assert vp.chip.write_msr(SINT0 + 5, value, 0) is accepted
    assert vp.read(SINT0 + 5) == (value if accepted else 0x20)


@pytest.mark.parametrize(("control", "page", "accepts"), [(0, 0, False), (0, 1, False), (1, 0, False), (1, 1, True)])
def test_synic_and_page_are_both_needed(vp, control, page, accepts):
    vp.write(SCONTROL, control)
    vp.write(SIMP, page | 0x5000)
    vp.write(SIEFP, page | 0x6000)
    vp.set_sint(1, 0x20)
    assert (vp.chip.accepts_messages, vp.chip.accepts_events) == (accepts, accepts)
    assert vp.chip.signal_event(sint=1, flag=0) is (True if accepts else None)


# Messages

def test_layout_of_a_slot(synic):
    payload = bytes(range(1, 241))
    assert synic.chip.post_message(MessagePort(), sint=4, message_type=0x12345678, sender=0xABCDEF, payload=payload)
    assert synic.slot(4) == struct.pack("<IBBHQ", 0x12345678, 240, 0, 0, 0xABCDEF) + payload
    assert synic.chip.pending_vector() == 0x44


def test_a_short_message_leaves_nothing_of_a_longer_one(synic):
    port = MessagePort()
    synic.chip.post_message(port, sint=4, message_type=1, sender=0, payload=b"\xFF" * 240)
    synic.clear_slot(4)
    synic.chip.post_message(port, sint=4, message_type=2, sender=0, payload=b"")
    assert synic.slot(4) == struct.pack("<IBBHQ", 2, 0, 0, 0, 0) + bytes(240)


def test_order_and_the_pending_flag(synic):
    port = MessagePort()
    for tag in range(4):
        assert synic.post(port, 2, tag)
    assert port.free == 13      # the first is in its slot, its buffer free again
    for tag in range(4):
        assert (synic.message_type(2), synic.tag(2)) == (1, tag)
        assert synic.more_pending(2) == (tag < 3)
        if synic.clear_slot(2):
            synic.eom()
    assert synic.message_type(2) == 0
    assert port.free == 16


def test_sixteen_buffers_then_refused(vp):
    port, other = MessagePort(), MessagePort()
    assert [vp.post(port, 2, tag) for tag in range(17)] == [True] * 16 + [False]
    assert vp.post(other, 2, 16)
    assert (port.free, other.free, vp.count("messages_refused")) == (0, 15, 1)
    vp.enable_synic()           # enabling is a retry
    assert (vp.tag(2), port.free) == (0, 1)
    assert vp.post(port, 2, 17)


@pytest.mark.parametrize("retry", ["eom", "eoi", "post", "simp", "scontrol"])
def test_what_makes_a_waiting_message_move(synic, retry):
    port = MessagePort()
    synic.post(port, 2, 0)
    synic.post(port, 2, 1)
    synic.clear_slot(2)
    assert synic.message_type(2) == 0
    match retry:
        case "eom" | "eoi":
            getattr(synic, retry)()
        case "post":
            synic.post(port, 9, 2)      # another SINT of the same VP
        case "simp":
            synic.write(SIMP, 0)
            synic.eom()
            assert synic.message_type(2) == 0
            synic.write(SIMP, 1)
        case "scontrol":
            synic.write(SCONTROL, 0)
            synic.eoi()
            assert synic.message_type(2) == 0
            synic.write(SCONTROL, 1)
    assert synic.tag(2) == 1


def test_one_scan_serves_every_sint(synic):
    port = MessagePort()
    for sint in range(8):
        synic.post(port, sint, sint)
        synic.post(port, sint, 100 + sint)
    for sint in range(8):
        synic.clear_slot(sint)
    synic.eom()
    assert [synic.tag(sint) for sint in range(8)] == list(range(100, 108))


def test_a_masked_sint_gets_its_message_without_an_interrupt(synic):
    synic.set_sint(2, 0x42 | MASKED)
    assert synic.chip.sint_masked(2)
    synic.post(MessagePort(), 2, 5)
    assert synic.tag(2) == 5
    assert (synic.chip.requested, synic.count("interrupts_masked")) == (0, 1)


def test_a_polling_sint_accepts_without_an_interrupt(synic):
    synic.set_sint(2, POLLING)
    assert not synic.chip.sint_masked(2)
    synic.post(MessagePort(), 2, 5)
    assert synic.chip.signal_event(sint=2, flag=1) is True
    assert (synic.tag(2), synic.chip.requested, synic.count("interrupts_polled")) == (5, 0, 2)
    synic.set_sint(2, POLLING | MASKED)
    assert synic.chip.signal_event(sint=2, flag=2) is None


def test_a_disabled_apic_loses_the_interrupt_and_not_the_message(synic):
    synic.chip.apic_enabled = False
    synic.post(MessagePort(), 2, 5)
    assert (synic.tag(2), synic.chip.requested, synic.count("interrupts_lost")) == (5, 0, 1)


def test_auto_eoi_leaves_nothing_in_service(synic):
    synic.set_sint(2, 0xF3 | AUTO_EOI)
    port = MessagePort()
    synic.post(port, 2, 0)
    assert synic.chip.acknowledge() == 0xF3
    assert (synic.chip.in_service, synic.count("eois")) == (0, 0)
    # An interrupt in flight keeps the rule that it was raised with.
    synic.clear_slot(2)
    synic.post(port, 2, 1)
    synic.set_sint(2, 0xF3)
    assert synic.chip.acknowledge() == 0xF3
    assert synic.chip.in_service == 0
    synic.clear_slot(2)
    synic.post(port, 2, 2)
    assert synic.chip.acknowledge() == 0xF3
    assert synic.chip.in_service == 1 << 0xF3


def test_two_sints_may_share_a_vector(synic):
    synic.set_sint(2, 0xF3)
    synic.set_sint(3, 0xF3 | AUTO_EOI)
    port = MessagePort()
    synic.post(port, 2, 0)
    synic.post(port, 3, 0)
    assert synic.count("interrupts_merged") == 1
    assert synic.chip.acknowledge() == 0xF3
    assert synic.chip.in_service == 0       # a handler behind an auto-EOI SINT sends no EOI
    assert synic.chip.pending_vector() is None


# Intercepts

def test_one_buffer_per_intercepted_vp(synic, make_vp):
    first, second = make_vp(), make_vp()
    synic.write(SIMP, 0)
    synic.intercept(first, 1)
    synic.intercept(second, 2)
    synic.intercept(first, 3)      # replaces 1, at the tail
    assert synic.count("messages_overwritten") == 1
    synic.write(SIMP, 1)
    seen = [synic.tag(0)]
    while synic.clear_slot(0):
        synic.eom()
        seen.append(synic.tag(0))
    assert seen == [2, 3]
    assert struct.unpack_from("<IBBHQ", synic.slot(0)) == (0, 8, 0, 0, 3)


def test_an_intercept_moves_to_another_vp_of_the_parent(make_vp):
    here, there, child = make_vp(), make_vp(), make_vp()
    here.intercept(child, 1)
    there.intercept(child, 2)
    here.enable_synic()
    there.enable_synic()
    assert (here.message_type(0), there.tag(0)) == (0, 2)
    assert (here.count("messages_overwritten"), there.count("messages_overwritten")) == (1, 0)


def test_a_reset_child_leaves_its_message_and_a_dead_one_takes_it_along(vp, make_vp):
    children = [make_vp(), make_vp()]
    for tag, child in enumerate(children):
        vp.intercept(child, tag)
        child.chip.reset()
    del child, children[0]
    vp.enable_synic()
    assert vp.tag(0) == 1
    assert (vp.count("messages_discarded_vp"), vp.count("messages_delivered")) == (1, 1)


# Event flags

def test_event_flags(synic):
    for flag in (0, 7, 8, 2047):
        assert synic.chip.signal_event(sint=3, flag=flag) is True
    expected = bytearray(4096)
    expected[3 * 256], expected[3 * 256 + 1], expected[3 * 256 + 255] = 0x81, 1, 0x80
    assert synic.events == expected
    assert synic.chip.acknowledge() == 0x43
    synic.eoi()
    assert synic.chip.signal_event(sint=3, flag=8) is False     # still set: success, no interrupt
    assert synic.chip.requested == 0
    synic.set_sint(3, 0x43 | MASKED)
    assert synic.chip.signal_event(sint=3, flag=9) is None
    assert synic.events == expected
    assert [synic.count(f"events_{what}") for what in ("signaled", "merged", "refused")] == [4, 1, 1]


def test_misuse_names_the_argument(synic):
    good = {"sint": 1, "message_type": 1, "sender": 0, "payload": b""}
    for name, bad in (("sint", 16), ("sint", -1), ("message_type", 0), ("message_type", 1 << 32), ("sender", -1),
                      ("sender", 1 << 64), ("payload", bytes(241)), ("payload", "text"), ("sint", 1.0)):
        with pytest.raises((ValueError, TypeError), match=name):
            synic.chip.post_message(MessagePort(), **good | {name: bad})
    with pytest.raises(ValueError, match="flag"):
        synic.chip.signal_event(sint=1, flag=2048)
    with pytest.raises(TypeError, match="source"):
        synic.chip.post_intercept(None, message_type=1, sender=0, payload=b"")
