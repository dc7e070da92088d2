"""Module `exits`: one final class per reason for which a run comes back to Python.

Made by the engine only. An exit that carries a question (a read) is answered with `complete(value)` before its VP
runs again; a write has completed by itself. Everything is read-only; `rip` is the instruction that exits.
"""
cimport cython


class ExitNotCompleted(RuntimeError):
    """A VP was to run on although its last exit, a read, had not been answered."""


cdef str address_text(object exit, tuple names):
    parts = []
    for name in names:
        value = getattr(exit, name)
        parts.append(f"{name}={value:#x}" if isinstance(value, int) and not isinstance(value, bool)
                     else f"{name}={value!r}")
    return f"{type(exit).__name__}({', '.join(parts)})"


cdef class Exit:
    """What all exits have: `vp`, the processor, and `rip`."""
    __match_args__ = ()

    def __init__(self):
        raise TypeError(f"{type(self).__name__} objects come from run()")

    def __repr__(self):
        return address_text(self, (*self.__match_args__, "rip"))


@cython.final
cdef class Budget(Exit):
    """The instructions that `run` was allowed have retired."""


@cython.final
cdef class Halt(Exit):
    """The VP has halted and nothing that is armed could ever wake it."""


@cython.final
cdef class Canceled(Exit):
    """Another thread called `cancel()`."""


@cython.final
cdef class TripleFault(Exit):
    """An exception while a double fault was delivered: the VP has shut down."""


@cython.final
cdef class Unsupported(Exit):
    """The VP is in a mode that hvcore does not execute yet: anything but 64-bit mode."""


@cython.final
cdef class ApicEoi(Exit):
    """The guest has ended a level-triggered interrupt, or any if EOIs are intercepted. `vector` is what ended."""
    __match_args__ = ("vector",)


@cython.final
cdef class InterruptWindow(Exit):
    """What DeliverabilityNotifications asked for: an interrupt, or with `nmi` an NMI, could be delivered now."""
    __match_args__ = ("nmi",)


cdef class Answerable(Exit):
    """An access: `write`, `size` in bytes, and `value`: what was written, or None until a read is completed."""

    def complete(self, value):
        """Answer a read.

        Raises
        ------
        ValueError
            The access was a write, or `value` does not fit into `size` bytes.
        RuntimeError
            It has been completed before.
        """
        if self.write:
            raise ValueError("a write completes by itself: there is nothing to answer")
        if self.completed:
            raise RuntimeError("this exit has been completed before")
        limit = (<object>1) << 8 * self.size        # a Python int: the C type of `size` would overflow
        if not 0 <= value < limit:
            raise ValueError(f"value must be 0 to {limit - 1:#x} for a read of {self.size} bytes, not {value:#x}")
        self.vp.answer(value)
        self.value = value
        self.completed = True


@cython.final
cdef class IoPort(Answerable):
    """IN or OUT (`string`: INS or OUTS) on an intercepted port."""
    __match_args__ = ("port", "write", "size", "value")


@cython.final
cdef class Mmio(Answerable):
    """A data access to a guest physical address that nothing is mapped to."""
    __match_args__ = ("gpa", "write", "size", "value", "gva")


@cython.final
cdef class Msr(Answerable):
    """RDMSR or WRMSR of a register that neither processor nor hypervisor has, with MSRs intercepted."""
    __match_args__ = ("index", "write", "value")


@cython.final
cdef class GpaViolation(Exit):
    """The second level forbids the access ("r", "w", "x"), or a page table or code lies on an unmapped page."""
    __match_args__ = ("gpa", "access", "gva", "gva_valid")


@cython.final
cdef class Cpuid(Exit):
    """CPUID of an intercepted leaf; `default` is what (eax, ebx, ecx, edx) would have been."""
    __match_args__ = ("leaf", "subleaf", "default")

    def complete(self, values):
        """Answer with (eax, ebx, ecx, edx). Without an answer the defaults stand."""
        if len(values) != 4 or not all(0 <= value <= 0xFFFFFFFF for value in values):
            raise ValueError(f"values must be four 32-bit integers, not {values!r}")
        self.vp.rax, self.vp.rbx, self.vp.rcx, self.vp.rdx = values


@cython.final
cdef class ExceptionRaised(Exit):
    """An intercepted exception, before it is delivered. Run on, and the guest takes it."""
    __match_args__ = ("vector", "error_code", "address")
