"""What a virtual processor has in its interrupt controller, as images: HvCallGetVpState and HvCallSetVpState
(hyperv-abi.md 4.12, 10.4).

An image holds one part of the state; registers (SINTs, SIMP, SIEFP, SCONTROL, CR8, IA32_APIC_BASE) are not in it, and
have names of their own. Messages in queues belong to ports, and stay where they are.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hvcore.processor import VirtualProcessor

_IN_PAGES = 1 << 31
_PAGE_BYTES = 4096


class VpStateType(IntEnum):
    """HV_GET_SET_VP_STATE_TYPE: those that belong to interrupts. Bit 31: the image is in pages of the caller."""

    SYNTHETIC_TIMERS = 4
    LOCAL_APIC = 0x8000_0000
    MESSAGE_PAGE = 0x8000_0002
    EVENT_PAGE = 0x8000_0003

    @property
    def in_pages(self) -> bool:
        """It comes in a page that the caller names by its number, not in the parameters of the call."""
        return bool(self & _IN_PAGES)


LOCAL_APIC = np.dtype(
    [
        *((name, "<u4") for name in ("id", "version", "ldr", "dfr", "spurious")),
        *((name, "<u4", 8) for name in ("isr", "tmr", "irr")),
        *((name, "<u4") for name in ("esr", "icr_high", "icr_low")),
        *((f"lvt_{name}", "<u4") for name in ("timer", "thermal", "perfmon", "lint0", "lint1", "error", "cmci")),
        *((name, "<u4") for name in ("error_status", "initial_count", "counter_value", "divide", "remote_read")),
    ]
)
"""An image of the local APIC, 176 bytes. `esr` is what the register reads, `error_status` what came since."""

SYNTHETIC_TIMER = np.dtype(
    [
        ("undelivered", "<u4"),
        ("reserved", "<u4"),
        ("config", "<u8"),
        ("count", "<u8"),
        ("adjustment", "<u8"),
        ("undelivered_expiration", "<u8"),
    ]
)
"""One timer. `adjustment`: when a periodic timer expires next, 0: a period after the image is taken over.
`undelivered`: its message waits for the slot; it is about the expiry of `undelivered_expiration`."""

SYNTHETIC_TIMERS = np.dtype([("timers", SYNTHETIC_TIMER, 4), ("reserved", "<u8", 5)])
"""An image of the synthetic timers, 200 bytes."""


def read_state(vp: VirtualProcessor, kind: VpStateType) -> bytes:
    """The image of one part of the state: 176, 4096, 4096 or 200 bytes."""
    if kind is VpStateType.LOCAL_APIC:
        return vp.interrupts.apic.state()
    if kind is VpStateType.SYNTHETIC_TIMERS:
        return vp.interrupts.timer_state()
    return vp.partition.hypervisor.memory.read(_frame_spa(vp, kind), _PAGE_BYTES)


def write_state(vp: VirtualProcessor, kind: VpStateType, image: bytes) -> None:
    """Take an image over.

    Raises
    ------
    ValueError
        It has another length, or says something that cannot be; nothing changed.
    """
    if kind is VpStateType.LOCAL_APIC:
        vp.interrupts.apic.restore(image)
    elif kind is VpStateType.SYNTHETIC_TIMERS:
        vp.interrupts.restore_timers(image)
    elif len(image) != _PAGE_BYTES:
        raise ValueError(f"image must have {_PAGE_BYTES} bytes, not {len(image)}")
    else:
        vp.partition.hypervisor.memory.write(_frame_spa(vp, kind), image)


def _frame_spa(vp: VirtualProcessor, kind: VpStateType) -> int:
    frames = vp.partition.frames[vp.index]
    return (frames.message_page if kind is VpStateType.MESSAGE_PAGE else frames.event_page) * _PAGE_BYTES
