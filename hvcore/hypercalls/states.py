"""Calls E3 and E4: state of a virtual processor as images (hyperv-abi.md 4.12, 10.4; hvcore/vp_states.py)."""

from __future__ import annotations

from typing import NamedTuple

from hvcore._native.space import READ, WRITE
from hvcore.enums import Status, VpStateType
from hvcore.hypercalls.abi import PAGE_SIZE, U8, U32, U64, Bytes3, Bytes200, Refused
from hvcore.hypercalls.call import Call
from hvcore.hypercalls.processors import registers_target
from hvcore.vp_states import LOCAL_APIC, SYNTHETIC_TIMERS, read_state, write_state

_BYTES = {
    VpStateType.LOCAL_APIC: LOCAL_APIC.itemsize,
    VpStateType.SYNTHETIC_TIMERS: SYNTHETIC_TIMERS.itemsize,
    VpStateType.MESSAGE_PAGE: PAGE_SIZE,
    VpStateType.EVENT_PAGE: PAGE_SIZE,
}


class VpStateInput(NamedTuple):
    """Behind it, as variable header: numbers of pages in the caller's space, or with SetVpState the image itself."""

    partition_id: U64
    vp_index: U32
    vtl: U8
    reserved0: Bytes3
    type: U32
    reserved1: U32
    xsave_flags: U64
    xsave_states: U64


class VpStateOutput(NamedTuple):
    image: Bytes200


def has_output(header: VpStateInput) -> bool:
    """GetVpState gives pages, or has its output at the output address."""
    return header.type == VpStateType.SYNTHETIC_TIMERS


def get_vp_state(call: Call, header: VpStateInput) -> VpStateOutput | None:
    """Read an image into a page of the caller, or into the output."""
    vp = registers_target(call, header)
    kind = _kind(header)
    if kind.in_pages:
        spa = _page(call, WRITE)
        call.hypervisor.memory.write(spa, read_state(vp, kind))
        return None
    if call.variable:
        raise Refused(Status.INVALID_PARAMETER)
    return VpStateOutput(read_state(vp, kind))


def set_vp_state(call: Call, header: VpStateInput) -> None:
    """Take an image over; what cannot be in one is INVALID_PARAMETER, and nothing has changed."""
    vp = registers_target(call, header)
    kind = _kind(header)
    image = call.hypervisor.memory.read(_page(call, READ), _BYTES[kind]) if kind.in_pages else call.variable
    try:
        write_state(vp, kind, image)
    except ValueError:
        raise Refused(Status.INVALID_PARAMETER) from None


def _kind(header: VpStateInput) -> VpStateType:
    """XSAVE state is not among them: floating-point registers have names."""
    if header.type not in set(VpStateType):
        raise Refused(Status.INVALID_PARAMETER)
    return VpStateType(header.type)


def _page(call: Call, right: int) -> int:
    """The system address of the caller's page that is named first: every image has room in one."""
    gpn = int.from_bytes(call.variable[:8], "little")
    if not call.variable or gpn >= call.caller.page_limit:
        raise Refused(Status.INVALID_PARAMETER)
    found = call.caller.space.resolve(gpn * PAGE_SIZE)
    if found is None or not found[1] & right:
        raise Refused(Status.INVALID_PARAMETER)
    return found[0]
