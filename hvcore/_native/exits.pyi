"""One final class per reason for which a run comes back to Python. See exits.pyx."""
from collections.abc import Sequence
from typing import Any, final

from typing_extensions import disjoint_base

class ExitNotCompleted(RuntimeError):
    """A VP was to run on although its last exit, a read, had not been answered."""

@disjoint_base
class Exit:
    """What all exits have: `vp`, the processor, and `rip`."""
    __match_args__: tuple[str, ...]
    @property
    def vp(self) -> Any: ...
    @property
    def rip(self) -> int: ...
    def __init__(self, *args: object, **kwargs: object) -> None: ...

@final
class Budget(Exit): ...

@final
class Halt(Exit): ...

@final
class Canceled(Exit): ...

@final
class TripleFault(Exit): ...

@final
class Unsupported(Exit): ...

@final
class ApicEoi(Exit):
    __match_args__ = ("vector",)
    @property
    def vector(self) -> int: ...

@final
class InterruptWindow(Exit):
    __match_args__ = ("nmi",)
    @property
    def nmi(self) -> bool: ...

@disjoint_base
class Answerable(Exit):
    """An access: `write`, `size` in bytes, and `value`: what was written, or None until a read is completed."""
    @property
    def write(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def value(self) -> int | None: ...
    @property
    def completed(self) -> bool: ...
    def complete(self, value: int) -> None: ...

@final
class IoPort(Answerable):
    __match_args__ = ("port", "write", "size", "value")
    @property
    def port(self) -> int: ...
    @property
    def string(self) -> bool: ...

@final
class Mmio(Answerable):
    __match_args__ = ("gpa", "write", "size", "value", "gva")
    @property
    def gpa(self) -> int: ...
    @property
    def gva(self) -> int: ...

@final
class Msr(Answerable):
    __match_args__ = ("index", "write", "value")
    @property
    def index(self) -> int: ...

@final
class GpaViolation(Exit):
    __match_args__ = ("gpa", "access", "gva", "gva_valid")
    @property
    def gpa(self) -> int: ...
    @property
    def gva(self) -> int: ...
    @property
    def gva_valid(self) -> bool: ...
    @property
    def access(self) -> str: ...

@final
class Cpuid(Exit):
    __match_args__ = ("leaf", "subleaf", "default")
    @property
    def leaf(self) -> int: ...
    @property
    def subleaf(self) -> int: ...
    @property
    def default(self) -> tuple[int, int, int, int]: ...
    def complete(self, values: Sequence[int]) -> None: ...

@final
class ExceptionRaised(Exit):
    __match_args__ = ("vector", "error_code", "address")
    @property
    def vector(self) -> int: ...
    @property
    def error_code(self) -> int | None: ...
    @property
    def address(self) -> int: ...
