"""Partitions as native code knows them, virtual processors, and the scheduler. See engine.pyx."""
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, final

from typing_extensions import Buffer, disjoint_base

from hvcore._native.irqchip import InterruptController
from hvcore._native.platform import InterruptPlatform
from hvcore._native.space import GpaSpace, SystemMemory

MESSAGES: Final[dict[int, int]]
PLAIN_EXITS: Final[dict[int, type[Any]]]
REASON_NAMES: Final[dict[int, str]]
REGISTER_NAMES: Final[dict[str, int]]
ELEMENTS_PER_ENTRY: Final[int]
WORD64: Final[int]

class Segment(NamedTuple):
    """A segment register; `attributes` as in the TLFS: type, S, DPL, P, AVL, L, D/B, G."""
    base: int
    limit: int
    selector: int
    attributes: int

class Table(NamedTuple):
    """GDTR or IDTR."""
    base: int
    limit: int

class InterceptRecord(NamedTuple):
    """The facts of an exit, for a message to the parent."""
    message_type: int
    instruction_length: int
    instruction_bytes: bytes
    access: int
    gpa: int
    gva: int
    gva_valid: bool
    port: int
    size: int
    value: int
    string: bool
    rep: bool
    msr: int
    defaults: tuple[int, int, int, int]
    vector: int
    error_code: int | None
    software: bool
    parameter: int

class Walk(NamedTuple):
    """Everything about one walk: see mem/walk.pxd for the numbers."""
    status: int
    nested_status: int
    error_code: int
    address: int
    spa: int
    page_shift: int
    nested_page_shift: int
    references: int
    nested_references: int
    rights: int
    nested_rights: int
    nested_access: int
    key: int
    is_global: bool
    overlay: bool

@final
class PartitionCore:
    """What the processors of one partition share. The Python Partition keeps it up to date."""
    privileges: int
    physical_bits: int
    guest_os_id: int
    hypercall_msr: int
    host_managed: bool
    is_root: bool
    suspended: bool
    @property
    def creation_time(self) -> int: ...
    creation_flags: int
    def __new__(cls, memory: SystemMemory | None = None) -> PartitionCore: ...
    @property
    def platform(self) -> InterruptPlatform | None: ...
    def attach_platform(self, platform: InterruptPlatform | None, scheduler: Scheduler) -> None: ...
    def route_pins(
        self,
        rows: Sequence[tuple[int, PartitionCore, Iterable[int], int, bool]],
        gone: PartitionCore | None = None,
    ) -> None: ...
    def end_routed(self, receiver: PartitionCore, vector: int) -> bool: ...
    def send_msi(self, address: int, data: int, requester: int = 0) -> int | None: ...
    active: bool
    @property
    def has_doorbells(self) -> bool: ...
    reports_eois: bool
    def execute_native(
        self, code: int, header: bytes, variable_qwords: int, elements: bytes, vp: VirtualProcessor | None
    ) -> tuple[int, int, bool]: ...
    device_domain_bits: int
    def set_device_ranges(self, ranges: Iterable[tuple[int, int]]) -> None: ...
    def set_io_intercept(self, first: int, last: int, access: int) -> None: ...
    def set_msr_intercept(self, first: int, last: int, access: int) -> None: ...
    def set_cpuid_intercept(self, leaf: int | None, on: bool) -> None: ...
    def set_exception_intercept(self, vector: int, on: bool) -> None: ...
    def send_interrupt(
        self, destination: int, mode: int, vector: int, *, logical: bool = False, level: bool = False
    ) -> int: ...
    def addressed(self, destination: int, logical: bool) -> list[int]: ...

@final
class PartitionTime:
    """Reference time of a partition, the page that relates it to the TSC, and frequencies. Times are of 100 ns."""
    frozen: bool
    page_enabled: bool
    invariant_tsc: bool
    tsc_frequency: int
    apic_frequency: int
    @property
    def reenlightenment(self) -> dict[int, int]: ...
    def __init__(self, core: PartitionCore, begin: int, frame: Buffer) -> None: ...
    @property
    def reference(self) -> int: ...
    @property
    def running(self) -> bool: ...
    def restore(self, reference: int) -> None: ...
    def restore_tsc(self, tsc: int, sequence: int) -> None: ...
    @property
    def page_sequence(self) -> int: ...

@disjoint_base
class RegisterFile:
    """The registers of a virtual processor as attributes: cpu/registers.txt."""
    rax: int
    rcx: int
    rdx: int
    rbx: int
    rsp: int
    rbp: int
    rsi: int
    rdi: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int
    xmm0: int
    xmm1: int
    xmm2: int
    xmm3: int
    xmm4: int
    xmm5: int
    xmm6: int
    xmm7: int
    xmm8: int
    xmm9: int
    xmm10: int
    xmm11: int
    xmm12: int
    xmm13: int
    xmm14: int
    xmm15: int
    mm0: int
    mm1: int
    mm2: int
    mm3: int
    mm4: int
    mm5: int
    mm6: int
    mm7: int
    fp_control_status: int
    xmm_control_status: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    dr0: int
    dr1: int
    dr2: int
    dr3: int
    dr6: int
    dr7: int
    es: Segment
    cs: Segment
    ss: Segment
    ds: Segment
    fs: Segment
    gs: Segment
    ldtr: Segment
    tr: Segment
    idtr: Table
    gdtr: Table
    tsc: int
    efer: int
    kernel_gs_base: int
    apic_base: int
    pat: int
    sysenter_cs: int
    sysenter_eip: int
    sysenter_esp: int
    star: int
    lstar: int
    cstar: int
    sfmask: int
    initial_apic_id: int
    tsc_aux: int
    tsc_virtual_offset: int
    tsc_adjust: int
    explicit_suspend: bool
    intercept_suspend: bool
    pending_interruption: int
    deliverability_notifications: int
    tsc_deadline: int
    interrupt_state: int
    internal_activity_state: int

@disjoint_base
class VirtualProcessor(RegisterFile):
    """A virtual processor. Registers are attributes; `run` executes until an exit."""
    mxcsr: int
    pkru: int
    pkrs: int
    external_acknowledged: bool
    assist_msr: int
    @property
    def core(self) -> PartitionCore: ...
    @property
    def space(self) -> GpaSpace: ...
    @property
    def interrupts(self) -> InterruptController: ...
    @property
    def index(self) -> int: ...
    @property
    def cpl(self) -> int: ...
    @property
    def intercept(self) -> InterceptRecord: ...
    def __init__(self, core: PartitionCore, space: GpaSpace, interrupts: InterruptController, index: int) -> None: ...
    def reset(self) -> None: ...
    def start(self) -> None: ...
    def start_tap(self) -> None: ...
    def stop_tap(self) -> None: ...
    def take_noted(self, records: bytes) -> None: ...
    def suspend_for_intercept(self, inhibit_flushes: bool = False) -> None: ...
    def read_register(self, name: int) -> int | None: ...
    def write_register(self, name: int, value: int) -> int: ...
    def run(self, *, max_instructions: int | None = None) -> Any: ...
    def cancel(self) -> None: ...
    def answer(self, value: int) -> None: ...
    def device_access(self) -> tuple[int, int, bytes | None]: ...
    def counters(self) -> Mapping[str, int]: ...
    def native_calls(self) -> dict[int, int]: ...
    def exit_counters(self) -> dict[str, int]: ...
    def instruction_bytes(self) -> bytes: ...
    def translate_for_hypercall(self, gva: int, flags: int) -> tuple[int, int, int, bool]: ...
    def walk(self, gva: int, access: int = 1) -> tuple[int, int, int, int, int, int, int]: ...
    def probe(self, gva: int, access: int = 1, *, set_marks: bool = False) -> Walk: ...
    def read_gpa(self, gpa: int, n: int) -> bytes | None: ...
    def write_gpa(self, gpa: int, data: bytes) -> bool: ...
    def assert_init(self) -> None: ...
    def assert_startup(self, page: int) -> None: ...
    def assert_local(self, pin: int) -> None: ...
    def assert_external(self, vector: int) -> bool: ...
    def withdraw_external(self) -> None: ...

@final
class Scheduler:
    """Runs the virtual processors of a machine on its logical processors."""
    service: Callable[[Any, int], bool] | None
    @property
    def now(self) -> int: ...
    quantum: int
    def __new__(
        cls, memory: SystemMemory, processors: int, quantum: int, host_time: bool = False
    ) -> Scheduler: ...
    def __enter__(self) -> None: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def cancel(self) -> None: ...
    def add(self, vp: VirtualProcessor, processors: Sequence[int], weight: int, cap: int) -> None: ...
    def set_processors(self, vp: VirtualProcessor, processors: Sequence[int]) -> None: ...
    def set_weight(self, vp: VirtualProcessor, weight: int) -> None: ...
    def set_cap(self, vp: VirtualProcessor, cap: int) -> None: ...
    def remove(self, vp: VirtualProcessor) -> None: ...
    def run(self, only: VirtualProcessor | None, max_instructions: int | None = None) -> Any: ...

def is_implemented(form: int) -> bool: ...
def reference_scale(tsc_frequency: int) -> int: ...
def reference_from_tsc(tsc: int, scale: int, offset: int) -> int: ...
