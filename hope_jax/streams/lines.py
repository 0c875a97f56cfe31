"""The lines that a session takes: text and commands, and what can be checked beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hope_jax.config.check import require
from hope_jax.config.overrides import override, parse_assignments
from hope_jax.streams.sleep import Sleep

COMMANDS = {
    "read": ("TEXT", "read and learn; a line without a command does the same"),
    "file": ("PATH", "read a file"),
    "ask": ("PROMPT", "answer, and be afterwards as if not asked"),
    "tell": ("PROMPT", "answer, and learn from prompt and answer"),
    "surprise": ("", "how unexpected each token of the last reading was"),
    "forget": ("[TOKENS]", "drop the context, and levels updated more often than that"),
    "sleep": ("[KEY=VALUE ...]", "move what was read to slower levels, e.g. steps=100"),
    "diff": ("", "which level changed by how much since the checkpoint"),
    "save": ("[DIR]", "add a point to the stream's folder"),
    "points": ("", "saved points, by tokens read"),
    "back": ("POINT", "go back to a saved point"),
    "empty": ("", "empty the reservoir that sleep replays"),
    "help": ("", "these commands"),
    "quit": ("", "end, and save what changed, where the stream has a folder"),
}


def parse_line(line: str) -> tuple[str, str]:
    """Command and argument of a line; a line of text is read.

    Raises:
      ValueError: there is no such command.

    >>> parse_line("/forget 64"), parse_line("The harbour.")
    (('forget', '64'), ('read', 'The harbour.'))
    """
    if not line.startswith("/"):
        return "read", line
    name, _, rest = line[1:].partition(" ")
    require(
        name in COMMANDS,
        f"there is no command /{name}; /help lists them, and a text that begins with a "
        "slash is read with /read",
    )
    return name, rest


def parse_number(command: str, text: str) -> int:
    """The number of tokens that a command takes."""
    require(text.strip().isdecimal(), f"{command} takes a number of tokens, not {text!r}")
    return int(text)


def parse_sleep(text: str) -> Sleep:
    """What `/sleep` is asked for."""
    return override(Sleep(), parse_assignments(text.split()))


def parse_folder(text: str, folder: Path | None) -> Path:
    """The folder that a command names, or else that of the stream."""
    require(
        bool(text) or folder is not None,
        "the stream has no folder yet; name one, as in /save streams/mine",
    )
    return Path(text) if text else folder


def check_lines(lines: Sequence[str], folder: Path | None) -> None:
    """Refuse lines of which one cannot be done, before any is.

    What depends on the stream shows when they are taken. What follows `/quit` is not checked.

    Args:
      lines: as `Session.take` takes them.
      folder: where the stream is saved, if that is known.

    Raises:
      ValueError: with the number of the line, and the line.
    """
    for number, line in enumerate(lines, start=1):
        try:
            name, rest = parse_line(line)
            if name == "quit":
                return
            folder = _check(name, rest, folder)
        except (ValueError, OSError) as error:
            raise ValueError(f"line {number}, {line!r}: {error}") from error


def _check(name: str, rest: str, folder: Path | None) -> Path | None:
    """Check the argument of a command; returns the folder of the stream after it."""
    if name == "file":
        require(bool(rest), "/file needs a path")
        Path(rest).stat()  # says what is wrong with it
    elif name == "forget" and rest:
        parse_number("/forget", rest)
    elif name == "sleep":
        parse_sleep(rest)
    elif name == "save":
        return parse_folder(rest, folder)
    elif name == "points":
        parse_folder(rest, folder)
    elif name == "back":
        parse_number("/back", rest)
        parse_folder("", folder)
    return folder
