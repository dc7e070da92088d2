"""Calls E3 and E4, HvCallGetVpState and HvCallSetVpState (hyperv-abi.md 4.12, 10.4): statuses, images, and that a
processor that takes a state over goes on like the one that it is from."""

from struct import pack, pack_into, unpack_from

import numpy as np
import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF, UNKNOWN_ID
from interrupt_guest import busy_guest
from support import RAM, Guest

from hvcore.enums import Hypercall, RegisterName, Status, VpStateType
from hvcore.vp_states import LOCAL_APIC, SYNTHETIC_TIMERS

GET, SET = 0xE3, 0xE4
TIMERS, APIC, XSAVE, SIM, SIEF = 4, 0x8000_0000, 0x8000_0001, 0x8000_0002, 0x8000_0003
PAGES = (APIC, SIM, SIEF)
SCONTROL, SIEFP, SIMP, SINT0, STIMER0 = 0x40000080, 0x40000082, 0x40000083, 0x40000090, 0x400000B0
PERIODIC, DIRECT, ENABLE = 2, 1 << 12, 1
IMAGE_BYTES = 200


@pytest.fixture
def child(machine):
    return machine.child(vps=2, deposit=200)


def head(partition, kind, vp=0, vtl=0):
    """The 40 bytes in front of the page list or the image."""
    return pack("<QIB3xIIQQ", partition, vp, vtl, kind, 0, 0, 0)


def ask(caller, code, kind, *, partition, tail=b"", vp=0, vtl=0):
    return caller.hypercall(code, head(partition, kind, vp, vtl) + tail)


def get(machine, child, kind, *, vp=0):
    """The image, by a page of the root or the output."""
    if kind == TIMERS:
        result = ask(machine.root, GET, kind, partition=child.id, vp=vp)
        assert result.status is Status.SUCCESS and len(result.output) == IMAGE_BYTES
        return result.output
    (page,) = machine.pages(1)
    machine.memory.write(page << 12, b"\xa5" * 4096)
    result = ask(machine.root, GET, kind, partition=child.id, vp=vp, tail=pack("<Q", page))
    assert (result.status, result.output) == (Status.SUCCESS, b"")
    image = machine.memory.read(page << 12, 4096)
    if kind == APIC:
        assert image[176:] == b"\xa5" * (4096 - 176), "behind the image the page is left alone"
        return image[:176]
    return image


def put(machine, child, kind, image, *, vp=0):
    if kind == TIMERS:
        return ask(machine.root, SET, kind, partition=child.id, vp=vp, tail=image).status
    (page,) = machine.pages(1)
    machine.memory.write(page << 12, image.ljust(4096, b"\xff"))
    return ask(machine.root, SET, kind, partition=child.id, vp=vp, tail=pack("<Q", page)).status


# Statuses


@pytest.mark.parametrize("code", [GET, SET])
@pytest.mark.parametrize("kind", [TIMERS, *PAGES])
def test_who_may_ask_for_whom(machine, child, code, kind):
    """As GetVpRegisters: ids (D), relation (6), state (7), VTL (5, 51), index (E)."""
    (page,) = machine.pages(1)
    tail = pack("<Q", page) if kind in PAGES else bytes(IMAGE_BYTES) if code == SET else b""

    def status(partition, caller=machine.root, **options):
        return ask(caller, code, kind, partition=partition, tail=tail, **options).status

    if code == GET or kind != APIC:
        assert status(child.id) is Status.SUCCESS
    assert status(UNKNOWN_ID) is Status.INVALID_PARTITION_ID
    assert status(child.id, machine.child()) is Status.ACCESS_DENIED
    assert status(SELF, child) is Status.ACCESS_DENIED, "not without AccessVpRegisters"
    assert status(child.id, vp=2) is Status.INVALID_VP_INDEX
    assert status(child.id, vtl=0x20) is Status.INVALID_PARAMETER
    assert status(child.id, vtl=0x11) is Status.INVALID_VTL_STATE
    assert status(machine.created().id) is Status.INVALID_PARTITION_STATE


@pytest.mark.parametrize("code", [GET, SET])
def test_types_and_page_lists(machine, child, code):
    """What is not one of the four types is 5, XSAVE among them; pages must be the caller's, with the right to them."""
    (page,) = machine.pages(1)
    mine = pack("<Q", page)
    for kind in (0, 1, 3, 5, XSAVE, 0x8000_0004, 0xFFFF_FFFF):
        assert ask(machine.root, code, kind, partition=child.id, tail=mine).status is Status.INVALID_PARAMETER, kind
    for kind in PAGES:
        for bad in (b"", pack("<Q", 1 << 52), pack("<Q", 0xFFFF_FFFF_FFFF_FFFF), pack("<Q", 1 << 30)):
            assert ask(machine.root, code, kind, partition=child.id, tail=bad).status is Status.INVALID_PARAMETER
    machine.deposit(machine.root, 1)
    deposited = next(iter(machine.root.deposits))
    assert ask(machine.root, code, SIM, partition=child.id, tail=pack("<Q", deposited)).status == 5
    for size in (0, 8, 192, 208):
        if code == SET or size:
            tail = bytes(size)
            assert ask(machine.root, code, TIMERS, partition=child.id, tail=tail).status is Status.INVALID_PARAMETER


def test_a_guest_parent_and_rights_to_its_pages(machine):
    """Page numbers are of the caller's own space; a page that it cannot write takes no image."""
    parent, grandchild = machine.parent_and_grandchild()
    assert ask(parent, GET, SIM, partition=grandchild.id, tail=pack("<Q", 3)).status is Status.INVALID_PARTITION_STATE
    (read_only,) = machine.pages(1)
    machine.call(Hypercall.MAP_GPA_PAGES, "QQII", parent.id, 100, 1, 0, elements=[read_only])
    machine.deposit(parent, 40)
    machine.call(Hypercall.CREATE_VP, "QI3xBQQQ", parent.id, 0, 0, 0, 0, 0)
    for kind in PAGES:
        assert ask(parent, GET, kind, partition=SELF, tail=pack("<Q", 100)).status is Status.INVALID_PARAMETER
        assert ask(parent, GET, kind, partition=SELF, tail=pack("<Q", 3)).status is Status.SUCCESS
        assert ask(parent, SET, kind, partition=SELF, tail=pack("<Q", 3)).status is Status.SUCCESS
    for kind in (SIM, SIEF):
        assert ask(parent, SET, kind, partition=SELF, tail=pack("<Q", 100)).status is Status.SUCCESS


# Images


def test_pages_hold_what_the_guest_has_there(machine, child):
    """SIM and SIEF page, also while the registers keep them disabled."""
    for kind, name in ((SIM, "message_page"), (SIEF, "event_page")):
        content = bytes(range(256)) * 16
        assert put(machine, child, kind, content, vp=1) is Status.SUCCESS
        assert bytes(machine.memory.page(getattr(child.frames[1], name))) == content
        assert get(machine, child, kind, vp=1) == content
        assert get(machine, child, kind) == bytes(4096), "each processor has its own"


def test_the_image_of_the_local_apic(machine, child):
    """10.4: words in order, the current count among them; taken over by another processor."""
    one, two = (child.vps[index].interrupts for index in range(2))
    apic = one.apic
    registers = ((0xF0, 0x1FF), (0xD0, 0x0800_0000), (0x3E0, 0xB), (0x320, 0x20050), (0x380, 1000), (0x360, 0x400))
    for offset, value in registers:
        apic.write(offset, value)
    one.assert_interrupt(0x93)
    one.assert_interrupt(0x41, level=True)
    assert one.acknowledge() == 0x93
    apic.read(0x3F0)
    image = np.frombuffer(get(machine, child, APIC), LOCAL_APIC)[0]
    words = {name: int(image[name]) for name in LOCAL_APIC.names if image[name].ndim == 0}
    expected = {"version": 0x01060014, "ldr": 0x0800_0000, "dfr": 0xFFFF_FFFF, "spurious": 0x1FF, "divide": 0xB,
                "lvt_timer": 0x20050, "lvt_lint1": 0x400, "lvt_error": 0x10000, "initial_count": 1000,
                "counter_value": 1000, "esr": 0, "error_status": 0x80}  # fmt: skip
    assert {name: words[name] for name in expected} == expected
    assert [list(np.flatnonzero(image[name])) for name in ("isr", "tmr", "irr")] == [[4], [2], [2]]
    assert put(machine, child, APIC, image.tobytes(), vp=1) is Status.SUCCESS
    assert get(machine, child, APIC, vp=1)[4:] == image.tobytes()[4:], "all but the id, which is its own"
    assert (two.in_service, two.requested, two.level_triggered) == (1 << 0x93, 1 << 0x41, 1 << 0x41)
    assert two.apic.next_event is not None and two.apic.read(0x20) == 1 << 24


@pytest.mark.parametrize(
    ("word", "value"),
    [(1, 0x14), (2, 1), (3, 0), (4, 0x400), (5, 1 << 15), (13, 1), (21, 0x8000), (29, 0x100), (31, 1 << 13), (30, 1),
     (31, 1 << 20), (32, 1 << 19), (33, 0x50), (37, 0x10100), (38, 1 << 14), (39, 1 << 31), (41, 1), (42, 4)],
)  # fmt: skip
def test_images_of_no_apic(machine, child, word, value):
    """Version, reserved bits, vectors below 16, an unmasked entry of a disabled APIC, a count without its start."""
    child.vps[0].interrupts.assert_nmi()
    before = get(machine, child, APIC)
    image = bytearray(before)
    pack_into("<I", image, 4 * word, value)
    assert put(machine, child, APIC, bytes(image)) is Status.INVALID_PARAMETER
    assert get(machine, child, APIC) == before
    assert put(machine, child, APIC, before) is Status.SUCCESS


def test_auto_eoi_survives(machine, child):
    """An image of IRR does not say which requests need no EOI: the SINTs do."""
    source, target = (child.vps[index].interrupts for index in range(2))
    for controller in (source, target):
        for msr, value in ((SCONTROL, 1), (SIMP, 0x8001), (SIEFP, 0x9001), (SINT0 + 3, 0x200F3)):
            assert controller.write_msr(msr, value, 0)
        controller.apic_enabled = True
    assert source.signal_event(sint=3, flag=1)
    put(machine, child, APIC, get(machine, child, APIC), vp=1)
    assert target.acknowledge() == 0xF3
    assert target.in_service == 0


def test_a_promise_is_not_in_an_image(machine, child):
    """10.3: whoever takes the state over has another assist page, so the guest is to write an EOI."""
    vp = child.vps[0]
    vp.interrupts.apic_enabled = vp.interrupts.assist_enabled = True
    vp.interrupts.assert_interrupt(0x50)
    vp.interrupts.acknowledge()
    page = machine.memory.page(child.frames[0].assist_page)
    assert page[0] == 1
    image = np.frombuffer(get(machine, child, APIC), LOCAL_APIC)[0]
    assert (page[0], int(image["isr"][2])) == (0, 1 << 16)
    vp.interrupts.write_msr(0x40000070, 0, 0)
    assert vp.interrupts.in_service == 0
    vp.interrupts.assert_interrupt(0x60)
    vp.interrupts.acknowledge()
    assert page[0] == 1
    assert put(machine, child, APIC, image.tobytes()) is Status.SUCCESS
    assert (page[0], vp.interrupts.in_service) == (0, 1 << 0x50)


def test_the_image_of_the_timers(machine, child):
    """Configuration, count, the next expiry of a period, and a message that waits for its slot."""
    source, target = (child.vps[index].interrupts for index in range(2))
    for controller in (source, target):
        assert all(controller.write_msr(msr, value, 0) for msr, value in ((SCONTROL, 1), (SIMP, 0x8001)))
        assert controller.write_msr(SINT0 + 4, 0x10044, 0)
    for timer, config, count in ((0, PERIODIC | DIRECT | 0x50 << 4, 70), (1, 4 << 16, 55), (2, 4 << 16, 60),
                                 (3, 8 | DIRECT | 0x60 << 4, 0)):  # fmt: skip
        assert source.write_msr(STIMER0 + 2 * timer + 1, count, 30)
        assert source.write_msr(STIMER0 + 2 * timer, config | (timer < 3), 30)
    source.expire(65)
    image = np.frombuffer(get(machine, child, TIMERS), SYNTHETIC_TIMERS)[0]
    assert [tuple(int(value) for value in timer) for timer in image["timers"]] == [
        (0, 0, PERIODIC | DIRECT | 0x50 << 4 | 1, 70, 100, 0),
        (0, 0, 4 << 16, 55, 0, 0),
        (1, 0, 4 << 16, 60, 0, 60),
        (0, 0, 8 | DIRECT | 0x60 << 4, 0, 0, 0),
    ]
    assert not image["reserved"].any()
    put(machine, child, SIM, get(machine, child, SIM), vp=1)
    assert put(machine, child, TIMERS, image.tobytes(), vp=1) is Status.SUCCESS
    assert get(machine, child, TIMERS, vp=1) == image.tobytes()
    assert (target.next_deadline(), target.counters()["messages_restored"]) == (100, 1)
    page = machine.memory.page(child.frames[1].message_page)
    page[4 * 256 : 4 * 256 + 4] = bytes(4)
    target.write_msr(0x40000084, 0, 80)
    assert unpack_from("<IB3xQIIQQ", page, 4 * 256) == (0x8000_0010, 24, 0, 2, 0, 60, 80)
    assert put(machine, child, TIMERS, image.tobytes(), vp=1) is Status.SUCCESS
    assert put(machine, child, TIMERS, bytes(IMAGE_BYTES), vp=1) is Status.SUCCESS
    assert target.counters()["messages_discarded_restore"] == 1 and target.next_deadline() is None


def test_a_period_without_adjustment_begins_when_it_is_set(machine, child):
    now = child.reference_time
    image = pack("<IIQQQQ", 0, 0, PERIODIC | DIRECT | 0x50 << 4 | 1, 70, 0, 0).ljust(IMAGE_BYTES, b"\0")
    assert put(machine, child, TIMERS, image) is Status.SUCCESS
    assert child.vps[0].interrupts.next_deadline() == now + 70
    image = pack("<IIQQQQ", 0, 0, DIRECT | 0x50 << 4 | 1, 0, 0, 0).ljust(IMAGE_BYTES, b"\0")
    assert put(machine, child, TIMERS, image) is Status.SUCCESS, "enabled without a count: not armed"
    assert child.vps[0].interrupts.next_deadline() is None


@pytest.mark.parametrize(
    ("undelivered", "config"),
    [(0, 1 << 13), (0, 1 << 20), (0, DIRECT | 0xF0), (0, ENABLE), (1, 0), (1, DIRECT | 0x500), (2, 4 << 16)],
)
@pytest.mark.parametrize("timer", [0, 3])
def test_images_of_no_timers(machine, child, timer, undelivered, config):
    before = get(machine, child, TIMERS)
    image = bytearray(before)
    pack_into("<IIQQQQ", image, 40 * timer, undelivered, 0, config, 5, 0, 0)
    pack_into("<IIQQQQ", image, 40, 0, 0, 4 << 16 | 1, 500, 0, 0)
    assert put(machine, child, TIMERS, bytes(image)) is Status.INVALID_PARAMETER
    assert get(machine, child, TIMERS) == before, "none of the four was set"


def test_typed_ways(machine, child):
    """VirtualProcessor.read_state and write_state are the same images."""
    vp, other = child.vps[0], child.vps[1]
    for kind in VpStateType:
        image = vp.read_state(kind)
        assert image == get(machine, child, int(kind))
        other.write_state(kind, bytearray(image))
        with pytest.raises(ValueError, match="image"):
            vp.write_state(kind, image + b"\0")
        with pytest.raises(TypeError, match="image"):
            vp.write_state(kind, "x" * len(image))
    with pytest.raises(ValueError, match="2147483649"):
        vp.read_state(XSAVE)


# Guests


def test_guest_code_reads_the_state_of_its_own_processor():
    """By its hypercall page: an image in a page, R8 not looked at; and one in the output."""
    guest = Guest(privileges=ALL_PRIVILEGES)
    call = "48b9" + pack("<Q", GET | 1 << 17).hex() + "48c7c200000a00 49c7c001000000 0f01c1 4989c4"
    timers = "48b9" + pack("<Q", GET).hex() + "48c7c200100a00 49c7c000200a00 0f01c1 4989c5"
    guest.load("b900000040 ba00000081 31c0 0f30 b901000040 31d2 b801000b00 0f30", call, timers, "f4")
    guest.write(0xA0000, head(SELF, APIC, 0xFFFF_FFFE) + pack("<Q", 0xA3))
    guest.write(0xA1000, head(SELF, TIMERS, 0xFFFF_FFFE))
    guest.write(0xA2000, b"\xff" * 208)
    guest.vp.interrupts.write_msr(STIMER0 + 1, 12345, 0)
    assert type(guest.vp.run(max_instructions=100)).__name__ == "Halt"
    assert (guest.vp.r12, guest.vp.r13) == (0, 0)
    assert unpack_from("<5I", guest.ram[0xA3000:0xA3020]) == (0, 0x01060014, 0, 0xFFFF_FFFF, 0x1FF)
    assert unpack_from("<QQQ", guest.ram[0xA2000:0xA2020]) == (0, 0, 12345)
    assert guest.read(0xA2000 + 200, 8) == (1 << 64) - 1


_COPIED = [
    *range(0x20000, 0x20012), *range(0x40000, 0x40005), *range(0x60000, 0x60008), 0x70000, 0x70001, 0x80001, 0x80004,
    RegisterName.INTERRUPT_STATE, RegisterName.GUEST_OS_ID, RegisterName.SCONTROL, RegisterName.SIEFP,
    RegisterName.SIMP, *(RegisterName.SINT0 + sint for sint in range(16)),
]  # fmt: skip


def move(source, target):
    """What a parent does: memory, registers, time, then the four images."""
    target.write(0, bytes(source.ram[0:RAM]))
    roots = source.hypervisor.root, target.hypervisor.root
    names = b"".join(pack("<I", name) for name in _COPIED)
    read = roots[0].hypercall(Hypercall.GET_VP_REGISTERS, pack("<QIB3x", source.partition.id, 0, 0) + names)
    assert read.status is Status.SUCCESS
    values = [read.output[16 * at : 16 * at + 16] for at in range(len(_COPIED))]
    elements = b"".join(pack("<I12x16s", *pair) for pair in zip(_COPIED, values, strict=True))
    written = roots[1].hypercall(Hypercall.SET_VP_REGISTERS, pack("<QIB3x", target.partition.id, 0, 0) + elements)
    assert written.status is Status.SUCCESS, (written, hex(_COPIED[written.reps_completed]))
    time = pack("<QIIQQ", target.partition.id, 0, 0, source.partition.reference_time, 0)
    assert roots[1].hypercall(Hypercall.RESTORE_PARTITION_TIME, time).status is Status.SUCCESS
    for kind in (TIMERS, SIM, SIEF, APIC):
        target.vp.write_state(kind, source.vp.read_state(kind))


@pytest.mark.parametrize("seed", range(4))
def test_another_processor_goes_on_equally(seed):
    """Timers of both modes, messages that wait, IPIs, a TPR, halts: two guests that cannot be told apart."""
    print("seed", seed)
    source = busy_guest(seed)
    now = 20_000 + 700 * seed
    while now % 100 or source.vp.internal_activity_state or source.hypervisor.scheduler.now < 20_000:
        source.vp.run(max_instructions=100 - now % 100 if now % 100 else 100)
        now = source.hypervisor.scheduler.now
    target = Guest(privileges=0xFFFF)
    move(source, target)
    before = [vp.interrupts.counters() for vp in (source.vp, target.vp)]
    for length in (1, 99, 900, 7_000, 30_000):
        for guest in (source, target):
            guest.vp.run(max_instructions=length)
        assert source.vp.registers() == target.vp.registers()
        for kind in VpStateType:
            assert source.vp.read_state(kind) == target.vp.read_state(kind), kind
        assert source.partition.reference_time == target.partition.reference_time
    assert source.ram[0:RAM] == target.ram[0:RAM]
    after = [vp.interrupts.counters() for vp in (source.vp, target.vp)]
    for name in ("interrupts_delivered", "messages_delivered", "timers_expired"):
        done = [late[name] - early[name] for early, late in zip(before, after, strict=True)]
        assert done[0] == done[1] > 5, name
