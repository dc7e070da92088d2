"""Every form of the table, encoded from its row, is decoded back to that form, and iced-x86 agrees."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest

pytest.importorskip("iced_x86", reason="iced-x86 is not installed")

import iced_x86

from hvcore._native.decoder import FORM_COUNT, decode_fields
from hvcore._native.isa import forms, table

from .compare import CODES, Comparison
from .encoder import encode

SEED = 77
MOST_TRIED, MOST_FOUND = 80, 12
"""Random encodings of a form in a mode: narrower rows and rules about registers take some of them away, and iced does
not know REX2; so many are tried, and so many taken until iced knows one too."""

SAME_FORM = ("NOPQ", "LOOPNE_REL8_64_ECX", "LOOPE_REL8_64_ECX", "LOOP_REL8_64_ECX", "LFENCE", "MFENCE", "SFENCE",
             "POPW_CS", "MONTMUL")
"""Codes of iced that are one form of hvcore with others (test_iced.py, FORMS_OF_SEVERAL_CODES)."""
reached: dict[int, set[int]] = {}
decoded: set[int] = set()


@cache
def all_forms() -> list[forms.Form]:
    return forms.load(table.load())


def test_the_table_is_the_one_that_was_built() -> None:
    assert FORM_COUNT == len(all_forms()) + 1


@pytest.mark.parametrize("root", range(len(forms.ROOTS)), ids=[f"{mode}-{vendor}" for mode, vendor in forms.ROOTS])
def test_every_form(root: int) -> None:
    bits, vendor = forms.ROOTS[root]
    comparison = Comparison(bits, vendor)
    for form in all_forms():
        rng, matches = random.Random(f"{SEED} {form.number}"), 0
        for _ in range(MOST_TRIED if form.when[root] is not None else 0):
            code = encode(form, rng, root)
            padded = code + bytes(4)
            found = decode_fields(padded, bits=bits, vendor=vendor)
            if found["status"] == 0 and found["form"] == form.number:
                assert found["length"] == len(code), f"{code.hex(' ')}: {found['length']} bytes, {form.row.mnemonic}"
                decoded.add(form.number)
                matches += 1
                if comparison.compare(padded, 0, comparison.decoder(padded).decode()) or matches == MOST_FOUND:
                    break
    assert not comparison.kinds, "\n".join(comparison.differences[:20])
    reached[root] = set(comparison.forms)


def test_no_form_is_out_of_reach() -> None:
    """In some mode; narrower rows may take a form's bytes in another."""
    if len(reached) < len(forms.ROOTS):
        pytest.skip("needs the tests before it")
    lost = [f"x64.txt:{form.row.line}: {form.row.mnemonic} {form.operand_size} {form.length}"
            for form in all_forms() if form.number not in decoded]
    assert not lost, f"{len(lost)} forms are never decoded:\n" + "\n".join(lost[:20])


def test_every_code_of_iced_has_a_form() -> None:
    if len(reached) < len(forms.ROOTS):
        pytest.skip("needs the tests before it")
    codes = set().union(*reached.values())
    names = [name for code, name in CODES.items() if code not in codes and is_decoded(iced_x86.OpCodeInfo(code))]
    missing = [name for name in names if not name.startswith(SAME_FORM)]
    assert not missing, f"{len(missing)}: {missing}"


def is_decoded(code: Any) -> bool:
    """Whether iced makes it of bytes without being asked to, and of one instruction."""
    return bool(code.is_instruction and code.decoder_option == iced_x86.DecoderOptions.NONE and not code.fwait
                and (code.mode16 or code.mode32 or code.mode64))
