"""Every instruction form that iced-x86 knows is in the table, with the facts that iced has of it.

The bytes are made when the tests run, by iced's encoder (oracles/iced_samples.py); how hvcore decodes them is compared
with how iced does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from oracles.iced_samples import CODES, KINDS, NEVER_DECODED, Sample, codes, iced_x86, names_of, samples

from hvcore._native import facts
from hvcore._native.instructions import decode_one
from hvcore._native.isa import forms, notation, table
from hvcore._native.isa.facts import element_label

MNEMONICS = names_of(iced_x86.Mnemonic)
FEATURES = names_of(iced_x86.CpuidFeature)
ACCESSES = names_of(iced_x86.OpAccess)
SIZES = names_of(iced_x86.MemorySize)
FLOWS = {
    iced_x86.FlowControl.NEXT: "next",
    iced_x86.FlowControl.UNCONDITIONAL_BRANCH: "jump",
    iced_x86.FlowControl.INDIRECT_BRANCH: "jump_indirect",
    iced_x86.FlowControl.CONDITIONAL_BRANCH: "branch",
    iced_x86.FlowControl.RETURN: "return",
    iced_x86.FlowControl.CALL: "call",
    iced_x86.FlowControl.INDIRECT_CALL: "call_indirect",
    iced_x86.FlowControl.INTERRUPT: "interrupt",
    iced_x86.FlowControl.XBEGIN_XABORT_XEND: "transaction",
    iced_x86.FlowControl.EXCEPTION: "exception",
}
EFFECTS = ("read", "written", "cleared", "set", "undefined")
ACCESS_WORDS = {
    "NONE": "-",
    "READ": "r",
    "COND_READ": "cr",
    "WRITE": "w",
    "COND_WRITE": "cw",
    "READ_WRITE": "rw",
    "READ_COND_WRITE": "rcw",
    "NO_MEM_ACCESS": "n",
}
WITHOUT_SIZE = ("UNKNOWN", "XSAVE", "XSAVE64", "TILE")
"""Memory whose size the table leaves open."""
PREFIX_WORDS = {
    "lock": "can_use_lock_prefix",
    "xacquire": "can_use_xacquire_prefix",
    "xrelease": "can_use_xrelease_prefix",
    "rep": "can_use_rep_prefix",
    "repne": "can_use_repne_prefix",
    "bnd": "can_use_bnd_prefix",
    "hint": "can_use_hint_taken_prefix",
    "notrack": "can_use_notrack_prefix",
    "no66": "no66",
    "norep": "nfx",
    "nosegment": "ignores_segment",
    "amd_lock": "amd_lock_reg_bit",
    "distinct": "requires_unique_reg_nums",
    "distinct_target": "requires_unique_dest_reg_num",
}
UNPRIVILEGED = {"VMCALL": "the hypercall of Hyper-V; outside VMX operation it is #UD, not #GP"}
"""Codes that iced takes for privileged, and why the table does not."""


@cache
def all_samples() -> tuple[Sample, ...]:
    return tuple(sample for code in codes() for sample in samples(code))


@cache
def facts_of_samples() -> tuple[tuple[Sample, Any], ...]:
    """Samples with their form, those of AMD only where the bytes are something else for Intel."""
    first = {(sample.code, sample.bits, sample.octets): sample for sample in reversed(all_samples())}
    return tuple((sample, form_of(sample)) for sample in first.values())


@cache
def all_forms() -> tuple[Any, ...]:
    """Forms by number; 0 is none."""
    return (None, *forms.load(table.load()))


def form_of(sample: Sample) -> Any:
    """The form that hvcore decodes a sample to."""
    number = decode_one(sample.octets, bits=sample.bits, vendor=sample.vendor).form
    assert number, f"{sample}: invalid"
    return all_forms()[number]


def differences(found: Iterator[str]) -> str:
    """The first of the messages, and how many there are."""
    messages = list(dict.fromkeys(found))
    return "\n".join((*messages[:20], f"{len(messages)} differences")) if messages else ""


def test_every_code_has_samples() -> None:
    """Only what no decoder gives is left out, and it is named."""
    reached = {sample.code for sample in all_samples()}
    assert {CODES[code] for code in codes() if code not in reached} == set(NEVER_DECODED)
    assert len(reached) > 4500


def test_every_code_is_decoded() -> None:
    def compare() -> Iterator[str]:
        for sample in all_samples():
            ours = decode_one(sample.octets, bits=sample.bits, vendor=sample.vendor)
            mnemonic = MNEMONICS[sample.decoded.mnemonic].lower()
            if not ours.valid or ours.length != len(sample.octets) or ours.mnemonic != mnemonic:
                yield f"{sample}: {ours}, iced says {mnemonic}"

    assert not (found := differences(compare())), found


def test_every_row_is_reached() -> None:
    """The table invents nothing: what no Code of iced leads to is named, with the reason."""
    lines = {form.row.line for _, form in facts_of_samples()}
    beyond = {row.line: row for row in table.load() if row.line not in lines}
    unknown = [f"{row.line} {row.mnemonic}" for row in beyond.values() if not is_beyond_iced(row)]
    assert not unknown, unknown


def is_beyond_iced(row: table.Row) -> bool:
    """Rows that another encoding of a Code leads to, or that iced has nothing of."""
    return (
        row.mnemonic in ("insd", "outsd")  # REX.W changes nothing, and the encoder writes none
        or bool(row.features & BEYOND)
    )


BEYOND = frozenset(("apx_f", "avx10_1", "avx10_2", "movrs", "user_msr", "msr_imm", "udb", "amx_avx512", "amx_fp8",
                    "amx_movrs", "amx_tf32", "amx_transpose", "ace_1", "avx10_v2_aux", "avx512_bmm"))  # fmt: skip


def test_control_flow() -> None:
    def compare() -> Iterator[str]:
        for sample, form in facts_of_samples():
            flow, expected = form.row.flow, FLOWS[sample.decoded.flow_control]
            if flow != expected:
                yield f"{sample}: {flow}, iced says {expected}"

    assert not (found := differences(compare())), found


@pytest.mark.parametrize("effect", EFFECTS)
def test_flags(effect: str) -> None:
    column = getattr(facts, f"flags_{effect}")
    bits = names_of(iced_x86.RflagsBits)

    def compare() -> Iterator[str]:
        for sample, form in facts_of_samples():
            mask = getattr(sample.decoded, f"rflags_{effect}")
            expected = {name for bit, name in bits.items() if bit and mask & bit}
            found = {flag.name for flag in facts.Flags if int(column[form.number]) & flag}
            if found != expected:
                yield f"{sample}: {sorted(found)}, iced says {sorted(expected)}"

    assert not (found := differences(compare())), found


def test_features() -> None:
    def compare() -> Iterator[str]:
        for sample, form in facts_of_samples():
            expected = {FEATURES[number].lower() for number in sample.decoded.cpuid_features()}
            found = set(facts.feature_sets[facts.features[form.number]])
            if found != expected and not is_processor_of_size(sample, found | expected):
                yield f"{sample}: {sorted(found)}, iced says {sorted(expected)}"

    assert not (found := differences(compare())), found


def is_processor_of_size(sample: Sample, names: set[str]) -> bool:
    """Codes of sizes that are one form: loops of an address size, and stores of 16 bits at every operand size."""
    stores = ("SLDT_", "STR_", "SMSW_", "SGDT_", "SIDT_", "LGDT_", "LIDT_", "MOV_R32M16_SREG", "MOV_R64M16_SREG")
    return sample.name.startswith(("LOOP", *stores)) and names <= {"intel8086", "intel286", "intel386", "x64"}


def test_privilege_and_prefixes() -> None:
    def compare() -> Iterator[str]:
        for sample, form in facts_of_samples():
            information = iced_x86.OpCodeInfo(sample.code)
            row = form.row
            words = {word for word, name in PREFIX_WORDS.items() if getattr(information, name)}
            if row.attributes & set(PREFIX_WORDS) != words:
                yield f"{sample}: {sorted(row.attributes & set(PREFIX_WORDS))}, iced says {sorted(words)}"
            expected = information.must_be_cpl0 and sample.name not in UNPRIVILEGED
            if bool(facts.privileged[form.number]) != expected:
                yield f"{sample}: privileged is {not expected}"

    assert not (found := differences(compare())), found


def effective_access(operand: forms.Operand) -> str:
    """The head of x64.txt: what is shorter than the whole register clears the rest, and so is no conditional write."""
    is_short = operand.source.mask and operand.register_bits < 512
    return "rw" if operand.source.access == "rcw" and is_short else operand.source.access


def test_access() -> None:
    factory = iced_x86.InstructionInfoFactory()

    def compare() -> Iterator[str]:
        for sample, form in facts_of_samples():
            kinds = [KINDS[kind] for kind in iced_x86.OpCodeInfo(sample.code).op_kinds()]
            information = factory.info(sample.decoded)
            expected = [
                ACCESS_WORDS[ACCESSES[information.op_access(number)]]
                for number in range(len(kinds))
                if kinds[number] != "SEG_RDI"
            ]
            found = [effective_access(operand) for operand in form.operands]
            if found != expected:
                yield f"{sample}: {found}, iced says {expected}"

    assert not (found := differences(compare())), found


def test_memory() -> None:
    """Size of memory operands, type of their elements, and what may be broadcast."""

    def compare() -> Iterator[str]:
        for sample, form in facts_of_samples():
            information = iced_x86.OpCodeInfo(sample.code)
            name = SIZES[sample.decoded.memory_size]
            if name in WITHOUT_SIZE or not any(operand.can_be_memory for operand in form.operands):
                continue
            size = iced_x86.MemorySizeInfo(sample.decoded.memory_size)
            if int(facts.memory_bits[form.number]) != 8 * size.size:
                yield f"{sample}: {facts.memory_bits[form.number]} bits, iced says {8 * size.size}"
            expected = element_of(size, name)
            found = facts.elements[facts.element[form.number]]
            if expected and found != element_label(expected):
                yield f"{sample}: elements {found}, iced says {expected}"
            if bool(facts.broadcast_bits[form.number]) != information.can_broadcast:
                yield f"{sample}: broadcast of {facts.broadcast_bits[form.number]} bits"

    assert not (found := differences(compare())), found


def element_of(size: Any, name: str) -> str:
    """The table's name of iced's element type; empty for structures."""
    pair = re.search("2X_(B?)FLOAT16", name)
    if pair:
        return f"2x{pair[1].lower()}f16"
    match = re.fullmatch("(U?)(INT|FLOAT|BFLOAT)([0-9]+)", SIZES[size.element_type])
    if not match:
        return "bcd" if name == "BCD" else ""
    letter = {"INT": match[1].lower() or "i", "FLOAT": "f", "BFLOAT": "bf"}[match[2]]
    return f"{letter}{match[3]}" if f"{letter}{match[3]}" in notation.ELEMENT_BITS else ""
