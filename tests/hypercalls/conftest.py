"""The machine that hypercall tests run on."""

from collections.abc import Iterator

import pytest
from hypercall_machine import Machine


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    with made.hypervisor:
        yield made
