"""Measure a finished model: perplexity of texts, LAMBADA, BLiMP, multiple choice, tasks.

  hope evaluate --workdir runs/hope --tasks text --text book.txt
  hope evaluate --workdir runs/hope --tasks lambada blimp piqa --data evaluation --limit 200
  hope evaluate --workdir runs/mqar --tasks task --set data.length=512 data.task.pairs=32

The task called task is the one that the model was trained on (data.task of its run), with
examples that it has not seen; --set changes it. Other data are your own files, in the folder
of --data and in the form in which these sets are published, a JSON object per line:

  text           text.jsonl: {"text"}; or text.txt, one document; or the files of --text
  lambada        lambada.jsonl: {"text"}
  blimp          blimp/*.jsonl: {"sentence_good", "sentence_bad", "UID"}
  piqa           piqa.jsonl: {"goal", "sol1", "sol2", "label"}
  hellaswag      hellaswag.jsonl: {"ctx", "endings", "label", "activity_label"}
  winogrande     winogrande.jsonl: {"sentence", "option1", "option2", "answer"}
  arc_easy       arc_easy.jsonl: {"question", "choices": {"text", "label"}, "answerKey"}
  arc_challenge  arc_challenge.jsonl: the same
  siqa           siqa.jsonl: {"context", "question", "answerA", "answerB", "answerC", "label"}
  boolq          boolq.jsonl: {"question", "passage", "answer"}

All but text and blimp may also be NAME.jsonl.gz, and hold ready-made requests instead:
{"doc_id", "idx", "label", "request": {"context", "continuation"}}.

Every text is read from fresh memories and never cut short. The table has, beside each figure,
its standard error, what chance would score, the number of items, tokens per text as the model
read them, and how many memory updates happened. docs/evaluation.md says how each is computed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hope_jax.cli.arguments import add_checkpoint, check_writable

if TYPE_CHECKING:
    import rich.table

    from hope_jax.evaluation import Measurement

HELP = "measure a finished model on texts and benchmarks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_checkpoint(parser)
    parser.add_argument(
        "--tasks", required=True, nargs="+", metavar="NAME", help="what to measure; see above"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with your files")
    parser.add_argument(
        "--text",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="files for the task text: a document each, or, of .jsonl files, one a line",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="N",
        help="the task text begins fresh every N tokens (default: documents are read whole)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="for the task called task: change a field of data, e.g. data.length=512",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="items of each file at most (default: all), or examples of a task (default: 1000)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        metavar="N",
        help="texts read side by side; changes speed and memory alone (default: %(default)s)",
    )
    parser.add_argument(
        "--no-writes",
        action="store_true",
        help="read without updates of memories, those of the CMS included",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="write all figures there, with parts"
    )


def run(args: argparse.Namespace) -> None:
    """Measure and print; write the figures where that is asked for."""
    for name in ("limit", "batch", "window"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}; use 1 or more")
    if args.out:
        check_writable("--out", args.out)

    import hope_jax
    from hope_jax.cli.evaluate_task import NAME, measure_task, task_data
    from hope_jax.evaluation import Scorer, Source, average, chosen
    from hope_jax.inference.learning import Mode

    tasks = chosen([name for name in args.tasks if name != NAME], also=(NAME,))
    loaded = hope_jax.load(args.workdir)
    judged = None
    if NAME in args.tasks:  # its mistakes are told before anything is measured
        judged = task_data(loaded, args.set, args.batch, args.limit)
    writes, found, seconds = not args.no_writes, [], {}
    with _bars() as bar_of:

        def measure(name, how):
            began = time.perf_counter()
            found.extend(how(bar_of(name)))
            seconds[name] = round(time.perf_counter() - began, 2)

        if tasks:
            model = loaded.model, loaded.params, loaded.tokenizer
            scorer = Scorer(*model, batch=args.batch, mode=Mode(writes=writes))
            source = Source(args.data, args.limit, tuple(args.text), args.window)
        for task in tasks:
            measure(task.name, functools.partial(task.measure, scorer, source))
        if judged is not None:
            measure(NAME, functools.partial(measure_task, loaded, judged, args.limit, writes))
    mean = average(found)
    found += [] if mean is None else [mean]
    _print(found)
    if args.out:
        _write(args, loaded, found, seconds)
        print(f"written to {args.out}", file=sys.stderr)


def table(measurements: Sequence[Measurement]) -> rich.table.Table:
    """A row for each figure."""
    from rich import box
    from rich.table import Table

    style = box.SIMPLE_HEAD if sys.stdout.isatty() else None
    result = Table(box=style, pad_edge=False)
    result.add_column("task", no_wrap=True)
    result.add_column("metric", no_wrap=True)
    for name in (
        "value",
        "std. error",
        "chance",
        "items",
        "tokens, mean",
        "longest",
        "memory updates",
        "CMS updates",
    ):
        result.add_column(name, justify="right", no_wrap=True)
    for one in measurements:
        work = one.work
        result.add_row(
            one.task,
            one.metric,
            _figure(one.value),
            _figure(one.standard_error),
            _figure(one.chance),
            f"{one.items:,}",
            f"{work.tokens / work.rows:,.1f}",
            f"{work.longest:,}",
            f"{work.memory_updates:,}",
            f"{work.level_updates:,}",
        )
    return result


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"


def _print(measurements: Sequence[Measurement]) -> None:
    from rich.console import Console

    # a table that goes to a file or a pipe is not cut to the width of a terminal
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table(measurements))


def _write(args: argparse.Namespace, loaded: Any, found: Sequence[Measurement], seconds):
    from hope_jax.training.identity import device, versions

    result = {
        "command": shlex.join(["hope", *sys.argv[1:]]),
        "checkpoint": str(loaded.path),
        "step": loaded.step,
        "tokenizer": loaded.tokenizer.name,
        "set": args.set,
        "limit": args.limit,
        "window": args.window,
        "batch": args.batch,
        "writes": not args.no_writes,
        "seconds": seconds,
        "results": [_plain(dataclasses.asdict(one)) for one in found],
        "versions": versions(),
        "device": device(),
    }
    args.out.write_text(json.dumps(result, indent=2) + "\n")


def _plain(values: Any) -> Any:
    """With null for numbers that JSON does not have."""
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


@contextlib.contextmanager
def _bars() -> Iterator[Any]:
    """A function from a name to its progress: a bar on a terminal, a line elsewhere."""
    from rich import console, progress

    if not sys.stderr.isatty():
        yield _Lines
        return
    bars = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
    )
    with bars:
        yield lambda name: _Bar(bars, name)


class _Bar:
    """A bar of a task."""

    def __init__(self, bars: Any, name: str):
        self._bars, self._task = bars, bars.add_task(name, total=None)

    def start(self, total: int) -> None:
        self._bars.update(self._task, total=total)

    def advance(self, count: int) -> None:
        self._bars.advance(self._task, count)


class _Lines:
    """A line when a task begins, and at most one every ten seconds."""

    def __init__(self, name: str):
        self._name, self._total, self._done = name, 0, 0
        self._shown = time.monotonic()

    def start(self, total: int) -> None:
        self._total = total
        self._line()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._shown >= 10:
            self._line()

    def _line(self) -> None:
        self._shown = time.monotonic()
        print(f"{self._name}: {self._done:,} of {self._total:,}", file=sys.stderr, flush=True)
