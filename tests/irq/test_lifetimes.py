"""Ports and controllers share message buffers and die in any order: nothing dangles, every loss is counted."""
import gc
import random

import pytest

from hvcore._native.irqchip import InterruptController, MessagePort


def test_a_deleted_port_takes_its_messages_along(vp, make_vp):
    other, port, staying = make_vp(), MessagePort(), MessagePort()
    for tag in range(3):
        vp.post(port, 2, tag)
        vp.post(staying, 2, 10 + tag)
        other.post(port, 3, 20 + tag)
    assert port.discard() == 6
    assert (port.free, port.discard()) == (16, 0)
    assert vp.post(port, 2, 99)
    del port
    assert (vp.count("messages_discarded_port"), other.count("messages_discarded_port")) == (4, 3)
    vp.enable_synic()
    other.enable_synic()
    seen = [vp.tag(2)]
    while vp.clear_slot(2):
        vp.eom()
        seen.append(vp.tag(2))
    assert seen == [10, 11, 12]
    assert other.message_type(3) == 0


def test_reset_and_death_of_a_vp_give_the_buffers_back(vp, make_vp):
    other, port = make_vp(), MessagePort()
    for tag in range(8):
        vp.post(port, 2, tag)
        other.post(port, 2, tag)
    assert port.free == 0
    vp.chip.reset()
    assert (port.free, vp.count("messages_discarded_reset")) == (8, 8)
    del other
    assert port.free == 16


def test_pages_stay_alive_and_locked(vp):
    with pytest.raises(BufferError):
        vp.messages.extend(b"more")
    messages, events = bytearray(4096), bytearray(4096)
    del vp
    chip = InterruptController(apic_id=0, message_page=messages, event_page=events)
    del chip
    messages.extend(b"free again")


@pytest.mark.parametrize("seed", range(4))
def test_ports_and_controllers_die_in_any_order(make_vp, seed):
    print("seed", seed)
    rng = random.Random(seed)
    vps, ports = [make_vp() for _ in range(4)], [MessagePort() for _ in range(4)]
    for tag in range(6000):
        target = rng.choice(vps)
        match rng.randrange(12):
            case 0:
                vps[rng.randrange(4)] = make_vp()
            case 1:
                ports[rng.randrange(4)] = MessagePort()
            case 2:
                target.chip.reset()
            case 3:
                rng.choice(ports).discard()
            case 4:
                target.intercept(rng.choice(vps), tag)
            case 5:
                target.enable_synic()
                target.clear_slot(rng.randrange(16))
                target.eom()
            case 6 if tag % 50 == 0:
                gc.collect()
            case _:
                target.post(rng.choice(ports), rng.randrange(16), tag)
    target = None
    for dying in rng.sample([vps, ports], 2):
        rng.shuffle(dying)
        dying.clear()
