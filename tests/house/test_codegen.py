"""Handlers stay tail calls (docs/architecture.md, "Threaded code").

A handler that became an ordinary call of the next one works, until the host's stack ends some million instructions
later. It shows in the machine code as an indirect call whose target is not one of the few functions of
`vp.machine`, or as a handler that should pass on and has no indirect jump.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .machine_code import Function, parse
from .sources import NATIVE

pytestmark = [
    pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 machine code"),
]
UNITS = sorted(path.stem for path in NATIVE.glob("engine_*.pyx"))
LONG = {"adcx", "adox", "div", "idiv", "imul", "popcnt", "rcl", "rcr", "shld", "shrd"}
SIZES = {"u64": 8, "i64": 8, "u32": 4, "i32": 4, "int": 4, "u16": 2, "u8": 1}
BODY = re.compile(r"^cdef (?:inline )?[\w *]+?\b(\w+)\([^)]*\)[^\n]*:\n((?:[ \t]+[^\n]*\n|\n)+)", re.MULTILINE)


@functools.cache
def functions(unit: str) -> tuple[Function, ...]:
    """The disassembled functions of a unit, as it is installed."""
    found = importlib.util.find_spec(f"hvcore._native.{unit}")
    assert found is not None and found.origin is not None
    listing = subprocess.check_output(["objdump", "-d", "--no-show-raw-insn", found.origin], text=True)
    return tuple(parse(listing))


def handlers(unit: str) -> list[Function]:
    return [function for function in functions(unit) if function.handler]


@functools.cache
def machine_offset() -> int:
    """Where `machine` is in vp_t, from the declarations before it."""
    text = (NATIVE / "cpu/state.pxd").read_text()
    slots = int(next(iter(re.findall(r"SLOT_COUNT = (\d+)", text))))
    fields = text.split("cdef struct vp_t:\n")[1].splitlines()
    offset = 0
    for line in fields:
        kind, name = line.split("#")[0].replace("const ", "").split()
        kind, _, count = kind.partition("[")
        size = 8 if kind.endswith("*") else SIZES[kind]
        offset = -(-offset // size) * size
        if name == "machine":
            return offset
        offset += size * {"": 1, "SLOT_COUNT]": slots}[count]
    raise AssertionError("vp_t has no machine")


@functools.cache
def sources() -> dict[str, str]:
    """Function name -> text, of the rooms that handlers are made of."""
    found: dict[str, str] = {}
    for path in [*(NATIVE / "sem").glob("*.pxd"), *(NATIVE / "cpu").glob("*.pxd")]:
        found |= dict(BODY.findall(path.read_text()))
    return found


@functools.cache
def passes_on(name: str) -> bool:
    """Whether a function of the rooms can end in a jump to another handler."""
    text = sources().get(name, "")
    words = set(re.findall(r"\b(\w+)\(", text)) - {name}
    return ".run(vp" in text or any(passes_on(word) for word in words if word in sources())


def generated(unit: str) -> dict[str, str]:
    path = NATIVE / "isa/generated" / f"{unit.removeprefix('engine_')}.pxi"
    if not path.exists():
        pytest.skip("the generated sources are not in this tree")
    return dict(BODY.findall(path.read_text()))


@pytest.mark.parametrize("unit", UNITS)
def test_indirect_calls_go_through_the_machine_only(unit: str) -> None:
    bad = {f.handler: calls for f in handlers(unit) if (calls := f.foreign_calls(machine_offset()))}
    assert not bad, f"{len(bad)} handlers call instead of jumping: {dict(list(bad.items())[:5])}"


@pytest.mark.parametrize("unit", UNITS)
def test_direct_calls_never_reach_threaded_code(unit: str) -> None:
    threaded = {f.name for f in functions(unit) if f.handler or (f.indirect_jumps and f.name.startswith("__pyx_f_"))}
    for handler in handlers(unit):
        for call in handler.calls:
            assert call.target_name not in threaded, f"{handler.handler} calls {call.target_name}"


@pytest.mark.parametrize("unit", UNITS)
def test_a_handler_that_passes_on_jumps(unit: str) -> None:
    bodies = generated(unit)
    there = {handler.handler: handler for handler in handlers(unit)}
    wanted = {name for name in bodies if name.startswith("op_")}
    gone = wanted - set(there)
    assert wanted and not gone, f"stripped, inlined, or folded into others: {sorted(gone)[:5]}"
    for name in wanted:
        if any(passes_on(word) for word in re.findall(r"\b(\w+)\(", bodies[name])):
            assert there[name].indirect_jumps, f"{name} has no indirect jump: it is no tail call any more"


@pytest.mark.parametrize("unit", ["engine_integer", "engine_control"])
def test_fast_handlers_need_no_frame(unit: str) -> None:
    """What is rare lies in slow twins, so that a TLB hit saves no register. Long arithmetic may."""
    if any("__asan" in call.target_name for handler in handlers(unit) for call in handler.calls):
        pytest.skip("a sanitizer's checks need registers")
    for handler in handlers(unit):
        mnemonic = handler.handler.split("_")[2]
        slow = handler.handler.endswith("_slow")
        if not slow and any(one.mnemonic[0] == "j" and one.target_name.endswith("_slow") for one in handler.code):
            assert mnemonic in LONG or all(one.mnemonic != "push" for one in handler.code), f"{handler.handler} has one"


LOST = """
0000000000001000 <__pyx_f_6hvcore_7_native_14engine_integer_op_0_add_r8>:
    1000:\tpush   %rbx
    1001:\tmov    %rdi,%rbx
    1004:\tmov    0xd8(%rdi),%rax
    100b:\ttest   %rax,%rax
    100e:\tje     1020 <__pyx_f_6hvcore_7_native_14engine_integer_op_0_add_r8+0x20>
    1010:\tcall   *0x20(%rax)
    1013:\tmov    0xd8(%rbx),%rdx
    101a:\tmov    0x8(%rdx),%rcx
    101e:\tcall   *%rcx
    1020:\tlea    0x20(%rsi),%rsi
    1024:\tmov    %rsi,%rax
    1027:\tcall   *0x20(%rax)
    102a:\tpop    %rbx
    102b:\tret
"""


def test_the_check_itself() -> None:
    """A lost tail call is found among calls that are right."""
    (function,) = parse(LOST)
    assert function.handler == "op_0_add_r8" and not function.indirect_jumps
    (found,) = function.foreign_calls(0xD8)
    assert found.startswith("1027: call *0x20(%rax) from lea")


def test_the_units_are_compiled_from_here() -> None:
    for unit in UNITS:
        assert Path(NATIVE / f"{unit}.pyx").exists() and len(handlers(unit)) > 50
