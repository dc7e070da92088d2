"""Module `implicit`: what an instruction uses besides its operands, from the words of the table (`in=`, `out=`, `mem=`,
`push` ...), and all registers that it uses in one list.

Names follow what happens to the whole register: in 64-bit mode a write of EAX is one of RAX, and a VEX or EVEX
instruction that writes XMM0 clears the rest of ZMM0, so it writes ZMM0.
"""
import re

from hvcore._native.base.types cimport u8, u64
from hvcore._native.decode.spec cimport *
from hvcore._native.decoder cimport isa
from hvcore._native.facts cimport group_size, index_width, operand_width, register_text
from hvcore._native.operands cimport make_operand, operand_total
from hvcore._native.text.operand cimport default_segment

from hvcore._native import facts

HOW = {"in": 1, "out": 2, "inout": 3, "cin": 9, "cout": 10, "cinout": 11}
ACCESS = {"r": 1, "w": 2, "rw": 3, "cr": 9, "cw": 10, "rcw": 11, "crw": 11}
GENERAL = {name.upper(): number for number, name in enumerate(facts.GENERAL)}
ONLY_64 = re.compile(r"R(8|9|1\d)D?")
MEMORY = re.compile(r"(c?[rw]+|rcw):\[(\w+)\](\w*)")


cdef object general_name(str letters, int bits):
    return register_text(GENERAL[letters], bits)


cdef int stack_bits(const insn_t* insn) noexcept:
    return insn.mode


cdef object word_names(str word, const insn_t* insn):
    """The registers that a word of the table stands for."""
    first, dash, last = word.partition("-")
    if dash:
        stem = first.rstrip("0123456789")
        return [f"{stem}{number}".lower() for number in range(int(first[len(stem):]), int(last) + 1)
                if insn.mode == 64 or number < 8]
    if word[0] == "r" and word[1:] in GENERAL:
        return [general_name(word[1:], insn.operand_size)]
    if word[0] == "e" and word[1:] in GENERAL:
        return [general_name(word[1:], min(insn.operand_size, 32))]
    if word[0] == "a" and word[1:] in GENERAL:
        return [general_name(word[1:], insn.address_size)]
    if word[0] == "s" and word[1:] in GENERAL:
        return [general_name(word[1:], stack_bits(insn))]
    return [word.lower()] if insn.mode == 64 or not ONLY_64.fullmatch(word) else []


cdef bint is_repeated(const insn_t* insn) noexcept:
    """REP in front of a string instruction: everything may happen, or not."""
    cdef const form_t* form = &isa().forms[insn.form]
    return insn.prefixes & (PREFIX_REP | PREFIX_REPNE) and (
        form.places[0] in (PLACE_SOURCE, PLACE_DESTINATION) or form.places[1] in (PLACE_SOURCE, PLACE_DESTINATION))


cdef object whole(const insn_t* insn, str name, int how):
    """The register with all that a write of it changes."""
    if not how & ACCESS_WRITE:
        return name
    if insn.mode == 64 and name in THIRTY_TWO:
        return THIRTY_TWO[name]
    if insn.prefixes & (PREFIX_VEX | PREFIX_EVEX | PREFIX_XOP) and name[1:3] == "mm" and name[0] in "xy":
        return "z" + name[1:]
    return name


THIRTY_TWO = {register_text(number, 32): register_text(number, 64) for number in range(32)}


cdef object implicit_registers(const insn_t* insn):
    """Registers that no operand names: a list of (name, access)."""
    found = []
    form = insn.form
    stack = general_name("SP", stack_bits(insn))
    words = facts.implicit_sets[facts.implicit[form]]
    named = any(kind in HOW and word == "sSP" for kind, word in words)
    for kind, word in words:
        if kind in HOW:
            found += [(name, HOW[kind]) for name in word_names(word, insn)]
        elif kind in ("push", "pop"):
            if not named:
                found.append((stack, ACCESS_READ | ACCESS_WRITE))
            if insn.mode != 64:
                found.append(("ss", ACCESS_READ))
    if is_repeated(insn):
        found.append((general_name("CX", insn.address_size), ACCESS_READ | ACCESS_WRITE | ACCESS_CONDITIONAL))
    if insn.mask:
        # Gathers and scatters clear the bits of what they have done, those that only prefetch do not.
        cleared = isa().forms[form].flags & FORM_MASK_NEEDED and not (isa().forms[form].access[0] & ACCESS_NONE)
        found.append((f"k{insn.mask}", ACCESS_READ | (ACCESS_WRITE if cleared else 0)))
    return found


cdef object address_registers(object memory, const insn_t* insn):
    """Base, index and segment of a memory operand."""
    found = [(name, ACCESS_READ) for name in (memory.base_name, memory.index_name) if name not in (None, "rip", "eip")]
    segment = memory.segment
    if isa().forms[insn.form].flags & FORM_NO_SEGMENT:
        return found
    if insn.mode != 64 or segment in (REGISTER_FS, REGISTER_GS):
        found.append((memory.segment_name, ACCESS_READ))
    return found


cdef object register_uses(const insn_t* insn):
    """Name to hv.Access of every register that is used, in the order in which they turn up."""
    uses = []
    cdef int number, group
    for number in range(operand_total(insn)):
        operand = make_operand(insn, number, 0)
        how = operand.access
        if operand.kind == facts.OperandKind.REGISTER:
            group = group_size(insn.form, number)
            for following in range(group + 1):
                name = register_text(operand.register & ~group | following if group else operand.register, operand.bits)
                uses.append((name, how))
        elif operand.kind == facts.OperandKind.MEMORY and how:
            uses += address_registers(operand, insn)
    uses += implicit_registers(insn)
    found = {}
    for name, how in uses:
        if how & ACCESS_READ:
            found[name] = found.get(name, 0) | how & ~ACCESS_WRITE if whole(insn, name, how) != name else \
                found.get(name, 0) | how
        if how & ACCESS_WRITE:
            written = whole(insn, name, how)
            found[written] = found.get(written, 0) | (how if written == name else how & ~ACCESS_READ)
    return {name: facts.Access(how) for name, how in found.items()}


cdef object implicit_memory(const insn_t* insn):
    """Memory that no operand names: a list of (address register, hv.Access), in the table's order."""
    found = []
    for kind, word in facts.implicit_sets[facts.implicit[insn.form]]:
        if kind == "mem":
            how, address, _ = MEMORY.fullmatch(word).groups()
            if address in ("G", "R"):
                operand = make_operand(insn, 0 if address == "G" else operand_total(insn) - 1, 0)
                found.append((operand.name, facts.Access(ACCESS[how])))
            else:
                found.append((word_names(address, insn)[0], facts.Access(ACCESS[how])))
        elif kind in ("push", "pop"):
            stack = general_name("SP", stack_bits(insn))
            found.append((stack, facts.Access(ACCESS_WRITE if kind == "push" else ACCESS_READ)))
    return found
