"""PostMessage and SignalEvent through the native door: the statuses of 4.8 in the order of 13 #42, by both callers."""

import random
from struct import pack

from test_batch import CONNECTION, SCONTROL, SIEFP, SINT, SINT0, wire

import hvcore
from hvcore.enums import Hypercall, PortType

SEED = 808
CODE, INPUT = 0x1000, 0x8000
ACCESS_DENIED, PARAMETER, NO_PORT, NO_CONNECTION, NO_BUFFER, SYNIC = 6, 5, 0x11, 0x12, 0x13, 0x18
FLAGS = 64


def guest_of(sender):
    """Processor 0 of `sender` in 64-bit mode, at VMCALL; HLT."""
    ram = sender.map_memory(gpa=0, size="2 MiB", page_size="4 KiB")
    ram[CODE : CODE + 4] = bytes.fromhex("0f01c1 f4")
    sender.core.guest_os_id = sender.core.hypercall_msr = 1
    vp = sender.vps[0]
    vp.reset("long64", rip=CODE, rsp=0x7000, page_size="4 KiB")
    return vp, ram


def call(vp, ram, word, data):
    vp.rip, vp.rcx, vp.rdx = CODE, word, INPUT
    if word >> 16 & 1:
        vp.rdx = int.from_bytes(data, "little")
    ram[INPUT : INPUT + len(data)] = data
    assert isinstance(vp.run(max_instructions=100), hvcore.exits.Halt)
    return vp.rax


def test_posts():
    print(f"seed {SEED}")
    randomness = random.Random(SEED)
    seen = set()
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        sender, receiver, _ = wire(hypervisor, PortType.MESSAGE)
        vp, ram = guest_of(sender)
        target, queued = receiver.vps[0], 0
        for _ in range(2000):
            enabled, allowed = randomness.random() < 0.8, randomness.random() < 0.9
            target.interrupts.write_msr(SCONTROL, int(enabled), 0)
            sender.privileges = sender.privileges & ~(1 << 36) | allowed << 36
            connection = randomness.choice([CONNECTION] * 9 + [CONNECTION + 1])
            kind, size = randomness.choice([1, 1, 1, 0x7FFFFFFF, 0, 1 << 31]), randomness.choice([0, 8, 240, 241])
            data = pack("<IIII240s", connection, 0, kind, size, randomness.randbytes(240))
            expected = (
                ACCESS_DENIED if not allowed
                else NO_CONNECTION if connection != CONNECTION
                else PARAMETER if kind in (0, 1 << 31) or size > 240
                else SYNIC if not enabled
                else NO_BUFFER if queued == 17
                else 0
            )  # fmt: skip
            assert call(vp, ram, 0x5C, data) == expected
            queued += expected == 0
            seen.add(expected)
            if expected:
                assert sender.hypercall(Hypercall.POST_MESSAGE, data).status == expected
            if queued == 17 and enabled and randomness.random() < 0.2:
                assert len(target.take_messages(SINT)) == 17
                queued = 0
        assert not vp.hypercalls_by_name, "they went through Python"
    assert seen == {0, ACCESS_DENIED, NO_CONNECTION, PARAMETER, SYNIC, NO_BUFFER}


def test_signals():
    print(f"seed {SEED}")
    randomness = random.Random(SEED)
    seen = set()
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        sender, receiver, _ = wire(hypervisor, PortType.EVENT, flags=FLAGS)
        vp, ram = guest_of(sender)
        target = receiver.vps[0]
        for _ in range(1000):
            enabled, masked = randomness.random() < 0.8, randomness.random() < 0.2
            allowed = randomness.random() < 0.9
            target.interrupts.write_msr(SIEFP, 0x21000 | enabled, 0)
            target.interrupts.write_msr(SINT0 + SINT, 0x50 | masked << 16, 0)
            sender.privileges = sender.privileges & ~(1 << 37) | allowed << 37
            connection = randomness.choice([CONNECTION] * 9 + [CONNECTION + 1])
            flag = randomness.choice([0, 1, FLAGS - 1, FLAGS, 0xFFFF])
            data = pack("<IHH", connection, flag, randomness.choice([0, 1]))
            expected = (
                ACCESS_DENIED if not allowed
                else NO_CONNECTION if connection != CONNECTION
                else PARAMETER if flag >= FLAGS
                else SYNIC if not enabled or masked
                else 0
            )  # fmt: skip
            assert call(vp, ram, 0x5D | randomness.choice([0, 1 << 16]), data) == expected
            assert sender.hypercall(Hypercall.SIGNAL_EVENT, data).status == expected
            seen.add(expected)
        assert not vp.hypercalls_by_name, "they went through Python"
        receiver.remove_port(9)
        sender.privileges |= 1 << 37
        assert call(vp, ram, 0x1005D, pack("<IHH", CONNECTION, 0, 0)) == NO_PORT
        assert call(vp, ram, 0x5C, pack("<IIII240x", CONNECTION, 0, 1, 0)) == NO_PORT
    assert seen == {0, ACCESS_DENIED, NO_CONNECTION, PARAMETER, SYNIC}
