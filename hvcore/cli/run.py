"""`hvcore run`: run a guest to its end, show its console, and report what was counted."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from hvcore import exits
from hvcore.cli.console import Console
from hvcore.cli.failure import Failure, refusals
from hvcore.cli.guests import Guest, child_guest, root_guest

_INTERRUPTED = 130
_TRACED_EVENTS = 1_000_000


def run(options: Namespace) -> int:
    """The command; returns the exit status."""
    in_root = options.root or options.program is None
    _require_sense(options, in_root=in_root)
    console = Console(None if options.json else sys.stdout.buffer)
    guest = (root_guest if in_root else child_guest)(options, console.put)
    trace = guest.hypervisor.trace_interrupts(capacity=_TRACED_EVENTS) if options.interrupt_trace else None
    try:
        exit_ = guest.go(options.max_instructions)
    except KeyboardInterrupt:
        exit_ = None
    console.end_line()
    if trace is not None:
        with refusals(options.interrupt_trace):
            trace.write_chrome(options.interrupt_trace)
    if options.json:
        print(json.dumps(_report(guest, exit_, console), indent=2, sort_keys=True))
    else:
        _show(guest, options)
    sys.stdout.flush()
    complaint = _complaint(guest, exit_, options)
    if complaint:
        print(f"hvcore: {complaint}", file=sys.stderr)
    return _INTERRUPTED if exit_ is None else int(bool(complaint))


def _require_sense(options: Namespace, *, in_root: bool) -> None:
    """Refuse what is only for the other of the two ways to run."""
    if options.root and options.program is None:
        raise Failure("--root needs a PROGRAM")
    if in_root and options.vps is not None:
        raise Failure("--vps is for a PROGRAM in a child: the root has a virtual processor for each of --processors")
    if in_root and options.platform:
        raise Failure("--platform is for a PROGRAM in a child: the root has it")
    for name in ("iommu", "disk"):
        if not in_root and getattr(options, name):
            raise Failure(f"--{name} needs --root: the root has the devices")


def _complaint(guest: Guest, exit_: Any, options: Namespace) -> str:
    """What went wrong, empty if nothing did."""
    if exit_ is None:
        return "interrupted"
    if not isinstance(exit_, exits.Halt):
        return f"the guest did not end by HLT: {exit_!r}"
    if options.program is None and guest.vp.rax:
        return f"the root guest failed: RAX = {guest.vp.rax:#x}"
    return ""


def _show(guest: Guest, options: Namespace) -> None:
    if options.program is not None:
        print(f"RAX = {guest.vp.rax:#x}")
    if not options.quiet:
        print(guest.hypervisor.counters())


def _report(guest: Guest, exit_: Any, console: Console) -> dict[str, Any]:
    """What --json prints: nothing in it depends on the host."""
    vp = guest.vp if exit_ is None else exit_.vp
    return {
        "exit": {"reason": "Interrupted"} if exit_ is None else _facts(exit_),
        "registers": {name: hex(value) for name, value in vp.registers().items()},
        "console": console.text,
        "counters": dict(guest.hypervisor.counters()),
    }


def _facts(exit_: Any) -> dict[str, Any]:
    facts = {name: _json_value(getattr(exit_, name)) for name in (*exit_.__match_args__, "rip")}
    return {"reason": type(exit_).__name__} | facts


def _json_value(value: Any) -> Any:
    """Numbers as hexadecimal text, everything else as it is."""
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else value
