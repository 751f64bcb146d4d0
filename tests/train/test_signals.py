"""Which signals a stage stops at, saved."""

import os
import signal

import pytest

from jaxtl.train.signals import watch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_remembered(number):
    outside = signal.signal(number, signal.default_int_handler)  # nohup ignores one
    try:
        with watch() as signals:
            signals.begin()
            os.kill(os.getpid(), number)
            assert signals.received == number
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, outside)


def test_a_run_under_nohup_survives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watch() as signals:
            signals.begin()
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
