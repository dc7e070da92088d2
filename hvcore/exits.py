"""Why a run came back: one class per reason, for `match` (see hvcore/_native/exits.pyx)."""

from hvcore._native.exits import (
    Budget,
    Canceled,
    Cpuid,
    ExceptionRaised,
    Exit,
    GpaViolation,
    Halt,
    IoPort,
    Mmio,
    Msr,
    TripleFault,
    Unsupported,
)

__all__ = [
    "Budget",
    "Canceled",
    "Cpuid",
    "ExceptionRaised",
    "Exit",
    "GpaViolation",
    "Halt",
    "IoPort",
    "Mmio",
    "Msr",
    "TripleFault",
    "Unsupported",
]
