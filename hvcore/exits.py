"""Why a run came back: one class per reason, for `match` (see hvcore/_native/exits.pyx)."""

from hvcore._native.exits import (
    ApicEoi,
    Budget,
    Canceled,
    Cpuid,
    ExceptionRaised,
    Exit,
    GpaViolation,
    Halt,
    InterruptWindow,
    IoPort,
    Mmio,
    Msr,
    TripleFault,
    Unsupported,
)

__all__ = [
    "ApicEoi",
    "Budget",
    "Canceled",
    "Cpuid",
    "ExceptionRaised",
    "Exit",
    "GpaViolation",
    "Halt",
    "InterruptWindow",
    "IoPort",
    "Mmio",
    "Msr",
    "TripleFault",
    "Unsupported",
]
