"""The kernels of tests/irq/synic_kernels: guests in C that use SynIC, timers, time and IPIs as the TLFS says (digest
2, 4.7-4.9, 9, 10). Each check is a line; nothing but `ok` is expected of them."""

from __future__ import annotations

import pytest
import synic_runner
from freestanding import COMPILER

RUNS = [
    ("messages", 1, 1), ("overlays", 2, 1), ("timers", 1, 1), ("timers", 2, 1), ("events", 2, 1), ("clock", 1, 1),
    ("clock", 3, 1), ("ends", 1, 1), ("ipis", 1, 1), ("ipis", 4, 1), ("peers", 1, 2), ("peers", 2, 2),
    ("x2apic", 2, 1), ("noise", 1, 1), ("noise", 3, 1), ("routing", 1, 1), ("routing", 3, 1), ("stress", 2, 1),
    ("stress", 5, 1),
]  # fmt: skip
needs_gcc = pytest.mark.skipif(COMPILER is None, reason="gcc makes the kernels")


@needs_gcc
@pytest.mark.parametrize(("kernel", "processors", "roles"), RUNS)
def test_a_kernel_of_a_child(tmp_path, kernel, processors, roles):
    judge(synic_runner.World(synic_runner.compile_kernel(kernel, tmp_path), processors, roles), roles)


@needs_gcc
@pytest.mark.parametrize("kernel", ["root", "vmm"])
def test_the_root_runs_a_kernel(tmp_path, kernel):
    judge(synic_runner.World(synic_runner.compile_kernel(kernel, tmp_path), 1, 1, root=True), 2)


def judge(world, logs_expected):
    logs = world.run(100_000_000)
    assert len(logs) == logs_expected
    for log in logs:
        assert [line for line in log if not line.startswith("ok ")] == ["end"]
    assert sum(len(log) for log in logs) > 4
