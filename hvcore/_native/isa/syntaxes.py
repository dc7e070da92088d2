"""Intel's, AT&T's and NASM's syntax: what departs from mnemonic and operands as the table has them.

Each rule is a fact about the habits of assemblers and disassemblers; the lines are those of iced-x86's formatters (what
differs is in docs/decoder.md).
"""
from __future__ import annotations

from .att import att
from .syntax import (
    BLENDS,
    BY_SELECTOR,
    FLAGS_AND_ALL,
    LOOPS,
    MASKED_STORES,
    NARROWING,
    NASM_SIZES,
    SIZES,
    SVM_ADDRESS,
    X87_LOAD,
    X87_STATE,
    X87_STORE,
    Line,
    Operand,
    common,
    has_rounding,
    is_far,
    is_string,
    narrow,
    needs_size,
    rounding,
)


def intel(line: Line) -> None:
    common(line)
    row, memory = line.form.row, line.memory
    name = row.mnemonic
    first = line.operands[0] if line.operands else None
    renamed = {"wait": "fwait", "sal": "shl", "retf": "ret far", "xlatb": "xlat"}
    line.name = renamed.get(name, line.name)
    if name == "prefetch" and row.digit is not None:
        line.name = "prefetch_exclusive" if row.digit == 0 else "prefetch_reserved"
    if name in BY_SELECTOR - {"lkgs"} or (name == "mov" and first and first.names == "SEGMENT"):
        narrow(line, "16")
    if name.lstrip("v") in ("movmskps", "movmskpd", "pmovmskb", "pextrb", "pextrw", "pinsrb", "pinsrw", "extractps",
                            "movw"):
        narrow(line, "32")
    if name in ("push", "pop") and first and (first.place == "IMMEDIATE" or first.names == "SEGMENT"):
        line.flags.add("DATA")
    elif name in ("enter", "leave", "ret", "retf") or any(o.place in ("TARGET", "FAR") for o in line.operands):
        line.flags |= {"DATA"} if row.flow != "transaction" else set()
    line.own_size = line.own_size if line.own_size != "NONE" else "DATA_OR_W" if name in X87_STATE else \
        "DATA" if name == "retf" else "STACK"
    if name in LOOPS or (first and any(o.place == "OFFSET" for o in line.operands)):
        line.flags.add("ADDRESS")
    if is_string(line) and name[:4] in ("stos", "lods", "scas"):
        line.operands = [o for o in line.operands if o.is_memory]
    if name in MASKED_STORES:
        line.operands.append(Operand("OVERRIDE"))
    if name == "xlatb":
        line.operands = [Operand("TABLE")]
    if name in SVM_ADDRESS or name == "skinit":
        line.operands = [Operand("ACCUMULATOR") if name != "skinit" else Operand("FIXED", "32")]
        if name == "invlpga":
            line.operands.append(Operand("FIXED", "32", 1))
    for operand in line.operands:
        if operand.place == "TARGET" and row.flow in ("jump", "branch") and name not in LOOPS and "cxz" not in name \
                and line.form.operands[0].immediate_bytes == 1:
            operand.word = "short "
        if operand.place == "FAR":
            operand.word = "far "
    if memory is not None and (needs_size(line) or name in X87_STATE | {"bound"}):
        memory.word = memory.word_other = f"{'far ' * is_far(line)}{SIZES[memory.memory_bits]} ptr "
        if name in X87_STATE:
            memory.word = ""
    if name in X87_LOAD and (memory is not None or name == "fld"):
        line.operands.insert(0, Operand("FIXED", "X87_TOP"))
    if name in X87_STORE | {"fstpnce"}:
        line.operands.append(Operand("FIXED", "X87_TOP"))
    if any(o.source.mask == "needed" for o in line.form.operands):
        at = next(i for i, o in enumerate(line.operands) if "MASK" in o.marks)
        line.operands[at].marks.discard("MASK")
        line.operands.insert(at + 1, Operand("MASK"))
    if has_rounding(line):
        line.operands[0].marks.add("ROUNDING")


def nasm(line: Line) -> None:
    common(line)
    row, memory = line.form.row, line.memory
    name, size = row.mnemonic, line.form.operand_size
    first = line.operands[0] if line.operands else None
    line.own_size = line.own_size if line.own_size != "NONE" else "STACK"
    renamed = {"pmulhrw": "pmulhrwa", "sysretq": "o64 sysret", "sysexitq": "o64 sysexit", "getsecq": "o64 getsec"}
    line.name = renamed.get(name, line.name)
    if is_string(line) or name == "xlatb":
        line.flags |= {"ADDRESS"} | ({"SEGMENT"} if name[:4] not in ("stos", "scas") and name[:3] != "ins" else set())
        line.operands = []
    if name == "xchg" and first and first.place == "RM":
        line.operands.reverse()
    selectors = name in BY_SELECTOR - {"arpl"}
    if selectors or (name in X87_STATE | {"lgdt", "lidt", "sgdt", "sidt"} and size != 64):
        line.own_size = "DATA_OR_W" if name in X87_STATE else "DATA"
        line.flags.add("DATA")
    if name in BY_SELECTOR:
        narrow(line, "16")
    if name in ("sldt", "str", "smsw") or (name == "mov" and any(o.names == "SEGMENT" for o in line.operands)):
        line.own_size = "DATA"
        line.flags.add("DATA_MEMORY")
    if name in ("push", "pop") and first and (first.place == "IMMEDIATE" or first.names == "SEGMENT"):
        line.flags.add("DATA")
        if line.form.operands[0].immediate_bytes > 1:
            line.own_size = "OUTSIDE_64" if size == 16 else "NONE"
    if name in ("enter", "leave"):
        line.flags.add("DATA")
    if name in ("retf", "iret", "iretd", "iretq"):
        line.own_size, line.name = "DATA", name[:4]
        line.name_other = line.name + {16: "w", 32: "d", 64: "q"}.get(size, "")
    elif name == "ret":
        line.name_other = name + {16: "w", 32: "d", 64: "q"}.get(size, "")
    elif name in FLAGS_AND_ALL:
        line.name = name.rstrip("dq")
        line.name_other = line.name + {16: "w", 32: "d"}.get(size, "")
    if name in LOOPS:
        line.operands.append(Operand("COUNTER", number=1))
    _nasm_targets(line)
    if name in SVM_ADDRESS | {"skinit"}:
        line.operands = [Operand("ACCUMULATOR"), Operand("FIXED", "32", 1)] if name == "invlpga" else []
        line.flags |= {"ADDRESS"} - ({"ADDRESS"} if name in ("invlpga", "skinit") else set())
    if any(o.place == "OFFSET" for o in line.operands):
        line.flags.add("ADDRESS_IN_64")
    mmx = any(o.names == "MMX" for o in line.operands)
    bare = name.lstrip("v")
    vex = name != bare
    if bare in ("pinsrb", "movw") or (bare == "pmovmskb" and not vex) or (bare == "pinsrw" and (mmx or vex)) or (
            bare == "pextrw" and mmx):
        narrow(line, "32")
    if name in MASKED_STORES:
        line.flags.add("SEGMENT")
    if name in BLENDS and len(line.operands) == 2:
        line.operands.append(Operand("FIXED", "XMM"))
    if name.startswith("f") and memory is None and len(line.operands) == 2 and line.operands[0].names[:3] == "X87":
        to = line.operands[0].place == "RM" and not name.endswith("p")
        line.operands = [o for o in line.operands if o.place == "RM"]
        line.name += " to" * to
    if memory is not None and (needs_size(line) or (name in ("nop",) and len(line.operands) == 1)) and not is_far(line):
        memory.word = NASM_SIZES[memory.memory_bits] + " "
        if name in NARROWING and memory.memory_bits == 512:
            memory.word_broadcast = "qword "
    rounding(line)


def _nasm_targets(line: Line) -> None:
    """short and near, and the size of an address that is not the mode's own."""
    row = line.form.row
    name = row.mnemonic
    size = {16: "word ", 32: "dword "}.get(line.form.operand_size, "")
    for operand in line.operands:
        if operand.place == "TARGET" and name not in LOOPS and "cxz" not in name and row.flow != "transaction":
            is_short = line.form.operands[0].immediate_bytes == 1
            if row.flow in ("jump", "branch") and is_short:
                operand.word = "short "
                line.flags.add("DATA")
            else:
                operand.word = "near " * (row.flow == "branch")
                operand.word_other = operand.word + size
        elif operand.place == "TARGET" and row.flow != "transaction":
            line.flags.add("DATA")
        elif operand.place == "FAR":
            operand.word_other = size
        elif is_far(line):
            operand.word, operand.word_other = "far ", size + "far "


RULES = {"intel": intel, "att": att, "nasm": nasm}
