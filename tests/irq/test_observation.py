"""Counts, latencies and the trace: histograms against a plain recount of the ring, and the rules of what is noted."""
from collections import Counter

import numpy as np
import pytest
from interrupt_guest import busy_guest
from msr_code import ICR, wrmsr
from support import HLT, Guest

from hvcore._native.irqchip import InterruptController, InterruptObservation
from hvcore.hypervisor import Hypervisor
from hvcore.interrupts import NO_SINT, NOT_SEEN, RECORD, InterruptEvent, InterruptSource

EVENTS = InterruptEvent


def recount(events, buckets_of):
    """Histograms by a second, obvious way: a dict of requests per processor, vector by vector."""
    waiting = {}
    found = {"vector": Counter(), "sint": Counter(), "source": Counter()}
    latencies = []
    for event in events:
        key = int(event["partition"]), int(event["vp"]), int(event["vector"])
        kind = int(event["kind"])
        if kind == EVENTS.ASSERTED:
            assert key not in waiting
            waiting[key] = int(event["time"]), int(event["sint"]), int(event["source"])
        elif kind in (EVENTS.WITHDRAWN, EVENTS.LOST):
            waiting.pop(key, None)
        elif kind == EVENTS.DELIVERED:
            time, sint, source = waiting.pop(key)
            latency = int(event["time"]) - time
            latencies.append(latency)
            assert latency == int(event["value"])
            bucket = buckets_of(latency)
            found["vector"][key[2], bucket] += 1
            found["source"][source, bucket] += 1
            if sint != NO_SINT:
                found["sint"][sint, bucket] += 1
    return found, latencies


def nonzero(table):
    return {(int(row), int(bucket)): int(table[row, bucket]) for row, bucket in zip(*np.nonzero(table), strict=True)}


@pytest.mark.parametrize("edges", [None, [1, 5, 17, 100, 101, 1000]])
@pytest.mark.parametrize("seed", range(3))
def test_histograms_are_those_of_a_recount_of_the_ring(seed, edges):
    print("seed", seed)
    guest = busy_guest(seed)
    with guest.hypervisor.trace_interrupts(capacity=1 << 20, edges=edges) as trace:
        guest.vp.run(max_instructions=60_000)
    assert trace.lost == 0 and not trace.is_open

    def bucket_of(latency):
        return latency.bit_length() if edges is None else sum(edge <= latency for edge in edges)

    expected, latencies = recount(trace.events(), bucket_of)
    found = trace.latencies()
    assert nonzero(found.by_vector) == expected["vector"]
    assert nonzero(found.by_source) == expected["source"]
    assert nonzero(found.by_sint) == expected["sint"]
    assert trace.samples().tolist() == latencies and max(latencies) > 100 and min(latencies) < 3
    assert found.by_vector.shape[1] == len(found.edges) + 1
    assert np.array_equal(found.by_vector, trace.latencies(guest.vp).by_vector)


@pytest.mark.parametrize("seed", range(2))
def test_counts_are_those_of_the_ring(seed):
    guest = busy_guest(seed)
    with guest.hypervisor.trace_interrupts(capacity=1 << 20) as trace:
        guest.vp.run(max_instructions=60_000)
    events, statistics, counters = trace.events(), guest.vp.interrupt_statistics(), guest.vp.counters()
    kinds = Counter(events["kind"].tolist())
    requests = events[np.isin(events["kind"], (EVENTS.ASSERTED, EVENTS.MERGED))]
    assert np.array_equal(np.bincount(requests["vector"], minlength=256), statistics.requested)
    assert np.array_equal(np.bincount(requests["source"], minlength=16), statistics.sources)
    through = requests["sint"][requests["sint"] != NO_SINT]
    assert np.array_equal(np.bincount(through, minlength=16), statistics.sint_interrupts)
    delivered = events["vector"][events["kind"] == EVENTS.DELIVERED]
    assert np.array_equal(np.bincount(delivered, minlength=256), statistics.delivered)
    assert kinds[EVENTS.DELIVERED] == counters["interrupts_delivered"]
    assert kinds[EVENTS.EOI] == counters["eois"]
    assert kinds[EVENTS.MERGED] == counters["interrupts_merged"]
    assert kinds[EVENTS.TIMER_EXPIRED] == counters["timers_expired"]
    assert kinds[EVENTS.MESSAGE_QUEUED] == counters["messages_queued"]
    assert kinds[EVENTS.MESSAGE_DELIVERED] == counters["messages_delivered"] == statistics.sint_messages.sum()
    assert counters["interrupts_requested"] == statistics.requested.sum() == statistics.sources.sum()
    by_kind = counters.by_kind("interrupts_requested")
    assert by_kind == statistics.requests_by_source() and set(by_kind) == {"SELF_IPI", "SYNTHETIC_TIMER", "MESSAGE"}
    assert (np.diff(events["time"].astype(np.int64)) >= 0).all()


def test_watching_changes_nothing():
    """The same run with and without: registers, memory, counters."""
    results = []
    for watched in (False, True):
        guest = busy_guest(7)
        if watched:
            guest.hypervisor.trace_interrupts(capacity=100)
        guest.vp.run(max_instructions=40_000)
        results.append((guest.vp.registers(), dict(guest.vp.counters()), bytes(guest.ram[:0x20000]), guest.vp.tsc))
    assert results[0] == results[1]


def test_the_ring_keeps_the_last():
    everything, last = (busy_guest(3) for _ in range(2))
    one = everything.hypervisor.trace_interrupts(capacity=1 << 20)
    two = last.hypervisor.trace_interrupts(capacity=37)
    for guest in (everything, last):
        guest.vp.run(max_instructions=20_000)
    assert len(two) == 37 and two.lost == len(one) - 37 and one.lost == 0
    assert two.events().tolist() == one.events()[-37:].tolist()
    assert np.array_equal(one.latencies().by_vector, two.latencies().by_vector)


def test_latency_counts_from_the_first_request_to_the_first_instruction():
    """CLI; self-IPI; k NOPs; the same again; STI and its shadow: from behind the first WRMSR's start to the handler."""
    guest = Guest()
    guest.load("fa", wrmsr(ICR, 1 << 18 | 0x50), "90" * 20, wrmsr(ICR, 1 << 18 | 0x50), "fb", "90", "90")
    with guest.hypervisor.trace_interrupts() as trace:
        guest.vp.run(max_instructions=100)
    assert guest.taken() == 0x50
    events = trace.events()
    kinds = [EVENTS(kind).name for kind in events["kind"]]
    assert kinds == ["IPI_SENT", "ASSERTED", "ACCEPTED", "IPI_SENT", "MERGED", "ACCEPTED", "DELIVERED"]
    # WRMSR itself, 20 NOPs, three MOVs, WRMSR, STI, one NOP in its shadow.
    assert trace.samples().tolist() == [1 + 20 + 3 + 1 + 1 + 1]
    asserted, delivered = events[1], events[-1]
    assert asserted["flow"] == delivered["flow"] != 0
    assert delivered["source"] == InterruptSource.SELF_IPI


def test_a_request_that_waits_in_the_inbox_counts_from_its_sender():
    """The first logical processor's VP is ahead when it sends; the other takes the interrupt when it has come as far,
    here six instructions later, behind its STI."""
    guest = Guest(vps=2, processors=2)
    receiver, hypervisor = guest.partition.vps[1], guest.hypervisor
    service = hypervisor.scheduler.service

    def send(vp, reason):
        receiver.interrupts.assert_interrupt(0x50)
        return service(vp, reason)

    hypervisor.scheduler.service = send
    guest.load("90" * 504 + "fb 90", HLT, at=0x3000, vp=receiver)
    guest.load("90" * 496, wrmsr(0x40000000, 1), HLT)
    receiver.explicit_suspend = False
    with hypervisor.trace_interrupts() as trace:
        guest.vp.run(max_instructions=510)
    events = trace.events()
    assert [EVENTS(kind).name for kind in events["kind"]] == ["ASSERTED", "ACCEPTED", "DELIVERED"]
    assert events["value"][0] == 1, "it goes to the inbox"
    assert events["time"][0] == 500 and (events["vp"] == 1).all()
    assert events["time"].tolist() == [500, 500, 506] and trace.samples().tolist() == [6]
    assert events["source"][2] == InterruptSource.HOST


def test_lost_withdrawn_and_level():
    controller = InterruptController(apic_id=0, message_page=bytearray(4096), event_page=bytearray(4096))
    observation = InterruptObservation(100)
    observation.attach(controller, 1, 0)
    controller.apic_enabled = False
    controller.assert_interrupt(0x50)
    controller.apic_enabled = True
    controller.assert_interrupt(0x51, level=True)
    controller.withdraw_interrupt(0x51)
    controller.assert_interrupt(0x51, source=InterruptSource.IO_APIC)
    controller.assert_nmi()
    controller.acknowledge_nmi()
    controller.acknowledge()
    events = np.frombuffer(observation.records(), RECORD)
    names = [(EVENTS(int(event["kind"])).name, int(event["vector"])) for event in events]
    assert names == [("ASSERTED", 0x50), ("LOST", 0x50), ("ASSERTED", 0x51), ("ACCEPTED", 0x51), ("WITHDRAWN", 0x51),
                     ("ASSERTED", 0x51), ("ACCEPTED", 0x51), ("ASSERTED", 2), ("DELIVERED", 2), ("DELIVERED", 0x51)]
    _, _, by_source = observation.detach(controller)
    assert sum(np.frombuffer(by_source, "<u8").reshape(16, -1)[InterruptSource.IO_APIC]) == 1
    controller.assert_interrupt(0x60)
    assert observation.recorded == 10


def test_an_nmi_has_its_source_whoever_sends_it():
    """An ICR with and without a shorthand, LINT1, an MSI, a pin, HvCallAssertVirtualInterrupt's way, the host."""
    guest = Guest(vps=2, processors=2)
    platform = guest.partition.attach_platform()
    vp, other = guest.vp, guest.partition.vps[1]
    nmi = 4 << 8
    with guest.hypervisor.trace_interrupts() as trace:
        vp.interrupts.apic.write(0x300, nmi | 1 << 18)
        vp.interrupts.apic.write(0x310, 1 << 24)
        vp.interrupts.apic.write(0x300, nmi)
        vp.interrupts.apic.write(0x360, nmi)
        vp.interrupts.apic.set_pin(1, True)
        guest.partition.core.send_msi(0xFEE00000, nmi, 0)
        platform.write_register(0x10 + 2 * 5, nmi)
        platform.set_pin(5, True)
        guest.partition.core.send_interrupt(0, 4, 0)
        vp.interrupts.assert_nmi()
        vp.interrupts.assert_nmi(source=InterruptSource.OTHER)
    requests = trace.events()
    requests = requests[np.isin(requests["kind"], (EVENTS.ASSERTED, EVENTS.MERGED))]
    assert (requests["vector"] == 2).all() and requests["vp"].tolist() == [0, 1] + [0] * 6
    assert [InterruptSource(source).name for source in requests["source"]] == [
        "SELF_IPI", "IPI", "LOCAL", "MSI", "IO_APIC", "PARENT", "HOST", "OTHER"]
    assert other.interrupts.nmi_pending
    with pytest.raises(ValueError, match="source"):
        vp.interrupts.assert_nmi(source=16)


def test_what_the_routing_table_hands_over_is_noted():
    """One note per processor that a routed source reaches; none for a source of the root's or a plain request."""
    guest = Guest(vps=3)
    source = guest.hypervisor.interrupts.add("card", level=True)
    for vp in guest.partition.vps.values():
        vp.interrupts.apic_enabled = True
    with guest.hypervisor.trace_interrupts() as trace:
        source.pulse()
        guest.hypervisor.interrupts.route(source, guest.partition, vp=[1, 2], vector=0x71, multicast=True)
        source.assert_()
        guest.vp.interrupts.assert_interrupt(0x72)
    routed = trace.events()
    routed = routed[routed["kind"] == EVENTS.ROUTED]
    assert routed["vp"].tolist() == routed["value"].tolist() == [1, 2]
    assert routed["vector"].tolist() == [0x71, 0x71] and (routed["partition"] == guest.partition.id).all()


def test_a_request_from_before_the_trace_has_no_latency():
    guest = Guest()
    guest.load("fb", "90", HLT)
    guest.vp.interrupts.assert_interrupt(0x50)
    with guest.hypervisor.trace_interrupts() as trace:
        guest.vp.run(max_instructions=100)
    (event,) = trace.events()
    assert event["kind"] == EVENTS.DELIVERED and event["value"] == NOT_SEEN and event["flow"] == 0
    assert trace.samples().size == 0 and trace.latencies().by_vector.sum() == 0


def test_reset_forgets_what_waited():
    guest = Guest()
    with guest.hypervisor.trace_interrupts() as trace:
        guest.vp.interrupts.assert_interrupt(0x50)
        guest.vp.interrupts.reset()
        guest.vp.interrupts.assert_interrupt(0x50)
    assert trace.events()["kind"].tolist().count(EVENTS.ASSERTED) == 2


def test_one_trace_at_a_time_over_all_processors_also_new_and_gone_ones():
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    with hypervisor.trace_interrupts(capacity=10) as trace:
        with pytest.raises(RuntimeError, match="open already"):
            hypervisor.trace_interrupts()
        child = hypervisor.root.create_partition(vps=1)
        vp = child.vps[0]
        vp.interrupts.apic_enabled = True
        vp.interrupts.assert_interrupt(0x50)
        vp.interrupts.acknowledge()
        assert trace.latencies(vp).by_vector[0x50].sum() == 1
        child.destroy()
        assert trace.latencies().by_vector[0x50].sum() == 1
        assert trace.latencies(vp).by_vector[0x50].sum() == 1
    trace.close()
    with pytest.raises(ValueError, match="watched"):
        trace.latencies(hypervisor.root.create_partition(vps=1).vps[0])
    hypervisor.trace_interrupts().close()


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ({"capacity": -1}, ValueError, "capacity"), ({"capacity": 1 << 40}, ValueError, "capacity"),
    ({"capacity": "1"}, TypeError, "capacity"), ({"edges": []}, ValueError, "edges"),
    ({"edges": [3, 2]}, ValueError, "edges must ascend"), ({"edges": [2, 2]}, ValueError, "edges must ascend"),
    ({"edges": range(5000)}, ValueError, "edges"), ({"edges": [1.5]}, TypeError, "edges")])
def test_arguments(arguments, error, words):
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    with pytest.raises(error, match=words):
        hypervisor.trace_interrupts(**arguments)
    hypervisor.trace_interrupts(capacity=0).close()


def test_without_a_ring_latencies_are_still_measured():
    guest = busy_guest(1)
    with guest.hypervisor.trace_interrupts(capacity=0) as trace:
        guest.vp.run(max_instructions=20_000)
    assert len(trace) == trace.lost == trace.events().size == 0
    assert trace.latencies().by_vector.sum() == guest.vp.counters()["interrupts_delivered"]
