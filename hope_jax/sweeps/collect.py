"""Finished runs below a folder, and in what their configurations differ."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import warnings
from pathlib import Path
from typing import Any

import jax

from hope_jax.config import from_dict
from hope_jax.models import abstract_state
from hope_jax.training.metrics import LOG, read_log
from hope_jax.training.plots import by_bin
from hope_jax.training.workdir import HARMLESS, SUMMARY, flat

# Fields in which the runs of one configuration may differ.
SEEDS = ("seed", "data.seed")
# What a run does for its onlookers does not make it another one.
UNTOLD = {*SEEDS, *HARMLESS} - {"steps"}
SOLVED = "model.cms.hidden"
RUNS = "runs.json"  # of a report: what is worth keeping when the runs are gone
# in it, and not in a summary
SPEED, CURVE, POSITIONS = "tokens_per_second", "curve", "positions"


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      path: its folder, which need not be there any more.
      fields: every field of its configuration, by dotted name.
      summary: `summary.json`, or what `runs.json` of an earlier report kept of it.
    """

    path: Path
    fields: dict[str, Any]
    summary: dict[str, Any]

    @property
    def loss(self) -> float:
        """Held-out loss, nats per token."""
        return self.summary["held_out"]["loss"]

    @property
    def tokens_per_second(self) -> float | None:
        """Median over the logged steps; None if none was logged, or if runs were trained
        together, whose speed says nothing of one.
        """
        if self.summary.get("together", 1) > 1:
            return None
        if SPEED in self.summary:
            return self.summary[SPEED]
        records = read_log(self.path / LOG)
        rates = [r["tokens_per_second"] for r in records if "tokens_per_second" in r]
        return statistics.median(rates) if rates else None

    @property
    def state_bytes(self) -> int | None:
        """Fast state of one sequence, after as many tokens as one has in training.

        None for a run of another version whose configuration this one does not know.
        """
        try:
            config = from_dict(self.summary["config"])
        except ValueError:
            return None
        state = abstract_state(config.model, length=config.data.length)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))

    def curve(self) -> list[tuple[int, float]]:
        """Steps and training losses."""
        if CURVE in self.summary:
            return [(step, loss) for step, loss in self.summary[CURVE]]
        records = read_log(self.path / LOG)
        return [(r["step"], r["loss"]) for r in records if r.get("loss") is not None]

    def positions(self) -> list[tuple[int, int, float]]:
        """Held-out loss of the tokens `first` to `last` of a window, counted from 1, in bins
        that grow; of a task, whose positions are unlike, none.
        """
        if POSITIONS in self.summary:
            return [(first, last, loss) for first, last, loss in self.summary[POSITIONS]]
        held_out = self.summary["held_out"]
        losses = held_out.get("loss_by_position", ())
        if "accuracy" in held_out or len(losses) < 2:
            return []
        return by_bin(losses)


def rating(summary: dict[str, Any]) -> tuple[float, float]:
    """What runs are compared by, the lower the better: the share of a task's answers that are
    wrong, held out and in its tests alike (0 for text), and then the held-out loss.

    >>> rating({"held_out": {"loss": 1.5}})
    (0.0, 1.5)
    >>> of_tests = {"data.length=100": {"accuracy": 0.5}}
    >>> rating({"held_out": {"loss": 0.1, "accuracy": 1.0}, "tests": of_tests})
    (0.25, 0.1)
    """
    found = [summary["held_out"], *summary.get("tests", {}).values()]
    wrong = statistics.fmean(1 - answers.get("accuracy", 1.0) for answers in found)
    return wrong, summary["held_out"]["loss"]


def find_runs(folder: Path) -> list[Run]:
    """All finished runs below `folder`, by path.

    Runs that an earlier report kept in a `runs.json`, named from its folder, count too, as long
    as they are not there themselves. A `summary.json` that is of something else, or broken, is
    left out, and a warning names it.

    Raises:
      ValueError: there is none, or a `runs.json` is of something else, or broken.
    """
    found: dict[Path, Run] = {}  # by what is one for all ways to write a path
    for path in sorted(Path(folder).rglob(RUNS)):
        kept = _read(path, "what a report keeps of runs")
        if not isinstance(kept, list) or not all(isinstance(one, dict) for one in kept):
            raise ValueError(
                f"{path} is not what a report keeps of runs; name a folder without it"
            )
        for summary in kept:
            run = _run(path, path.parent / str(summary.get("run")), summary)
            found[_key(run.path)] = run
    for path in sorted(Path(folder).rglob(SUMMARY)):
        try:
            run = _run(path, path.parent, _read(path, "the summary of a run"))
        except ValueError as error:
            warnings.warn(f"{error}; without it the report goes on", stacklevel=2)
            continue
        found[_key(run.path)] = run
    runs = [found[key] for key in sorted(found)]
    if not runs:
        raise ValueError(
            f"no finished run below {folder}; a run is finished when it has {SUMMARY}"
        )
    return runs


def without_copies(runs: list[Run]) -> tuple[list[Run], dict[Path, Path]]:
    """The runs of which no other has the same configuration, seeds included, and the copies.

    Of several the first by path stays: a copied folder, or one that was run again, is no
    further seed.

    Returns:
      the runs, and for every one that is left out the one that stays in its place.
    """
    first: dict[str, Run] = {}
    copies: dict[Path, Path] = {}
    for run in runs:
        fields = {n: v for n, v in run.fields.items() if n not in UNTOLD or n in SEEDS}
        same = first.setdefault(repr(sorted(fields.items(), key=lambda item: item[0])), run)
        if same is not run:
            copies[run.path] = same.path
    return [*first.values()], copies


def _key(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _read(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not {what} ({error}); mend it or move it away") from None


def _run(file: Path, path: Path, summary: Any) -> Run:
    try:
        fields = flat(summary["config"])
        float(summary["held_out"]["loss"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # other JSON
        raise ValueError(
            f"{file} is not the summary of a run ({error}); mend it or move it away"
        ) from None
    if fields.get("data.path"):  # where data lay tells runs apart that are the same
        fields["data.path"] = Path(fields["data.path"]).name
    return Run(path, fields, summary)


def differing(runs: list[Run]) -> list[str]:
    """Fields in which the runs differ, seeds and names apart.

    Fields of a mixer or a rule are compared between runs of one kind only: another kind is
    told by its type. The width that `match_params` solves for is left out where it follows
    from the other fields.
    """
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.fields):
        kind = name.rpartition(".")[0] + ".type"
        values: dict[Any, set[str]] = {}
        for run in runs:
            if name in run.fields:
                same = None if name == kind else run.fields.get(kind)
                values.setdefault(same, set()).add(repr(run.fields[name]))
        if name not in UNTOLD and any(len(different) > 1 for different in values.values()):
            found.append(name)
    rest = [name for name in found if name != SOLVED]
    key = lambda run, names: repr([run.fields.get(name) for name in names])
    if len({key(run, rest) for run in runs}) == len({key(run, found) for run in runs}):
        return rest
    return found
