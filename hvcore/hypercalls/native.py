"""Calls that guests make often: address spaces, TLB flushes, cluster IPIs, spin waits (TLFS 9, 10; hyperv-abi.md 4.9).

Guest code in 64-bit mode does not come here: the native door (hvcore/_native/sem/hypercall.pxd) executes these calls
without leaving the run. Everybody else gets the same native functions by the ordinary dispatch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hvcore.enums import Hypercall, Status
from hvcore.hypercalls.abi import U32, U64, Layout, Refused, Unfinished
from hvcore.hypercalls.call import Call, Progress


class SpaceInput(NamedTuple):
    """The layout of SwitchVirtualAddressSpace."""

    address_space: U64


class SpinWaitInput(NamedTuple):
    """The layout of NotifyLongSpinWait."""

    spins: U32
    reserved: U32


class FlushInput(NamedTuple):
    """The layout of the flushes; `processors` is a mask."""

    address_space: U64
    flags: U64
    processors: U64


class FlushExInput(NamedTuple):
    """The layout of the Ex flushes; the banks of the VP set are the variable header."""

    address_space: U64
    flags: U64
    set_format: U64
    valid_banks: U64


class ClusterIpiInput(NamedTuple):
    """The layout of SendSyntheticClusterIpi; `vtl` is a byte, three bytes of zero follow."""

    vector: U32
    vtl: U32
    processors: U64


class ClusterIpiExInput(NamedTuple):
    """The layout of SendSyntheticClusterIpiEx; the banks of the VP set are the variable header."""

    vector: U32
    vtl: U32
    set_format: U64
    valid_banks: U64


_LAYOUTS = {
    kind: Layout(kind)
    for kind in (SpaceInput, SpinWaitInput, FlushInput, FlushExInput, ClusterIpiInput, ClusterIpiExInput)
}  # fmt: skip


def _execute(call: Call, code: Hypercall, header: Any, elements: bytes) -> tuple[int, int, bool]:
    data = _LAYOUTS[type(header)].pack(header) + call.variable
    return call.caller.core.execute_native(code, data, len(call.variable) // 8, elements, call.vp)


def simple(code: Hypercall) -> Any:
    """The handler of a simple call that native code executes."""

    def handler(call: Call, header: Any) -> None:
        status, _, blocked = _execute(call, code, header, b"")
        if blocked:
            raise _blocked(call)
        if status:
            raise Refused(Status(status))

    return handler


def repeated(code: Hypercall) -> Any:
    """The handler of a rep call that native code executes."""

    def handler(call: Call, header: Any) -> Progress:
        status, done, blocked = _execute(call, code, header, call.elements.tobytes())
        if blocked and call.vp is None:
            return Progress(0, Status.OPERATION_DENIED)
        return Progress(done, Status(status))

    return handler


def _blocked(call: Call) -> Exception:
    """A guest waits with its instruction not done until no target inhibits flushes; Python cannot."""
    return Refused(Status.OPERATION_DENIED) if call.vp is None else Unfinished()
