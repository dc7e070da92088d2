"""Calls 7C, 7D and 7E for interrupts of the I/O APIC: source 2, device type 2 (hyperv-abi.md 4.11).

What the entry is for is what Linux's root partition does with it: vector, delivery mode, destination mode, format and
handle of the answer go into the pin's redirection entry, with mask, trigger and polarity of its own.
"""

from struct import pack, unpack_from

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF

from hvcore.enums import Hypercall, Status

IOAPIC = 2 << 62
PCI = 1 << 62 | 0x18
EDGE, LEVEL, MULTICAST, PROCESSOR_SET = 0, 1, 1, 2
ENTRY_LEVEL, ENTRY_MASKED, REMOTE_IRR, REMAPPABLE = 1 << 15, 1 << 16, 1 << 14, 1 << 48
TIMER_PIN, PIN = 2, 9
MAP = "QQIIIIIIIIIIIIQ"
EOI = 0x4000_0070
CODE, STACK, IDT, HANDLER = 0x10_0000, 0x20_0000, 0x30_0000, 0x31_0000


@pytest.fixture
def child(machine):
    child = machine.child(vps=3, privileges=ALL_PRIVILEGES)
    for vp in [*child.vps.values(), *machine.root.vps.values()]:
        vp.interrupts.apic_enabled = True
    return child


def map_pin(machine, target, *, vector=0x60, flags=0, mask=1, trigger=EDGE, device=IOAPIC, source=0, count=1, **more):
    """The source and the entry of the answer; the input's entry is zero, as Linux leaves it."""
    words = (target, device, 0, 0, source, 0, 0, 0, 0, trigger, count, 0, vector, flags, mask)
    output = machine.call(Hypercall.MAP_DEVICE_INTERRUPT, MAP, *words, **more)
    return unpack_from("<I4xQ", output) if output else (None, None)


def unmap_pin(machine, target, entry, *, device=IOAPIC, source=2, **more):
    machine.call(Hypercall.UNMAP_DEVICE_INTERRUPT, "QQIIQII", target, device, source, 0, entry, 0, 0, **more)


def retarget(machine, entry, vector, *, mask=1, flags=0, device=IOAPIC, source=2, **more):
    words = (SELF, device, source, 0, entry, 0, vector, flags, mask)
    machine.call(Hypercall.RETARGET_DEVICE_INTERRUPT, "QQIIQQIIQ", *words, **more)


def program(machine, pin, entry):
    platform = machine.root.platform
    platform.write_register(0x11 + 2 * pin, entry >> 32)
    platform.write_register(0x10 + 2 * pin, entry & 0xFFFF_FFFF)


def requested(partition):
    return [vp.interrupts.requested.bit_length() - 1 for _, vp in sorted(partition.vps.items())]


def take(vp, vector):
    """What delivery through the IDT does."""
    assert vp.interrupts.acknowledge() == vector


def end(vp):
    vp.interrupts.write_msr(EOI, 0, 0)


def test_the_entry_is_what_the_root_programs(machine, child):
    source, entry = map_pin(machine, machine.root.id, vector=0x61, mask=0b10)
    assert source == 2
    assert entry & 0xFF == 0x61 and entry & REMAPPABLE
    assert not entry & (0x700 | REMOTE_IRR | 1 << 13), "delivery mode fixed; the polarity is the guest's own"
    assert not entry & ENTRY_LEVEL
    program(machine, PIN, entry)
    assert machine.root.platform.entries[PIN] == entry, "a mapped entry is read back whole"
    machine.root.platform.pulse(PIN)
    assert requested(machine.root) == [-1, 0x61]
    other = map_pin(machine, machine.root.id, vector=0x61, trigger=LEVEL)[1]
    assert other & ENTRY_LEVEL and other >> 48 != entry >> 48


def test_a_processor_set_and_multicast(machine, child):
    """Linux names the target as a set: format 0, valid banks, banks."""
    entry = map_pin(machine, child.id, flags=PROCESSOR_SET | MULTICAST, mask=0, elements=[1, 0b110])[1]
    program(machine, PIN, entry)
    machine.root.platform.pulse(PIN)
    assert requested(child) == [-1, 0x60, 0x60]
    assert requested(machine.root) == [-1, -1]


def test_of_several_targets_the_one_of_lowest_priority_receives(machine, child):
    child.vps[0].interrupts.assert_interrupt(0x80)
    take(child.vps[0], 0x80)
    program(machine, PIN, map_pin(machine, child.id, mask=0b111)[1])
    machine.root.platform.pulse(PIN)
    assert requested(child) == [-1, 0x60, -1]


def test_retargeting_moves_the_pin_and_not_its_entry(machine, child):
    entry = map_pin(machine, machine.root.id)[1]
    program(machine, PIN, entry | ENTRY_LEVEL)
    retarget(machine, entry | ENTRY_LEVEL | ENTRY_MASKED, 0x72, mask=0b10)
    machine.root.platform.pulse(PIN)
    assert requested(machine.root) == [-1, 0x72]
    assert machine.root.platform.entries[PIN] & ~REMOTE_IRR == entry | ENTRY_LEVEL


def test_an_entry_that_the_root_chose_is_retargeted_too(machine, child):
    """As for messages: a caller names what its entry holds. Until then the entry says where it goes."""
    program(machine, PIN, 0x41)
    machine.root.platform.pulse(PIN)
    assert requested(machine.root) == [0x41, -1]
    retarget(machine, 0x41, 0x42, mask=0b10)
    machine.root.platform.pulse(PIN)
    assert requested(machine.root) == [0x41, 0x42]


def test_a_level_waits_for_the_eoi_of_the_vector_that_was_delivered(machine, child):
    """Remote IRR stays set from acceptance to EOI; a line that is still up comes again (82093AA, 3.2.4)."""
    platform, vp = machine.root.platform, machine.root.vps[1]
    entry = map_pin(machine, machine.root.id, trigger=LEVEL)[1]
    program(machine, PIN, entry)
    retarget(machine, entry, 0x90, mask=0b10)
    platform.set_pin(PIN, True)
    assert platform.entries[PIN] & REMOTE_IRR
    assert vp.interrupts.level_triggered >> 0x90 & 1
    take(vp, 0x90)
    machine.root.vps[0].interrupts.assert_interrupt(0x60, level=True)
    take(machine.root.vps[0], 0x60)
    end(machine.root.vps[0])
    assert platform.pin_counters(PIN)["eois"] == 0, "an EOI of the entry's vector ends nothing that was not sent"
    end(vp)
    assert platform.pin_counters(PIN) == {**platform.pin_counters(PIN), "eois": 1, "delivered": 2}
    assert vp.interrupts.requested == 1 << 0x90, "the line is still up"
    platform.set_pin(PIN, False)
    take(vp, 0x90)
    end(vp)
    assert not platform.entries[PIN] & REMOTE_IRR
    assert requested(machine.root) == [-1, -1]


def test_a_level_on_its_way_is_ended_where_it_went(machine, child):
    platform = machine.root.platform
    entry = map_pin(machine, machine.root.id, vector=0x60, trigger=LEVEL)[1]
    program(machine, PIN, entry)
    platform.set_pin(PIN, True)
    retarget(machine, entry, 0x90, mask=0b10)
    assert requested(machine.root) == [0x60, -1], "it was accepted before"
    take(machine.root.vps[0], 0x60)
    end(machine.root.vps[0])
    assert requested(machine.root) == [-1, 0x90]


def test_the_eoi_register_knows_the_entrys_vector(machine, child):
    """Linux also writes the EOI register of an I/O APIC of version 20h, with the entry's vector."""
    platform = machine.root.platform
    entry = map_pin(machine, machine.root.id, vector=0x60, trigger=LEVEL)[1]
    program(machine, PIN, entry)
    retarget(machine, entry, 0x90)
    platform.set_pin(PIN, True)
    platform.set_pin(PIN, False)
    platform.write_memory(0xFEC0_0040, 0x90)
    assert platform.entries[PIN] & REMOTE_IRR
    platform.write_memory(0xFEC0_0040, 0x60)
    assert not platform.entries[PIN] & REMOTE_IRR


@pytest.mark.parametrize("own_platform", [False, True])
def test_a_level_that_a_child_receives_is_ended_by_the_child(machine, child, own_platform):
    """Its EOI reaches the machine's I/O APIC, whether or not the child has an I/O APIC of its own."""
    platform, vp = machine.root.platform, child.vps[1]
    entry = map_pin(machine, child.id, vector=0x60, mask=0b10, trigger=LEVEL)[1]
    if own_platform:
        child.attach_platform()
    program(machine, PIN, entry)
    machine.root.vps[0].interrupts.assert_interrupt(0x60, level=True)
    platform.set_pin(PIN, True)
    take(machine.root.vps[0], 0x60)
    end(machine.root.vps[0])
    assert platform.entries[PIN] & REMOTE_IRR, "the root ended a vector of its own"
    take(vp, 0x60)
    end(vp)
    ended = vp.interrupts.take_level_eoi()
    assert (ended is None) == own_platform
    if ended is not None:
        assert machine.hypervisor.interrupts.end_of_interrupt(vp, ended)
        assert not machine.hypervisor.interrupts.end_of_interrupt(vp, 0x61)
    assert vp.interrupts.requested == 1 << 0x60
    assert platform.pin_counters(PIN)["eois"] == 1


def test_the_end_of_a_partition_frees_its_pins(machine, child):
    platform = machine.root.platform
    entry = map_pin(machine, child.id, trigger=LEVEL)[1]
    program(machine, PIN, entry)
    platform.set_pin(PIN, True)
    assert platform.entries[PIN] & REMOTE_IRR
    machine.call(Hypercall.FINALIZE_PARTITION, "Q", child.id)
    assert not platform.entries[PIN] & REMOTE_IRR
    assert platform.pin_counters(PIN)["blocked"], "nobody has that handle now"
    again = map_pin(machine, machine.root.id, vector=0x60, trigger=LEVEL)[1]
    assert again == entry
    assert requested(machine.root) == [0x60, -1], "a level that is up is sent as soon as somebody takes it"


def test_unmapping(machine, child):
    platform = machine.root.platform
    entry = map_pin(machine, child.id)[1]
    program(machine, PIN, entry)
    unmap_pin(machine, machine.root.id, entry, expect=Status.INVALID_PARAMETER)
    unmap_pin(machine, child.id, entry ^ 1, expect=Status.INVALID_PARAMETER)
    unmap_pin(machine, child.id, entry, source=1, expect=Status.INVALID_PARAMETER)
    unmap_pin(machine, child.id, entry)
    platform.pulse(PIN)
    assert platform.pin_counters(PIN)["blocked"] == 1
    assert requested(child) == [-1, -1, -1] and requested(machine.root) == [-1, -1]
    unmap_pin(machine, child.id, entry, expect=Status.INVALID_DEVICE_ID)


def test_errors(machine, child):
    bad, no_device = Status.INVALID_PARAMETER, Status.INVALID_DEVICE_ID
    for wrong in ({"count": 2}, {"source": 1}, {"source": 2, "device": PCI}, {"vector": 15}, {"trigger": 2}):
        map_pin(machine, child.id, **wrong, expect=bad)
    map_pin(machine, child.id, device=IOAPIC | 1, expect=no_device)
    map_pin(machine, child.id, mask=8, expect=Status.INVALID_VP_INDEX)
    retarget(machine, 0x41, 0x42, device=IOAPIC | 1 << 8, expect=no_device)
    retarget(machine, 0x41, 0x42, source=1, expect=bad)
    retarget(machine, 0x41, 0x42, caller=child, expect=no_device)
    entry = map_pin(machine, child.id)[1]
    retarget(machine, entry, 0x42, expect=Status.ACCESS_DENIED)
    retarget(machine, entry, 0x42, caller=child)
    machine.root.detach_platform()
    map_pin(machine, child.id, expect=no_device)


def test_there_is_room_for_a_bounded_number(machine, child):
    entries = {map_pin(machine, child.id)[1] for _ in range(256)}
    assert len({entry >> 49 for entry in entries}) == 256
    map_pin(machine, child.id, expect=Status.NO_RESOURCES)
    retarget(machine, 0x41, 0x42, expect=Status.NO_RESOURCES)
    unmap_pin(machine, child.id, min(entries))
    assert map_pin(machine, child.id)[1] == min(entries)


def test_a_platform_that_is_attached_later_has_the_table(machine, child):
    entry = map_pin(machine, child.id)[1]
    machine.root.detach_platform()
    machine.root.attach_platform()
    program(machine, PIN, entry)
    machine.root.platform.pulse(PIN)
    assert requested(child) == [0x60, -1, -1]


def test_the_8254_interrupts_a_child(machine):
    """Its pin is one of the root's I/O APIC: mapped to a child it ends the child's HLT, at the 8254's rate."""
    child = machine.hypervisor.root.create_partition()
    ram = child.map_memory(gpa=0, size="4 MiB")
    ram[CODE : CODE + 4] = bytes.fromhex("fbf4ebfd")  # sti; again: hlt; jmp again
    code = bytes.fromhex("ffc3 b970000040 31c0 31d2 0f30 48cf")  # inc ebx; EOI; iretq
    ram[HANDLER : HANDLER + len(code)] = code
    vp = child.vps[0]
    vp.reset("long64", rip=CODE, rsp=STACK)
    gate = pack("<HHHHII", HANDLER & 0xFFFF, vp.cs.selector, 0x8E00, HANDLER >> 16, 0, 0)
    ram[IDT + 16 * 0x60 : IDT + 16 * 0x61] = gate
    vp.idtr = vp.idtr._replace(base=IDT, limit=0xFFF)
    vp.interrupts.apic_enabled = True
    platform = machine.root.platform
    program(machine, TIMER_PIN, map_pin(machine, child.id, vector=0x60)[1])
    platform.write_port(0x43, 0x34)  # counter 0, both bytes, mode 2
    platform.write_port(0x40, 1193 & 0xFF)
    platform.write_port(0x40, 1193 >> 8)
    while vp.rbx < 10:
        vp.run(max_instructions=4)
    # The control word is the first edge; 1193 pulses of 1.193182 MHz are a millisecond.
    assert round(machine.hypervisor.scheduler.now / 1_000_000, 2) == 9
    assert platform.pin_counters(TIMER_PIN)["delivered"] == 10
