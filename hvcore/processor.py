"""The virtual processor that Python users hold: the native one, with modes, register sets and counters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hvcore import vp_states
from hvcore._native import engine
from hvcore.arguments import output_array
from hvcore.boot.long_mode import enter_long_mode
from hvcore.boot.place import top_of_ram
from hvcore.counters import Counters
from hvcore.enums import Hypercall
from hvcore.experiments.records import RECORD
from hvcore.interrupts import InterruptStatistics
from hvcore.memory import LARGE_PAGE_SIZE
from hvcore.ports import MESSAGE, MESSAGES
from hvcore.vp_states import VpStateType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from hvcore.paging.results import Runs, Translation, Translations
    from hvcore.paging.state import PagingState
    from hvcore.paging.translator import Translator
    from hvcore.partition import Partition

class Listener(Protocol):
    """What can be attached to a processor: a TranslationModel, StackDistances, a TraceWriter."""

    def consume(self, records: NDArray[Any], /) -> None:
        """Take a chunk of hvcore.experiments.RECORD; it is not changed later."""


INTEGERS = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    *("rip", "rflags", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "mxcsr"),
    *(f"xmm{number}" for number in range(16)),
)
"""What `registers()` reads."""
SETTABLE = {*INTEGERS, "cs", "ds", "es", "fs", "gs", "ss", "ldtr", "tr", "gdtr", "idtr"}
"""What `registers(...)` sets."""


class VpFrames(NamedTuple):
    """Frames in the hypervisor's reserve for the overlay pages of one virtual processor."""

    message_page: int
    event_page: int
    assist_page: int
    event_ring: int


class VirtualProcessor(engine.VirtualProcessor):
    """One virtual processor of a partition, made by HvCallCreateVp. Registers are attributes."""

    partition: Partition
    """Whose it is."""
    hypercalls_by_name: Counter[str]
    """Finished hypercalls of its code that went through Python."""

    def join(self, partition: Partition) -> None:
        """What the constructor does in Python: the native one has the arguments to itself."""
        self.partition = partition
        self.hypercalls_by_name = Counter()
        self._listeners: list[Listener] = []
        trace = partition.hypervisor.interrupt_trace
        if trace is not None:
            trace.watch(self)

    def leave(self) -> Counters:
        """Called before it is removed: what it has counted."""
        trace = self.partition.hypervisor.interrupt_trace
        if trace is not None:
            trace.release(self)
        return self.counters()

    def attach(self, *listeners: Listener) -> None:
        """Let models, recorders or anything else with a `consume` see every access from now on.

        They get arrays of hvcore.experiments.RECORD: instruction fetches, loads, stores and read-modify-writes in
        order, by GVA, with the page sizes of both levels; loads of CR3 and the like as FLUSH, INVLPG as INVALIDATE.
        Neither the guest nor its counters notice. An exception of a listener leaves run(); if that run has an exit to
        give, the next one.

        Raises
        ------
        RuntimeError
            The processor is running, or was removed.
        TypeError
            A listener has no `consume`.
        ValueError
            A listener would be attached twice.
        """
        for listener in listeners:
            if not callable(getattr(listener, "consume", None)):
                raise TypeError(f"a listener must have a method consume(records), not {type(listener).__name__}")
        together = [*self._listeners, *listeners]
        if len({id(listener) for listener in together}) < len(together):
            raise ValueError("a listener is attached twice")
        self.start_tap()
        self._listeners += listeners

    def detach(self, *listeners: Listener) -> None:
        """Stop showing accesses to these, or to all.

        Raises
        ------
        RuntimeError
            The processor is running.
        ValueError
            One of them is not attached.
        """
        left = [one for one in self._listeners if not any(one is listener for listener in listeners)]
        if len(left) != len(self._listeners) - len(listeners):
            raise ValueError("a listener that is to be detached is not attached")
        if not listeners or not left:
            self.stop_tap()
        self._listeners = left if listeners else []

    def take_noted(self, records: bytes) -> None:
        """Hand what was noted to who listens."""
        noted = np.frombuffer(records, RECORD)
        for listener in self._listeners:
            listener.consume(noted)

    def reset(
        self,
        mode: str = "real16",
        *,
        rip: int = 0,
        rsp: int = 0,
        identity_map: int | str | None = None,
        tables: int | None = None,
        page_size: int | str = "2 MiB",
    ) -> None:
        """Into the state after power-on, "real16", or into 64-bit mode, "long64", ready to run at `rip`.

        After power-on all processors but the first wait for their start-up message; "long64" lets each start.

        Parameters
        ----------
        identity_map : bytes from address 0 that are mapped at their own address; default: all RAM. "4 GiB" has the
            pages of the local APIC and the I/O APIC, too.
        tables : where page tables, GDT and IDT go; default: the top of RAM.
        page_size : of the identity map, "4 KiB" or "2 MiB".

        Raises
        ------
        ValueError
            An argument is out of range, or the tables do not lie in mapped RAM.
        """
        if mode == "long64":
            if identity_map is None:
                identity_map = -(-top_of_ram(self.partition) // LARGE_PAGE_SIZE) * LARGE_PAGE_SIZE
            enter_long_mode(
                self.partition, self, rip=rip, rsp=rsp, identity_map=identity_map, tables=tables, page_size=page_size
            )
            self.start()
        elif mode == "real16":
            super().reset()
        else:
            raise ValueError(f'mode must be "real16" or "long64", not {mode!r}')

    def registers(self, **values: Any) -> dict[str, int]:
        """Set the registers that are named, then take all general, control and XMM registers.

        Raises
        ------
        ValueError
            There is no such register, or it cannot hold the value.
        """
        for name in values:
            if name not in SETTABLE:
                raise ValueError(f"there is no register {name!r}")
        for name, value in values.items():
            setattr(self, name, value)
        return {name: getattr(self, name) for name in INTEGERS}

    def paging_state(self) -> PagingState:
        """The registers that paging reads, as they are now."""
        from hvcore.paging.state import PagingState

        names = ("cr0", "cr3", "cr4", "efer", "rflags", "cpl", "pkru", "pkrs")
        bits = self.partition.core.physical_bits
        return PagingState(physical_address_bits=bits, **{name: getattr(self, name) for name in names})

    def translate(self, gvas: ArrayLike, access: str | ArrayLike = "r", **options: Any) -> Translations:
        """Translate arrays of addresses as this processor would now; see AddressSpace.translate for the options."""
        with self.partition.hypervisor.exclusive():
            return self._translator().translate(gvas, access, **options)

    def translate_one(self, gva: int, access: str | int = "r", **options: Any) -> Translation:
        """Translate one address; see AddressSpace.translate_one."""
        with self.partition.hypervisor.exclusive():
            return self._translator().translate_one(gva, access, **options)

    def translate_range(self, gva: int, size: int | str, access: str = "r", **options: Any) -> Runs:
        """What a run of addresses goes to; see AddressSpace.translate_range."""
        with self.partition.hypervisor.exclusive():
            return self._translator().translate_range(gva, size, access, **options)

    def find_gvas(self, **options: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Reverse look-up: GVAs that lead to a GPA or an SPA; see AddressSpace.find."""
        with self.partition.hypervisor.exclusive():
            return self._translator().find(**options)

    def _translator(self) -> Translator:
        from hvcore.paging.translator import Translator

        return Translator(self.partition.hypervisor.memory, self.paging_state(), gpa_space=self.space)

    def read_state(self, kind: VpStateType) -> bytes:
        """An image of a part of its interrupt state, as HvCallGetVpState gives it to a parent.

        Parameters
        ----------
        kind : LOCAL_APIC (hvcore.vp_states has the layout), SYNTHETIC_TIMERS (likewise), MESSAGE_PAGE, EVENT_PAGE.

        Raises
        ------
        ValueError
            There is no such image.
        """
        with self.partition.hypervisor.exclusive():
            return vp_states.read_state(self, VpStateType(kind))

    def write_state(self, kind: VpStateType, image: bytes) -> None:
        """Take over an image that `read_state` of a processor of equal setup gave, as HvCallSetVpState does.

        Raises
        ------
        TypeError, ValueError
            There is no such image, or `image` is none: no bytes, another length, or what cannot be. Nothing changed.
        """
        if not isinstance(image, bytes | bytearray | memoryview):
            raise TypeError(f"image must be bytes, not {type(image).__name__}")
        with self.partition.hypervisor.exclusive():
            vp_states.write_state(self, VpStateType(kind), bytes(image))

    def interrupt_statistics(self) -> InterruptStatistics:
        """What its interrupt controller counted per vector, source and SINT since the VP was created."""
        return InterruptStatistics.of(self.interrupts.tallies())

    def take_messages(self, sint: int, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Take messages from the slot of `sint` as a handler of the guest would: read it, empty it, EOM if more wait.

        Interrupts that the messages made stay requested.

        Parameters
        ----------
        out : array of hvcore.ports.MESSAGE; by default it has room for all that wait, and `out.size` bounds how many.

        Returns
        -------
        array of MESSAGE
            In the order in which they were posted.

        Raises
        ------
        TypeError, ValueError
            `sint` is no integer from 0 to 15, or `out` is no such array, contiguous and writable.
        """
        if out is None:
            taken = [self.take_messages(sint, out=np.empty(64, MESSAGE))]
            while len(taken[-1]) == 64:
                taken.append(self.take_messages(sint, out=np.empty(64, MESSAGE)))
            return np.concatenate(taken)
        output_array(out, "out", MESSAGE, MESSAGES)
        with self.partition.hypervisor.exclusive():
            return out[: self.interrupts.take_messages(sint, out)]

    def _native_calls(self) -> Counter[str]:
        """Those that the native door finished, by name."""
        return Counter({Hypercall(code).name: count for code, count in self.native_calls().items()})

    def counters(self) -> Counters:
        """A snapshot of everything that was counted since the VP was created. Snapshots subtract."""
        groups = {
            "exits": self.exit_counters(),
            "hypercalls": self.hypercalls_by_name + self._native_calls(),
            "interrupts_requested": self.interrupt_statistics().requests_by_source(),
        }
        return Counters.collect({**super().counters(), **self.interrupts.counters()}, groups)
