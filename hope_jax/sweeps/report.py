"""A table, plots and a page of Markdown over many runs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.sweeps.collect import (
    CURVE,
    POSITIONS,
    RUNS,
    SPEED,
    Run,
    differing,
    find_runs,
    rating,
    without_copies,
)
from hope_jax.sweeps.plots import plot_curves, plot_losses, plot_positions, plot_tuning

REPORT = "report.md"
POINTS = 100  # of a curve that is kept
COMMAND = "command.txt"
LONGEST_LABEL = 48  # characters


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one configuration with different seeds.

    Attributes:
      values: the fields that differ between groups, with this group's values; None where
        its configuration has no such field.
      runs: the runs.
    """

    values: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def loss(self) -> float:
        """Mean held-out loss."""
        return statistics.fmean(run.loss for run in self.runs)

    @property
    def rating(self) -> tuple[float, float]:
        """Mean of what runs are compared by; see `hope_jax.sweeps.collect.rating`."""
        wrong, losses = zip(*(rating(run.summary) for run in self.runs), strict=True)
        return statistics.fmean(wrong), statistics.fmean(losses)

    @property
    def name(self) -> str:
        """What the names of its runs' folders have in common; empty if nothing."""
        names = [run.path.name for run in self.runs]
        prefix = os.path.commonprefix(names)
        if any(name[len(prefix) :][:1] not in ("", "-", "_") for name in names):
            prefix = re.sub(r"[^-_]*$", "", prefix)  # not a part of a value
        return prefix.rstrip("-_. ")

    @property
    def label(self) -> str:
        """The name in a plot; without one, the values in one line, as far as there is room."""
        line = ", ".join(show(v) for v in self.values.values() if v is not None) or "all"
        return textwrap.shorten(self.name or line, LONGEST_LABEL, placeholder=" ...")


def write_report(folder: Path, out: Path | None = None, best: str | None = None) -> str:
    """Write `report.md`, plots and `runs.json` on all finished runs below `folder`.

    `runs.json` holds the summaries, which is what is worth keeping when the runs are gone: left
    in a folder with new ones, they are in its report together.

    Args:
      folder: of a sweep, or of anything that holds runs.
      out: where to; `folder` by default.
      best: a field, such as "optim.lr", for which every other configuration is shown at
        its best value; all of its values are told beside it.

    Returns:
      The page.

    Raises:
      ValueError: there is no finished run, or `best` does not differ between them.
    """
    folder = Path(folder)
    out = folder if out is None else Path(out)
    runs, copies = without_copies(find_runs(folder))
    fields = differing(runs)
    if best is not None and best not in fields:
        raise ValueError(
            f"--best {best}: the runs do not differ in it; they differ in "
            f"{', '.join(fields) or 'nothing but seeds'}"
        )
    groups = group(runs, fields)
    shown = groups if best is None else at_best(groups, best)
    shown = sorted(shown, key=lambda g: g.rating)
    out.mkdir(parents=True, exist_ok=True)  # only where there is something to write
    pictures = [plot_losses(shown, out / "losses.png"), plot_curves(shown, out / "curves.png")]
    # a few lines of many would be taken for all
    if all(any(run.positions() for run in one.runs) for one in shown):
        pictures.append(plot_positions(shown, out / "positions.png"))
    if best is not None:
        pictures.append(plot_tuning(groups, best, out / "tuning.png"))
    page = "\n".join(
        [
            f"# {folder.name}\n",
            f"{len(runs)} finished runs. Losses are nats per token on held-out text, mean over "
            "seeds with the range in brackets. Tokens per second are the median of what was "
            "logged; the state is that of one sequence after a training window."
            + (f" The best {best} was chosen by these losses." if best else "")
            + "\n",
            table(shown, groups, fields, best),
            "",
            *(
                f"Left out: {copy.name} has the configuration and the seeds of {one.name}.\n"
                for copy, one in copies.items()
            ),
            *(f"![{p.stem}]({p.name})" for p in pictures),
            "",
            *origin(folder, runs),
        ]
    )
    write_whole(out / REPORT, page)
    write_whole(out / RUNS, kept(folder, runs, out))
    return page


def kept(folder: Path, runs: Sequence[Run], out: Path) -> str:
    """JSON for a file in `out`, a line per run below `folder`: its summary without samples.

    A run is named from `folder`; from `out` if that is within it, so that a run and what was
    kept of it are found to be the same.

    With it, speed and a curve of at most `POINTS` points, and losses by position in bins:
    `find_runs` makes runs of them. Of the folders of data only the last part is kept: where
    they lay says nothing to others.
    """
    within = Path(os.path.abspath(out)).is_relative_to(os.path.abspath(folder))
    begin = out if within else folder
    lines = []
    for run in runs:
        held_out = dict(run.summary["held_out"])
        held_out.pop("loss_by_position", None)
        facts = {**run.summary, "held_out": held_out, "held_out_without_writes": None}
        if off := run.summary.get("held_out_without_writes"):
            kinds = ("loss", "bits_per_byte", "accuracy")
            facts["held_out_without_writes"] = {k: off[k] for k in kinds if k in off}
        facts.pop("sample", None)
        data = dict(facts["config"]["data"])
        if data["path"] is not None:
            data["path"] = Path(data["path"]).name
        if (data.get("task") or {}).get("stories") is not None:
            data["task"] = {**data["task"], "stories": Path(data["task"]["stories"]).name}
        facts["config"] = {**facts["config"], "data": data}
        name = Path(os.path.relpath(run.path, begin)).as_posix()
        curve = run.curve()
        every = max(-(-len(curve) // POINTS), 1)
        facts[SPEED] = run.tokens_per_second
        facts[CURVE] = [[step, round(loss, 4)] for step, loss in curve[::every]]
        facts[POSITIONS] = [[a, b, round(loss, 4)] for a, b, loss in run.positions()]
        lines.append(json.dumps({"run": name, **facts}))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def group(runs: Sequence[Run], fields: Sequence[str]) -> list[Group]:
    """Runs whose `fields` are the same."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(repr([run.fields.get(f) for f in fields]), []).append(run)
    return [
        Group({f: same[0].fields.get(f) for f in fields}, tuple(same))
        for same in found.values()
    ]


def at_best(groups: Sequence[Group], field: str) -> list[Group]:
    """Of the groups that differ in `field` alone, the best: the fewest wrong, or lowest loss.

    Where some were run with more seeds than others, as the best is after tuning, only the
    former are asked: of one run each, the luckiest would win.
    """
    rows: dict[str, list[Group]] = {}
    for one in groups:
        rows.setdefault(row_of(one, field), []).append(one)
    return [min(row, key=lambda g: (-len(g.runs), g.rating)) for row in rows.values()]


def row_of(one: Group, field: str) -> str:
    """Everything but `field`."""
    return repr({f: v for f, v in one.values.items() if f != field})


def table(
    shown: Sequence[Group], groups: Sequence[Group], fields: Sequence[str], best: str | None
) -> str:
    """One line for each group, the best first."""
    names = short_names(fields)
    head = [
        "runs",
        *(names[f] for f in fields),
        "held-out loss",
    ]
    judged = any("accuracy" in run.summary["held_out"] for one in groups for run in one.runs)
    tests = dict.fromkeys(
        t for one in groups for r in one.runs for t in r.summary.get("tests", ())
    )
    head += ["right, %", "chance, %", *tests] if judged else ["bits/byte"]
    head += ["writes off", "parameters"]
    head += ["tokens", "tokens/s", "state, KiB", "CPU min", "skipped", "seeds"]
    if best is not None:
        head.append(f"loss at every {names[best]}")
    lines = [head, ["---"] * len(head)]
    for one in shown:
        first = one.runs[0].summary
        off = [s["loss"] for r in one.runs if (s := r.summary.get("held_out_without_writes"))]
        found = [r.summary["held_out"] for r in one.runs]
        state = one.runs[0].state_bytes
        speeds = [speed for r in one.runs if (speed := r.tokens_per_second)]
        cells = [
            one.name,
            *("" if one.values[f] is None else show(one.values[f]) for f in fields),
            spread([r.loss for r in one.runs]),
            *(_right(one, found, tests) if judged else [_bits(found)]),
            spread(off) if off else "",
            f"{first['parameters']:,}",
            f"{first['tokens']:,}",
            f"{statistics.median(speeds):,.0f}" if speeds else "",
            "" if state is None else f"{state / 1024:,.1f}",
            spread([r.summary["cpu_seconds"] / 60 for r in one.runs], 1),
            str(sum(r.summary["skipped_steps"] for r in one.runs)),
            str(len(one.runs)),
        ]
        if best is not None:
            row = [g for g in groups if row_of(g, best) == row_of(one, best)]
            row.sort(key=lambda g: (str(type(g.values[best])), g.values[best]))
            cells.append(", ".join(f"{show(g.values[best])}: {g.loss:.3f}" for g in row))
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bits(found: Sequence[dict[str, Any]]) -> str:
    bits = [held_out.get("bits_per_byte") for held_out in found]
    return spread(bits) if None not in bits else ""


def _right(one: Group, found: Sequence[dict[str, Any]], tests: Sequence[str]) -> list[str]:
    """Right answers to a task, by chance, and in each of its tests."""
    if any("accuracy" not in held_out for held_out in found):
        return [""] * (2 + len(tests))
    cells = [
        spread([100 * held_out["accuracy"] for held_out in found], 1),
        f"{100 * found[0]['chance']:.1f}",
    ]
    for test in tests:
        of_runs = [run.summary.get("tests", {}).get(test) for run in one.runs]
        shares = [100 * answers["accuracy"] for answers in of_runs if answers]
        cells.append(spread(shares, 1) if shares else "")
    return cells


def origin(folder: Path, runs: Sequence[Run]) -> list[str]:
    """What made the runs: command, machines, versions."""
    lines = []
    command = folder / COMMAND
    if command.exists():
        lines.append(f"    {command.read_text().strip()}\n")
    made = {}
    for run in runs:
        parts = [run.summary.get(part, {}) for part in ("device", "versions")]
        text = ", ".join(f"{k} {v}" for part in parts for k, v in part.items())
        made.setdefault(text, []).append(run)
    for text, same in made.items():
        lines.append(f"{len(same)} runs: {text}.\n")
    return lines


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean, and the range if there are several.

    >>> spread([1.0]), spread([1.0, 2.0], 1)
    ('1.000', '1.5 (1.0 to 2.0)')
    """
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """The last part of each name, or as much of it as tells it from the others.

    >>> short_names(["optim.lr", "model.mixer.type", "optim.rule.type"])
    {'optim.lr': 'lr', 'model.mixer.type': 'mixer.type', 'optim.rule.type': 'rule.type'}
    """
    names = {}
    for field in fields:
        parts = field.split(".")
        for length in range(1, len(parts) + 1):
            ending = "." + ".".join(parts[-length:])
            names[field] = ending[1:]
            if sum(("." + other).endswith(ending) for other in fields) == 1:
                break
    return names


def show(value: Any) -> str:
    """A value in a table.

    >>> show([1, 8]), show(0.003), show("hope")
    ('1, 8', '0.003', 'hope')
    """
    if isinstance(value, list):
        return ", ".join(show(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
