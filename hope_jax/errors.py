"""Errors that the command line knows and any layer may raise."""


class GaveUp(RuntimeError):
    """A program that others made, and that does the work, ended without an answer."""
