"""Snapshots of counters: arithmetic, mapping, table, and what partitions and the machine add up."""

import math

import pytest

import hvcore
from hvcore.counters import Counters
from hvcore.enums import Hypercall, Status


@pytest.fixture
def hypervisor():
    with hvcore.Hypervisor(memory="32 MiB", processors=1) as machine:
        yield machine


def snapshot(**values):
    return Counters.collect({"instructions": 100, "tlb_lookups": 40, "tlb_misses": 4} | values, {})


def test_subtraction_and_addition():
    before = Counters.collect({"instructions": 100}, {"hypercalls": {"MAP_GPA_PAGES": 2}})
    after = Counters.collect({"instructions": 150}, {"hypercalls": {"MAP_GPA_PAGES": 2, "CREATE_VP": 1}})
    used = after - before
    assert used.instructions == 50
    assert used.by_kind("hypercalls") == {"CREATE_VP": 1}
    assert used.hypercalls == 1
    assert used + before == after
    assert before - before == Counters({})
    with pytest.raises(TypeError):
        before - 1
    with pytest.raises(TypeError):
        before + {}


def test_mapping():
    counters = snapshot(**{"exits": 3, "exits.io_port": 3})
    assert counters["instructions"] == 100
    assert counters["exits.io_port"] == 3
    assert list(counters) == sorted(counters)
    assert dict(counters)["tlb_misses"] == 4
    assert "exits.cpuid" not in counters
    with pytest.raises(KeyError):
        counters["nothing"]
    with pytest.raises(AttributeError, match="nothing is counted as 'nothing'"):
        counters.nothing  # noqa: B018
    assert "tlb_misses" in dir(counters)
    assert repr(snapshot()) == "Counters(instructions=100, tlb_lookups=40, tlb_misses=4)"


def test_ratios():
    counters = snapshot(guest_references=16, second_level_references=80)
    assert counters.lookups_per_instruction == 0.4
    assert counters.miss_ratio == 0.1
    assert counters.misses_per_thousand_instructions == 40
    assert (counters.guest_references_per_miss, counters.second_level_references_per_miss) == (4, 20)
    assert counters.references_per_miss == 24
    assert math.isnan(Counters({}).miss_ratio)


def test_table():
    text = str(snapshot(**{"exits": 1234567, "exits.hypercall": 1234567}))
    lines = text.splitlines()
    assert lines[0].split() == ["instructions", "100"]
    assert "0.4000 per instruction" in lines[1]
    assert lines[-1] == "  hypercall".ljust(len("walk references, second level")) + "  1,234,567"
    assert all(line == line.rstrip() for line in lines)
    assert len({line.rfind("1,234,567") for line in lines if "1,234,567" in line}) == 1


def test_hypercalls_from_python(hypervisor):
    root = hypervisor.root
    before = root.counters()
    root.hypercall(Hypercall.GET_PARTITION_ID)
    root.hypercall(Hypercall.GET_PARTITION_ID)
    assert root.hypercall(0x7777).status is Status.INVALID_HYPERCALL_CODE
    used = root.counters() - before
    assert used.by_kind("hypercalls") == {"GET_PARTITION_ID": 2, "0x7777": 1}
    assert used.hypercalls == 3


def guest(partition, code, rip=0x1000):
    vp = partition.vps[0]
    vp.reset(mode="long64", rip=rip, rsp=0x8000)
    partition.regions[0][rip : rip + len(code)] = code
    return vp


def test_a_processor_counts_what_it_does(hypervisor):
    child = hypervisor.root.create_partition()
    child.map_memory(gpa=0, size="4 MiB")
    # mov eax, [0x2000]; out 0x80, al; cpuid; hlt
    vp = guest(child, b"\x8b\x04\x25\x00\x20\x00\x00\xe6\x80\x0f\xa2\xf4")
    before = vp.counters()
    assert isinstance(vp.run(), hvcore.exits.IoPort)
    assert isinstance(vp.run(), hvcore.exits.Halt)
    used = vp.counters() - before
    assert (used.instructions, used.halts) == (4, 1)
    assert used.by_kind("exits")["io_port"] == 1
    assert used.exits == sum(used.by_kind("exits").values())
    assert used.tlb_misses == 2
    assert (used.guest_references, used.second_level_references) == (2 * 3, 2 * 16)
    assert child.counters() == vp.counters()


def test_hypercalls_of_guest_code(hypervisor):
    child = hypervisor.root.create_partition()
    child.map_memory(gpa=0, size="4 MiB")
    # mov ecx, 0x1005c (PostMessage, fast: refused natively); vmcall
    # mov ecx, 0x10046 (GetPartitionId, fast: refused by Python); vmcall; hlt
    vp = guest(child, b"\xb9\x5c\x00\x01\x00\x0f\x01\xc1" b"\xb9\x46\x00\x01\x00\x0f\x01\xc1" b"\xf4")
    child.core.guest_os_id, child.core.hypercall_msr = 1, 1
    assert isinstance(vp.run(), hvcore.exits.Halt)
    assert vp.counters().by_kind("hypercalls") == {"POST_MESSAGE": 1, "GET_PARTITION_ID": 1}
    assert vp.counters().by_kind("exits")["hypercall"] == 1
    assert child.counters().hypercalls == 2


def test_the_machine_remembers_those_that_are_gone(hypervisor):
    child = hypervisor.root.create_partition(vps=2)
    child.map_memory(gpa=0, size="4 MiB")
    assert isinstance(guest(child, b"\xf4").run(), hvcore.exits.Halt)
    before = hypervisor.counters()
    assert before.instructions == child.counters().instructions == 1
    child.destroy()
    used = hypervisor.counters() - before
    assert used.instructions == used.halts == used.tlb_misses == 0
    assert used.by_kind("hypercalls")["DELETE_PARTITION"] == 1
    assert all(count >= 0 for count in used.values())


def test_partition_without_processors(hypervisor):
    child = hypervisor.root.create_partition(vps=0)
    assert child.counters().instructions == 0
