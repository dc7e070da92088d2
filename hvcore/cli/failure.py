"""What stops a command with one line on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Failure(Exception):
    """The command cannot go on: the message is the line, `status` the exit status."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status


@contextmanager
def refusals(subject: str = "") -> Iterator[None]:
    """Turns what a constructor or a loader refuses into a Failure about `subject`."""
    try:
        yield
    except OSError as error:
        raise Failure(_about(subject, error.strerror or str(error))) from error
    except (ValueError, MemoryError) as error:
        raise Failure(_about(subject, str(error) or "the host is out of memory")) from error


def _about(subject: str, message: str) -> str:
    return f"{subject}: {message}" if subject else message
