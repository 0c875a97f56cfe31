"""SIGTERM and Ctrl-C: finish the step, save, and leave."""

from __future__ import annotations

import signal
import threading


class StopSignals:
    """Within this context the first SIGTERM or SIGINT is only noted, in `caught`.

    A second Ctrl-C interrupts at once. Outside the main thread nothing is installed.
    """

    def __init__(self):
        self.caught: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self.caught is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number)
