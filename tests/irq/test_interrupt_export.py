"""The Chrome trace export against the format (Trace Event Format: phases X, i, M, s, f), checked entry by entry."""
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from interrupt_guest import busy_guest

from hvcore.interrupt_export import chrome_events
from hvcore.interrupts import NO_SINT, NOT_SEEN, RECORD, InterruptEvent, InterruptSource

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "M": {"name": str, "ph": str, "pid": int, "tid": int, "args": dict},
    "X": {"name": str, "ph": str, "pid": int, "tid": int, "ts": float, "dur": float, "cat": str, "args": dict},
    "i": {"name": str, "ph": str, "pid": int, "tid": int, "ts": float, "s": str, "cat": str, "args": dict},
    "s": {"name": str, "ph": str, "pid": int, "tid": int, "ts": float, "id": int, "cat": str},
    "f": {"name": str, "ph": str, "pid": int, "tid": int, "ts": float, "id": int, "cat": str, "bp": str},
}


def check(entries):
    """Every entry has the fields of its phase; threads have names; arrows have two ends within durations; durations of
    a thread nest."""
    named, durations, ends = set(), defaultdict(list), defaultdict(dict)
    for entry in entries:
        fields = FIELDS[entry["ph"]]
        assert set(entry) == set(fields), entry
        assert all(isinstance(entry[name], kind) for name, kind in fields.items()), entry
        thread = entry["pid"], entry["tid"]
        if entry["ph"] == "M":
            assert entry["name"] in ("process_name", "thread_name") and set(entry["args"]) == {"name"}
            if entry["name"] == "thread_name":
                named.add(thread)
            continue
        assert thread in named, "metadata comes first"
        assert entry["ts"] >= 0
        if entry["ph"] == "X":
            assert entry["dur"] > 0
            durations[thread].append((entry["ts"], entry["ts"] + entry["dur"]))
        elif entry["ph"] == "i":
            assert entry["s"] == "t"
        elif entry["ph"] in "sf":
            assert entry["ph"] not in ends[entry["id"]], "one beginning, one end"
            ends[entry["id"]][entry["ph"]] = entry
    for intervals in durations.values():
        intervals.sort(key=lambda interval: (interval[0], -interval[1]))
        stack = []
        for begin, end in intervals:
            while stack and stack[-1] <= begin + 1e-9:
                stack.pop()
            assert not stack or end <= stack[-1] + 1e-3
            stack.append(end)
    for both in ends.values():
        assert "s" in both
        for end in both.values():
            inside = durations[end["pid"], end["tid"]]
            assert any(begin - 1e-9 <= end["ts"] <= stop + 1e-9 for begin, stop in inside), "arrows bind to durations"
        if "f" in both:
            assert both["f"]["ts"] >= both["s"]["ts"] and both["f"]["name"] == both["s"]["name"]
    return durations, ends


@pytest.mark.parametrize(("seed", "capacity"), [(1, 1 << 16), (2, 500), (3, 77)])
def test_a_guests_trace(tmp_path, seed, capacity):
    guest = busy_guest(seed)
    with guest.hypervisor.trace_interrupts(capacity=capacity) as trace:
        guest.vp.run(max_instructions=30_000)
    count = trace.write_chrome(tmp_path / "trace.json")
    document = json.loads((tmp_path / "trace.json").read_text())
    assert set(document) == {"traceEvents", "displayTimeUnit", "otherData"} and document["displayTimeUnit"] == "ns"
    entries = document["traceEvents"]
    assert len(entries) == count
    durations, ends = check(entries)
    events = trace.events()
    delivered = events[events["kind"] == InterruptEvent.DELIVERED]
    handlers = [entry for entry in entries if entry["ph"] == "X" and entry["name"].startswith("handler")]
    assert len(handlers) == delivered.size
    assert Counter(entry["name"] for entry in handlers) == Counter(f"handler {v:#x}" for v in delivered["vector"])
    assert {(entry["pid"], entry["tid"]) for entry in handlers} == {(guest.partition.id, 0)}
    names = {entry["args"]["name"] for entry in entries if entry["ph"] == "M"}
    assert {f"partition {guest.partition.id:#x}", "VP 0", "source: SELF_IPI", "source: SYNTHETIC_TIMER"} <= names
    asserted = set(events["flow"][events["kind"] == InterruptEvent.ASSERTED].tolist())
    assert {number for number, both in ends.items() if "f" in both} == asserted & set(delivered["flow"].tolist())
    assert len(durations) >= 3


def made(*rows):
    """Records from (time, kind, vector, flow)."""
    events = np.zeros(len(rows), RECORD)
    for event, (time, kind, vector, flow) in zip(events, rows, strict=True):
        event["time"], event["kind"], event["vector"], event["flow"] = time, kind, vector, flow
        event["partition"], event["sint"], event["source"] = 2, NO_SINT, InterruptSource.IPI
    return events


def handlers_of(entries):
    return [(entry["name"], entry["ts"], entry["dur"]) for entry in entries
            if entry["ph"] == "X" and entry["name"].startswith("handler")]


def test_durations_run_from_delivery_to_eoi_and_nest():
    kind = InterruptEvent
    entries = chrome_events(made((1000, kind.ASSERTED, 0x30, 1), (1500, kind.DELIVERED, 0x30, 1),
                                 (2000, kind.ASSERTED, 0x80, 2), (2000, kind.DELIVERED, 0x80, 2),
                                 (2600, kind.EOI, 0x80, 0), (3000, kind.EOI, 0x30, 0)))
    check(entries)
    assert handlers_of(entries) == [("handler 0x80", 2.0, 0.6), ("handler 0x30", 1.5, 1.5)]
    arrows = [(entry["ph"], entry["id"], entry["ts"]) for entry in entries if entry["ph"] in "sf"]
    assert arrows == [("s", 1, 1.0), ("f", 1, 1.5), ("s", 2, 2.0), ("f", 2, 2.0)]


def test_a_handler_with_auto_eoi_ends_with_the_one_around_it_or_with_the_trace():
    kind = InterruptEvent
    entries = chrome_events(made((1000, kind.DELIVERED, 0x30, 0), (2000, kind.DELIVERED, 0x40, 0),
                                 (3000, kind.EOI, 0x30, 0), (4000, kind.DELIVERED, 0x50, 0), (4500, kind.LOST, 9, 0)))
    check(entries)
    assert handlers_of(entries) == [("handler 0x40", 2.0, 1.0), ("handler 0x30", 1.0, 2.0), ("handler 0x50", 4.0, 0.5)]


def test_an_eoi_whose_delivery_the_ring_has_lost_is_an_instant():
    events = made((1000, InterruptEvent.EOI, 0x30, 0))
    events["value"] = NOT_SEEN
    entries = chrome_events(events)
    check(entries)
    assert [entry["ph"] for entry in entries] == ["M", "M", "i"]


def test_nothing_is_a_document_too(tmp_path):
    assert chrome_events(np.zeros(0, RECORD)) == []


def test_the_command_writes_a_trace(tmp_path):
    command = [sys.executable, "-m", "hvcore", "run", "--quiet", "--memory", "64 MiB", "--interrupt-trace"]
    done = subprocess.run([*command, str(tmp_path / "t.json")], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    check(json.loads((tmp_path / "t.json").read_text())["traceEvents"])
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(tmp_path) in done.stderr
