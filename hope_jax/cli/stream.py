"""Talk with a model that goes on learning from what it reads.

A line is read and learned from; a line that begins with a slash is a command: /ask PROMPT
answers, /forget drops the context, /sleep moves what was read to slower levels, /save keeps the
stream, /help lists all.

  hope stream --workdir runs/hope --stream streams/mine        begin, or go on
  hope stream --workdir runs/hope --turns turns.txt --json     a file of such lines

A stream is kept in the folder of --stream: with /save, and at the end if it has changed since.
The end is /quit, the last line, SIGTERM, or Ctrl-C outside a terminal. After an error nothing
more is saved, so that mended lines can be read again from where they began. What is lost is
told. --no-save leaves saving to /save. A mistake in a file of lines is found before the first
is read.

The folder holds what differs from the checkpoint: go on from it without --workdir as long as
the checkpoint is where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hope_jax.cli.arguments import not_utf8
from hope_jax.cli.ending import sigterm_as_exit

if TYPE_CHECKING:
    from hope_jax.streams.session import Session

RESERVOIR = 16_384  # tokens
HELP = "talk with a model that learns from what it reads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--workdir", type=Path, metavar="DIR", help="folder of a run, or of one checkpoint"
    )
    parser.add_argument(
        "--stream", type=Path, metavar="DIR", help="folder of the stream; made when it is saved"
    )
    parser.add_argument(
        "--no-save",
        action="store_true",
        help="do not save at the end: only /save does, and what is lost is told",
    )
    parser.add_argument(
        "--point", type=int, metavar="N", help="go back to where it had read N tokens"
    )
    parser.add_argument(
        "--levels",
        metavar="P=C,...",
        help="tokens C per update of the CMS level of period P, for a new stream; C,... alone: "
        "the MLPs of the blocks become as many levels; 'none' for no level (default: as "
        "trained)",
    )
    parser.add_argument(
        "--lr",
        type=parse_rates,
        metavar="X[,X...]",
        help="rate of these updates, or of each level (default: as trained)",
    )
    parser.add_argument(
        "--blocks", type=int, metavar="N", help="how many of the last blocks learn"
    )
    parser.add_argument(
        "--rule", choices=("sgd", "momentum", "adam"), help="of these updates, too"
    )
    parser.add_argument(
        "--reservoir",
        type=int,
        metavar="N",
        help="tokens kept for sleep, for a new stream; 0: it holds no text (default: "
        f"{RESERVOIR:,})",
    )
    parser.add_argument(
        "--turns", type=Path, metavar="FILE", help="lines to take instead of a terminal's"
    )
    parser.add_argument(
        "--tokens",
        type=int,
        default=128,
        metavar="N",
        help="of an answer, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="X",
        help="of answers (default: 0, the likeliest token)",
    )
    parser.add_argument(
        "--json", action="store_true", help="a JSON object per line instead of text"
    )


def run(args: argparse.Namespace) -> int:
    """Open the stream and take its lines."""
    levels = parse_levels(args.levels)
    lines = read_turns(args.turns) if args.turns else None

    from hope_jax.streams.lines import check_lines
    from hope_jax.streams.session import Session

    if lines is not None:
        check_lines(lines, args.stream)
    stream = _open(args, levels)
    show = None if args.json else _show
    session = Session(
        stream, args.stream, tokens=args.tokens, temperature=args.temperature, on_text=show
    )
    terminal = lines is None and sys.stdin.isatty()
    if terminal:
        print(f"{stream.base.path}, {stream.tokens_read} tokens read. /help lists commands.")
    keep = False
    with sigterm_as_exit():
        try:
            _take_all(session, _lines(lines, terminal), terminal, args.json)
            keep = True
        except (KeyboardInterrupt, SystemExit):  # a line that was broken off has done nothing
            keep = True
            raise
        finally:
            _end(session, keep and not args.no_save, args.json)
    return 0


def _take_all(session: Session, lines: Iterable[str], terminal: bool, as_json: bool) -> None:
    """Take lines up to /quit, and print what each gives."""
    for number, line in enumerate(lines, start=1):
        try:
            turn = session.take(line)
        except (ValueError, OSError) as error:
            if not terminal:
                raise ValueError(f"line {number}, {line!r}: {error}") from error
            print(f"error: {error}")
            continue
        except KeyboardInterrupt:
            if not terminal:
                raise
            print("interrupted")
            continue
        if turn.ends:
            break
        if as_json:
            print(json.dumps({"line": number, "command": turn.command, **turn.values}))
        elif turn.command in ("ask", "tell"):
            _show("\n")  # the answer has been shown as it came
        elif turn.text:
            print(turn.text)
        sys.stdout.flush()


def _end(session: Session, keep: bool, as_json: bool) -> None:
    """Save what changed since the last save, or say that it is lost."""
    unsaved = session.unsaved
    if not unsaved:
        return
    if not keep or session.folder is None:
        why = "; --stream DIR keeps them" if session.folder is None else ""
        print(f"hope stream: {unsaved} are lost{why}", file=sys.stderr)
        return
    try:
        turn = session.take("/save")
    except (ValueError, OSError) as error:
        raise ValueError(f"{unsaved} are lost, they cannot be saved: {error}") from error
    print(json.dumps({"command": "save", **turn.values}) if as_json else turn.text, flush=True)


def read_turns(path: Path) -> list[str]:
    """Lines of a file.

    Raises:
      ValueError: it is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from None


def parse_levels(text: str | None) -> dict[int, int] | tuple[int, ...] | None:
    """Tokens per update by period, or alone, from the command line.

    >>> parse_levels("1=64,16=512"), parse_levels("64,512")
    ({1: 64, 16: 512}, (64, 512))
    """
    if text is None:
        return None
    if text == "none":
        return {}
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() for part in parts):
        return tuple(int(part) for part in parts)
    pairs = [part.partition("=") for part in parts]
    if not all(p.strip().isdecimal() and c.strip().isdecimal() for p, _, c in pairs):
        raise ValueError(
            f"--levels {text}: give a period and tokens per update for each level, such as "
            "1=64,16=512, or tokens alone for a stack, such as 64,512, or none"
        )
    return {int(period): int(chunk) for period, _, chunk in pairs}


def parse_rates(text: str) -> float | tuple[float, ...]:
    """One rate, or several with commas.

    >>> parse_rates("0.1"), parse_rates("0.1,0.01")
    (0.1, (0.1, 0.01))
    """
    rates = tuple(float(part) for part in text.split(","))
    return rates[0] if len(rates) == 1 else rates


def _open(args: argparse.Namespace, levels: dict[int, int] | tuple[int, ...] | None):
    from hope_jax.streams import Stream

    if args.stream and args.stream.is_dir() and Stream.points(args.stream):
        chosen = (levels, args.lr, args.blocks, args.rule, args.reservoir)
        if any(given is not None for given in chosen):
            raise ValueError(
                f"{args.stream} is a stream that has begun, with levels, rates and a reservoir "
                "of its own; leave out --levels, --lr, --blocks, --rule and --reservoir, or "
                "name another folder"
            )
        return Stream.load(args.stream, point=args.point, checkpoint=args.workdir)
    if args.workdir is None:
        where = f"{args.stream} holds no stream" if args.stream else "no stream is named"
        raise ValueError(f"{where}; give the --workdir of a run to begin one")
    if args.point is not None:
        raise ValueError(f"--point {args.point}: the stream has not begun")
    changes = {"levels": levels, "lr": args.lr, "blocks": args.blocks, "rule": args.rule}
    reservoir = RESERVOIR if args.reservoir is None else args.reservoir
    return Stream.open(args.workdir, reservoir=reservoir, **changes)


def _lines(lines: list[str] | None, terminal: bool) -> Iterator[str]:
    if lines is not None:
        yield from lines
    elif not terminal:
        yield from sys.stdin
    else:
        try:
            import readline  # noqa: F401 - line editing and history
        except ImportError:
            pass
        while True:
            try:
                yield input("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:  # drops what was typed, as a shell does
                print("\n/quit ends")


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
