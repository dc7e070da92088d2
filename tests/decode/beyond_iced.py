"""What iced-x86 1.21 cannot know, told apart by what makes an instruction so, not by leaving encodings out."""

from __future__ import annotations

from typing import Any

import iced_x86

from hvcore._native.decoder import FORM_FEATURES, MNEMONICS, form_fields
from hvcore._native.isa import forms

FEATURES = frozenset(
    "ace_1 amx_avx512 amx_fp8 amx_movrs amx_tf32 amx_transpose apx_f avx10_2 avx10_v2_aux avx512_bmm movrs msr_imm "
    "user_msr".split()
)
"""Those whose instructions iced has not got, in the encodings that hvcore's table has with them."""
NAMES = {value: name.lower() for name, value in vars(iced_x86.Mnemonic).items() if isinstance(value, int)}
LEGACY = frozenset((0x66, 0xF2, 0xF3, 0xF0, 0x67, 0x64, 0x65, 0x2E, 0x26, 0x36, 0x3E, *range(0x40, 0x50)))


def is_form_beyond_iced(form: forms.Form) -> bool:
    return form.row.mnemonic == "udb" or bool(form.row.features & FEATURES)


def without_apx(octets: bytes, with_r4: bool) -> bytes:
    """The instruction without what APX adds to it: REX instead of REX2, EVEX without bit 4 of general registers."""
    at = next((at for at, byte in enumerate(octets) if byte not in LEGACY), 0)
    if octets[at] == 0xD5:
        rex = bytes((0x40 | octets[at + 1] & 15,)) + (b"\x0F" if octets[at + 1] & 0x80 else b"")
        return octets[:at] + rex + octets[at + 2 :]
    if octets[at] == 0x62:
        first = octets[at + 1] & ~8 | (0 if with_r4 else 0x10)
        return octets[: at + 1] + bytes((first, octets[at + 2] | 4)) + octets[at + 3 :]
    return octets


def is_beyond_iced(octets: bytes, insn: dict[str, int], options: Any) -> bool:
    """Whether iced says "invalid" to this valid instruction because it is too old: by the form's features, or because
    of registers 16 to 31. Without those iced must know the same instruction."""
    name = MNEMONICS[form_fields(insn["form"])["mnemonic"]]
    if name == "udb" or FEATURES & set(FORM_FEATURES[insn["form"]].split()):
        return True
    for with_r4 in (True, False):
        plain = without_apx(octets, with_r4)
        if insn["mode"] != 64 or plain == octets:
            continue
        theirs = iced_x86.Decoder(64, plain, options).decode()
        # R16 exchanges where REX without B is no operation.
        if not theirs.is_invalid and (NAMES[theirs.mnemonic] == name or (name == "xchg" and plain[-1] == 0x90)):
            return bool(theirs.len - len(plain) == 0)
    return False
