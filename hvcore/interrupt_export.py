"""A trace of interrupts as Chrome trace events: JSON for chrome://tracing and https://ui.perfetto.dev.

The format: an object with a list `traceEvents`, whose times are microseconds. M names processes and threads, X is a
duration, i an instant, s and f are the ends of an arrow and bind to the duration around them.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hvcore.interrupts import NO_SINT, NOT_SEEN, InterruptEvent, InterruptSource

_SOURCE_THREADS = 1 << 20
"""Threads of sources are numbered from here; those of virtual processors have their index."""
_MARK = 0.001
"""Microseconds: what a request lasts, so that an arrow has something to begin at."""
_REQUESTS = (InterruptEvent.ASSERTED, InterruptEvent.MERGED)


def write_chrome(events: NDArray[Any], path: str | PathLike[str]) -> int:
    """Write records to a file; how many entries that made."""
    entries = chrome_events(events)
    document = {"traceEvents": entries, "displayTimeUnit": "ns", "otherData": {"clock": "virtual time, 1 tick = 1 ns"}}
    Path(path).write_text(json.dumps(document, separators=(",", ":")))
    return len(entries)


def chrome_events(events: NDArray[Any]) -> list[dict[str, Any]]:
    """Records as Chrome trace events, in their order of time on every thread."""
    return _Export(events).entries


class _Export:
    def __init__(self, events: NDArray[Any]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._threads: dict[tuple[int, int], str] = {}
        self._running: dict[tuple[int, int], list[tuple[int, float, dict[str, Any]]]] = {}
        self._last = 0.0
        self._asserted = {int(flow) for flow in events["flow"][events["kind"] == InterruptEvent.ASSERTED]}
        for record in events:
            self._add(record)
        for thread, handlers in self._running.items():
            while handlers:
                self._end(thread, handlers, self._last)
        names = [self._name("process_name", partition, 0, f"partition {partition:#x}")
                 for partition in sorted({partition for partition, _ in self._threads})]  # fmt: skip
        threads = sorted(self._threads.items())
        self.entries = names + [self._name("thread_name", *where, name) for where, name in threads] + self.entries

    def _add(self, record: Any) -> None:
        kind, vector = InterruptEvent(int(record["kind"])), int(record["vector"])
        time = int(record["time"]) / 1000
        self._last = max(self._last, time)
        thread = (int(record["partition"]), int(record["vp"]))
        self._threads.setdefault(thread, f"VP {thread[1]}")
        facts = _facts(record)
        handlers = self._running.setdefault(thread, [])
        if kind in _REQUESTS:
            self._request(thread, time, f"{kind.name} {vector:#x}", facts, record)
        elif kind is InterruptEvent.DELIVERED:
            handlers.append((vector, time, facts))
            if int(record["flow"]) in self._asserted:
                self._put("f", thread, time, f"{vector:#x}", id=int(record["flow"]), bp="e", cat="interrupt")
        elif kind is InterruptEvent.EOI and any(vector == one for one, _, _ in handlers):
            while self._end(thread, handlers, time) != vector:
                pass
        else:
            self._put("i", thread, time, f"{kind.name} {vector:#x}" if vector else kind.name, s="t", args=facts)

    def _request(self, thread: tuple[int, int], time: float, name: str, facts: dict[str, Any], record: Any) -> None:
        """On the thread of its source, where its arrow begins."""
        source = InterruptSource(int(record["source"]))
        where = (thread[0], _SOURCE_THREADS + source)
        self._threads.setdefault(where, f"source: {source.name}")
        self._put("X", where, time, name, dur=_MARK, args=facts | {"vp": thread[1]})
        if record["kind"] == InterruptEvent.ASSERTED:
            self._put("s", where, time, f"{int(record['vector']):#x}", id=int(record["flow"]), cat="interrupt")

    def _end(self, thread: tuple[int, int], handlers: list[tuple[int, float, dict[str, Any]]], time: float) -> int:
        """The innermost handler that runs has ended: its vector. One with auto-EOI ends with the one around it."""
        vector, begin, facts = handlers.pop()
        self._put("X", thread, begin, f"handler {vector:#x}", dur=round(max(time - begin, _MARK), 3), args=facts)
        return vector

    def _put(self, phase: str, thread: tuple[int, int], time: float, name: str, **more: Any) -> None:
        entry = {"ph": phase, "pid": thread[0], "tid": thread[1], "ts": time, "name": name}
        self.entries.append(entry | {"cat": "interrupt"} | more)

    @staticmethod
    def _name(kind: str, partition: int, thread: int, name: str) -> dict[str, Any]:
        return {"ph": "M", "pid": partition, "tid": thread, "name": kind, "args": {"name": name}}


def _facts(record: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if record["source"]:
        facts["source"] = InterruptSource(int(record["source"])).name
    if record["sint"] != NO_SINT:
        facts["sint"] = int(record["sint"])
    if record["value"] != NOT_SEEN:
        facts["latency" if record["kind"] == InterruptEvent.DELIVERED else "value"] = int(record["value"])
    return facts
