"""The binary interface of hypercalls: control word, result word, and layouts of parameters (sections 3.1, 3.3).

A layout is a NamedTuple class whose annotations (U32, U64, ...) are the fields in memory order; `Layout` reads and
writes it. Fields named `reserved` are padding: read, never looked at.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_type_hints

from hvcore.enums import Status

PAGE_SIZE = 4096
FAST_INPUT_BYTES = 112
"""RDX, R8 and XMM0-XMM5 (CPUID 40000003.EDX[4] is offered)."""

VP_SET_SPARSE, VP_SET_ALL = 0, 1
"""Formats of an HV_VP_SET."""

U8 = Annotated[int, "B"]
U16 = Annotated[int, "H"]
U32 = Annotated[int, "I"]
U64 = Annotated[int, "Q"]
Bytes3 = Annotated[bytes, "3s"]
Bytes6 = Annotated[bytes, "6s"]
Bytes7 = Annotated[bytes, "7s"]
Bytes8 = Annotated[bytes, "8s"]
Bytes16 = Annotated[bytes, "16s"]
Bytes24 = Annotated[bytes, "24s"]
Bytes32 = Annotated[bytes, "32s"]
Bytes40 = Annotated[bytes, "40s"]
Bytes200 = Annotated[bytes, "200s"]
Bytes224 = Annotated[bytes, "224s"]
Bytes240 = Annotated[bytes, "240s"]
Bytes256 = Annotated[bytes, "256s"]
Bytes512 = Annotated[bytes, "512s"]

T = TypeVar("T", bound=tuple[Any, ...])


class Refused(Exception):
    """A handler ends a call with this status. Never leaves the dispatcher."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class Unfinished(Exception):
    """A simple call did part of its work and must be entered again (section 3.4). Never leaves the dispatcher."""


class Result(NamedTuple):
    """What a hypercall gives back: RAX in parts, the output bytes, and whether the call is over.

    `reps_completed` counts from element 0. `output` begins with the first element processed in this entry.
    """

    status: Status
    reps_completed: int
    output: bytes
    finished: bool = True

    def word(self) -> int:
        """The value that the caller finds in RAX."""
        return self.status | self.reps_completed << 32


class Control(NamedTuple):
    """The control word in parts."""

    code: int
    fast: bool = False
    variable_qwords: int = 0
    rep_count: int = 0
    rep_start: int = 0
    reserved: int = 0

    @classmethod
    def parse(cls, word: int) -> "Control":
        """Split the word; bits 30:27, nested (31), 47:44 and 63:60 are `reserved`."""
        return cls(
            code=word & 0xFFFF,
            fast=bool(word >> 16 & 1),
            variable_qwords=word >> 17 & 0x3FF,
            rep_count=word >> 32 & 0xFFF,
            rep_start=word >> 48 & 0xFFF,
            reserved=word & 0xF000_F000_F800_0000,
        )

    def word(self) -> int:
        """The word that `parse` reads."""
        return (
            self.code
            | self.fast << 16
            | self.variable_qwords << 17
            | self.reserved
            | self.rep_count << 32
            | self.rep_start << 48
        )


class Layout(Generic[T]):
    """Reads and writes one NamedTuple class as packed little-endian bytes."""

    def __init__(self, fields: type[T]) -> None:
        hints = get_type_hints(fields, include_extras=True)
        self._make: Any = fields
        self._struct = Struct("<" + "".join(hint.__metadata__[0] for hint in hints.values()))
        self.size = self._struct.size

    def unpack(self, data: bytes) -> T:
        """The fields at the start of `data`."""
        made: T = self._make(*self._struct.unpack_from(data))
        return made

    def pack(self, fields: Sequence[Any]) -> bytes:
        """The bytes of one NamedTuple."""
        return self._struct.pack(*fields)


class Nothing(NamedTuple):
    """The layout of no parameters."""


class Partition(NamedTuple):
    """The layout of the calls that take a partition id and nothing else."""

    partition_id: U64


def require(status: int) -> None:
    """End the call unless native code said SUCCESS."""
    if status:
        raise Refused(Status(status))


def require_proximity(word: int) -> None:
    """Check HV_PROXIMITY_DOMAIN_INFO: this machine has one node, number 0."""
    domain, flags = word & 0xFFFF_FFFF, word >> 32
    if flags & 0x7FFF_FFFE or (flags >> 31 and domain):
        raise Refused(Status.INVALID_PARAMETER)


def require_vtl0(vtl: int) -> None:
    """Check HV_INPUT_VTL: reserved bits are zero, and only VTL 0 is enabled."""
    if vtl & 0xE0:
        raise Refused(Status.INVALID_PARAMETER)
    if vtl & 0x10 and vtl & 0x0F:
        raise Refused(Status.INVALID_VTL_STATE)


def parse_vp_set(kind: int, valid_banks: int, banks: bytes) -> frozenset[int] | None:
    """The VP indices of an HV_VP_SET, None for all (section 4.9).

    Bank k of a sparse set has VPs 64 k to 64 k + 63; only those in `valid_banks` are there, one qword each.

    Refuses with INVALID_PARAMETER for an unknown format, INVALID_HYPERCALL_INPUT if the banks are not as many.
    """
    if kind == VP_SET_ALL:
        return None
    if kind != VP_SET_SPARSE:
        raise Refused(Status.INVALID_PARAMETER)
    if len(banks) != 8 * valid_banks.bit_count():
        raise Refused(Status.INVALID_HYPERCALL_INPUT)
    numbers = [bank for bank in range(64) if valid_banks >> bank & 1]
    words = Struct(f"<{len(numbers)}Q").unpack(banks)
    return frozenset(
        64 * bank + bit for bank, word in zip(numbers, words, strict=True) for bit in range(64) if word >> bit & 1
    )
