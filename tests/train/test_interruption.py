"""Signals between two steps."""

import signal
import sys

import pytest

from alpacare_jax.train.interruption import between_steps


def test_a_signal_is_noted_and_a_second_interrupt_interrupts():
    with between_steps() as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_within_the_handler_of_another_blocks_nothing():
    before = sys.gettrace()

    def again(frame, event, argument):
        if event == "line":
            signal.raise_signal(signal.SIGTERM)
        return again

    with between_steps() as stop:
        sys.settrace(again)
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            sys.settrace(before)
        assert stop.asked
