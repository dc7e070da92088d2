"""Random test cases for the native oracle, from templates of instructions.

A Template says how an instruction is encoded, in the letters of the manuals' opcode maps.
encode() makes one random valid encoding of it; generate() makes whole batches: encodings, and
register and memory contents that put memory operands into the data pages and choose operand
values where instructions tend to go wrong.  The same seed always gives the same batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .native import (
    CODE_ADDRESS,
    DATA_ADDRESS,
    DATA_BYTES,
    DEFAULT_CODE_OFFSET,
    DEFAULT_WINDOW_OFFSET,
    FLAG_AF,
    FLAG_CF,
    FLAG_DF,
    FLAG_OF,
    PAGE,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    REGISTER_NAMES,
    RSI,
    RSP,
    STATUS_FLAGS,
    STOP_BYTES,
    WINDOW_BYTES,
    forbidden_reason,
    new_cases,
    set_code,
)

Array = np.ndarray[Any, Any]

MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1
WINDOW_ADDRESS = DATA_ADDRESS + DEFAULT_WINDOW_OFFSET

_MAP_BYTES = {"": b"", "0F": b"\x0f", "0F38": b"\x0f\x38", "0F3A": b"\x0f\x3a"}
_MAP_NUMBERS = {"0F": 1, "0F38": 2, "0F3A": 3}
_VEX_PREFIX_CODES = {None: 0, 0x66: 1, 0xF3: 2, 0xF2: 3}


@dataclass(frozen=True)
class Template:
    """How one instruction form is encoded, and what a random case of it must mind."""

    mnemonic: str
    opcode: bytes
    """The opcode bytes after the map's escape bytes; the low three bits of the last are 0 for "+r"."""
    operands: tuple[str, ...] = ()
    """The manuals' letters: Eb Ev Gv Ib Iz Mq Rd Vps Wsd Ux Pq Qq By Hx Jb Ob Xb Yv ...; "Rd/Mb" gives the
    register and the memory form different sizes; "Zv" is a register in the opcode; anything else (AL,
    rAX, CL, 1, ...) is implicit and costs no bytes."""
    map: str = ""
    """"", "0F", "0F38" or "0F3A"."""
    prefix: int | None = None
    """The mandatory prefix: 0x66, 0xF2 or 0xF3."""
    modrm: str = ""
    """"", "/r", "/0" to "/7", or "+r"."""
    forms: str = "both"
    """"both", "reg" or "mem": which ModRM forms exist.  Operands M and R, U, N narrow it as well."""
    widths: tuple[int, ...] = ()
    """Operand widths of v, z and y operands.  Empty: all that the letters allow."""
    default64: bool = False
    """Width 64 needs no REX.W and 32 does not exist (push, pop, near branches)."""
    rex_w: bool | None = None
    """A fixed W bit; None leaves it to the width, or to chance where it does not matter."""
    vex: str = ""
    """"", "128" or "256": VEX-encoded with this L.  Upper halves of YMM registers are not observed."""
    lock: bool = False
    """LOCK is allowed on the memory form."""
    repeat: tuple[int, ...] = ()
    """Which of 0xF2, 0xF3 may stand before a string instruction."""
    alignment: int = 0
    """What the memory operand must be aligned to; 0: 16 for legacy SSE with a 16-byte operand, else 1."""
    immediates: tuple[int, ...] = ()
    """If given, the last immediate is one of these (predicates, rounding modes ...)."""
    setup: str = ""
    """A name in SETUPS; empty: what the mnemonic and the operands suggest."""
    undefined_flags: int = 0
    feature: str = ""
    """The CPUID feature, as named by the table the template comes from; only carried along."""


@dataclass
class Memory:
    """A ModRM memory operand (or moffs) and how registers make its address."""

    base: int | None
    index: int | None
    scale: int
    displacement: int
    address_bits: int
    size: int
    fixed: int | None = None
    """The linear address where no register has a say: RIP-relative and absolute forms."""


@dataclass
class Encoding:
    """One random encoding of a template."""

    template: Template
    code: bytes
    width: int
    """The width of v operands: 16, 32, 64, or 0 when the template has none."""
    address_bits: int = 64
    memory: Memory | None = None
    rm: int | None = None
    reg: int | None = None
    rex: bool = False
    locked: bool = False
    repeated: bool = False
    immediates: list[int] = field(default_factory=list)
    vector_kinds: tuple[str, ...] = ()

    @property
    def next_rip(self) -> int:
        """The address behind the code, where a case stops."""
        return CODE_ADDRESS + DEFAULT_CODE_OFFSET + len(self.code)

    def uses_for_address(self, register: int) -> bool:
        """Whether the memory operand's address depends on this register."""
        return self.memory is not None and register in (self.memory.base, self.memory.index)


# --- what must not run on the host -----------------------------------------------------------------

_KERNEL_DOORS = "syscall sysenter sysexit sysret int int1 into hlt vmcall vmmcall monitor mwait rsm in out ins outs"
_SEGMENT_WRITERS = (
    "rdfsbase rdgsbase wrfsbase wrgsbase swapgs lds les lss lfs lgs retf iret iretd iretq jmpf callf ljmp lcall "
    "pushfs pushgs insb insd outsb outsd"
)
_STATE_WRITERS = "wrpkru rdpkru xrstor xrstors xsetbv xbegin xabort xend"
_UNREPEATABLE = "rdtsc rdtscp rdrand rdseed rdpmc rdpid cpuid xgetbv sgdt sidt sldt str smsw"
_REFUSED_MNEMONICS = frozenset(" ".join((_KERNEL_DOORS, _SEGMENT_WRITERS, _STATE_WRITERS, _UNREPEATABLE)).split())


def refusal(template: Template) -> str | None:
    """Why no case may be made of this template, or None."""
    mnemonic = template.mnemonic.lower()
    if mnemonic in _REFUSED_MNEMONICS:
        return f"{mnemonic} must not run on the host or has no repeatable answer"
    opcode, modrm = template.opcode[0], template.modrm
    if template.vex:
        return None
    if template.map == "":
        if opcode == 0x8E:
            return "loads a segment register"
        if opcode == 0xFF and modrm in ("/3", "/5"):
            return "far branch"
        if opcode in (0xCA, 0xCB, 0xCD, 0xCF):
            return "far return or software interrupt"
    if template.map == "0F":
        if opcode in (0x05, 0x07, 0x34, 0x35, 0xA1, 0xA9, 0xB2, 0xB4, 0xB5):
            return "kernel entry or segment load"
        if opcode == 0xAE and template.prefix == 0xF3 and modrm in ("/0", "/1", "/2", "/3"):
            return "FS/GS base access"
    return None


# --- operand letters ---------------------------------------------------------------------------------

_LETTERS = frozenset("EGMRIJOBPQNVWUHLXYSZCD")
_SIZES = {
    "b": 1, "w": 2, "d": 4, "q": 8, "dq": 16, "x": 16, "ps": 16, "pd": 16, "ss": 4, "sd": 8, "pi": 8,
    "si": 4, "qq": 32, "s": 10, "t": 10, "": 8,
}  # fmt: skip


def _split(operand: str) -> tuple[str, str]:
    """The letter and the size of an operand; ("", name) for an implicit one."""
    if operand.startswith("sI"):  # sign-extended immediate
        operand = operand[1:]
    if operand[:1] in _LETTERS and operand[1:] in {*_SIZES, "v", "z", "y", "p"} and not operand.isupper():
        return operand[0], operand[1:]
    if operand in ("M", "E"):
        return operand, ""
    return "", operand


def _bytes_of(size: str, width: int, wide: bool) -> int:
    if size == "v":
        return (width or 32) // 8
    if size == "z":
        return min(width or 32, 32) // 8
    if size == "y":
        return 8 if wide else 4
    if size == "p":
        return 2 + (width or 32) // 8
    return _SIZES[size]


def _rm_operand(template: Template) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """What ModRM.rm stands for as a register and as memory; None where that form does not exist."""
    as_register: tuple[str, str] | None = None
    as_memory: tuple[str, str] | None = None
    for operand in template.operands:
        for part in operand.split("/"):
            letter, size = _split(part)
            if letter in ("E", "W", "Q"):
                as_register = as_memory = (letter, size)
            elif letter == "M":
                as_memory = (letter, size)
            elif letter in ("R", "U", "N"):
                as_register = (letter, size)
    if template.forms == "reg":
        as_memory = None
        as_register = as_register or ("R", "")
    if template.forms == "mem":
        as_register = None
        as_memory = as_memory or ("M", "")
    return as_register, as_memory


_SCALAR_FLOAT = {"ss": "f32", "ps": "f32", "sd": "f64", "pd": "f64"}


def _vector_kinds(template: Template) -> tuple[str, ...]:
    kinds = {"int"} if any(_split(o)[1] in ("x", "dq", "q", "d", "pi") for o in template.operands) else set()
    for operand in template.operands:
        for part in operand.split("/"):
            letter, size = _split(part)
            if letter and size in _SCALAR_FLOAT:
                kinds.add(_SCALAR_FLOAT[size])
    return tuple(sorted(kinds)) or ("int",)


_UNALIGNED = frozenset(("movups", "movupd", "movdqu", "lddqu", "pcmpistri", "pcmpistrm", "pcmpestri", "pcmpestrm"))


def _alignment(template: Template, size: int) -> int:
    if template.alignment:
        return template.alignment
    if size == 16 and not template.vex and template.mnemonic.lower() not in _UNALIGNED:
        return 16
    return 1


# --- encoding ----------------------------------------------------------------------------------------


def _signed_bytes(value: int, length: int) -> bytes:
    return (value & ((1 << (8 * length)) - 1)).to_bytes(length, "little")


_DISPLACEMENTS = (0, 1, -1, 8, -8, 0x7F, -0x80, 0x80, -0x81, 0x1000, -0x1000, 0x7FFFFFFF, -0x80000000)


def _random_displacement(rng: random.Random, bits: int) -> int:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    kind = rng.random()
    if kind < 0.3:
        return min(high, max(low, rng.choice(_DISPLACEMENTS)))
    if kind < 0.6:
        return rng.randint(-128, 127)
    return rng.randint(low, high)


def choose_target(rng: random.Random, size: int, alignment: int = 1, *, calm: bool = False) -> int:
    """A linear address for a `size`-byte memory operand.

    Mostly in the window, aligned or not, at times across the border of the two data pages or
    elsewhere in them, rarely (never if `calm`) reaching into a guard page.
    """
    size = max(size, 1)
    natural = max(alignment, 1 << (size.bit_length() - 1))
    roll = rng.random()
    room = max(WINDOW_BYTES - size, 0)
    if calm or roll < 0.60:
        return WINDOW_ADDRESS + rng.randint(0, room) // natural * natural
    if roll < 0.80:
        step = alignment if rng.random() < 0.85 else 1
        return WINDOW_ADDRESS + rng.randint(0, room) // step * step
    if roll < 0.90 and size > 1 and (alignment == 1 or rng.random() < 0.2):
        return DATA_ADDRESS + PAGE - rng.randint(1, size - 1)
    if roll < 0.97:
        return DATA_ADDRESS + rng.randint(0, DATA_BYTES - size) // alignment * alignment
    if roll < 0.985:
        return DATA_ADDRESS - rng.randint(1, size + 8) // alignment * alignment
    return DATA_ADDRESS + DATA_BYTES - (rng.randint(-8, size - 1) // alignment * alignment)


@dataclass
class _ModRM:
    """ModRM, SIB and displacement under construction."""

    tail: bytes
    rex_b: bool
    rex_x: bool
    memory: Memory | None = None
    register: int | None = None
    rip_relative: bool = False


def _register_modrm(reg_field: int, register: int) -> _ModRM:
    return _ModRM(bytes([0xC0 | (reg_field & 7) << 3 | register & 7]), register > 7, False, register=register)


def _memory_modrm(rng: random.Random, reg_field: int, size: int, alignment: int, address_bits: int) -> _ModRM:
    middle = (reg_field & 7) << 3
    shape = rng.choices(("base", "base+index", "index", "rip", "absolute"), (40, 35, 8, 10, 7))[0]
    if shape == "rip":
        memory = Memory(None, None, 1, 0, address_bits, size, choose_target(rng, size, alignment))
        return _ModRM(bytes([middle | 5, 0, 0, 0, 0]), False, False, memory, rip_relative=True)
    if shape == "absolute":
        target = choose_target(rng, size, alignment)
        memory = Memory(None, None, 1, target, address_bits, size, target)
        return _ModRM(bytes([middle | 4, 0x25]) + _signed_bytes(target, 4), False, False, memory)
    index = rng.choice([r for r in range(16) if r != RSP])  # 4 in the index field means none
    scale_bits = rng.randrange(4)
    if shape == "index":
        # The displacement must leave an address the scaled index can make up: keep it small and even.
        displacement = rng.randint(-(1 << 20), 1 << 20) & ~7
        memory = Memory(None, index, 1 << scale_bits, displacement, address_bits, size)
        sib = scale_bits << 6 | (index & 7) << 3 | 5
        return _ModRM(bytes([middle | 4, sib]) + _signed_bytes(displacement, 4), False, index > 7, memory)
    base = rng.randrange(16)
    displacement_bits = rng.choices((0, 8, 32), (35, 40, 25))[0]
    if displacement_bits == 0 and base & 7 == 5:
        displacement_bits = 8  # mod 0 with rbp or r13 means something else
    displacement = _random_displacement(rng, displacement_bits) if displacement_bits else 0
    mod = {0: 0x00, 8: 0x40, 32: 0x80}[displacement_bits]
    rest = _signed_bytes(displacement, displacement_bits // 8)
    if shape == "base+index":
        memory = Memory(base, index, 1 << scale_bits, displacement, address_bits, size)
        sib = scale_bits << 6 | (index & 7) << 3 | base & 7
        return _ModRM(bytes([mod | middle | 4, sib]) + rest, base > 7, index > 7, memory)
    memory = Memory(base, None, 1, displacement, address_bits, size)
    if base & 7 == 4 or rng.random() < 0.1:  # a SIB byte with no index; its scale says nothing
        sib = scale_bits << 6 | 4 << 3 | base & 7
        return _ModRM(bytes([mod | middle | 4, sib]) + rest, base > 7, False, memory)
    return _ModRM(bytes([mod | middle | base & 7]) + rest, base > 7, False, memory)


def _branch_distance(rng: random.Random, length: int, size: int) -> int:
    """To the stop, or to the filler around the code: never into the tested code or the stop's own bytes."""
    if rng.random() < 0.2:
        return 0
    reach = 127 if size == 1 else 0x700
    if rng.random() < 0.5:
        return rng.randint(STOP_BYTES, reach)
    return -rng.randint(length + 1, min(reach, 128))


def _random_immediate(rng: random.Random, size: int) -> int:
    bits = size * 8
    roll = rng.random()
    if roll < 0.4:
        return rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, -1, 1 << (bits - 1), (1 << (bits - 1)) - 1)) & ((1 << bits) - 1)
    if roll < 0.6:
        return rng.randrange(0, 32)
    return rng.getrandbits(bits)


_NEAR_BRANCHES = frozenset({"jmp", "call", "ret", "retn"})


def _is_near_branch(template: Template) -> bool:
    return template.mnemonic.lower() in _NEAR_BRANCHES or any(_split(o)[0] == "J" for o in template.operands)


def _width(template: Template, rng: random.Random) -> int:
    if template.widths:
        return rng.choice(template.widths)
    letters = [_split(part) for operand in template.operands for part in operand.split("/")]
    sizes = {size for letter, size in letters if letter}
    if _is_near_branch(template):
        return 64  # the processors' makers disagree about 66 on near branches
    implicit = {name for letter, name in letters if not letter}
    if "v" in sizes or "z" in sizes or "rAX" in implicit:
        return rng.choice((16, 64) if template.default64 else (16, 32, 64))
    if "y" in sizes:
        return rng.choice((32, 64))
    return 0


def encode(template: Template, rng: random.Random) -> Encoding:
    """One random valid encoding of the template.  Raises ValueError for templates the host must not run."""
    reason = refusal(template)
    if reason:
        raise ValueError(f"{template.mnemonic}: {reason}")
    for _ in range(100):
        encoding = _encode_once(template, rng)
        if len(encoding.code) <= 15 and forbidden_reason(encoding.code) is None:
            return encoding
    raise ValueError(f"{template.mnemonic}: every encoding tried is too long or forbidden on the host")


def _encode_once(template: Template, rng: random.Random) -> Encoding:
    width = _width(template, rng)
    wide = width == 64 if template.rex_w is None else template.rex_w
    encoding = Encoding(template, b"", width, vector_kinds=_vector_kinds(template))

    as_register, as_memory = _rm_operand(template)
    has_modrm = template.modrm.startswith("/")
    use_memory = has_modrm and as_memory is not None and (as_register is None or rng.random() < 0.5)
    touches_memory = use_memory or any(_split(o)[0] in ("X", "Y", "O") for o in template.operands)
    if touches_memory and rng.random() < 0.08:
        encoding.address_bits = 32

    # Register fields, and which of them need or forbid REX.
    byte_registers: list[int] = []
    reg_field = 0
    reg_letter = ""
    if template.modrm == "/r":
        for operand in template.operands:
            letter, size_name = _split(operand)
            if letter in ("G", "V", "P", "S", "C", "D"):
                reg_letter = letter
                reg_field = rng.randrange({"P": 8, "S": 6}.get(letter, 16))
                if letter == "G" and size_name == "b":
                    byte_registers.append(reg_field)
        encoding.reg = reg_field
    elif has_modrm:
        reg_field = int(template.modrm[1])

    locked = template.lock and use_memory and rng.random() < 0.3
    encoding.locked = locked or (use_memory and template.mnemonic.lower() == "xchg")
    if use_memory:
        assert as_memory is not None
        size = 2 if reg_letter == "S" else _bytes_of(as_memory[1], width, wide)  # selectors are words
        alignment = _alignment(template, size)
        if encoding.locked:
            # A locked access across a cache line stalls the whole host (or is refused by it).
            alignment = max(alignment, size)
        modrm = _memory_modrm(rng, reg_field, size, alignment, encoding.address_bits)
        encoding.memory = modrm.memory
    elif has_modrm:
        assert as_register is not None or not template.operands
        letter, size_name = as_register or ("R", "")
        register = rng.randrange(8 if letter in ("Q", "N") else 16)
        if letter in ("E", "R") and size_name == "b":
            byte_registers.append(register)
        modrm = _register_modrm(reg_field, register)
        encoding.rm = register
    else:
        modrm = _ModRM(b"", False, False)

    opcode = bytearray(template.opcode)
    if template.modrm == "+r":
        register = rng.randrange(16)
        if any(_split(o) == ("Z", "b") for o in template.operands):
            byte_registers.append(register)
        opcode[-1] |= register & 7
        modrm.rex_b = register > 7
        encoding.rm = register

    # REX.
    rex = 0x40 if rng.random() < 0.1 else 0
    if any(register > 7 for register in byte_registers) or modrm.rex_b or modrm.rex_x or reg_field > 7:
        rex = 0x40
    if template.rex_w is not None:
        rex |= 0x48 if template.rex_w else 0
    elif width == 64:
        if not (template.default64 or _is_near_branch(template)) or rng.random() < 0.1:
            rex |= 0x48
    elif width == 0 and rng.random() < 0.05 and not template.vex and not template.default64:
        rex |= 0x48  # W says nothing here
    if reg_field > 7:
        rex |= 0x44
    if modrm.rex_x:
        rex |= 0x42
    if modrm.rex_b:
        rex |= 0x41
    if reg_letter == "S":
        rex &= ~0x04
    encoding.rex = bool(rex)

    # Legacy prefixes.
    prefixes: list[int] = []
    if template.prefix is not None and not template.vex:
        prefixes.append(template.prefix)
    if width == 16:
        prefixes.append(0x66)
    elif width == 64 and rex & 8 and not template.prefix and not template.vex and rng.random() < 0.03:
        prefixes.append(0x66)  # W overrules it
    if encoding.address_bits == 32:
        prefixes.append(0x67)
    if locked:
        prefixes.append(0xF0)
    if template.repeat and rng.random() < 0.7:
        prefixes.append(rng.choice(template.repeat))
        encoding.repeated = True
    if use_memory and not template.vex and rng.random() < 0.03:
        prefixes.append(rng.choice((0x26, 0x2E, 0x36, 0x3E)))  # these segments all start at zero
    rng.shuffle(prefixes)

    # Immediates: their values, except for branches, which need the length of the code.
    immediate_sizes: list[tuple[str, int]] = []
    for operand in template.operands:
        letter, size_name = _split(operand)
        if letter in ("I", "J"):
            immediate_sizes.append((letter, _bytes_of(size_name, width, wide)))
        elif letter == "O":
            immediate_sizes.append((letter, encoding.address_bits // 8))
            size = _bytes_of(size_name, width, wide)
            target = choose_target(rng, size)
            encoding.memory = Memory(None, None, 1, target, encoding.address_bits, size, target)
        elif letter == "L":
            immediate_sizes.append((letter, 1))

    if template.vex:
        head = bytes(prefixes) + _vex_bytes(template, rng, wide, reg_field, modrm)
    else:
        head = bytes(prefixes) + (bytes([rex]) if rex else b"") + _MAP_BYTES[template.map]
    head += bytes(opcode)
    length = len(head) + len(modrm.tail) + sum(size for _, size in immediate_sizes)
    if modrm.rip_relative:
        assert modrm.memory is not None and modrm.memory.fixed is not None
        distance = modrm.memory.fixed - (CODE_ADDRESS + DEFAULT_CODE_OFFSET + length)
        modrm.memory.displacement = distance
        modrm.tail = modrm.tail[:1] + _signed_bytes(distance, 4)

    tail = b""
    for number, (letter, size) in enumerate(immediate_sizes):
        last = number == len(immediate_sizes) - 1
        if letter == "J":
            value = _branch_distance(rng, length, size)
        elif letter == "O":
            assert encoding.memory is not None and encoding.memory.fixed is not None
            value = encoding.memory.fixed
        elif letter == "L":
            value = rng.randrange(16) << 4
        elif last and template.immediates:
            value = rng.choice(template.immediates)
        else:
            value = _tame_immediate(template, number, width, _random_immediate(rng, size), rng)
        encoding.immediates.append(value)
        tail += _signed_bytes(value, size)
    encoding.code = head + modrm.tail + tail
    return encoding


def _tame_immediate(template: Template, number: int, width: int, value: int, rng: random.Random) -> int:
    mnemonic = template.mnemonic.lower()
    if mnemonic == "enter":
        return rng.choice((0, 1, 8, 16, 64)) if number == 0 else rng.randrange(4)
    if mnemonic in ("ret", "retn"):
        return rng.randrange(64)
    if mnemonic in ("shld", "shrd") and width == 16:
        return value & ~0x1F | rng.randrange(17)  # beyond the width the result is undefined
    return value


def _vex_bytes(template: Template, rng: random.Random, wide: bool, reg_field: int, modrm: _ModRM) -> bytes:
    register = 0
    for operand in template.operands:
        if _split(operand)[0] in ("B", "H"):
            register = rng.randrange(16)
    last = (~register & 15) << 3 | (template.vex == "256") << 2 | _VEX_PREFIX_CODES[template.prefix]
    not_r, not_x, not_b = reg_field <= 7, not modrm.rex_x, not modrm.rex_b
    if not_x and not_b and not wide and template.map == "0F" and rng.random() < 0.5:
        return bytes([0xC5, not_r << 7 | last])
    return bytes([0xC4, not_r << 7 | not_x << 6 | not_b << 5 | _MAP_NUMBERS[template.map], wide << 7 | last])


# --- operand values ----------------------------------------------------------------------------------


def _interesting_integers() -> list[int]:
    values = set(range(-4, 33))
    for bits in (4, 8, 15, 16, 31, 32, 63, 64):
        for near in (-2, -1, 0, 1):
            values |= {(1 << bits) + near, -(1 << bits) + near}
    values |= {1 << bit for bit in range(64)}
    values |= {0x5555555555555555, 0xAAAAAAAAAAAAAAAA, 0x0F0F0F0F0F0F0F0F, 0x00FF00FF00FF00FF, 0x8000800080008000}
    values |= {0x7F7F7F7F7F7F7F7F, 0x8080808080808080, 0x7FFF7FFF7FFF7FFF, 0x7FFFFFFF7FFFFFFF, 0x8000000080000000}
    return sorted({value & MASK64 for value in values})


INTEGERS = np.array(_interesting_integers(), dtype=np.uint64)

DOUBLES = np.array(
    [
        0x0000000000000000, 0x8000000000000000,  # zeros
        0x0000000000000001, 0x8000000000000001, 0x000FFFFFFFFFFFFF, 0x800FFFFFFFFFFFFF, 0x0008000000000000,  # denormals
        0x0010000000000000, 0x8010000000000000, 0x0010000000000001, 0x0020000000000000,  # least normals
        0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF, 0x7FE0000000000000,  # greatest
        0x7FF0000000000000, 0xFFF0000000000000,  # infinities
        0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000001234, 0xFFFFFFFFFFFFFFFF,  # quiet NaNs
        0x7FF0000000000001, 0xFFF0000000000001, 0x7FF4000000000000, 0x7FF7FFFFFFFFFFFF,  # signalling NaNs
        0x3FF0000000000000, 0xBFF0000000000000, 0x3FF0000000000001, 0x3FEFFFFFFFFFFFFF,  # ones
        0x4000000000000000, 0xC000000000000000, 0x4008000000000000, 0x3FE0000000000000, 0xBFE0000000000000,
        0x3FF8000000000000, 0xBFF8000000000000, 0x4004000000000000, 0xC004000000000000,  # halves
        0x3FE0000000000001, 0x3FDFFFFFFFFFFFFF,
        0x41DFFFFFFFC00000, 0x41DFFFFFFFE00000, 0x41E0000000000000, 0xC1E0000000000000, 0xC1E0000000200000,  # 2**31
        0xC1E0000000100000, 0x41EFFFFFFFE00000, 0x41F0000000000000,
        0x43DFFFFFFFFFFFFF, 0x43E0000000000000, 0xC3E0000000000000, 0xC3E0000000000001, 0x43F0000000000000,  # 2**63
        0x4330000000000000, 0x432FFFFFFFFFFFFF, 0x4340000000000000, 0x4340000000000001,  # 2**52, 2**53
        0x47EFFFFFE0000000, 0x47EFFFFFF0000000, 0x47F0000000000000,  # about the greatest single
        0x3810000000000000, 0x380FFFFFFFFFFFFF, 0x36A0000000000000, 0x3690000000000000, 0x3690000000000001,
        0x400921FB54442D18, 0x3FB999999999999A, 0x3FD5555555555555, 0x4024000000000000,
    ],
    dtype=np.uint64,
)  # fmt: skip

SINGLES = np.array(
    [
        0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00400000,  # zeros, denormals
        0x00800000, 0x80800000, 0x00800001, 0x01000000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F000000,
        0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7FC01234, 0xFFFFFFFF,  # infinities, quiet NaNs
        0x7F800001, 0xFF800001, 0x7FA00000, 0x7FBFFFFF,  # signalling NaNs
        0x3F800000, 0xBF800000, 0x3F800001, 0x3F7FFFFF, 0x40000000, 0xC0000000, 0x40400000,
        0x3F000000, 0xBF000000, 0x3FC00000, 0xBFC00000, 0x40200000, 0xC0200000, 0x3F000001, 0x3EFFFFFF,  # halves
        0x4EFFFFFF, 0x4F000000, 0xCF000000, 0xCF000001, 0x4F7FFFFF, 0x4F800000,  # 2**31, 2**32
        0x5EFFFFFF, 0x5F000000, 0xDF000000, 0xDF000001, 0x4B000000, 0x4AFFFFFF, 0x4B800000, 0x4B800001,
        0x40490FDB, 0x3DCCCCCD, 0x3EAAAAAB, 0x41200000,
    ],
    dtype=np.uint32,
)  # fmt: skip


def random_integers(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """64-bit values with a taste for borders."""
    raw = generator.integers(0, 1 << 64, size=shape, dtype=np.uint64)
    roll = generator.integers(0, 100, size=shape, dtype=np.uint8)
    chosen = INTEGERS[generator.integers(0, len(INTEGERS), size=shape)]
    shortened = raw >> generator.integers(0, 64, size=shape, dtype=np.uint64)
    small = (raw & np.uint64(31)) - np.uint64(16)
    return np.where(roll < 40, chosen, np.where(roll < 70, raw, np.where(roll < 85, shortened, small)))


def random_doubles(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Bits of 64-bit floating-point values: special ones, moderate ones and random bits."""
    raw = generator.integers(0, 1 << 64, size=shape, dtype=np.uint64)
    roll = generator.integers(0, 100, size=shape, dtype=np.uint8)
    chosen = DOUBLES[generator.integers(0, len(DOUBLES), size=shape)]
    exponent = generator.integers(1023 - 70, 1023 + 70, size=shape, dtype=np.uint64) << np.uint64(52)
    moderate = raw & np.uint64(0x800FFFFFFFFFFFFF) | exponent
    # Few significant bits: sums and products of these are exact, or tie when rounded.
    short = moderate & np.uint64(0xFFFFFE0000000000)
    return np.where(roll < 45, chosen, np.where(roll < 65, moderate, np.where(roll < 80, short, raw)))


def random_singles(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Bits of 32-bit floating-point values, likewise."""
    raw = generator.integers(0, 1 << 32, size=shape, dtype=np.uint32)
    roll = generator.integers(0, 100, size=shape, dtype=np.uint8)
    chosen = SINGLES[generator.integers(0, len(SINGLES), size=shape)]
    exponent = generator.integers(127 - 40, 127 + 40, size=shape, dtype=np.uint32) << np.uint32(23)
    moderate = raw & np.uint32(0x807FFFFF) | exponent
    short = moderate & np.uint32(0xFFFFF000)
    return np.where(roll < 45, chosen, np.where(roll < 65, moderate, np.where(roll < 80, short, raw)))


def random_mxcsr(generator: np.random.Generator, count: int, unmasked_share: float = 0.08) -> Array:
    """All rounding modes, at times DAZ, FTZ, sticky flags already set, or exceptions unmasked."""
    value = np.full(count, 0x1F80, dtype=np.uint32)
    value |= generator.integers(0, 4, size=count, dtype=np.uint32) << np.uint32(13)
    value |= np.where(generator.random(count) < 0.15, 0x40, 0).astype(np.uint32)
    value |= np.where(generator.random(count) < 0.15, 0x8000, 0).astype(np.uint32)
    sticky = generator.integers(0, 64, size=count, dtype=np.uint32)
    value |= np.where(generator.random(count) < 0.15, sticky, 0).astype(np.uint32)
    unmasked = generator.integers(0, 64, size=count, dtype=np.uint32) << np.uint32(7)
    return value & ~np.where(generator.random(count) < unmasked_share, unmasked, 0).astype(np.uint32)


# --- from an encoding to a case ------------------------------------------------------------------------


class Draft:
    """One case in the making: what the setups read and write."""

    def __init__(self, encoding: Encoding, gpr: Array, window: Array, rng: random.Random) -> None:
        self.encoding = encoding
        self.rng = rng
        self.target: int | None = None
        """The linear address of the memory operand."""
        self.flags_set = 0
        self.flags_cleared = 0
        self._gpr = gpr
        self._window = window

    def register(self, index: int) -> int:
        """A whole register."""
        return int(self._gpr[index])

    def set_register(self, index: int, value: int, bits: int = 64) -> None:
        """The low `bits` of a register; the others stay."""
        mask = (1 << bits) - 1
        self._gpr[index] = int(self._gpr[index]) & ~mask & MASK64 | value & mask

    def set_address(self, index: int, address: int) -> None:
        """A register as an address: under a 67 prefix its upper half stays random."""
        self.set_register(index, address, self.encoding.address_bits)

    def read_window(self, address: int, size: int) -> int | None:
        """What the case will find there, if that is in the window."""
        start = address - WINDOW_ADDRESS
        if 0 <= start <= WINDOW_BYTES - size:
            return int.from_bytes(self._window[start : start + size].tobytes(), "little")
        return None

    def write_window(self, address: int, value: int, size: int) -> bool:
        """Put a value into memory before the case starts; False when outside the window."""
        start = address - WINDOW_ADDRESS
        if not 0 <= start <= WINDOW_BYTES - size:
            return False
        data = (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
        self._window[start : start + size] = np.frombuffer(data, dtype=np.uint8)
        return True

    def rm_size(self) -> int:
        """Bytes of the ModRM.rm operand."""
        if self.encoding.memory is not None:
            return self.encoding.memory.size
        for operand in self.encoding.template.operands:
            for part in operand.split("/"):
                letter, size = _split(part)
                if letter in ("E", "R", "Z"):
                    return _bytes_of(size, self.encoding.width, self.encoding.width == 64)
        return 8

    def _rm_shift(self, size: int) -> tuple[int, int]:
        """Register and bit position of a register operand, with AH to BH in mind."""
        assert self.encoding.rm is not None
        if size == 1 and not self.encoding.rex and 4 <= self.encoding.rm < 8:
            return self.encoding.rm - 4, 8
        return self.encoding.rm, 0

    def rm_value(self) -> int | None:
        """What the ModRM.rm operand holds, where that is known."""
        size = self.rm_size()
        if self.encoding.memory is not None:
            return None if self.target is None else self.read_window(self.target, size)
        if self.encoding.rm is None:
            return None
        register, shift = self._rm_shift(size)
        return self.register(register) >> shift & ((1 << (8 * size)) - 1)

    def set_rm_value(self, value: int) -> None:
        """Set the ModRM.rm operand, where it can be set."""
        size = self.rm_size()
        if self.encoding.memory is not None:
            if self.target is not None:
                self.write_window(self.target, value, size)
        elif self.encoding.rm is not None:
            register, shift = self._rm_shift(size)
            mask = ((1 << (8 * size)) - 1) << shift
            self.set_register(register, self.register(register) & ~mask | value << shift & mask)


def _solve(draft: Draft, memory: Memory, target: int) -> int:
    """Set base and index registers so that the operand is at `target`; returns where it came to be."""
    bits = memory.address_bits
    mask = (1 << bits) - 1
    rest = target - memory.displacement
    if memory.base is None:
        assert memory.index is not None
        value = rest // memory.scale
        # Multiples of what the scaling shifts out change nothing: an address that wraps.
        value += draft.rng.randrange(memory.scale) * ((mask + 1) // memory.scale)
        draft.set_address(memory.index, value)
        return memory.displacement + rest // memory.scale * memory.scale
    if memory.base == memory.index:
        factor = memory.scale + 1
        if factor == 2:
            draft.set_address(memory.base, rest // 2)
            return memory.displacement + rest // 2 * 2
        draft.set_address(memory.base, rest * pow(factor, -1, mask + 1))
        return target
    if memory.index is not None:
        rest -= (draft.register(memory.index) & mask) * memory.scale
    draft.set_address(memory.base, rest)
    return target


Setup = tuple[Callable[[Draft], None] | None, Callable[[Draft], None] | None]
"""What to do before the memory operand's address registers are set, and after."""


def _stack_before(draft: Draft) -> None:
    alignment = 8 if draft.rng.random() < 0.85 else 1
    calm = draft.rng.random() < 0.9
    draft.set_register(RSP, choose_target(draft.rng, 8, alignment, calm=calm))


def _code_target(draft: Draft) -> int:
    roll = draft.rng.random()
    if roll < 0.5:
        return draft.encoding.next_rip
    if roll < 0.9:
        return CODE_ADDRESS + draft.rng.randrange(16, DEFAULT_CODE_OFFSET - 16)
    return draft.rng.choice((DATA_ADDRESS, CODE_ADDRESS - 8, 1 << 47, 0xFFFF7FFFFFFFFFFF, 0))


def _return_after(draft: Draft) -> None:
    draft.write_window(draft.register(RSP), _code_target(draft), 8)


def _indirect_after(draft: Draft) -> None:
    draft.set_rm_value(_code_target(draft))


def _popf_before(draft: Draft) -> None:
    # Never outside the window: what stands there could set TF.
    draft.set_register(RSP, choose_target(draft.rng, 8, 1, calm=True))


def _popf_after(draft: Draft) -> None:
    # Under TF the stop would trap, under AC and NT the runner's own end would be another test.
    flags = draft.rng.getrandbits(22) & ~0x44100
    draft.write_window(draft.register(RSP), flags, 8)


def _leave_before(draft: Draft) -> None:
    _stack_before(draft)
    draft.set_register(RBP, choose_target(draft.rng, 8, 8))


_SHIFT_COUNTS = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 255)


def _shift_before(draft: Draft) -> None:
    rng = draft.rng
    draft.set_register(RCX, rng.choice(_SHIFT_COUNTS) if rng.random() < 0.6 else rng.getrandbits(8), 8)


def _double_shift_before(draft: Draft) -> None:
    _shift_before(draft)
    if draft.encoding.width == 16:  # beyond the width the result is undefined
        draft.set_register(RCX, draft.rng.randrange(17) | draft.rng.choice((0, 0x20, 0xE0)), 8)


def _divide_after(draft: Draft) -> None:
    rng = draft.rng
    if rng.random() < 0.2 or any(draft.encoding.uses_for_address(r) for r in (RAX, RDX)):
        return
    size = draft.rm_size()
    divisor = draft.rm_value()
    if divisor == 0:
        divisor = rng.getrandbits(8 * size) >> rng.randrange(8 * size) or 1
        draft.set_rm_value(divisor)
    if divisor is None:
        return
    if draft.encoding.memory is None and draft.encoding.rm in (RAX, RDX):
        return
    bits = 8 * size
    signed = draft.encoding.template.mnemonic.lower() == "idiv"
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if signed and divisor >> (bits - 1):
        divisor -= 1 << bits
    quotient = rng.choice((low, high, 0, 1, rng.randint(low, high), rng.randint(low, high)))
    remainder = rng.randrange(abs(divisor)) if rng.random() < 0.8 else abs(divisor) - 1
    dividend = quotient * divisor
    dividend += -remainder if dividend < 0 or (quotient == 0 and signed and rng.random() < 0.5) else remainder
    if size == 1:
        draft.set_register(RAX, dividend, 16)
    else:
        draft.set_register(RAX, dividend, bits)
        draft.set_register(RDX, dividend >> bits, bits)


def _bit_string_after(draft: Draft) -> None:
    encoding = draft.encoding
    if encoding.memory is None or encoding.reg is None or encoding.template.modrm != "/r":
        return
    if not encoding.uses_for_address(encoding.reg):
        reach = draft.rng.choice((64, 64, 1000, 20000))
        draft.set_register(encoding.reg, draft.rng.randint(-reach, reach), encoding.width)


def _string_before(draft: Draft) -> None:
    rng, encoding = draft.rng, draft.encoding
    size = 1
    for operand in encoding.template.operands:
        letter, name = _split(operand)
        if letter in ("X", "Y"):
            size = _bytes_of(name, encoding.width, encoding.width == 64)
    for register in (RSI, RDI):
        draft.set_address(register, choose_target(rng, size, calm=rng.random() < 0.3))
    if rng.random() < 0.25:  # overlapping source and destination
        draft.set_address(RDI, draft.register(RSI) + rng.randint(-16, 16))
    if encoding.repeated:
        draft.set_address(RCX, rng.choice((0, 1, 2, 3, rng.randrange(24), rng.randrange(24))))
    if rng.random() < 0.4:  # long runs of equal elements, for repe and repne
        value = int.from_bytes(bytes([rng.getrandbits(8)]) * 8, "little")
        for at in range(0, WINDOW_BYTES, 8):
            draft.write_window(WINDOW_ADDRESS + at, value, 8)
        if rng.random() < 0.7:
            draft.write_window(WINDOW_ADDRESS + rng.randrange(WINDOW_BYTES), rng.getrandbits(8), 1)
        if rng.random() < 0.7:
            draft.set_register(RAX, value)
    if rng.random() < 0.4:
        draft.flags_set |= FLAG_DF
    else:
        draft.flags_cleared |= FLAG_DF


def _compare_exchange_after(draft: Draft) -> None:
    value = draft.rm_value()
    if value is not None and draft.rng.random() < 0.5 and not draft.encoding.uses_for_address(RAX):
        draft.set_register(RAX, value, 8 * draft.rm_size())


def _compare_exchange_pair_after(draft: Draft) -> None:
    memory = draft.encoding.memory
    if memory is None or draft.target is None or draft.rng.random() < 0.4:
        return
    value = draft.read_window(draft.target, memory.size)
    if value is not None and not any(draft.encoding.uses_for_address(r) for r in (RAX, RDX)):
        bits = 4 * memory.size
        draft.set_register(RAX, value, bits)
        draft.set_register(RDX, value >> bits, bits)


def _translate_before(draft: Draft) -> None:
    draft.set_address(RBX, choose_target(draft.rng, 1) - (draft.register(RAX) & 0xFF))


def _masked_move_before(draft: Draft) -> None:
    draft.set_address(RDI, choose_target(draft.rng, 16))


def _count_before(draft: Draft) -> None:
    draft.set_address(RCX, draft.rng.choice((0, 1, 2, MASK64, draft.register(RCX))))


SETUPS: dict[str, Setup] = {
    "": (None, None),
    "bit_string": (None, _bit_string_after),
    "compare_exchange": (None, _compare_exchange_after),
    "compare_exchange_pair": (None, _compare_exchange_pair_after),
    "count": (_count_before, None),
    "divide": (None, _divide_after),
    "double_shift": (_double_shift_before, None),
    "indirect_branch": (_stack_before, _indirect_after),
    "leave": (_leave_before, None),
    "masked_move": (_masked_move_before, None),
    "pop_flags": (_popf_before, _popf_after),
    "return": (_stack_before, _return_after),
    "shift": (_shift_before, None),
    "stack": (_stack_before, None),
    "string": (_string_before, None),
    "translate": (_translate_before, None),
    "x87": (None, None),  # random values on the x87 stack: see generate()
}
"""By name: what a Template's `setup` may ask for.  Others may be added from outside."""

_SETUP_OF_MNEMONIC = {
    "bt": "bit_string", "bts": "bit_string", "btr": "bit_string", "btc": "bit_string",
    "cmpxchg": "compare_exchange", "cmpxchg8b": "compare_exchange_pair", "cmpxchg16b": "compare_exchange_pair",
    "div": "divide", "idiv": "divide", "shld": "double_shift", "shrd": "double_shift",
    "enter": "leave", "leave": "leave", "maskmovq": "masked_move", "maskmovdqu": "masked_move",
    "popf": "pop_flags", "popfw": "pop_flags", "popfq": "pop_flags", "ret": "return", "retn": "return",
    "push": "stack", "pop": "stack", "pushf": "stack", "pushfw": "stack", "pushfq": "stack",
    "jrcxz": "count", "jecxz": "count", "loop": "count", "loope": "count", "loopne": "count",
    "xlat": "translate", "xlatb": "translate",
    **dict.fromkeys(("shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr", "shlx", "shrx", "sarx"), "shift"),
}  # fmt: skip


def setup_name(template: Template) -> str:
    """The setup a template asks for, or the one its mnemonic and operands suggest."""
    if template.setup:
        return template.setup
    mnemonic = template.mnemonic.lower()
    letters = {_split(part)[0] for operand in template.operands for part in operand.split("/")}
    if letters & {"X", "Y"}:
        return "string"
    if mnemonic in ("jmp", "call"):
        return "stack" if "J" in letters else "indirect_branch"
    return _SETUP_OF_MNEMONIC.get(mnemonic, "")


_ADDRESS_ONLY = frozenset({"lea", "nop", "prefetcht0", "prefetcht1", "prefetcht2", "prefetchnta", "prefetchw"})
_PLAIN_SHIFTS = frozenset({"shl", "sal", "shr", "sar"})
_ROTATES = frozenset({"rol", "ror", "rcl", "rcr"})


def undefined_flags(encoding: Encoding, case: np.void) -> int:
    """The flags the manuals leave undefined in this case.

    For shifts and rotates that depends on the count, so it is worked out here; for all others it
    is what the template says.
    """
    template = encoding.template
    mnemonic = template.mnemonic.lower()
    if template.vex or mnemonic not in _PLAIN_SHIFTS | _ROTATES | {"shld", "shrd"}:
        return template.undefined_flags
    operands = template.operands
    width = encoding.width or 8
    if "CL" in operands:
        count = int(case["gpr"][RCX]) & 0xFF
    elif encoding.immediates:
        count = encoding.immediates[-1]
    else:
        count = 1
    count &= 63 if width == 64 else 31
    if count == 0:
        return 0
    if mnemonic in ("shld", "shrd"):
        return STATUS_FLAGS if count > width else FLAG_AF | (FLAG_OF if count != 1 else 0)
    mask = FLAG_OF if count != 1 else 0
    if mnemonic in _PLAIN_SHIFTS:
        mask |= FLAG_AF
        if mnemonic != "sar" and count >= width:
            mask |= FLAG_CF
    return mask


@dataclass
class Batch:
    """Generated cases, and for each what it was made of."""

    seed: int
    cases: Array
    encodings: list[Encoding]
    undefined_flags: Array

    def describe(self, index: int) -> str:
        """One case in words: for the message of a failing test."""
        encoding = self.encodings[index]
        case = self.cases[index]
        parts = [
            f"seed {self.seed} case {index}: {encoding.template.mnemonic} {', '.join(encoding.template.operands)}",
            f"code {encoding.code.hex(' ')}" + _disassembled(encoding.code),
            f"rflags {int(case['rflags']):#x} mxcsr {int(case['mxcsr']):#x}",
        ]
        used = sorted({RAX, RCX, RDX, RSP} | {r for r in (encoding.rm, encoding.reg) if r is not None})
        if encoding.memory is not None:
            used = sorted({*used, *(r for r in (encoding.memory.base, encoding.memory.index) if r is not None)})
        parts.append(" ".join(f"{REGISTER_NAMES[r]}={int(case['gpr'][r]):#x}" for r in used))
        return "\n  ".join(parts)


def _disassembled(code: bytes) -> str:
    try:
        import iced_x86
    except ImportError:
        return ""
    decoder = iced_x86.Decoder(64, code, ip=CODE_ADDRESS + DEFAULT_CODE_OFFSET)
    return "  " + iced_x86.Formatter(iced_x86.FormatterSyntax.NASM).format(decoder.decode())


def _random_state(cases: Array, kinds: Array, generator: np.random.Generator) -> None:
    """Registers and window of every case: what needs no knowledge of the encoding."""
    count = len(cases)
    cases["filler_seed"] = generator.integers(0, 1 << 64, dtype=np.uint64)  # one for all: refilling costs time
    cases["gpr"] = random_integers(generator, (count, 16))
    cases["mxcsr"] = random_mxcsr(generator, count)
    flags = generator.integers(0, 1 << 12, size=count, dtype=np.uint64) & np.uint64(STATUS_FLAGS)
    flags |= np.where(generator.random(count) < 0.1, FLAG_DF, 0).astype(np.uint64)
    cases["rflags"] = flags | np.uint64(0x202)

    quads = WINDOW_BYTES // 8
    vectors = np.empty((count, 32 + quads), dtype=np.uint64)
    for kind, rows in ((0, kinds == 0), (1, kinds == 1), (2, kinds == 2)):
        number = int(rows.sum())
        if not number:
            continue
        if kind == 0:
            vectors[rows] = random_integers(generator, (number, 32 + quads))
        elif kind == 1:
            vectors[rows] = random_singles(generator, (number, 64 + 2 * quads)).view(np.uint64)
        else:
            vectors[rows] = random_doubles(generator, (number, 32 + quads))
    cases["xmm"] = vectors[:, :32].copy().view(np.uint8).reshape(count, 16, 16)
    cases["window"] = vectors[:, 32:].copy().view(np.uint8).reshape(count, WINDOW_BYTES)

    # Equal operands now and then: comparisons, cancellation.
    for name, share in (("gpr", 0.2), ("xmm", 0.3)):
        for _ in range(3):
            rows = np.flatnonzero(generator.random(count) < share)
            source, target = generator.integers(0, 16, size=(2, len(rows)))
            cases[name][rows, target] = cases[name][rows, source]


def _random_mmx(cases: Array, rows: Array, generator: np.random.Generator) -> None:
    count = len(rows)
    cases["st"][rows, :, :8] = random_integers(generator, (count, 8)).view(np.uint8).reshape(count, 8, 8)
    cases["st"][rows, :, 8:10] = generator.integers(0, 256, size=(count, 8, 2), dtype=np.uint8)
    cases["x87_tags"][rows] = np.where(generator.random(count) < 0.5, 0xFF, 0)


def _random_x87(cases: Array, rows: Array, generator: np.random.Generator) -> None:
    """A stack of 80-bit values, at times partly empty; all roundings and precisions, exceptions masked."""
    count = len(rows)
    bits = random_doubles(generator, (count, 8))
    fraction = bits & np.uint64((1 << 52) - 1)
    exponent = (bits >> np.uint64(52) & np.uint64(0x7FF)).astype(np.uint16)
    finite = (exponent != 0) & (exponent != 0x7FF)
    wide_exponent = np.where(finite, exponent + np.uint16(16383 - 1023), np.where(exponent == 0, 0, 0x7FFF))
    # Denormal doubles become denormal extended values: their integer bit stays clear.
    integer_bit = np.where(exponent == 0, 0, 1).astype(np.uint64) << np.uint64(63)
    significand = integer_bit | fraction << np.uint64(11)
    sign = (bits >> np.uint64(63)).astype(np.uint16) << np.uint16(15)
    head = (wide_exponent.astype(np.uint16) | sign).astype("<u2")
    cases["st"][rows, :, :8] = significand.astype("<u8").view(np.uint8).reshape(count, 8, 8)
    cases["st"][rows, :, 8:10] = head.view(np.uint8).reshape(count, 8, 2)
    tags = generator.integers(0, 256, size=count, dtype=np.uint16)
    cases["x87_tags"][rows] = np.where(generator.random(count) < 0.8, 0xFF, tags)
    cases["x87_status"][rows] = generator.integers(0, 8, size=count, dtype=np.uint16) << np.uint16(11)
    precision = np.array([0, 2, 3, 3], dtype=np.uint16)[generator.integers(0, 4, size=count)] << np.uint16(8)
    rounding = generator.integers(0, 4, size=count, dtype=np.uint16) << np.uint16(10)
    cases["x87_control"][rows] = 0x7F | precision | rounding


def _finish_case(encoding: Encoding, case: np.void, draft: Draft) -> None:
    rng = draft.rng
    template = encoding.template
    before, after = SETUPS[setup_name(template)]
    if before is not None:
        before(draft)
    elif rng.random() < 0.5:
        draft.set_register(RSP, choose_target(rng, 8, 8))
    memory = encoding.memory
    if memory is not None:
        address_only = template.mnemonic.lower() in _ADDRESS_ONLY
        if memory.fixed is not None:
            draft.target = memory.fixed
        elif not (address_only and rng.random() < 0.7):
            alignment = _alignment(template, memory.size)
            if encoding.locked:
                alignment = max(alignment, memory.size)
            target = choose_target(rng, memory.size, alignment)
            if memory.address_bits == 64 and rng.random() < 0.005:
                target = rng.choice((1 << 47, 0x7FFFFFFFFFFF, 0xFFFF7FFFFFFFFFF8)) // alignment * alignment
            draft.target = _solve(draft, memory, target)
        if draft.target is not None and rng.random() < 0.7 and memory.size in (1, 2, 4, 8):
            # The window's own values are 8-byte aligned; an operand between two of them is just noise.
            value = draft.read_window(WINDOW_ADDRESS + 8 * rng.randrange(WINDOW_BYTES // 8), memory.size)
            assert value is not None
            draft.write_window(draft.target, value, memory.size)
    if after is not None:
        after(draft)
    if draft.flags_set or draft.flags_cleared:
        case["rflags"] = int(case["rflags"]) & ~draft.flags_cleared | draft.flags_set


def generate(templates: Sequence[Template], count: int, seed: int, *, states_per_encoding: int = 4) -> Batch:
    """`count` cases; each encoding is used with several states.

    Templates are drawn in shuffled rounds: none comes again before all have had their turn.
    """
    rng = random.Random(seed)
    generator = np.random.default_rng(seed)
    encodings: list[Encoding] = []
    waiting: list[Template] = []
    while len(encodings) < count:
        if not waiting:
            waiting = rng.sample(templates, len(templates))
        encoding = encode(waiting.pop(), rng)
        encodings.extend([encoding] * min(states_per_encoding, count - len(encodings)))

    numbers = {"int": 0, "f32": 1, "f64": 2}
    kinds = np.array(
        [numbers[rng.choice(e.vector_kinds)] if rng.random() < 0.85 else rng.randrange(3) for e in encodings],
        dtype=np.uint8,
    )
    mmx_rows = np.array([any(_split(o)[0] in ("P", "Q", "N") for o in e.template.operands) for e in encodings])
    x87_rows = np.array([setup_name(e.template) == "x87" for e in encodings])
    cases = new_cases(count)
    _random_state(cases, kinds, generator)
    _random_mmx(cases, np.flatnonzero(mmx_rows), generator)
    _random_x87(cases, np.flatnonzero(x87_rows), generator)
    all_gprs, all_windows = cases["gpr"], cases["window"]
    masks = np.zeros(count, dtype=np.uint64)
    for index, encoding in enumerate(encodings):
        case = cases[index]
        set_code(case, encoding.code)
        _finish_case(encoding, case, Draft(encoding, all_gprs[index], all_windows[index], rng))
        masks[index] = undefined_flags(encoding, case)
    return Batch(seed, cases, encodings, masks)


__all__ = [
    "SETUPS", "Batch", "Draft", "Encoding", "Memory", "Template", "choose_target", "encode", "generate",
    "random_doubles", "random_integers", "random_mxcsr", "random_singles", "refusal", "setup_name",
    "undefined_flags",
]  # fmt: skip
