"""Calls 4E, 50, 51, 52: virtual processors (hyperv-abi.md 4.5, 7, 11.1)."""

from struct import pack, unpack

import pytest
from hypercall_machine import SELF, UNKNOWN_ID

from hvcore.enums import Hypercall, Status

RAX, RCX, RIP, CR0, XMM0 = 0x20000, 0x20001, 0x20010, 0x40000, 0x30000
EXPLICIT_SUSPEND = 0
ACCESS_VP_REGISTERS = 1 << 49


def create_vp(machine, partition_id, index, *, subnode=0, proximity=0, flags=0, **keywords):
    values = (partition_id, index, subnode, 0, proximity, flags)
    machine.call(Hypercall.CREATE_VP, "QI3xBQQQ", *values, **keywords)


def get(machine, partition_id, vp, *names, vtl=0, **keywords):
    form = "QIB3x" + "I" * len(names)
    output = machine.call(Hypercall.GET_VP_REGISTERS, form, partition_id, vp, vtl, *names, **keywords)
    return [int.from_bytes(output[at : at + 16], "little") for at in range(0, len(output), 16)]


def put(machine, partition_id, vp, *pairs, vtl=0, **keywords):
    elements = b"".join(pack("<I12s", name, b"\xee" * 12) + value.to_bytes(16, "little") for name, value in pairs)
    form = f"QIB3x{len(elements)}s"
    machine.call(Hypercall.SET_VP_REGISTERS, form, partition_id, vp, vtl, elements, **keywords)


def test_create_vp(machine):
    child = machine.child(deposit=8)
    create_vp(machine, child.id, 0)
    create_vp(machine, child.id, 7, proximity=1 << 63, subnode=3)
    assert sorted(child.vps) == [0, 7]
    assert child.pool.available == 0
    assert get(machine, child.id, 7, EXPLICIT_SUSPEND) == [1]
    assert child.vps[7].interrupts.apic_id == 7
    create_vp(machine, child.id, 1, expect=Status.INSUFFICIENT_MEMORY)
    machine.deposit(child, 3)
    create_vp(machine, child.id, 1, expect=Status.INSUFFICIENT_MEMORY)
    assert child.pool.available == 3
    machine.deposit(child, 1)
    create_vp(machine, child.id, 1)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"index": 0}, Status.INVALID_VP_INDEX),
        ({"index": 2048}, Status.INVALID_VP_INDEX),
        ({"index": 0xFFFFFFFF}, Status.INVALID_VP_INDEX),
        ({"index": 1, "flags": 1}, Status.INVALID_PARAMETER),
        ({"index": 1, "subnode": 4}, Status.INVALID_PARAMETER),
        ({"index": 1, "proximity": 2 << 32}, Status.INVALID_PARAMETER),
    ],
)
def test_create_vp_refuses(machine, arguments, status):
    child = machine.child(vps=1)
    create_vp(machine, child.id, **arguments, expect=status)


def test_create_vp_targets(machine):
    create_vp(machine, UNKNOWN_ID, 0, expect=Status.INVALID_PARTITION_ID)
    create_vp(machine, SELF, 9, expect=Status.INVALID_PARTITION_ID)
    create_vp(machine, machine.root.id, 9, expect=Status.ACCESS_DENIED)
    create_vp(machine, machine.created().id, 0, expect=Status.INVALID_PARTITION_STATE)


def test_reserve_beyond_all_processors(machine):
    child = machine.child()
    machine.call(Hypercall.SET_PARTITION_PROPERTY, "QIIQ", child.id, 0x20001, 0, 0x10000)
    create_vp(machine, child.id, 0)
    create_vp(machine, child.id, 1)
    create_vp(machine, child.id, 2, expect=Status.OPERATION_DENIED)


def test_registers(machine):
    child = machine.child(vps=2)
    put(machine, child.id, 1, (RAX, 0x1122334455667788), (XMM0, 1 << 127 | 5), (RIP, 0x1000))
    assert get(machine, child.id, 1, XMM0, RAX, RIP) == [1 << 127 | 5, 0x1122334455667788, 0x1000]
    assert get(machine, child.id, 0, RAX) == [0]


def test_register_lists_stop_at_the_first_error(machine):
    child = machine.child(vps=1)
    result = machine.root.hypercall(Hypercall.GET_VP_REGISTERS, pack("<QII3I", child.id, 0, 0, RAX, 0xDEAD, RCX))
    assert (result.status, result.reps_completed, len(result.output)) == (Status.UNKNOWN_REGISTER_NAME, 1, 16)
    put(machine, child.id, 0, (RAX, 1), (0xDEAD, 0), (RCX, 2), expect=Status.UNKNOWN_REGISTER_NAME)
    assert get(machine, child.id, 0, RAX, RCX) == [1, 0]
    put(machine, child.id, 0, (CR0, 1 << 40), expect=Status.INVALID_PARAMETER)


def test_synthetic_registers_move_overlays(machine):
    child = machine.child(vps=1)
    put(machine, child.id, 0, (0x90002, 0x8100 << 48), (0x90001, 0x5001))
    assert get(machine, child.id, 0, 0x90002, 0x90001) == [0x8100 << 48, 0x5001]
    assert child.space.resolve(0x5000)[3]
    put(machine, child.id, 0, (0xA0013, 0x6001))
    assert get(machine, child.id, 0, 0xA0013) == [0x6001]
    assert child.space.resolve(0x6000)[3]
    put(machine, child.id, 0, (0x90001, 1 << 46), expect=Status.INVALID_REGISTER_VALUE)
    put(machine, child.id, 0, (0x90001, 1 << 70), expect=Status.INVALID_REGISTER_VALUE)


@pytest.mark.parametrize("access", [get, put])
def test_register_targets(machine, access):
    argument = RAX if access is get else (RAX, 0)
    child = machine.child(vps=1, privileges=0x7F)
    access(machine, UNKNOWN_ID, 0, argument, expect=Status.INVALID_PARTITION_ID)
    for vp in (1, 0xFFFFFFFE, 0xFFFFFFFF):
        access(machine, child.id, vp, argument, expect=Status.INVALID_VP_INDEX)
    access(machine, child.id, 0, argument, vtl=0x20, expect=Status.INVALID_PARAMETER)
    access(machine, child.id, 0, argument, vtl=0x11, expect=Status.INVALID_VTL_STATE)
    access(machine, child.id, 0, argument, vtl=0x10)
    access(machine, SELF, 0, argument, caller=child, expect=Status.ACCESS_DENIED)
    access(machine, machine.root.id, 0, argument, caller=child, expect=Status.ACCESS_DENIED)
    access(machine, machine.created().id, 0, argument, expect=Status.INVALID_PARTITION_STATE)


def test_own_registers_need_the_privilege(machine):
    child = machine.child(vps=1, privileges=ACCESS_VP_REGISTERS)
    put(machine, SELF, 0, (RAX, 3), caller=child)
    assert get(machine, child.id, 0, RAX, caller=child) == [3]
    assert get(machine, SELF, 1, RAX) == [0]


def translate(machine, partition_id, page, flags, *, vp=0, **keywords):
    output = machine.call(Hypercall.TRANSLATE_VIRTUAL_ADDRESS, "QIIQQ", partition_id, vp, 0, flags, page, **keywords)
    return unpack("<IIQ", output) if output else None


def test_translate_without_paging_is_the_identity(machine):
    child = machine.child(vps=1)
    machine.map(child, 0x10, 2)
    assert translate(machine, child.id, 0x10, 1) == (0, 6, 0x10)
    child.space.set_overlay(1, 0, 0x11, child.hypercall_frame, 5)
    assert translate(machine, child.id, 0x11, 1) == (0, 0x106, 0x11)


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (0, Status.INVALID_PARAMETER),
        (8, Status.INVALID_PARAMETER),
        (1 | 0x800, Status.INVALID_PARAMETER),
        (1 | 1 << 40, Status.INVALID_PARAMETER),
        (1 | 0x20 << 56, Status.INVALID_PARAMETER),
        (1 | 0x11 << 56, Status.INVALID_VTL_STATE),
        (7, Status.SUCCESS),
        (1 | 0x5D8, Status.SUCCESS),
        (1 | 0x10 << 56, Status.SUCCESS),
    ],
)
def test_translate_flags(machine, flags, status):
    child = machine.child(vps=1)
    machine.map(child, 0)
    translate(machine, child.id, 0, flags, expect=status)


def test_translate_targets(machine):
    child = machine.child(vps=1)
    translate(machine, UNKNOWN_ID, 0, 1, expect=Status.INVALID_PARTITION_ID)
    translate(machine, machine.root.id, 0, 1, expect=Status.ACCESS_DENIED)
    translate(machine, child.id, 0, 1, vp=1, expect=Status.INVALID_VP_INDEX)
    translate(machine, child.id, 1 << 52, 1, expect=Status.INVALID_PARAMETER)
    translate(machine, child.id, 0, 1, caller=child, expect=Status.ACCESS_DENIED)


def context(*, rip=0x1234, cr0=0x80010031):
    """The 224 bytes of section 7.5: RIP, RSP, RFLAGS, ten segments and tables, EFER, CR0, CR3, CR4, PAT."""
    data = [(0, 0xFFFF, number, 0x93) for number in range(8)]
    segments = b"".join(pack("<QIHH", *segment) for segment in data)
    tables = pack("<6xHQ6xHQ", 0xFFF, 0x7000, 0x37, 0x6000)
    return pack("<QQQ", rip, 0x8000, 2) + segments + tables + pack("<5Q", 0xD01, cr0, 0x5000, 0x620, 0x0007040600070406)


def test_start_virtual_processor(machine):
    child = machine.child(vps=2)
    start = Hypercall.START_VIRTUAL_PROCESSOR
    machine.call(start, "QIB3x224s", child.id, 1, 0, context())
    vp = child.vps[1]
    assert (vp.rip, vp.rsp, vp.rflags, vp.cr0, vp.cr3, vp.cr4) == (0x1234, 0x8000, 2, 0x80010031, 0x5000, 0x620)
    assert [getattr(vp, name).selector for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")] == [*range(8)]
    assert (vp.idtr.limit, vp.idtr.base, vp.gdtr.limit, vp.gdtr.base) == (0xFFF, 0x7000, 0x37, 0x6000)
    assert vp.internal_activity_state == 0
    machine.call(start, "QIB3x224s", child.id, 1, 0, context(), expect=Status(0x15))
    machine.call(start, "QIB3x224s", child.id, 0, 0, context(), expect=Status(0x15))
    machine.call(start, "QIB3x224s", child.id, 2, 0, context(), expect=Status(0x0E))
    machine.call(start, "QIB3x224s", child.id, 1, 0x11, context(), expect=Status(0x51))
    machine.call(start, "QIB3x224s", 999, 1, 0, context(), expect=Status(0x0D))
    machine.call(start, "QIB3x224s", child.id, 1, 0, context(), caller=child, expect=Status(0x06))


def test_a_processor_that_cannot_start_waits_on(machine):
    child = machine.child(vps=2)
    machine.call(
        Hypercall.START_VIRTUAL_PROCESSOR, "QIB3x224s", child.id, 1, 0, context(cr0=1 << 63), expect=Status(0x50)
    )
    assert child.vps[1].internal_activity_state == 1
    machine.call(Hypercall.START_VIRTUAL_PROCESSOR, "QIB3x224s", child.id, 1, 0, context())


def test_vp_index_from_apic_id(machine):
    child = machine.child(vps=3)
    call = Hypercall.GET_VP_INDEX_FROM_APIC_ID
    result = machine.root.hypercall(call, pack("<QB7x3I", child.id, 0, 2, 0, 1))
    assert (result.status, result.output) == (Status.SUCCESS, pack("<3I", 2, 0, 1))
    result = machine.root.hypercall(call, pack("<QB7x3I", child.id, 0, 2, 9, 1))
    assert (result.status, result.reps_completed) == (Status.INVALID_PARAMETER, 1)
    assert child.hypercall(call, pack("<QB7xI", SELF, 0, 1)).output == pack("<I", 1)
    child.privileges = 0
    assert child.hypercall(call, pack("<QB7xI", SELF, 0, 1)).status is Status.ACCESS_DENIED
    assert machine.root.hypercall(call, pack("<QB7xI", child.id, 0x11, 1)).status is Status.INVALID_VTL_STATE
    assert machine.root.hypercall(call, pack("<QB7xI", 999, 0, 1)).status is Status.INVALID_PARTITION_ID


def test_delete_vp(machine):
    child = machine.child(vps=2)
    available = child.pool.available
    machine.call(Hypercall.DELETE_VP, "QII", child.id, 1, 0)
    assert list(child.vps) == [0]
    assert child.pool.available > available
    machine.call(Hypercall.DELETE_VP, "QII", child.id, 1, 0, expect=Status(0x0E))
    machine.call(Hypercall.DELETE_VP, "QII", 999, 1, 0, expect=Status(0x0D))
    machine.call(Hypercall.DELETE_VP, "QII", child.id, 0, 0, caller=child, expect=Status(0x06))


def test_registers_of_the_interrupt_controller(machine):
    """7.1: A0000-A0015 are the SynIC's MSRs of section 2, 90010-12 those of the APIC.

    Setting sends and ends nothing."""
    child = machine.child(vps=2)
    chip = child.vps[1].interrupts
    chip.apic_enabled = True
    names = {0xA0000: 0x2F3, 0xA0005: 1 << 18, 0xA000F: 0x200FF, 0xA0010: 1, 0xA0012: 0x9001, 0xA0013: 0x8001,
             0x90011: 0x300 << 48 | 0x4050, 0x90012: 0x30}  # fmt: skip
    assert get(machine, child.id, 1, *names, 0xA0001, 0xA0011, 0xA0014, 0x90010)[-4:] == [1 << 16, 1, 0, 0]
    put(machine, child.id, 1, *names.items())
    assert get(machine, child.id, 1, *names) == list(names.values())
    for name, msr in ((0xA0000, 0x40000090), (0xA000F, 0x4000009F), (0xA0010, 0x40000080), (0x90012, 0x40000072)):
        assert chip.read_msr(msr, 0) == names[name]
    assert chip.requested == 0 and chip.counters()["ipis_sent"] == 0
    put(machine, child.id, 1, (0xA0014, 0))
    for name, value, status in (
        (0xA0011, 1, Status.INVALID_REGISTER_VALUE),
        (0xA0003, 0xF, Status.INVALID_REGISTER_VALUE),
        (0xA0010, 1 << 64, Status.INVALID_REGISTER_VALUE),
        (0x90010, 0, Status.INVALID_PARAMETER),
        (0x90000, 0, Status.INVALID_REGISTER_VALUE),
        (0x90003, 0, Status.INVALID_REGISTER_VALUE),
    ):
        put(machine, child.id, 1, (name, value), expect=status)
    assert get(machine, child.id, 1, 0x90000, 0x90003, 0xA0003) == [0, 1, 1 << 16]


def test_the_run_time_by_its_name(machine):
    """2: units of 100 ns that this VP has run."""
    child = machine.child(vps=1)
    machine.map(child, 0, 16)
    vp = child.vps[0]
    vp.start()
    vp.cr0, vp.rip = 0x11, 0
    vp.run(max_instructions=1)
    assert get(machine, child.id, 0, 0x90000) == [vp.counters()["runtime_ticks"] // 100]
