"""A stand-in for hvcore._native.engine while it does not exist: state without execution.

It has what the Python layer asks of the engine, and no more; conftest.py installs it only if the real one is missing.
"""

from threading import RLock
from typing import Any, NamedTuple


class Segment(NamedTuple):
    base: int
    limit: int
    selector: int
    attributes: int


class Table(NamedTuple):
    base: int
    limit: int


class PartitionCore:
    """The engine's view of a partition."""

    def __init__(self) -> None:
        self.privileges = 0
        self.host_managed = False
        self.creation_flags = 0
        self.suspended = False
        self.has_doorbells = False
        self.guest_os_id = 0
        self.hypercall_msr = 0
        self.intercepts: list[tuple[Any, ...]] = []

    def set_io_intercept(self, first: int, last: int, access: int) -> None:
        self.intercepts.append(("io", first, last, access))

    def set_msr_intercept(self, first: int, last: int, access: int) -> None:
        self.intercepts.append(("msr", first, last, access))

    def set_cpuid_intercept(self, leaf: int | None, on: bool) -> None:
        self.intercepts.append(("cpuid", leaf, on))

    def set_exception_intercept(self, vector: int, on: bool) -> None:
        self.intercepts.append(("exception", vector, on))


# name -> (attribute, bits of the value that are not reserved)
_NAMED = {
    0x20000 + number: (name, (1 << 64) - 1)
    for number, name in enumerate("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split())
} | {
    0x0: ("explicit_suspend", 1),
    0x10002: ("pending_interruption", (1 << 64) - 1),
    0x30000: ("xmm0", (1 << 128) - 1),
    0x40000: ("cr0", 0xE005003F),
    0x40002: ("cr3", (1 << 52) - 1),
    0x80001: ("efer", 0xD01),
    0x8480D: ("ldr", 0xFFFFFFFF),
}


class VirtualProcessor:
    def __init__(self, core: PartitionCore, space: Any, interrupts: Any, index: int) -> None:
        self.core, self.space, self.interrupts, self.index = core, space, interrupts, index
        self.assist_msr = self.event_ring_msr = 0
        self.explicit_suspend = self.intercept_suspend = False
        self.intercept: Any = None
        self.external: int | None = None
        self.external_acknowledged = False
        self.events: list[tuple[str, int]] = []
        self.memory: Any = None
        self.reset()

    def reset(self) -> None:
        for name, _ in _NAMED.values():
            if name != "explicit_suspend":
                setattr(self, name, 0)
        self.xmm1 = self.xmm2 = self.xmm3 = self.xmm4 = self.xmm5 = 0
        self.cr2 = self.cr4 = self.cr8 = self.dr7 = self.interrupt_state = 0
        self.cr0, self.rflags, self.rip = 0x60000010, 2, 0xFFF0
        flat = Segment(0, 0xFFFF, 0, 0x93)
        self.ds = self.es = self.ss = flat
        self.cs = Segment(0xFFFF0000, 0xFFFF, 0xF000, 0x9B)

    def counters(self) -> dict[str, int]:
        return {}

    def exit_counters(self) -> dict[str, int]:
        return {}

    def suspend_for_intercept(self) -> None:
        self.intercept_suspend = True

    def read_register(self, name: int) -> int | None:
        return int(getattr(self, _NAMED[name][0])) if name in _NAMED else None

    def write_register(self, name: int, value: int) -> int:
        if name not in _NAMED:
            return 0x87
        attribute, writable = _NAMED[name]
        if value & ~writable:
            return 0x50
        setattr(self, attribute, value)
        return 0

    def translate_one(self, gva: int, flags: int) -> tuple[int, int, int, bool]:
        found = self.space.resolve(gva)
        return (0, gva, 6, found[3]) if found else (0, gva, 6, False)

    def read_gpa(self, gpa: int, n: int) -> bytes | None:
        found = self.space.resolve(gpa)
        return self.memory.read(found[0], n) if found and found[1] & 1 else None

    def write_gpa(self, gpa: int, data: bytes) -> bool:
        found = self.space.resolve(gpa)
        if not found or not found[1] & 2:
            return False
        self.memory.write(found[0], data)
        return True

    def assert_init(self) -> None:
        self.events.append(("init", 0))

    def assert_startup(self, page: int) -> None:
        self.events.append(("startup", page))

    def assert_local(self, pin: int) -> None:
        self.events.append(("local", pin))

    def assert_external(self, vector: int) -> bool:
        if self.external_acknowledged:
            return False
        self.external = vector
        return True

    def withdraw_external(self) -> None:
        self.external = None


class Scheduler:
    def __init__(self, memory: Any, processors: int) -> None:
        self.memory = memory
        self.now = 0
        self.service: Any = None
        self.vps: list[VirtualProcessor] = []
        self.lock = RLock()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            raise RuntimeError("this Hypervisor is in use by another thread: use one per thread")

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def add(self, vp: VirtualProcessor) -> None:
        vp.memory = self.memory
        self.vps.append(vp)

    def remove(self, vp: VirtualProcessor) -> None:
        self.vps.remove(vp)

    def run(self, vp: VirtualProcessor | None, max_instructions: int | None = None) -> Any:
        self.now += max_instructions or 0
        return None
