"""A session with a stream: lines of text and commands, and what each gives."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hope_jax.config.check import require
from hope_jax.streams.changes import table
from hope_jax.streams.lines import (
    COMMANDS,
    parse_folder,
    parse_line,
    parse_number,
    parse_sleep,
)
from hope_jax.streams.stream import Stream

# Afterwards the stream is another one than was saved.
_CHANGES = ("read", "file", "tell", "forget", "sleep", "empty")


@dataclasses.dataclass
class Turn:
    """What one line gave.

    Attributes:
      command: which it was.
      text: for a person.
      values: for a program, JSON.
      ends: whether the session is over.
    """

    command: str
    text: str = ""
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    ends: bool = False


class Session:
    """Takes lines one after the other.

    Args:
      stream: to begin with.
      folder: where it is saved; None: `/save DIR` has to name one.
      tokens: of an answer at most.
      temperature: of answers.
      on_text: called with each piece of an answer as it comes.

    Attributes:
      stream: as it is now.
      folder: where it is saved, once one is named.
      changed: whether the stream differs from what was saved or opened last.
    """

    def __init__(
        self,
        stream: Stream,
        folder: Path | None = None,
        *,
        tokens: int = 128,
        temperature: float = 0.0,
        on_text: Callable[[str], None] | None = None,
    ):
        self.stream, self.folder = stream, folder
        self.changed, self._kept = False, stream.tokens_read
        self._tokens, self._temperature, self._on_text = tokens, temperature, on_text

    def take(self, line: str) -> Turn:
        """Do what a line asks for.

        Raises:
          ValueError, OSError: it cannot be done; the stream is as before.
        """
        name, rest = parse_line(line.rstrip("\n"))
        before = self.stream.tokens_read
        turn = getattr(self, f"_{name}")(rest)
        if name not in ("read", "file") or self.stream.tokens_read != before:
            self.changed |= name in _CHANGES
        return turn

    @property
    def unsaved(self) -> str:
        """What ends with the session unless it is saved, for a person; empty: nothing."""
        if not self.changed:
            return ""
        tokens = self.stream.tokens_read - self._kept
        noun = "token" if tokens == 1 else "tokens"
        return (
            f"{tokens} {noun} since the last save" if tokens else "changes since the last save"
        )

    def _read(self, line: str) -> Turn:
        return self._take_in(line + "\n") if line else Turn("read")

    def _take_in(self, text: str | bytes) -> Turn:
        before, refused = self.stream.tokens_read, self.stream.refused
        loss, count = self.stream.read(text), self.stream.tokens_read - before
        refused = self.stream.refused - refused
        said = f"read {count} tokens, {loss:.3f} nats per token" if count else "read nothing"
        if refused:
            said += f"; {refused} updates refused: not finite, or noise to this model"
        loss = loss if math.isfinite(loss) else None
        return Turn("read", said, {"tokens": count, "loss": loss, "refused": refused})

    def _file(self, path: str) -> Turn:
        require(bool(path), "/file needs a path")
        return dataclasses.replace(self._take_in(Path(path).read_bytes()), command="file")

    def _ask(self, prompt: str, learn: bool = False) -> Turn:
        answer = self.stream.answer(
            prompt,
            tokens=self._tokens,
            temperature=self._temperature,
            learn=learn,
            on_text=self._on_text,
        )
        return Turn("tell" if learn else "ask", answer, {"prompt": prompt, "answer": answer})

    def _tell(self, prompt: str) -> Turn:
        return self._ask(prompt, learn=True)

    def _surprise(self, rest: str) -> Turn:
        surprise = self.stream.surprise()
        losses = [round(float(loss), 4) for loss in surprise.loss_T]
        lines = [
            f"{loss:8.3f}  {'*' * min(40, round(4 * loss))} {piece!r}"
            for piece, loss in zip(surprise.pieces, losses, strict=True)
        ]
        text = "\n".join(lines) or "nothing was read yet"
        return Turn("surprise", text, {"pieces": surprise.pieces, "losses": losses})

    def _forget(self, rest: str) -> Turn:
        below = parse_number("/forget", rest) if rest else None
        self.stream.forget_context(below)
        what = f" and levels with a period below {below} tokens" if below else ""
        return Turn("forget", f"forgot the context{what}", {"below": below})

    def _sleep(self, rest: str) -> Turn:
        report = self.stream.sleep(parse_sleep(rest), folder=self.folder)
        kept = report.kept if math.isfinite(report.kept) else None  # JSON has no NaN
        values = dataclasses.asdict(report) | {"kept": kept}
        return Turn("sleep", str(report), values)

    def _diff(self, rest: str) -> Turn:
        changes = self.stream.diff()
        values = {str(period): dataclasses.asdict(c) for period, c in changes.items()}
        return Turn("diff", table(changes), values)

    def _save(self, folder: str) -> Turn:
        self.folder = parse_folder(folder, self.folder)
        path = self.stream.save(self.folder)
        self.changed, self._kept = False, self.stream.tokens_read
        return Turn("save", f"saved {path}", {"path": str(path), "bytes": path.stat().st_size})

    def _points(self, folder: str) -> Turn:
        found = Stream.points(parse_folder(folder, self.folder))
        text = ", ".join(map(str, found)) or "no point is saved"
        return Turn("points", text, {"points": found})

    def _back(self, rest: str) -> Turn:
        point = parse_number("/back", rest)
        folder, base = parse_folder("", self.folder), self.stream.base
        self.stream = Stream.load(folder, point=point, checkpoint=base)
        self.changed, self._kept = False, point
        return Turn("back", f"back at {point} tokens", {"point": point})

    def _empty(self, rest: str) -> Turn:
        self.stream.reservoir.empty()
        return Turn("empty", "the reservoir is empty")

    def _help(self, rest: str) -> Turn:
        lines = [f"{f'/{name} {what}':24}{why}" for name, (what, why) in COMMANDS.items()]
        return Turn("help", "\n".join(lines))

    def _quit(self, rest: str) -> Turn:
        return Turn("quit", ends=True)
