"""Tests of the native oracle itself, against facts known by hand.

Everything here is skipped, by name and with the reason, where the host cannot run x86-64 code.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from . import native
from .cases import Template, encode, generate, refusal
from .native import (
    CASE_DTYPE,
    CODE_ADDRESS,
    DATA_ADDRESS,
    DATA_BYTES,
    DEFAULT_CODE_OFFSET,
    DEFAULT_WINDOW_OFFSET,
    FLAG_AF,
    FLAG_CF,
    FLAG_DF,
    FLAG_OF,
    FLAG_PF,
    FLAG_SF,
    FLAG_ZF,
    PAGE,
    R15,
    RAX,
    RBX,
    RCX,
    RDI,
    RDX,
    RESULT_DTYPE,
    RSI,
    RSP,
    STATUS_DIED,
    STATUS_FLAGS,
    STATUS_NONE,
    STATUS_SIGNAL,
    STATUS_STOPPED,
    STATUS_TIMEOUT,
    NativeProcessor,
    compare,
    data_checksum,
    forbidden_reason,
    initial_code_page,
    initial_data,
    new_cases,
    set_code,
)

_AVAILABLE, _REASON = native.available()
pytestmark = pytest.mark.skipif(not _AVAILABLE, reason=_REASON)

SIGILL, SIGTRAP, SIGFPE, SIGSEGV = 4, 5, 8, 11
START = CODE_ADDRESS + DEFAULT_CODE_OFFSET
WINDOW = DATA_ADDRESS + DEFAULT_WINDOW_OFFSET


@pytest.fixture(scope="module")
def processor() -> Iterator[NativeProcessor]:
    with NativeProcessor(capacity=4096) as running:
        yield running


def make(code: bytes, registers: dict[int, int] | None = None, **fields: int) -> np.ndarray[Any, Any]:
    """One case, as an array of one."""
    cases = new_cases(1)
    set_code(cases[0], code)
    cases["gpr"][0, RSP] = DATA_ADDRESS + PAGE
    for register, value in (registers or {}).items():
        cases["gpr"][0, register] = value & (1 << 64) - 1
    for name, value in fields.items():
        cases[name][0] = value
    return cases


def doubles(*values: float) -> np.ndarray[Any, Any]:
    return np.frombuffer(struct.pack(f"<{len(values)}d", *values), dtype=np.uint8)


def test_layouts_are_those_of_c(processor: NativeProcessor) -> None:
    # The greeting compared the sizes already; an odd total would betray padding numpy does not know.
    assert CASE_DTYPE.itemsize % 8 == 0
    assert RESULT_DTYPE.itemsize % 8 == 0


def test_state_goes_in_and_comes_out(processor: NativeProcessor) -> None:
    cases = make(b"\x90")
    generator = np.random.default_rng(1)
    cases["gpr"] = generator.integers(0, 1 << 64, size=(1, 16), dtype=np.uint64)
    cases["xmm"] = generator.integers(0, 256, size=(1, 16, 16), dtype=np.uint8)
    cases["st"][0, :, :10] = generator.integers(0, 256, size=(8, 10), dtype=np.uint8)
    cases["window"] = generator.integers(0, 256, size=(1, 256), dtype=np.uint8)
    cases["x87_tags"] = 0xA5
    cases["x87_control"] = 0x27F
    cases["mxcsr"] = 0xFF95
    cases["rflags"] = STATUS_FLAGS | FLAG_DF
    for code in (b"\x90", b"\x0f\x0b"):  # left through the stop, and through a signal
        set_code(cases[0], code)
        result = processor.run(cases)[0]
        for name in ("gpr", "xmm", "st", "window"):
            assert (result[name] == cases[name][0]).all(), name
        assert result["mxcsr"] == 0xFF95
        assert result["x87_tags"] == 0xA5
        assert result["x87_control"] == 0x27F
        assert result["rflags"] == STATUS_FLAGS | FLAG_DF


@pytest.mark.parametrize(
    ("code", "left", "right", "carry", "value", "flags"),
    [
        (b"\x48\x01\xd8", (1 << 64) - 1, 1, 0, 0, FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF),  # add rax, rbx
        (b"\x48\x01\xd8", (1 << 63) - 1, 1, 0, 1 << 63, FLAG_PF | FLAG_AF | FLAG_SF | FLAG_OF),
        (b"\x01\xd8", 0xFFFFFFFF_80000000, 0x80000000, 0, 0, FLAG_CF | FLAG_PF | FLAG_ZF | FLAG_OF),  # add eax, ebx
        (b"\x10\xd8", 0x1234567F, 0, 1, 0x12345680, FLAG_AF | FLAG_SF | FLAG_OF),  # adc al, bl
        (b"\x66\x11\xd8", 0xFFFF, 0xFFFF, 1, 0xFFFF, FLAG_CF | FLAG_PF | FLAG_AF | FLAG_SF),  # adc ax, bx
        (b"\x48\x29\xd8", 3, 5, 0, (1 << 64) - 2, FLAG_CF | FLAG_AF | FLAG_SF),  # sub rax, rbx
    ],
)
def test_arithmetic_flags(
    processor: NativeProcessor, code: bytes, left: int, right: int, carry: int, value: int, flags: int
) -> None:
    result = processor.run(make(code, {RAX: left, RBX: right}, rflags=carry))[0]
    assert result["status"] == STATUS_STOPPED
    assert result["rip"] == START + len(code)
    assert result["gpr"][RAX] == value
    assert result["rflags"] == flags


def test_imul_overflow_flags(processor: NativeProcessor) -> None:
    small = processor.run(make(b"\x48\x0f\xaf\xc3", {RAX: -3, RBX: 7}))[0]
    large = processor.run(make(b"\x48\x0f\xaf\xc3", {RAX: 1 << 62, RBX: 2}))[0]
    assert small["gpr"][RAX] == (1 << 64) - 21
    assert not small["rflags"] & (FLAG_CF | FLAG_OF)
    assert large["gpr"][RAX] == 1 << 63
    assert large["rflags"] & (FLAG_CF | FLAG_OF) == FLAG_CF | FLAG_OF


def test_idiv_overflow_is_a_divide_error(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\x48\xf7\xfb", {RDX: -1, RAX: 1 << 63, RBX: -1}))[0]
    assert (result["status"], result["signal"], result["trap"]) == (STATUS_SIGNAL, SIGFPE, 0)
    assert result["rip"] == START
    assert result["gpr"][RAX] == 1 << 63


def test_undefined_opcode(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\x0f\x0b"))[0]
    assert (result["status"], result["signal"], result["trap"]) == (STATUS_SIGNAL, SIGILL, 6)
    assert result["rip"] == START


def test_breakpoint_is_told_from_the_stop(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\xcc\x90"))[0]
    assert (result["status"], result["signal"], result["trap"]) == (STATUS_SIGNAL, SIGTRAP, 3)
    assert result["rip"] == START + 1


def test_branch_out_of_the_code_meets_filler(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\xeb\x20"))[0]  # jmp +0x20
    assert (result["status"], result["trap"]) == (STATUS_SIGNAL, 3)
    assert result["rip"] == START + 2 + 0x20 + 1


@pytest.mark.parametrize("address", [DATA_ADDRESS - 1, DATA_ADDRESS + DATA_BYTES, DATA_ADDRESS + DATA_BYTES + PAGE - 1])
def test_load_from_a_guard_page(processor: NativeProcessor, address: int) -> None:
    result = processor.run(make(b"\x8a\x03", {RBX: address, RAX: 0x77}))[0]  # mov al, [rbx]
    assert (result["signal"], result["trap"], result["error_code"]) == (SIGSEGV, 14, 4)
    assert result["fault_address"] == address
    assert result["gpr"][RAX] == 0x77


def test_store_across_the_end_faults_in_the_guard_page(processor: NativeProcessor) -> None:
    end = DATA_ADDRESS + DATA_BYTES
    cases = make(b"\x48\x89\x03", {RBX: end - 3, RAX: -1})  # mov [rbx], rax
    result = processor.run(cases)[0]
    assert (result["trap"], result["error_code"], result["fault_address"]) == (14, 6, end)
    assert result["checksum"] == data_checksum(initial_data(cases[0]))


def test_non_canonical_address_is_a_general_protection_fault(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\x8a\x03", {RBX: 1 << 63}))[0]
    assert (result["signal"], result["trap"], result["fault_address"]) == (SIGSEGV, 13, 0)


def test_code_page_is_not_writable(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\x88\x03", {RBX: START}))[0]
    assert (result["trap"], result["error_code"], result["fault_address"]) == (14, 7, START)


def test_data_pages_are_not_executable(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\xff\xe3", {RBX: WINDOW}))[0]  # jmp rbx
    assert (result["trap"], result["rip"], result["fault_address"]) == (14, WINDOW, WINDOW)
    assert result["error_code"] & 0x10


def test_code_running_off_its_page_faults_on_fetch(processor: NativeProcessor) -> None:
    result = processor.run(make(b"\x90\x48\x01", code_offset=PAGE - 3))[0]
    assert (result["status"], result["trap"]) == (STATUS_SIGNAL, 14)
    assert result["rip"] == CODE_ADDRESS + PAGE - 2
    assert result["fault_address"] == CODE_ADDRESS + PAGE


def test_divpd_by_zero_is_sticky_when_masked_and_traps_when_not(processor: NativeProcessor) -> None:
    code = b"\x66\x0f\x5e\xc1"  # divpd xmm0, xmm1
    cases = np.concatenate([make(code), make(code, mxcsr=0x1F80 & ~0x200)])
    cases["xmm"][:, 0] = doubles(1.0, 1.0)
    cases["xmm"][:, 1] = doubles(0.0, 3.0)
    masked, unmasked = processor.run(cases)
    assert masked["status"] == STATUS_STOPPED
    assert masked["mxcsr"] == 0x1F80 | 0x4 | 0x20  # divide by zero, inexact
    assert (masked["xmm"][0] == doubles(float("inf"), 1 / 3)).all()
    assert (unmasked["status"], unmasked["signal"], unmasked["trap"]) == (STATUS_SIGNAL, SIGFPE, 19)
    assert unmasked["mxcsr"] & 0x4
    assert (unmasked["xmm"][0] == doubles(1.0, 1.0)).all()


def test_rounding_mode_is_taken(processor: NativeProcessor) -> None:
    cases = np.concatenate([make(b"\xf2\x48\x0f\x2d\xc0", mxcsr=0x1F80 | mode << 13) for mode in range(4)])
    cases["xmm"][:, 0] = doubles(2.5, 0.0)  # cvtsd2si rax, xmm0: nearest even, down, up, towards zero
    assert processor.run(cases)["gpr"][:, RAX].tolist() == [2, 2, 3, 2]


def test_push_and_pop_use_the_tested_stack_pointer(processor: NativeProcessor) -> None:
    top = WINDOW + 64
    pushed = processor.run(make(b"\x50", {RAX: 0x1122334455667788, RSP: top}))[0]
    assert pushed["gpr"][RSP] == top - 8
    assert pushed["window"][56:64].tobytes() == struct.pack("<Q", 0x1122334455667788)
    cases = make(b"\x5c", {RSP: top})  # pop rsp
    cases["window"][0, 64:72] = np.frombuffer(struct.pack("<Q", 0xDEAD), dtype=np.uint8)
    assert processor.run(cases)[0]["gpr"][RSP] == 0xDEAD


def test_any_stack_pointer_survives_a_fault(processor: NativeProcessor) -> None:
    for pointer in (0, 1, 1 << 63, DATA_ADDRESS - 1, CODE_ADDRESS):
        result = processor.run(make(b"\x90\x0f\x0b", {RSP: pointer}))[0]
        assert (result["trap"], result["gpr"][RSP], result["rip"]) == (6, pointer, START + 1)


def test_store_across_the_page_border(processor: NativeProcessor) -> None:
    border = DATA_ADDRESS + PAGE
    cases = make(b"\x48\x89\x03", {RBX: border - 3, RAX: 0x1122334455667788})
    result = processor.run(cases)[0]
    expected = initial_data(cases[0])
    expected[PAGE - 3 : PAGE + 5] = struct.pack("<Q", 0x1122334455667788)
    assert result["status"] == STATUS_STOPPED
    assert result["window"].tobytes() == expected[DEFAULT_WINDOW_OFFSET : DEFAULT_WINDOW_OFFSET + 256]
    assert result["checksum"] == data_checksum(expected)


def test_rep_movsb_forwards_and_backwards(processor: NativeProcessor) -> None:
    for flags, source, target, last_source in ((0, 0, 16, 10), (FLAG_DF, 9, 25, -1)):
        registers = {RCX: 10, RSI: WINDOW + source, RDI: WINDOW + target}
        cases = make(b"\xf3\xa4", registers, rflags=flags)
        cases["window"][0, :10] = np.arange(1, 11, dtype=np.uint8)
        result = processor.run(cases)[0]
        assert result["gpr"][RCX] == 0
        assert result["gpr"][RSI] == WINDOW + last_source
        assert result["window"][16:26].tolist() == list(range(1, 11))
        assert result["rflags"] == flags


def test_rep_movsb_into_a_guard_page_stops_half_way(processor: NativeProcessor) -> None:
    end = DATA_ADDRESS + DATA_BYTES
    result = processor.run(make(b"\xf3\xa4", {RCX: 10, RSI: WINDOW, RDI: end - 4}))[0]
    assert (result["trap"], result["fault_address"], result["rip"]) == (14, end, START)
    assert (result["gpr"][RCX], result["gpr"][RSI], result["gpr"][RDI]) == (6, WINDOW + 4, end)


def test_mmx_and_x87_state_is_observed(processor: NativeProcessor) -> None:
    cases = make(b"\x0f\xfc\xc1", x87_tags=0)  # paddb mm0, mm1
    cases["st"][0, 0, :8] = 250
    cases["st"][0, 1, :8] = 10
    result = processor.run(cases)[0]
    assert result["st"][0].tolist() == [4] * 8 + [0xFF, 0xFF] + [0] * 6
    assert result["x87_tags"] == 0xFF
    pushed = processor.run(make(b"\xd9\xe8"))[0]  # fld1
    assert pushed["st"][0, :10].tobytes() == bytes.fromhex("0000000000000080ff3f")
    assert pushed["x87_status"] >> 11 & 7 == 7


def test_alignment_check_and_pending_x87_exceptions_stay_in_the_case(processor: NativeProcessor) -> None:
    popf = make(b"\x9d", {RSP: WINDOW})
    popf["window"][0, :8] = np.frombuffer(struct.pack("<Q", 0x44202), dtype=np.uint8)  # AC and NT
    division = make(b"\xd9\xe8\xd9\xee\xde\xf9", x87_control=0x37B)  # fld1; fldz; fdivp, zero divide unmasked
    quiet = make(b"\x90")
    flags, pending, after = processor.run(np.concatenate([popf, division, quiet]))
    assert (flags["status"], flags["rflags"]) == (STATUS_STOPPED, 0x44000)
    assert pending["status"] == STATUS_STOPPED
    assert pending["x87_status"] & 0x84 == 0x84
    assert (after["status"], after["rflags"], after["x87_status"]) == (STATUS_STOPPED, 0, 0)


def test_trap_flag_set_by_popf_is_reported_as_debug_trap(processor: NativeProcessor) -> None:
    cases = make(b"\x9d\x90\x90", {RSP: WINDOW})
    cases["window"][0, :8] = np.frombuffer(struct.pack("<Q", 0x302), dtype=np.uint8)
    result = processor.run(cases)[0]
    assert (result["signal"], result["trap"], result["rip"]) == (SIGTRAP, 1, START + 2)


def test_endless_loop_times_out_and_the_next_case_runs(processor: NativeProcessor) -> None:
    cases = np.concatenate([make(b"\xeb\xfe", {R15: 7}), make(b"\x90"), make(b"\xf3\xeb\xfd"), make(b"\x0f\x0b")])
    before = processor.restarts
    results = processor.run(cases)
    assert results["status"].tolist() == [STATUS_TIMEOUT, STATUS_STOPPED, STATUS_TIMEOUT, STATUS_SIGNAL]
    assert results["gpr"][0, R15] == 7
    assert results["rip"][0] == START
    assert processor.restarts == before


def test_malformed_cases_are_not_run(processor: NativeProcessor) -> None:
    cases = np.concatenate(
        [make(b"\x90", code_length=65), make(b"\x90", code_offset=PAGE), make(b"\x90", window_offset=DATA_BYTES)]
    )
    assert processor.run(cases)["status"].tolist() == [STATUS_NONE] * 3


def test_child_death_costs_one_case() -> None:
    with NativeProcessor(capacity=8) as processor:
        exits = b"\xb8\x3c\x00\x00\x00\x0f\x05"  # mov eax, 60 (exit); syscall
        cases = np.concatenate([make(b"\x90"), make(exits), make(b"\x0f\x0b"), make(exits), make(exits)] * 4)
        results = processor.run(cases, trusted=True)
        one_round = [STATUS_STOPPED, STATUS_DIED, STATUS_SIGNAL, STATUS_DIED, STATUS_DIED]
        assert results["status"].tolist() == one_round * 4
        assert processor.restarts >= 11


def test_hung_child_is_replaced() -> None:
    with NativeProcessor(capacity=8, silence_limit=0.3) as processor:
        sleeps = b"\xb8\x22\x00\x00\x00\x0f\x05"  # mov eax, 34 (pause); syscall
        results = processor.run(np.concatenate([make(sleeps), make(b"\x90")]), trusted=True)
        assert results["status"].tolist() == [STATUS_DIED, STATUS_STOPPED]


@pytest.mark.parametrize(
    "code", ["0f05", "90900f34", "cd80", "f30faed0", "f3480faed8", "b80f05cd80", "0f01ef"]
)  # fmt: skip
def test_dangerous_code_is_refused(processor: NativeProcessor, code: str) -> None:
    assert forbidden_reason(bytes.fromhex(code))
    with pytest.raises(ValueError, match="must not be run"):
        processor.run(make(bytes.fromhex(code)))


def test_compare_names_what_differs(processor: NativeProcessor) -> None:
    results = processor.run(np.concatenate([make(b"\x90"), make(b"\x90")]))
    other = results.copy()
    assert compare(results, other) == []
    other["gpr"][1, RDX] = 5
    other["rflags"][1] = FLAG_CF | FLAG_OF
    other["xmm"][0, 3, 15] = 1
    other["window"][0, 10:12] ^= 0xFF
    found = compare(results, other, undefined_flags=np.array([0, FLAG_OF]))
    assert found[0] == f"case 0: xmm3: native 0x{0:032x}, other 0x01{0:030x}"
    assert found[1] == "case 0: window[10:12]: native 00 00, other ff ff"
    assert found[2] == f"case 1: rdx: native 0x{0:016x}, other 0x{5:016x}"
    assert found[3] == "case 1: rflags: native -, other CF"
    assert len(found) == 4


def test_initial_memory_is_what_python_says(processor: NativeProcessor) -> None:
    cases = make(b"\x90", filler_seed=0xFEDCBA9876543210, window_offset=100)
    cases["window"] = 0xAB
    assert processor.run(cases)[0]["checksum"] == data_checksum(initial_data(cases[0]))
    page = initial_code_page(cases[0])
    assert page[DEFAULT_CODE_OFFSET] == 0x90
    assert page.count(0xCC) == PAGE - 1


# --- the generator -------------------------------------------------------------------------------------

TEMPLATES = (
    Template("add", b"\x01", ("Ev", "Gv"), modrm="/r", lock=True),
    Template("add", b"\x00", ("Eb", "Gb"), modrm="/r", lock=True),
    Template("adc", b"\x81", ("Ev", "Iz"), modrm="/2", lock=True),
    Template("add", b"\x83", ("Ev", "sIb"), modrm="/0", lock=True),
    Template("sub", b"\x2d", ("rAX", "Iz")),
    Template("mov", b"\xb8", ("Zv", "Iv"), modrm="+r"),
    Template("mov", b"\xb0", ("Zb", "Ib"), modrm="+r"),
    Template("mov", b"\xa1", ("rAX", "Ov")),
    Template("lea", b"\x8d", ("Gv", "M"), modrm="/r"),
    Template("div", b"\xf7", ("Ev",), modrm="/6", undefined_flags=STATUS_FLAGS),
    Template("idiv", b"\xf6", ("Eb",), modrm="/7", undefined_flags=STATUS_FLAGS),
    Template("shl", b"\xd3", ("Ev", "CL"), modrm="/4"),
    Template("shrd", b"\xac", ("Ev", "Gv", "Ib"), map="0F", modrm="/r"),
    Template("push", b"\x50", ("Zv",), modrm="+r", default64=True),
    Template("pop", b"\x8f", ("Ev",), modrm="/0", default64=True),
    Template("call", b"\xe8", ("Jz",)),
    Template("je", b"\x74", ("Jb",)),
    Template("jmp", b"\xff", ("Ev",), modrm="/4"),
    Template("ret", b"\xc2", ("Iw",)),
    Template("movs", b"\xa5", ("Yv", "Xv"), repeat=(0xF3,)),
    Template("scas", b"\xae", ("AL", "Yb"), repeat=(0xF3, 0xF2)),
    Template("bts", b"\xab", ("Ev", "Gv"), map="0F", modrm="/r", lock=True),
    Template("xchg", b"\x87", ("Ev", "Gv"), modrm="/r", lock=True),
    Template("cmpxchg16b", b"\xc7", ("Mdq",), map="0F", modrm="/1", rex_w=True, lock=True, feature="cx16"),
    Template("popf", b"\x9d", default64=True),
    Template("enter", b"\xc8", ("Iw", "Ib")),
    Template("movzx", b"\xb6", ("Gv", "Eb"), map="0F", modrm="/r"),
    Template("addps", b"\x58", ("Vps", "Wps"), map="0F", modrm="/r"),
    Template("movups", b"\x10", ("Vps", "Wps"), map="0F", modrm="/r"),
    Template("cmpsd", b"\xc2", ("Vsd", "Wsd", "Ib"), map="0F", prefix=0xF2, modrm="/r", immediates=tuple(range(8))),
    Template("cvttsd2si", b"\x2c", ("Gy", "Wsd"), map="0F", prefix=0xF2, modrm="/r"),
    Template("pextrb", b"\x14", ("Rd/Mb", "Vdq", "Ib"), map="0F3A", prefix=0x66, modrm="/r", feature="sse4.1"),
    Template("movd", b"\x6e", ("Vy", "Ey"), map="0F", prefix=0x66, modrm="/r"),
    Template("movmskps", b"\x50", ("Gd", "Ups"), map="0F", modrm="/r"),
    Template("paddb", b"\xfc", ("Pq", "Qq"), map="0F", modrm="/r"),
    Template("mov", b"\x8c", ("Ev", "Sw"), modrm="/r"),
    Template("fadd", b"\xdc", ("Mq",), modrm="/0", setup="x87"),
    Template("fmul", b"\xd8\xc9", setup="x87"),
    Template("andn", b"\xf2", ("Gy", "By", "Ey"), map="0F38", modrm="/r", vex="128", feature="bmi1"),
)


def test_generated_code_reads_back_as_what_was_meant() -> None:
    iced_x86 = pytest.importorskip("iced_x86")
    seed = 20240229
    rng = random.Random(seed)
    formatter = iced_x86.Formatter(iced_x86.FormatterSyntax.NASM)
    for template in TEMPLATES:
        for _ in range(60):
            encoding = encode(template, rng)
            decoded = iced_x86.Decoder(64, encoding.code, ip=START).decode()
            text = formatter.format(decoded)
            told = f"seed {seed}: {template.mnemonic} {encoding.code.hex(' ')} reads as {text!r}"
            assert not decoded.is_invalid and decoded.len == len(encoding.code), told
            assert template.mnemonic in text or text.startswith(("cmp", "cvtt", "movq")), told
            memory = encoding.memory
            if memory is not None:
                assert iced_x86.MemorySizeInfo(decoded.memory_size).size == memory.size or template.mnemonic == "lea"
                if memory.fixed is not None:
                    assert decoded.memory_displacement == memory.fixed, told


def test_generation_repeats_with_its_seed() -> None:
    first, second = generate(TEMPLATES, 500, 7), generate(TEMPLATES, 500, 7)
    assert (first.cases.view(np.uint8) == second.cases.view(np.uint8)).all()
    assert (first.cases.view(np.uint8) != generate(TEMPLATES, 500, 8).cases.view(np.uint8)).any()


def test_generated_cases_run_and_repeat(processor: NativeProcessor) -> None:
    seed = 4
    batch = generate(TEMPLATES, 8000, seed)
    results = processor.run(batch.cases)
    again = processor.run(batch.cases)
    differences = compare(results, again)
    assert not differences, f"seed {seed}: {differences[:3]}\n{batch.describe(int(differences[0].split()[1][:-1]))}"
    ended = np.isin(results["status"], (STATUS_STOPPED, STATUS_SIGNAL))
    assert ended.all(), batch.describe(int(np.flatnonzero(~ended)[0]))
    # Most memory operands must lie in the data pages, and some must not.
    faults = (results["status"] == STATUS_SIGNAL) & np.isin(results["trap"], (12, 13, 14))
    with_memory = np.array([e.memory is not None for e in batch.encodings])
    assert 0.003 < faults[with_memory].mean() < 0.12, f"seed {seed}"


@pytest.mark.parametrize(
    "template",
    [
        Template("syscall", b"\x05", map="0F"),
        Template("mov", b"\x8e", ("Sw", "Ew"), modrm="/r"),
        Template("int", b"\xcd", ("Ib",)),
        Template("wrfsbase", b"\xae", ("Ry",), map="0F", prefix=0xF3, modrm="/2"),
        Template("jmp", b"\xff", ("Mp",), modrm="/5"),
        Template("pop", b"\xa1", ("FS",), map="0F"),
    ],
)
def test_templates_the_host_must_not_run_are_refused(template: Template) -> None:
    assert refusal(template)
    with pytest.raises(ValueError, match=template.mnemonic):
        encode(template, random.Random(0))
