"""SIGTERM and Ctrl-C: finish the step, save, and leave."""

from __future__ import annotations

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils


class StopSignals:
    """Within this context the first SIGTERM or SIGINT is only noted.

    A second Ctrl-C interrupts at once. Outside the main thread nothing is installed.

    Of several processes, one that is told to stop tells the others, and all stop after the
    same step. JAX does that for SIGTERM; Ctrl-C becomes one.
    """

    def __init__(self):
        self.caught: signal.Signals | None = None
        self._alone = jax.process_count() == 1
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            noted = (signal.SIGTERM, signal.SIGINT) if self._alone else (signal.SIGINT,)
            for number in noted:
                self._before[number] = signal.signal(number, self._note)
        return self

    def after(self, step: int) -> signal.Signals | None:
        """What stops the run after this step; to be asked after every one."""
        if self._alone:
            return self.caught
        stops = multihost_utils.reached_preemption_sync_point(step)
        return (self.caught or signal.SIGTERM) if stops else None

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self.caught is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number)
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)
