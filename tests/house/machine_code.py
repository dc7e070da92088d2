"""Reads objdump's listing of x86-64 code far enough to say where an indirect call gets its target from."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

FUNCTION = re.compile(r"^[0-9a-f]+ <(\S+)>:$")
HANDLER = re.compile(r"engine_[a-z]+_(op_\d+_\w+)$")
INSTRUCTION = re.compile(r"^\s+([0-9a-f]+):\t(\S+)(?:\s+(.*))?$")
INDIRECT = re.compile(r"\*(?:(-?0x[0-9a-f]+)?\(%(\w+)\)|%(\w+))$")
LOAD = re.compile(r"^(-?0x[0-9a-f]+)?\(%(\w+)\),%\w+$")
NO_RESULT = frozenset(("cmp", "cmpb", "cmpw", "cmpl", "cmpq", "test", "testb", "testw", "testl", "testq", "push"))
CALLER_SAVED = frozenset(("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11"))


def _widths() -> dict[str, str]:
    names = {f"r{n}{suffix}": f"r{n}" for n in range(8, 16) for suffix in ("", "d", "w", "b")}
    for letter in "abcd":
        names |= dict.fromkeys((f"r{letter}x", f"e{letter}x", f"{letter}x", f"{letter}l"), f"r{letter}x")
    for word in ("si", "di", "bp", "sp"):
        names |= dict.fromkeys((f"r{word}", f"e{word}", word, f"{word}l"), f"r{word}")
    return names


FULL = _widths()


@dataclass(frozen=True)
class Instruction:
    address: int
    mnemonic: str
    operands: str

    @property
    def is_indirect(self) -> bool:
        return self.operands.startswith("*")

    @property
    def target(self) -> int | None:
        """Of a direct jump or call."""
        found = re.match(r"([0-9a-f]+) <", self.operands)
        return int(found.group(1), 16) if found else None

    @property
    def target_name(self) -> str:
        found = re.search(r"<([^>+]+)", self.operands)
        return found.group(1) if found else ""

    @property
    def written(self) -> str | None:
        """The register that it changes, by its full name; enough for the moves that compute a target."""
        if self.mnemonic in NO_RESULT or self.mnemonic.startswith(("j", "call")):
            return None
        found = re.search(r"%(\w+)$", self.operands)
        return FULL.get(found.group(1)) if found else None


@dataclass
class Function:
    name: str
    code: list[Instruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._before: dict[int, list[int]] | None = None

    @property
    def handler(self) -> str:
        """Name of the handler as in the generated code; empty for any other function."""
        found = HANDLER.search(self.name)
        return found.group(1) if found else ""

    @property
    def indirect_jumps(self) -> list[Instruction]:
        return [one for one in self.code if one.mnemonic == "jmp" and one.is_indirect]

    @property
    def calls(self) -> list[Instruction]:
        return [one for one in self.code if one.mnemonic == "call"]

    def before(self) -> dict[int, list[int]]:
        """Control flow backwards: for each instruction's number those that may run just before it."""
        if self._before is None:
            number = {one.address: index for index, one in enumerate(self.code)}
            self._before = defaultdict(list)
            for index, one in enumerate(self.code):
                if one.mnemonic.startswith("j") and one.target in number:
                    self._before[number[one.target]].append(index)
                if not one.mnemonic.startswith(("jmp", "ret", "ud2")):
                    self._before[index + 1].append(index)
        return self._before

    def sources(self, index: int, register: str, field_offset: int, seen: set[tuple[int, str]]) -> set[str]:
        """What `register` may hold before instruction `index`: "machine" for a load of the field at `field_offset`
        of some struct, "function" for a load through that, else the text of what wrote it."""
        found: set[str] = set()
        for previous in self.before()[index]:
            if (previous, register) in seen:
                continue
            seen.add((previous, register))
            one = self.code[previous]
            if one.mnemonic == "call" and register in CALLER_SAVED:
                found.add("the result of a call")
            elif one.written != register:
                found |= self.sources(previous, register, field_offset, seen)
            elif one.mnemonic == "mov" and (copied := re.fullmatch(r"%(\w+),%\w+", one.operands)):
                found |= self.sources(previous, FULL[copied.group(1)], field_offset, seen)
            elif one.mnemonic == "mov" and (load := LOAD.match(one.operands)):
                if int(load.group(1) or "0", 16) == field_offset:
                    found.add("machine")
                else:
                    base = self.sources(previous, FULL[load.group(2)], field_offset, set())
                    found.add("function" if base == {"machine"} else one.operands)
            else:
                found.add(f"{one.mnemonic} {one.operands}")
        return found

    def foreign_calls(self, field_offset: int) -> list[str]:
        """Indirect calls that do not go through the struct at `field_offset`."""
        bad = []
        for index, one in enumerate(self.code):
            if one.mnemonic != "call" or not one.is_indirect:
                continue
            where = INDIRECT.match(one.operands)
            if where is None:
                bad.append(f"{one.address:x}: call {one.operands}")
                continue
            sources = self.sources(index, FULL[where.group(2) or where.group(3)], field_offset, set())
            if sources != {"machine" if where.group(2) else "function"}:
                bad.append(f"{one.address:x}: call {one.operands} from {', '.join(sorted(sources)) or 'an argument'}")
        return bad


def parse(listing: str) -> list[Function]:
    """The functions of an `objdump -d --no-show-raw-insn` listing."""
    functions: list[Function] = []
    for line in listing.splitlines():
        if head := FUNCTION.match(line):
            functions.append(Function(head.group(1)))
        elif functions and (found := INSTRUCTION.match(line)):
            operands = (found.group(3) or "").strip()
            functions[-1].code.append(Instruction(int(found.group(1), 16), found.group(2), operands))
    return functions
