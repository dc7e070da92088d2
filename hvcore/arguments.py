"""Arguments of Python callers: an exception that names the argument and says what was expected.

A bool is an integer here, as everywhere in Python; a float is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition

MAXIMUM_TICKS = 1 << 62
"""The largest budget of a run."""


def integer(value: Any, name: str, lowest: int, highest: int) -> int:
    """`value` as an int from `lowest` to `highest`; NumPy's integers are integers.

    Raises
    ------
    TypeError
        It is no integer.
    ValueError
        It is out of range.
    """
    try:
        number = index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer from {_short(lowest)} to {_short(highest)}, not {_kind(value)}"
        ) from None
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be {_short(lowest)} to {_short(highest)}, not {_short(number)}")
    return number


def integers(values: Any, name: str, lowest: int, highest: int) -> tuple[int, ...]:
    """The elements of an iterable, each as `integer`."""
    try:
        elements: Iterator[Any] = iter(values)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of integers, not {_kind(values)}") from None
    return tuple(integer(value, f"each of {name}", lowest, highest) for value in elements)


def integer_array(values: ArrayLike, name: str, lowest: int, highest: int, dtype: DTypeLike) -> NDArray[Any]:
    """An array of integers from `lowest` to `highest`, of any shape, contiguous, as `dtype`, which can hold them.

    Raises
    ------
    TypeError
        It is no array, or not of integers.
    ValueError
        Rows differ in length, or an element is out of range.
    """
    try:
        given = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array, with rows of one length") from None
    if given.size and given.dtype.kind == "O" and all(isinstance(one, int) for one in given.flat):
        raise ValueError(f"{name} must be {_short(lowest)} to {_short(highest)} each")
    if given.size and given.dtype.kind not in "biu":
        raise TypeError(f"{name} must be integers from {_short(lowest)} to {_short(highest)}, not {given.dtype}")
    if given.size and not (lowest <= given.min() and given.max() <= highest):
        raise ValueError(f"{name} must be {_short(lowest)} to {_short(highest)} each")
    return np.ascontiguousarray(given, dtype) if given.ndim else given.astype(dtype)


def contiguous_array(given: Any, name: str, dtype: DTypeLike, what: str, size: int | None = None) -> None:
    """Refuse what is no one-dimensional, contiguous array of `dtype`, in words `what`, of `size` elements.

    Raises
    ------
    TypeError
        It is no array, or of another dtype or shape.
    ValueError
        It is not contiguous.
    """
    wanted = f"{name} must be a one-dimensional array of {what}" + ("" if size is None else f" with {size} elements")
    if not isinstance(given, np.ndarray):
        raise TypeError(f"{wanted}, not {_kind(given)}")
    if given.dtype != dtype or given.ndim != 1 or (size is not None and given.size != size):
        raise TypeError(f"{wanted}, not {given.dtype.name} of shape {given.shape}")
    if not given.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous")


def output_array(out: Any, name: str, dtype: DTypeLike, what: str, size: int | None = None) -> None:
    """As `contiguous_array`, and it must be writable: results go there."""
    contiguous_array(out, name, dtype, what, size)
    if not out.flags.writeable:
        raise ValueError(f"{name} must be writable")


def living(partition: Any, name: str, hypervisor: Hypervisor) -> Partition:
    """A partition of this hypervisor that was not destroyed.

    Raises
    ------
    TypeError
        It is no partition.
    ValueError
        It is gone, or another hypervisor's.
    RuntimeError
        The hypervisor was closed.
    """
    from hvcore.partition import Partition

    hypervisor.require_open()
    if not isinstance(partition, Partition):
        raise TypeError(f"{name} must be a Partition, not {_kind(partition)}")
    if partition.hypervisor is not hypervisor:
        raise ValueError(f"{name} must be of this Hypervisor: {partition!r} is another one's")
    if hypervisor.partitions.get(partition.id) is not partition:
        raise ValueError(f"{name} must exist: {partition!r} was destroyed")
    return partition


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _short(number: int) -> str:
    """Decimal where that is easy to read."""
    return str(number) if abs(number) < 1 << 16 else f"{number:#x}"
