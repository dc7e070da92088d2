"""What a form reads like as a line of text: the families of instructions that have habits, and what all syntaxes share.

syntaxes.py has the rules of each syntax, text.py makes the records of it that text/line.pxd prints from.
"""
from __future__ import annotations

from dataclasses import dataclass, field

from . import forms, table

INTEGER = frozenset("add or adc sbb and sub xor cmp test mov rol ror rcl rcr shl shr sal sar bt bts btr btc not neg "
                    "mul imul div idiv inc dec push pop crc32 movzx movsx ptwrite".split()) | {
                        f"{name}{condition}" for name in ("ccmp", "ctest") for condition in table.SOURCE_CONDITIONS}
"""Integer instructions whose memory operand needs a size, unless a register operand tells it."""
OWN_REGISTER = frozenset("crc32 movzx movsx ptwrite".split())
"""Those whose register operand says nothing about the memory."""
FROM_INTEGER = frozenset(f"{v}cvt{u}si2{to}" for v in ("", "v") for u in ("", "u") for to in ("ss", "sd", "sh"))
NARROWING = frozenset("vcvtneps2bf16 vcvtps2phx vcvtpd2dq vcvtpd2ph vcvtpd2ps vcvtpd2udq vcvttpd2dq vcvttpd2udq "
                      "vcvtdq2ph vcvtudq2ph vcvtqq2ph vcvtqq2ps vcvtuqq2ph vcvtuqq2ps".split())
"""Conversions to an XMM register from memory of several lengths."""
CLASSIFY = frozenset(("vfpclassps", "vfpclasspd", "vfpclassph"))
X87_LOAD = frozenset("fadd fmul fcom fcomp fsub fsubr fdiv fdivr fld fiadd fimul ficom ficomp fisub fisubr fidiv "
                     "fidivr fild fbld".split())
X87_STORE = frozenset("fst fstp fist fistp fisttp fbstp".split())
X87_STATE = frozenset("fldenv fnstenv frstor fnsave".split())
X87_SWAPPED = {"fsub": "fsubr", "fsubr": "fsub", "fdiv": "fdivr", "fdivr": "fdiv", "fsubp": "fsubrp",
               "fsubrp": "fsubp", "fdivp": "fdivrp", "fdivrp": "fdivp"}
"""With st(i) as target AT&T's assemblers swapped the names, and nobody dared to put it right."""
X87_WITH_SECOND = frozenset("fcom fcomp fucom fucomp fxch faddp fmulp fsubp fsubrp fdivp fdivrp".split())
"""Those that mean st(1) where nothing else is said."""
BY_SELECTOR = frozenset("lldt ltr verr verw lmsw arpl lkgs".split())
"""Only the low 16 bits of the register are used, and Intel and AT&T name just those."""
STRING = frozenset(name + size for name in ("ins", "outs", "movs", "cmps", "stos", "lods", "scas") for size in "bwdq")
FLAGS_AND_ALL = frozenset("pushf pushfd pushfq popf popfd popfq pusha pushad popa popad".split())
"""The letter for the size at their end is a matter of taste."""
SVM_ADDRESS = frozenset("vmrun vmload vmsave clzero pvalidate invlpgb invlpga".split())
MONITORS = frozenset(("monitor", "monitorx"))
MASKED_STORES = frozenset(("maskmovq", "maskmovdqu", "vmaskmovdqu"))
LOOPS = frozenset(("loop", "loope", "loopne"))
BLENDS = frozenset(("pblendvb", "blendvps", "blendvpd", "sha256rnds2"))
PADLOCK = frozenset("montmul xsha1 xsha256 xsha512 xcryptecb xcryptcbc xcryptctr xcryptcfb xcryptofb ccs_hash "
                    "ccs_encrypt undoc xstore_alt xsha512_alt".split())
"""VIA's instructions that repeat by themselves: F3 is a part of the opcode and is printed all the same."""
CONDITION_NAMES = {"nb": "ae", "z": "e", "nz": "ne", "nbe": "a", "nl": "ge", "nle": "g"}
SUFFIX = {8: "b", 16: "w", 32: "l", 64: "q"}
VECTOR_SUFFIX = {128: "x", 256: "y", 512: "z"}
FLOAT_SUFFIX = {16: "s", 32: "s", 64: "l", 80: "t"}
X87_INTEGER_SUFFIX = {16: "s", 32: "l", 64: "ll"}
SIZES = {8: "byte", 16: "word", 32: "dword", 48: "fword", 64: "qword", 80: "tbyte", 128: "xmmword", 256: "ymmword",
         512: "zmmword", 112: "fpuenv14", 224: "fpuenv28", 752: "fpustate94", 864: "fpustate108"}
NASM_SIZES = {8: "byte", 16: "word", 32: "dword", 64: "qword", 80: "tword", 128: "oword", 256: "yword", 512: "zword"}


@dataclass
class Operand:
    """An operand as it is printed; `place` is a Place or TextPlace, `names` a Names (text/spec.pxd)."""

    place: str
    names: str = "NONE"
    number: int = 0
    marks: set[str] = field(default_factory=set)
    word: str = ""                  # in front of memory or a target
    word_other: str | None = None   # the same at an operand size that is not the mode's own
    word_broadcast: str = ""        # the same if the memory is broadcast
    memory_bits: int = 0

    @property
    def is_memory(self) -> bool:
        return bool(self.memory_bits) or self.place in ("OFFSET", "SOURCE", "DESTINATION", "TABLE")


@dataclass
class Line:
    """How one form reads in one syntax."""

    form: forms.Form
    operands: list[Operand]
    name: str
    name_memory: str = ""
    name_other: str = ""
    own_size: str = "NONE"
    flags: set[str] = field(default_factory=set)

    @property
    def memory(self) -> Operand | None:
        """The operand that is, or may be, memory named by ModRM or an absolute offset."""
        return next((o for o in self.operands if o.place in ("RM", "OFFSET") and o.memory_bits), None)

    def general(self) -> list[Operand]:
        """Operands that are general registers and nothing else."""
        return [o for o in self.operands if o.names in ("8", "8_LEGACY", "16", "32", "64") and not o.memory_bits]


def needs_size(line: Line) -> bool:
    """Whether the text of a memory operand has to say how large it is."""
    name, memory = line.form.row.mnemonic, line.memory
    if memory is None or memory.place == "OFFSET":
        return False
    if name in INTEGER:
        count = [o for o in line.general() if o.place != "FIXED"]
        segment = any(o.names in ("SEGMENT", "CONTROL", "DEBUG") for o in line.operands)
        return name in OWN_REGISTER or (not count and not segment)
    if name in NARROWING:
        return line.operands[0].names == "XMM"
    return name in FROM_INTEGER or name in CLASSIFY or name in X87_LOAD | X87_STORE or (
        name in ("call", "jmp") and line.form.row.flow != "next")


def is_string(line: Line) -> bool:
    """One of the string instructions; MOVSD and CMPSD are names of SSE2 as well."""
    return line.form.row.mnemonic in STRING and line.form.row.map == 0 and line.form.row.space == ""


def is_far(line: Line) -> bool:
    return any(o.source.width == "p" for o in line.form.operands) and line.form.row.mnemonic in ("call", "jmp")


def is_float(line: Line) -> bool:
    return not line.form.row.mnemonic.startswith("fi")


def common(line: Line) -> None:
    """What all three do."""
    row = line.form.row
    name = row.mnemonic
    line.flags |= {flag for word, flag in (("lock", "LOCK"), ("bnd", "BOUND"), ("notrack", "NOTRACK"),
                   ("xacquire", "ACQUIRE"), ("xrelease", "RELEASE"), ("repne", "REPNE")) if word in row.attributes}
    if "rep" in row.attributes:
        line.flags |= {"REPE", "REPNE"} if is_string(line) and name[:4] in ("cmps", "scas") else {"REP", "REPNE"} \
            if is_string(line) else {"REP"}
    if name in ("xchg", "mov"):
        line.flags.add("ELIDE_LOCK")
    if "hint" in row.attributes:
        line.flags.add("HINT")
    if name.startswith("cmp") and name.endswith("xadd"):
        line.name = f"cmp{CONDITION_NAMES.get(name[3:-4], name[3:-4])}xadd"
    if name == "reservednop":
        line.name = "nop"
    if name == "nop" and row.opcode == 0x90:
        line.flags.add("NOP")
        line.own_size, line.name_other = "DATA", "xchg"
        line.operands = [Operand("NOP_REGISTER"), Operand("NOP_REGISTER")]
    if "SCC" in row.extras:
        line.flags.add("DEFAULT_FLAGS")
    elif row.extras and not name.startswith("cfcmov"):
        line.flags |= {"NO_FLAGS"} if row.extras["NF"] else set() if row.extras["ND"] else {"EVEX"}
    if name == "imul" and len(line.operands) == 3 and row.space == "":
        line.flags.add("REPEATED")
    if name in X87_WITH_SECOND and line.memory is None:
        line.flags.add("SECOND")
    if name == "ret" and not line.operands:
        line.flags.add("REP")
    if name in PADLOCK:
        line.flags.add("ALWAYS_REP")
    if name in PADLOCK | MONITORS | MASKED_STORES | {"xstore"}:
        line.flags.add("ADDRESS")
    if name in MONITORS | {"umonitor", "clzero"}:
        line.flags.add("SEGMENT")
    if name == "xstore":
        line.flags |= {"REP", "REPNE"}
    if name in ("tpause", "umwait"):
        for operand in line.operands:
            operand.names = "32"
    if name in MASKED_STORES:
        line.operands = [o for o in line.operands if not o.is_memory]


def narrow(line: Line, names: str, which: slice = slice(None)) -> None:
    for operand in line.operands[which]:
        if operand.names in ("32", "64"):
            operand.names = names


def has_rounding(line: Line) -> bool:
    """Rounding can be given, and means something: no rounding is printed where the result is exact."""
    row = line.form.row
    return "norounding" not in row.attributes and any(o.rounding for o in row.operands)


def rounding(line: Line) -> None:
    """An operand of its own: behind the registers, but in front of an integer that is converted."""
    if has_rounding(line):
        count = sum(o.place != "IMMEDIATE" for o in line.operands)
        line.operands.insert(count - (line.form.row.mnemonic in FROM_INTEGER), Operand("ROUNDING"))
