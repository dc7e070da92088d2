"""The host's own processor as an oracle: NativeProcessor runs batches of cases on it.

native_runner.c does the running, in a child process; this file compiles it, mirrors its structs
as numpy dtypes, feeds it through a shared file and starts it again when a case kills it.  Also
here: what a second implementation needs to build the same memory image, and compare().
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mmap
import os
import platform
import select
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CODE_ADDRESS = 0x20000000
DATA_ADDRESS = 0x10000000
PAGE = 4096
DATA_BYTES = 2 * PAGE
CODE_LIMIT = 64
WINDOW_BYTES = 256
STOP_BYTES = 5
USER_LIMIT = (1 << 47) - PAGE
"""Where Linux ends the user's half of the address space."""
CODE_FILLER = 0xCC
"""Every byte of the code page that is not tested code: a branch that lands there stops as trap 3."""

DEFAULT_CODE_OFFSET = 0x800
DEFAULT_WINDOW_OFFSET = PAGE - WINDOW_BYTES // 2
"""The window straddles the border between the two data pages, so page-crossing stores show in it."""
DEFAULT_MXCSR = 0x1F80
DEFAULT_X87_CONTROL = 0x37F

FLAG_CF, FLAG_PF, FLAG_AF, FLAG_ZF, FLAG_SF = 0x1, 0x4, 0x10, 0x40, 0x80
FLAG_TF, FLAG_DF, FLAG_OF = 0x100, 0x400, 0x800
STATUS_FLAGS = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF
REPORTED_FLAGS = 0x244DD5
"""What RESULT_DTYPE's rflags may hold: the status flags, DF, TF, NT, AC and ID."""

STATUS_NONE, STATUS_STOPPED, STATUS_SIGNAL, STATUS_TIMEOUT, STATUS_DIED = range(5)
STATUS_NAMES = ("none", "stopped", "signal", "timeout", "died")

REGISTER_NAMES = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

CASE_DTYPE = np.dtype(
    [
        ("gpr", "<u8", 16),
        ("rflags", "<u8"),
        ("filler_seed", "<u8"),
        ("mxcsr", "<u4"),
        ("code_length", "<u2"),
        ("code_offset", "<u2"),
        ("window_offset", "<u2"),
        ("x87_control", "<u2"),
        ("x87_status", "<u2"),
        ("x87_tags", "<u2"),
        ("code", "u1", CODE_LIMIT),
        ("xmm", "u1", (16, 16)),
        ("st", "u1", (8, 16)),
        ("window", "u1", WINDOW_BYTES),
    ]
)

RESULT_DTYPE = np.dtype(
    [
        ("gpr", "<u8", 16),
        ("rip", "<u8"),
        ("rflags", "<u8"),
        ("error_code", "<u8"),
        ("fault_address", "<u8"),
        ("checksum", "<u8"),
        ("mxcsr", "<u4"),
        ("status", "<u4"),
        ("signal", "<u4"),
        ("trap", "<u4"),
        ("x87_control", "<u2"),
        ("x87_status", "<u2"),
        ("x87_tags", "<u2"),
        ("reserved", "<u2"),
        ("xmm", "u1", (16, 16)),
        ("st", "u1", (8, 16)),
        ("window", "u1", WINDOW_BYTES),
    ]
)

_MAGIC = 0x31454C4341524F48
_GREETING = struct.Struct("<6Q")
_REQUEST = struct.Struct("<2Q")
_SOURCE = Path(__file__).with_name("native_runner.c")
_COMPILER_FLAGS = (
    # Non-PIE: the trampolines name statics by 32-bit absolute address.  The rest keeps the compiler
    # from relying on state that tested code may have changed.
    "-O2", "-std=gnu11", "-fno-pie", "-no-pie", "-mno-red-zone", "-fno-stack-protector",
    "-fcf-protection=none",
)  # fmt: skip

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


class OracleError(RuntimeError):
    """The oracle itself, not a tested case, failed."""


# --- the memory image of a case, for a second implementation ------------------------------------


def _mix(values: Array) -> Array:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed


@functools.lru_cache(maxsize=64)
def _filler(seed: int) -> bytes:
    steps = np.arange(1, DATA_BYTES // 8 + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(steps + np.uint64(seed & _MASK64)).astype("<u8").tobytes()


@functools.cache
def _weights() -> Array:
    return _mix(np.arange(DATA_BYTES // 8, dtype=np.uint64) * np.uint64(_GOLDEN)) | np.uint64(1)


def initial_data(case: np.void) -> bytearray:
    """The two data pages as the case finds them: filler, with the window laid over it."""
    data = bytearray(_filler(int(case["filler_seed"])))
    offset = int(case["window_offset"])
    data[offset : offset + WINDOW_BYTES] = case["window"].tobytes()
    return data


def initial_code_page(case: np.void) -> bytearray:
    """The code page as the case finds it, without the stop: that is a matter of each runner.

    A run is over when RIP reaches CODE_ADDRESS + code_offset + code_length.
    """
    page = bytearray([CODE_FILLER]) * PAGE
    offset, length = int(case["code_offset"]), int(case["code_length"])
    page[offset : offset + length] = case["code"].tobytes()[:length]
    return page


def data_checksum(data: bytes | bytearray | memoryview) -> int:
    """The sum RESULT_DTYPE's checksum holds, of the two data pages."""
    words = np.frombuffer(data, dtype="<u8", count=DATA_BYTES // 8)
    return int((words * _weights()).sum(dtype=np.uint64))


# --- building cases ------------------------------------------------------------------------------


def new_cases(count: int) -> Array:
    """Cases with all registers zero and MXCSR, x87 and offsets at their usual values."""
    cases = np.zeros(count, dtype=CASE_DTYPE)
    cases["rflags"] = 0x202
    cases["mxcsr"] = DEFAULT_MXCSR
    cases["x87_control"] = DEFAULT_X87_CONTROL
    cases["code_offset"] = DEFAULT_CODE_OFFSET
    cases["window_offset"] = DEFAULT_WINDOW_OFFSET
    return cases


def set_code(case: np.void, code: bytes) -> None:
    """Put `code` into one case."""
    if len(code) > CODE_LIMIT:
        raise ValueError(f"tested code has {len(code)} bytes, the limit is {CODE_LIMIT}")
    case["code"][: len(code)] = np.frombuffer(code, dtype=np.uint8)
    case["code_length"] = len(code)


def forbidden_reason(code: bytes) -> str | None:
    """Why this code must not be run on the host, or None.

    Looks at every byte position, not only at instruction borders, because a branch may enter an
    instruction in its middle.  So it also refuses a few harmless immediates.
    """
    for at in range(len(code) - 1):
        first, second = code[at], code[at + 1]
        if first == 0x0F and second == 0x05:
            return "syscall"
        if first == 0x0F and second == 0x34:
            return "sysenter"
        if first == 0xCD and second == 0x80:
            return "int 0x80"
        if first == 0x0F and second == 0xAE and at + 2 < len(code) and 0xC0 <= code[at + 2] <= 0xDF:
            return "rdfsbase/wrfsbase family"
        if first == 0x0F and second == 0x01 and at + 2 < len(code) and code[at + 2] == 0xEF:
            return "wrpkru"
    return None


def _first_forbidden(cases: Array) -> tuple[int, str] | None:
    # Tested as arrays first: almost no case is suspicious, and Python's own loop would cost more
    # than running the cases does.
    code = cases["code"]
    first, second = code[:, :-1], code[:, 1:]
    after_escape = (second == 0x05) | (second == 0x34) | (second == 0xAE) | (second == 0x01)
    suspicious = ((first == 0x0F) & after_escape) | ((first == 0xCD) & (second == 0x80))
    for index in np.flatnonzero(suspicious.any(axis=1)):
        reason = forbidden_reason(code[index].tobytes()[: int(cases["code_length"][index])])
        if reason:
            return int(index), reason
    return None


# --- compiling and running -----------------------------------------------------------------------


def _compiler() -> list[str] | None:
    for candidate in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        if candidate:
            command = shlex.split(candidate)
            if command and shutil.which(command[0]):
                return command
    return None


def _cache_directory() -> Path:
    # Named by user: a directory shared between users would let one run another's program.
    directory = Path(tempfile.gettempdir()) / f"hvcore-native-oracle-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise OracleError(f"{directory} belongs to another user")
    return directory


@functools.cache
def _compiled_runner() -> Path:
    command = _compiler()
    if command is None:
        raise OracleError("no C compiler found")
    source = _SOURCE.read_bytes()
    key = hashlib.sha256(source + repr((command, _COMPILER_FLAGS)).encode()).hexdigest()[:16]
    target = _cache_directory() / f"native_runner-{key}"
    if not target.exists():
        # Built aside and renamed, so that two test processes may do this at the same time.
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        done = subprocess.run(
            [*command, *_COMPILER_FLAGS, "-o", str(partial), str(_SOURCE)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise OracleError(f"{shlex.join(command)} could not build native_runner.c: {done.stderr.strip()}")
        partial.replace(target)
    return target


@functools.cache
def available() -> tuple[bool, str]:
    """Whether the oracle works on this host, and if not, why."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False, f"the native oracle needs an x86-64 host, this one is {platform.machine()}"
    if sys.platform != "linux":
        return False, f"the native oracle needs Linux, this is {sys.platform}"
    if sys.maxsize < 1 << 32:
        return False, "the native oracle needs a 64-bit process"
    if _compiler() is None:
        return False, "the native oracle needs a C compiler, and none was found"
    try:
        with NativeProcessor(capacity=1) as processor:
            case = new_cases(1)
            set_code(case[0], b"\x90")
            if processor.run(case)["status"][0] != STATUS_STOPPED:
                return False, "the native oracle could not run a single nop on this host"
    except (OracleError, OSError) as problem:
        return False, f"the native oracle did not start: {problem}"
    return True, ""


class NativeProcessor:
    """Runs cases on the host's processor, in a child process.

    A case that kills or hangs the child beyond its own timer is reported as STATUS_DIED and the
    run goes on with the next one in a new child.
    """

    def __init__(self, capacity: int = 4096, silence_limit: float = 5.0) -> None:
        self.capacity = capacity
        self.silence_limit = silence_limit
        """Seconds without progress after which the child counts as hung."""
        self.restarts = 0
        self._child: subprocess.Popen[bytes] | None = None
        length = PAGE + capacity * (CASE_DTYPE.itemsize + RESULT_DTYPE.itemsize)
        self._descriptor = os.memfd_create("native-oracle")
        os.ftruncate(self._descriptor, length)
        self._shared = mmap.mmap(self._descriptor, length)
        self._current = np.frombuffer(self._shared, dtype="<u8", count=1)
        self._cases = np.frombuffer(self._shared, dtype=CASE_DTYPE, count=capacity, offset=PAGE)
        self._results = np.frombuffer(
            self._shared, dtype=RESULT_DTYPE, count=capacity, offset=PAGE + capacity * CASE_DTYPE.itemsize
        )

    def __enter__(self) -> NativeProcessor:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the child and give the shared memory back."""
        self._stop()
        if self._descriptor >= 0:
            del self._current, self._cases, self._results
            self._shared.close()
            os.close(self._descriptor)
            self._descriptor = -1

    def run(self, cases: Array, *, trusted: bool = False) -> Array:
        """Run all cases and return one result for each.

        Refuses code that could reach the kernel or change FS/GS, unless `trusted`.
        """
        if cases.dtype != CASE_DTYPE:
            raise TypeError("cases must have CASE_DTYPE")
        if self._descriptor < 0:
            raise OracleError("this NativeProcessor is closed")
        if not trusted:
            found = _first_forbidden(cases)
            if found:
                raise ValueError(f"case {found[0]} must not be run on the host: it holds {found[1]}")
        results = np.zeros(len(cases), dtype=RESULT_DTYPE)
        for start in range(0, len(cases), self.capacity):
            part = cases[start : start + self.capacity]
            self._cases[: len(part)] = part
            self._run_loaded(len(part))
            results[start : start + len(part)] = self._results[: len(part)]
        return results

    def _run_loaded(self, count: int) -> None:
        first = 0
        while first < count:
            if self._child is None:
                self._start()
                self.restarts += 1
            self._current[0] = first
            if self._request(first, count):
                return
            culprit = int(self._current[0])
            self._stop()
            if not first <= culprit < count:
                raise OracleError("the runner died between cases")
            self._results[culprit] = np.zeros((), dtype=RESULT_DTYPE)
            self._results["status"][culprit] = STATUS_DIED
            first = culprit + 1

    def _request(self, first: int, last: int) -> bool:
        assert self._child is not None and self._child.stdin is not None
        try:
            self._child.stdin.write(_REQUEST.pack(first, last))
            self._child.stdin.flush()
        except BrokenPipeError:
            return False
        return self._receive(_REQUEST.size) == _REQUEST.pack(first, last)

    def _receive(self, length: int) -> bytes | None:
        """`length` bytes from the child; None when it ended or made no progress for too long."""
        assert self._child is not None and self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        received = b""
        seen = int(self._current[0])
        while len(received) < length:
            ready, _, _ = select.select([descriptor], [], [], self.silence_limit)
            if not ready:
                if int(self._current[0]) == seen:
                    return None
                seen = int(self._current[0])
                continue
            piece = os.read(descriptor, length - len(received))
            if not piece:
                return None
            received += piece
        return received

    def _start(self) -> None:
        runner = _compiled_runner()
        for _ in range(8):
            self._child = subprocess.Popen(
                [str(runner), str(self._descriptor), str(self.capacity)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._descriptor],
            )
            greeting = self._receive(_GREETING.size)
            if greeting is not None:
                break
            code = self._stop()
            if code != 3:  # 3: address randomisation put something where the pages go
                raise OracleError(f"the runner ended with code {code} before its greeting")
        else:
            raise OracleError("the fixed addresses were taken in every attempt")
        expected = (
            _MAGIC, CASE_DTYPE.itemsize, RESULT_DTYPE.itemsize, CODE_ADDRESS, DATA_ADDRESS, DATA_BYTES,
        )  # fmt: skip
        if _GREETING.unpack(greeting) != expected:
            self._stop()
            raise OracleError("native_runner.c and native.py disagree about the record layout")

    def _stop(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        try:
            child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
        return child.returncode


# --- comparing -----------------------------------------------------------------------------------

COMPARED = frozenset(
    ("status", "gpr", "rip", "rflags", "mxcsr", "xmm", "trap", "error_code", "fault_address", "window", "checksum")
)
"""What compare() looks at by default.  x87 state ("x87") is compared on request."""

_FLAG_BITS = (
    ("CF", 0x1), ("PF", 0x4), ("AF", 0x10), ("ZF", 0x40), ("SF", 0x80), ("TF", 0x100),
    ("DF", 0x400), ("OF", 0x800), ("NT", 0x4000), ("AC", 0x40000), ("ID", 0x200000),
)  # fmt: skip


def flag_names(rflags: int) -> str:
    """The set flags by name, as in "CF|ZF"."""
    return "|".join(name for name, bit in _FLAG_BITS if rflags & bit) or "-"


def _without_kernel_hint(record: np.void) -> np.void:
    """Linux says of every page above the user's that it is present: no tested code shall learn where the kernel is."""
    if record["trap"] == 14 and int(record["fault_address"]) >= USER_LIMIT:
        record = record.copy()
        record["error_code"] &= ~np.uint64(1)
    return record


def _compare_one(native: np.void, other: np.void, undefined: int, fields: Collection[str]) -> list[str]:
    found: list[str] = []

    def number(name: str, left: int, right: int, digits: int = 16) -> None:
        if left != right:
            found.append(f"{name}: native {left:#0{digits + 2}x}, other {right:#0{digits + 2}x}")

    def octets(name: str, left: Array, right: Array) -> None:
        # Vector registers read as one number, highest byte first, as manuals print them.
        number(name, int.from_bytes(left.tobytes(), "little"), int.from_bytes(right.tobytes(), "little"), 32)

    if "status" in fields and native["status"] != other["status"]:
        names = [STATUS_NAMES[int(r["status"])] + f" (trap {int(r['trap'])})" for r in (native, other)]
        found.append(f"status: native {names[0]}, other {names[1]}")
    if native["status"] == STATUS_DIED:
        return found
    if "gpr" in fields:
        for index in np.flatnonzero(native["gpr"] != other["gpr"]):
            number(REGISTER_NAMES[index], int(native["gpr"][index]), int(other["gpr"][index]))
    if "rip" in fields:
        number("rip", int(native["rip"]), int(other["rip"]))
    if "rflags" in fields:
        left, right = (int(r["rflags"]) & REPORTED_FLAGS & ~undefined for r in (native, other))
        if left != right:
            found.append(f"rflags: native {flag_names(left)}, other {flag_names(right)}")
    if "mxcsr" in fields:
        number("mxcsr", int(native["mxcsr"]), int(other["mxcsr"]), 4)
    if "xmm" in fields:
        for index in np.flatnonzero((native["xmm"] != other["xmm"]).any(axis=1)):
            octets(f"xmm{index}", native["xmm"][index], other["xmm"][index])
    if "x87" in fields:
        for name in ("x87_control", "x87_status", "x87_tags"):
            number(name, int(native[name]), int(other[name]), 4)
        for index in np.flatnonzero((native["st"] != other["st"]).any(axis=1)):
            octets(f"st({index})", native["st"][index], other["st"][index])
    if native["status"] == other["status"] == STATUS_SIGNAL:
        native = _without_kernel_hint(native)
        for name in ("trap", "error_code", "fault_address"):
            if name in fields:
                number(name, int(native[name]), int(other[name]))
    if "window" in fields:
        differing = np.flatnonzero(native["window"] != other["window"])
        if len(differing):
            first, last = int(differing[0]), int(differing[-1]) + 1
            left, right = (r["window"][first:last].tobytes().hex(" ") for r in (native, other))
            found.append(f"window[{first}:{last}]: native {left}, other {right}")
    if "checksum" in fields and native["checksum"] != other["checksum"]:
        found.append("checksum of the data pages differs")
    return found


def compare(
    result_native: Array,
    result_other: Array,
    undefined_flags: int | Array = 0,
    *,
    fields: Collection[str] = COMPARED,
) -> list[str]:
    """Readable differences between two RESULT_DTYPE arrays (or single records), one string each.

    `undefined_flags` are rflags bits left out: one mask for all, or one for each case.
    """
    native, other = np.atleast_1d(result_native), np.atleast_1d(result_other)
    if native.shape != other.shape:
        raise ValueError(f"{native.shape} native results against {other.shape} others")
    masks = np.broadcast_to(np.asarray(undefined_flags, dtype=np.uint64), native.shape)
    # `reserved` is never written, and equal bytes need no closer look.
    differing = native.view((np.uint8, RESULT_DTYPE.itemsize)) if native.flags.c_contiguous else None
    if differing is not None and other.flags.c_contiguous:
        indices = np.flatnonzero((differing != other.view((np.uint8, RESULT_DTYPE.itemsize))).any(axis=1))
    else:
        indices = np.arange(len(native))
    return [
        f"case {index}: {difference}"
        for index in indices
        for difference in _compare_one(native[index], other[index], int(masks[index]), fields)
    ]
