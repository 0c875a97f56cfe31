"""Errors that the command line knows and any layer may raise."""

import os


class GaveUp(RuntimeError):
    """A program that others made, and that does the work, ended without an answer."""


class Busy(ValueError):
    """Another process uses the folder now; the same command may do later."""


def status_of(error: Exception) -> int:
    """The exit status that tells `error`: whose fault it was, and what to expect of a repeat.

    >>> status_of(ValueError("no data")), status_of(Busy("wait")), status_of(GaveUp("crash"))
    (2, 75, 70)
    """
    if isinstance(error, GaveUp):
        return os.EX_SOFTWARE
    return os.EX_TEMPFAIL if isinstance(error, Busy) else 2
