"""AT&T's syntax, as GNU's tools have it: mnemonics with suffixes, operands in reverse. See syntaxes.py."""
from __future__ import annotations

from .syntax import (
    BLENDS,
    BY_SELECTOR,
    CLASSIFY,
    FLAGS_AND_ALL,
    FLOAT_SUFFIX,
    LOOPS,
    MASKED_STORES,
    NARROWING,
    SUFFIX,
    SVM_ADDRESS,
    VECTOR_SUFFIX,
    X87_INTEGER_SUFFIX,
    X87_LOAD,
    X87_STATE,
    X87_STORE,
    X87_SWAPPED,
    Line,
    Operand,
    common,
    is_far,
    is_float,
    is_string,
    narrow,
    needs_size,
    rounding,
)


def _att_name(line: Line) -> None:
    """Mnemonics of their own, and suffixes for the size of memory."""
    row, memory = line.form.row, line.memory
    name, size = row.mnemonic, line.form.operand_size
    bits = memory.memory_bits if memory else 0
    renamed = {
        "wait": "fwait", "cbw": "cbtw", "cwde": "cwtl", "cdqe": "cltq", "cwd": "cwtd", "cdq": "cltd", "cqo": "cqto",
        "fstpnce": "fstp", "xlatb": "xlat", "pcmpestrm64": "pcmpestrmq", "pcmpestri64": "pcmpestriq",
        "vpcmpestrm64": "vpcmpestrmq", "vpcmpestri64": "vpcmpestriq", "getsecq": "rex.w getsec",
    }
    line.name = renamed.get(name, line.name)
    if is_string(line):
        suffix = "" if name[:4] in ("stos", "lods", "scas") else {"d": "l"}.get(name[-1], name[-1])
        line.name = name[:-1] + suffix
    elif name in ("movzx", "movsx") or (name == "movsxd" and size == 64):
        source = bits
        target = {"16": 16, "32": 32, "64": 64}[line.operands[0].names]
        line.name = name + "w" if source == target else name[:4] + SUFFIX[source] + SUFFIX[target]
    elif name == "mov" and any(operand.place == "OFFSET" for operand in line.operands):
        line.own_size, line.name_other = "SHORT_ADDRESS", "movabs"
    elif name == "mov" and line.form.operands[-1].immediate_bytes == 8:
        line.name = "movabs"
    elif is_far(line):
        line.name = "l" + name
        line.name_other = line.name + {16: "w", 32: "l"}.get(size, "")
        line.name = "rex.w " + line.name if size == 64 else line.name
    elif name in X87_STATE:
        line.own_size, line.name_other = "DATA_OR_W", name + {16: "s"}.get(size, "l")
    elif memory is not None and name in X87_LOAD | X87_STORE:
        suffixes = FLOAT_SUFFIX if is_float(line) else X87_INTEGER_SUFFIX
        line.name_memory = name if name[:2] == "fb" else name + suffixes[bits]
    elif name in ("nop", "reservednop") and memory is not None and len(line.operands) == 1:
        line.name_memory = "nop" + SUFFIX[bits]
    elif name in NARROWING | CLASSIFY and needs_size(line):
        line.name_memory = name + VECTOR_SUFFIX[bits]
    elif needs_size(line):
        line.name_memory = name + SUFFIX[bits]
    if not memory and len(line.operands) == 2 and line.operands[0].place == "RM":
        line.name = X87_SWAPPED.get(name, line.name)


def att(line: Line) -> None:
    common(line)
    row = line.form.row
    name, size = row.mnemonic, line.form.operand_size
    _att_name(line)
    first = line.operands[0] if line.operands else None
    if line.own_size == "NONE":
        line.own_size = "STACK"
    suffix = SUFFIX.get(size, "")
    if (name in ("push", "pop") and first and (first.place == "IMMEDIATE" or first.names == "SEGMENT")) or \
            name in ("enter", "leave", "ret") or (name == "call" and first and first.place == "TARGET"):
        line.name_other = name + suffix
    if name in ("retf", "iret", "iretd", "iretq"):
        line.name = "lret" if name == "retf" else "iret"
        line.name_other = line.name + suffix
        line.name += "q" if size == 64 else ""
    if name in FLAGS_AND_ALL:
        line.name = name.rstrip("dq")
        line.name_other = line.name + suffix
    if name in ("lgdt", "lidt", "sgdt", "sidt") and size != 64:
        line.own_size = "DATA"
        line.flags.add("NAME_BY_SIZE")
    if name in ("sysret", "sysexit"):
        line.own_size, line.name_other = "OUTSIDE_64", name + "l"
    if name in LOOPS:
        line.flags |= {"DATA", "RAW_DATA", "NAME_BY_ADDRESS"}
    elif "cxz" in name:
        line.flags |= {"DATA", "RAW_DATA"}
    elif row.flow in ("jump", "branch") and first and first.place == "TARGET":
        line.flags.add("DATA")
    if name in BY_SELECTOR:
        narrow(line, "16")
    if name.lstrip("v") == "movw":
        narrow(line, "32")
    if name in SVM_ADDRESS | {"skinit"}:
        line.operands = []
        line.flags |= {"ADDRESS"} if name != "skinit" else set()
    if any(o.place == "OFFSET" for o in line.operands):
        line.flags.add("ADDRESS")
    if name == "xlatb":
        line.operands = [Operand("TABLE")]
    if row.flow in ("jump_indirect", "call_indirect"):
        line.operands[0].marks.add("STAR")
    if name in MASKED_STORES:
        line.flags.add("SEGMENT")
    if name in BLENDS and len(line.operands) == 2:
        line.operands.append(Operand("FIXED", "XMM"))
    if name in ("fcom", "fcomp", "fucom", "fucomp", "fxch") and len(line.operands) == 2:
        line.operands = line.operands[1:]
    rounding(line)
    if name not in ("enter", "bound"):
        line.operands.reverse()
