"""hypervisor.interrupts: who receives an interrupt source of the machine (issue 5, line 4)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hvcore.hypervisor import Hypervisor
from hvcore.partition import Partition

DEVICE = 1 << 62 | 0x0010  # HV_DEVICE_ID: PCI, bus 0, device 2, function 0
ADDRESS, DATA = 0xFEE0_0000, 0x41


@pytest.fixture
def hypervisor() -> Iterator[Hypervisor]:
    with Hypervisor(memory="32 MiB", processors=2) as made:
        enable(made.root)
        yield made


@pytest.fixture
def child(hypervisor: Hypervisor) -> Partition:
    made = hypervisor.root.create_partition(vps=3)
    enable(made)
    return made


def enable(partition: Partition) -> None:
    """APICs are software-disabled at reset."""
    for vp in partition.vps.values():
        vp.interrupts.apic_enabled = True


def requested(partition: Partition) -> list[set[int]]:
    """The vectors that wait in IRR, per processor."""
    found = (vp.interrupts.requested for _, vp in sorted(partition.vps.items()))
    return [{vector for vector in range(256) if word >> vector & 1} for word in found]


def test_unrouted_source_is_the_roots(hypervisor: Hypervisor) -> None:
    levels: list[bool] = []

    def line(level: bool) -> int:
        levels.append(level)
        return int(level)

    source = hypervisor.interrupts.add("serial", level=True, line=line)
    assert source.partition is hypervisor.root
    assert source.assert_() == 1
    source.deassert()
    assert levels == [True, False]
    assert hypervisor.interrupts.add("nowhere").pulse() == 0
    assert hypervisor.interrupts["nowhere"].counts["lost"] == 1


def test_edge_is_routed(hypervisor: Hypervisor, child: Partition) -> None:
    interrupts = hypervisor.interrupts
    source = interrupts.add("card")
    interrupts.route("card", child, vp=2, vector=0x55)
    assert source.pulse() == 1
    assert requested(child) == [set(), set(), {0x55}]
    interrupts.route(source, child, vp=[0, 1], vector=0x56, multicast=True)
    assert source.pulse() == 2
    assert requested(child) == [{0x56}, {0x56}, {0x55}]
    assert source.counts == {"asserted": 2, "delivered": 3, "lost": 0}


def test_several_without_multicast_are_one_of_the_lowest_priority(hypervisor: Hypervisor, child: Partition) -> None:
    child.vps[0].interrupts.assert_interrupt(0x80)
    child.vps[0].interrupts.acknowledge()
    source = hypervisor.interrupts.add("card")
    hypervisor.interrupts.route(source, child, vp=(0, 1, 2), vector=0x60)
    source.pulse()
    assert requested(child) == [set(), {0x60}, set()]


def test_level_follows_its_route(hypervisor: Hypervisor, child: Partition) -> None:
    interrupts = hypervisor.interrupts
    source = interrupts.add("pin", level=True)
    interrupts.route(source, child, vp=0, vector=0x70)
    source.assert_()
    assert source.assert_() == 0
    interrupts.route(source, child, vp=1, vector=0x71)
    assert requested(child) == [set(), {0x71}, set()]
    assert child.vps[1].interrupts.level_triggered >> 0x71 & 1
    source.deassert()
    assert requested(child) == [set(), set(), set()]


def test_a_level_that_is_still_up_comes_again_after_its_eoi(hypervisor: Hypervisor, child: Partition) -> None:
    source = hypervisor.interrupts.add("pin", level=True)
    hypervisor.interrupts.route(source, child, vp=0, vector=0x70)
    source.assert_()
    controller = child.vps[0].interrupts
    assert controller.acknowledge() == 0x70
    controller.write_msr(0x4000_0070, 0, 0)
    hypervisor.interrupts.end_of_interrupt(child.vps[0], controller.take_level_eoi())
    assert requested(child)[0] == {0x70}
    source.deassert()
    assert requested(child)[0] == set()


def test_message_goes_to_the_root_then_to_its_entry(hypervisor: Hypervisor, child: Partition) -> None:
    interrupts = hypervisor.interrupts
    assert interrupts.deliver_msi(DEVICE, ADDRESS, DATA) == 1
    assert requested(hypervisor.root)[0] == {0x41}
    interrupts.set_entry(DEVICE, ADDRESS, DATA, child, vp=1, vector=0x99)
    assert interrupts.deliver_msi(DEVICE, ADDRESS, DATA) == 1
    assert requested(child)[1] == {0x99}
    assert interrupts.deliver_msi(DEVICE, ADDRESS, DATA + 1) == 1
    assert requested(hypervisor.root)[0] == {0x41, 0x42}
    assert interrupts.device(DEVICE).counts == {"messages": 3, "delivered": 3, "lost": 0}


def test_device_of_a_child_writes_into_its_controllers(hypervisor: Hypervisor, child: Partition) -> None:
    hypervisor.interrupts.give_device(DEVICE, child)
    assert hypervisor.interrupts.deliver_msi(DEVICE, ADDRESS | 2 << 12, DATA) == 1
    assert requested(child) == [set(), set(), {0x41}]
    assert hypervisor.interrupts.deliver_msi(DEVICE, ADDRESS | 77 << 12, DATA) == 0
    assert hypervisor.interrupts.device(DEVICE).counts["lost"] == 1


def test_death_of_a_partition_returns_its_sources(hypervisor: Hypervisor, child: Partition) -> None:
    interrupts = hypervisor.interrupts
    source = interrupts.add("pin", level=True)
    interrupts.route(source, child, vector=0x70)
    source.assert_()
    interrupts.give_device(DEVICE, child)
    interrupts.set_entry(DEVICE, ADDRESS, DATA, child, vp=0, vector=0x80)
    child.destroy()
    assert source.partition is hypervisor.root
    assert not interrupts.knows(DEVICE)
    assert interrupts.deliver_msi(DEVICE, ADDRESS, DATA) == 1
    assert requested(hypervisor.root)[0] == {0x41}


def test_arguments(hypervisor: Hypervisor, child: Partition) -> None:
    interrupts = hypervisor.interrupts
    source = interrupts.add("card")
    with pytest.raises(ValueError, match="name must be new"):
        interrupts.add("card")
    with pytest.raises(KeyError):
        interrupts.route("other", child, vector=0x40)
    for vector in (15, 256, -1):
        with pytest.raises(ValueError, match="vector must be 16 to 255"):
            interrupts.route(source, child, vector=vector)
    with pytest.raises(ValueError, match="vp must name"):
        interrupts.route(source, child, vp=3, vector=0x40)
    with pytest.raises(ValueError, match="device_id must be"):
        interrupts.deliver_msi(-1, ADDRESS, DATA)
    child.destroy()
    with pytest.raises(ValueError, match="partition must exist"):
        interrupts.route(source, child, vector=0x40)


def test_a_line_of_the_machine_goes_where_it_is_routed():
    """Issue: a table says which partition and VP receives a source of the machine, the root by default."""
    with Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition(vps=1)
        controller = child.vps[0].interrupts
        controller.apic_enabled = True
        source = hypervisor.interrupts["line 4"]
        platform = hypervisor.root.platform
        assert source.partition is hypervisor.root
        hypervisor.machine.set_line(4, True)
        assert platform.pin_level(4)
        hypervisor.interrupts.route("line 4", child, vector=0x54)
        assert not platform.pin_level(4), "it is taken from whom it was routed to before"
        assert controller.pending_vector() == 0x54 and source.partition is child
        hypervisor.machine.set_line(4, False)
        assert controller.pending_vector() is None, "a level that fell before it was taken"
        child.destroy()
        assert source.partition is hypervisor.root
