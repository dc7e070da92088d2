"""From the rows of isa/x64.txt to templates of random cases; for each row that has none, the reason.

What the host's user mode cannot run or cannot be asked twice is named here, so that nothing drops out silently.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path

from hvcore._native.isa import table

from .cases import SETUPS, Draft, Template, refusal

_PREFIXES = {"": None, "NP": None, "66": 0x66, "F3": 0xF3, "F2": 0xF2}
_MAPS = ("", "0F", "0F38", "0F3A")
_STRINGS = {"movs": "YX", "cmps": "XY", "stos": "Y", "lods": "X", "scas": "Y"}
_STRING_WIDTHS = {"b": 8, "w": 16, "d": 32, "q": 64}
_CPU_FLAGS = {"lzcnt": "abm", "clfsh": "clflush", "cmpxchg16b": "cx16", "prefetchw": "3dnowprefetch"}
"""Names of /proc/cpuinfo that are not those of the table."""
_EVERYWHERE = frozenset(
    ("intel186", "intel286", "intel386", "intel486", "x64", "multibytenop", "pause", "cet_ibt", "cet_ss", "cldemote",
     "prefetchiti", "prefetchwt1", "wbnoinvd")
)  # fmt: skip
"""What every host of hvcore has, or takes as a no-op or as the instruction without its prefix."""

_OPERAND_WIDTHS = {"a": "", "512": "", "u": "b", "u2": "b", "f": "p"}
_FLOAT_SOURCE = re.compile(r"cvtt?(ps|pd|ss|sd|dq|si)2|(ps|pd|ss|sd)$")
_FLOAT_BYTES = {"x": ("ps", "pd"), "d": ("ss",), "q": ("sd",)}

UNREPEATABLE = {
    "verr": "answers from the host's descriptor tables",
    "verw": "answers from the host's descriptor tables",
    "lar": "answers from the host's descriptor tables",
    "lsl": "answers from the host's descriptor tables",
    "fxsave": "stores x87 state, and an MXCSR mask that has bit 17 on AMD",
    "fxsave64": "stores x87 state, and an MXCSR mask that has bit 17 on AMD",
    "fxrstor": "512 bytes of which half would be random: reserved bits of MXCSR",
    "fxrstor64": "512 bytes of which half would be random: reserved bits of MXCSR",
    "rcpps": "an approximation: each maker has tables of its own",
    "rcpss": "an approximation: each maker has tables of its own",
    "rsqrtps": "an approximation: each maker has tables of its own",
    "rsqrtss": "an approximation: each maker has tables of its own",
}
"""By mnemonic: what runs in user mode, but with results that differ from host to host by right."""


def host_features() -> frozenset[str]:
    """CPUID features of the host, by their names in the table."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return frozenset()
    text = Path("/proc/cpuinfo").read_text()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return _EVERYWHERE | {name for name in table.FEATURES if _CPU_FLAGS.get(name, name) in flags}


def _load_mxcsr(draft: Draft) -> None:
    """Mostly a value without reserved bits; bit 17 is reserved for Intel and a feature of AMD."""
    if draft.target is not None:
        value = draft.rng.getrandbits(16)
        if draft.rng.random() < 0.1:
            value |= 1 << draft.rng.randrange(18, 32)
        draft.write_window(draft.target, value, 4)


SETUPS["load_mxcsr"] = (None, _load_mxcsr)


def _operands(row: table.Row) -> tuple[str, ...]:
    stem = row.mnemonic[:-1]
    if "rep" in row.attributes and stem in _STRINGS:
        size = "b" if row.opcode & 1 == 0 else "v"
        return tuple(letter + size for letter in _STRINGS[stem])
    match = _FLOAT_SOURCE.search(row.mnemonic) if row.shape.startswith(("f", "vv")) else None
    kind = (match[1] or match[2]) if match else ""
    operands = []
    for operand in row.seen:
        fixed = next((name for name, place in table.FIXED.items() if place == (operand.kind, operand.width)), None)
        width = _OPERAND_WIDTHS.get(operand.width, operand.width)
        if kind[-1:] in ("s", "d") and kind not in ("dq", "") and operand.kind in "VW":
            # What lies in the registers: the size of memory must stay the same.
            if operand.kind == "V" or kind in _FLOAT_BYTES.get(width, ()):
                width = kind
        operands.append(fixed or operand.kind + width)
    return tuple(operands)


def _widths(row: table.Row) -> tuple[int, ...]:
    if row.size is not None:
        return (row.size,)
    if row.mnemonic == "bswap":
        return (32, 64)  # of 16 bits: undefined
    if row.mnemonic == "enter":
        return (16, 64)
    if row.mnemonic == "movbe":
        return (16,) if row.prefix == "66" else (32, 64)
    return ()


def _modrm(row: table.Row) -> str:
    if row.opcode_register:
        return "+r"
    if not row.has_modrm or row.fixed_modrm is not None:
        return ""
    return "/r" if row.digit is None else f"/{row.digit}"


def template_of(row: table.Row) -> Template:
    """How random cases of a row are encoded."""
    opcode = bytes([row.opcode]) + (bytes([row.fixed_modrm]) if row.fixed_modrm is not None else b"")
    letters = {operand.kind for operand in row.seen}
    setup = {"ldmxcsr": "load_mxcsr", "leave": "leave", "enter": "leave"}.get(row.mnemonic, "")
    return Template(
        mnemonic=row.mnemonic,
        opcode=opcode,
        operands=_operands(row),
        map=_MAPS[row.map],
        prefix=_PREFIXES[row.prefix],
        modrm=_modrm(row),
        forms={"": "both", "reg": "reg", "mem": "mem"}[row.mode] if "M" not in letters else "mem",
        widths=_widths(row),
        default64="d64" in row.attributes,
        rex_w=None if row.w is None else bool(row.w),
        vex="128" if row.space == "VEX" else "",
        lock="lock" in row.attributes,
        repeat=(0xF2, 0xF3) if "rep" in row.attributes else (),
        alignment=16 if "aligned" in row.attributes else 1 if row.mnemonic.startswith(("movup", "movdqu")) else 0,
        setup=setup,
        undefined_flags=row.flag_mask("u"),
        feature=" ".join(sorted(row.features)),
    )


def _privileged(row: table.Row) -> str | None:
    if row.flow.split("_")[0] in ("jump", "return", "call") and row.semantic.startswith("system_"):
        return "a far transfer or a door to the kernel"
    if row.mnemonic in ("in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd"):
        return "port I/O"
    return None


def _not_on_amd(row: table.Row) -> str | None:
    if row.map == 1 and row.opcode == 0x0D and row.mode == "reg":
        return "no prefetch: Intel's reserved no-op, which AMD calls invalid"
    return None


REASONS: tuple[Callable[[table.Row], str | None], ...] = (
    _privileged,
    _not_on_amd,
    lambda row: UNREPEATABLE.get(row.mnemonic),
    lambda row: refusal(template_of(row)),
)


def sort_rows() -> tuple[list[tuple[table.Row, Template]], list[tuple[table.Row, str]]]:
    """The rows that this host can confirm with their templates, and the others with the reason."""
    features = host_features()
    covered: list[tuple[table.Row, Template]] = []
    left_out: list[tuple[table.Row, str]] = []
    for row in table.load():
        if row.semantic == "-":
            continue
        missing = row.features - features
        reason = next(filter(None, (reason(row) for reason in REASONS)), None)
        if reason is None and missing:
            reason = f"the host has no {', '.join(sorted(missing))}"
        if reason is None:
            covered.append((row, template_of(row)))
        else:
            left_out.append((row, reason))
    return covered, left_out
