"""Hypervisor(time="host"): ticks follow the host's clock, halted processors wait, cancel() and signals get through."""
import signal
import threading
import time

import pytest
from msr_code import one_shot, wrmsr
from support import HLT, Guest

from hvcore._native.exits import Canceled, Halt
from hvcore.hypervisor import Hypervisor


@pytest.fixture
def guest():
    return Guest(hypervisor=Hypervisor(memory="64 MiB", processors=1, time="host"))


def test_the_kind_of_time_is_checked():
    with pytest.raises(ValueError, match="time must be"):
        Hypervisor(memory="64 MiB", time="real")


def test_a_halted_processor_waits_for_its_timer(guest):
    """30 ms of reference time last as long as 30 ms of the host's, or longer on a busy one; never early."""
    guest.load(one_shot(300_000), "fb", HLT)
    begin = time.monotonic()
    assert isinstance(guest.vp.run(max_instructions=1000), Halt) and guest.taken() == 0x50
    assert time.monotonic() - begin > 0.0299
    assert guest.vp.counters()["instructions"] < 30


def test_time_goes_on_between_runs_and_never_back(guest):
    guest.load(b"\xeb\xfe")
    guest.vp.run(max_instructions=20_000)
    last = guest.hypervisor.scheduler.now
    for _ in range(5):
        begin = time.monotonic()
        time.sleep(0.01)
        guest.vp.run(max_instructions=300_000)
        now = guest.hypervisor.scheduler.now
        assert now - last > 9_000_000
        assert now - last < (time.monotonic() - begin) * 1e9 + 60_000_000
        last = now


def test_cancel_ends_a_wait(guest):
    guest.load(one_shot(10**9), "fb", HLT)
    threading.Timer(0.05, guest.vp.cancel).start()
    begin = time.monotonic()
    assert isinstance(guest.vp.run(), Canceled)
    assert time.monotonic() - begin < 10


def test_a_signal_ends_a_wait(guest):
    """What Ctrl-C does: the handler's exception leaves run()."""
    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        guest.load(one_shot(10**9), "fb", HLT)
        threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1)).start()
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            guest.vp.run()
        assert time.monotonic() - begin < 10
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_without_a_deadline_a_halt_comes_back_at_once(guest):
    guest.load(wrmsr(0x400000B1, 0), HLT)
    assert isinstance(guest.vp.run(), Halt)
