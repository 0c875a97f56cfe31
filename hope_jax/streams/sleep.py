"""Sleep: what a stream went through is moved to slower levels (offline consolidation).

Awake, a stream knows in its fast weights what it read. Asleep it replays that, and the slow
weights of chosen CMS levels learn it by the optimizers that these levels were trained with:
from the text itself, and from the awake model, which is asked what it would have expected. What
the model knew before is held by its own samples and by a penalty on change.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track

from hope_jax.config import ModelConfig
from hope_jax.config.check import choose, require
from hope_jax.inference.archive import read_archive, write_archive
from hope_jax.inference.identity import digest
from hope_jax.inference.reading import beginning
from hope_jax.nested.paths import flatten
from hope_jax.streams.changes import Change, table
from hope_jax.streams.dreams import dream
from hope_jax.streams.learner import Asleep, Learner

if TYPE_CHECKING:
    from hope_jax.streams.stream import Stream

FILE = "sleep.npz"  # an interrupted one


@dataclasses.dataclass(frozen=True)
class Sleep:
    """What is replayed, what is asked of it, and what is protected.

    Attributes:
      steps: optimizer steps of the fastest level that takes part; others take fewer, in the
        ratio of their periods.
      batch: windows per step, of each source.
      periods: CMS levels that learn; None: all but the fastest, where there are several.
      replay: "reservoir" is what was read, "generated" what the awake model writes, or "both".
      generated: windows that are written.
      task: weight of the next-token loss of what is replayed.
      distill: weight of the divergence from the awake model there.
      protect: weight of the divergence from the checkpoint on its own samples.
      samples: windows of such samples.
      penalty: "l2", or "ewc": by how much each weight matters for these samples.
      anchor: weight of the penalty on change; 0: none.
      lr: peak learning rate; None: that of the model's training.
      seed: of samples and their order.
      save_every: steps between saves of an interrupted sleep.
    """

    steps: int = 200
    batch: int = 4
    periods: tuple[int, ...] | None = None
    replay: Literal["reservoir", "generated", "both"] = "reservoir"
    generated: int = 16
    task: float = 1.0
    distill: float = 1.0
    protect: float = 1.0
    samples: int = 16
    penalty: Literal["l2", "ewc"] = "l2"
    anchor: float = 0.0
    lr: float | None = None
    seed: int = 0
    save_every: int = 50

    def __post_init__(self):
        choose("sleep replay", self.replay, "reservoir", "generated", "both")
        choose("sleep penalty", self.penalty, "l2", "ewc")
        for field in ("steps", "batch", "generated", "samples", "save_every"):
            value = getattr(self, field)
            require(value >= 1, f"sleep {field} is {value}; use 1 or more")
        for field in ("task", "distill", "protect", "anchor"):
            value = getattr(self, field)
            require(0 <= value < math.inf, f"sleep {field} is {value}; use 0 or more")
        require(
            self.task > 0 or self.distill > 0,
            "sleep task and distill are both 0: nothing would be learned",
        )
        require(self.lr is None or self.lr > 0, f"sleep lr is {self.lr}; use more than 0")


@dataclasses.dataclass(frozen=True)
class SleepReport:
    """What a sleep kept and what it lost; losses in nats per token, from fresh contexts.

    Attributes:
      steps: that it took.
      awake: loss of what was replayed, with fast weights, before.
      before: the same without any fast state, before.
      after: the same without any fast state, after.
      base_before: loss of the checkpoint's own samples without fast state, before.
      base_after: the same, after.
      changes: of the levels, against before.
    """

    steps: int
    awake: float
    before: float
    after: float
    base_before: float
    base_after: float
    changes: dict[int, Change]

    @property
    def kept(self) -> float:
        """Which part of the gain of the fast weights is in slow ones now."""
        gain = self.before - self.awake
        return (self.before - self.after) / gain if gain else float("nan")

    def __str__(self) -> str:
        return "\n".join(
            [
                f"what was read: {self.before:.4f} nats per token without fast state before, "
                f"{self.after:.4f} after; {self.awake:.4f} awake",
                f"the checkpoint's own samples: {self.base_before:.4f} before, "
                f"{self.base_after:.4f} after",
                table(self.changes),
            ]
        )


def consolidate(
    stream: Stream, how: Sleep, folder: str | Path | None, progress: bool
) -> tuple[Any, SleepReport]:
    """Slow weights after sleep, and the report; the stream is not changed."""
    periods = _periods(stream.model.config, how)
    replayed = _replayed(stream, how)
    samples = np.stack(dream(stream, how.samples, how.seed + 1, awake=False))
    learner = Learner(stream, how, periods, samples)
    state, done, path, marks = learner.begin(), 0, None, {}
    if folder is not None:
        path, marks = Path(folder) / FILE, _marks(stream, how, replayed)
        done, state = _resume(path, marks, state)
    last = done
    try:
        for number in track(
            range(done, how.steps),
            "asleep",
            total=how.steps - done,
            console=Console(stderr=True),
            disable=not progress,
        ):
            state = learner.step(state, replayed, number)
            last = number + 1
            if path is not None and last % how.save_every == 0:
                _keep(path, marks, last, state)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or SIGTERM where a command ends by it
        if path is not None:
            _keep(path, marks, last, state)
        raise
    params = learner.params_of(state)
    before, after = (learner.losses(p, replayed) for p in (stream.params, params))
    if not all(map(np.isfinite, dataclasses.astuple(after))):
        raise ValueError(
            "sleep ended in weights that are not finite, and the stream stays as it was; use a "
            "lower sleep lr"
        )
    report = SleepReport(
        steps=how.steps,
        awake=learner.awake_loss(replayed),
        before=before.replayed,
        after=after.replayed,
        base_before=before.samples,
        base_after=after.samples,
        changes=learner.changes(params),
    )
    if path is not None:
        path.unlink(missing_ok=True)
    return params, report


def _periods(config: ModelConfig, how: Sleep) -> tuple[int, ...]:
    there = config.cms.periods
    if how.periods is None:
        return there[1:] or there
    unknown = [period for period in how.periods if period not in there]
    require(
        not unknown and bool(how.periods),
        f"sleep periods {how.periods}: the model has {', '.join(map(str, there))}",
    )
    return tuple(sorted(how.periods))


def _replayed(stream: Stream, how: Sleep) -> tuple[np.ndarray, np.ndarray]:
    """Windows of equal length, and which of their tokens are real."""
    windows, dreamed = [], []
    if how.replay in ("reservoir", "both"):
        windows += [w for w in stream.reservoir.windows() if len(w) > 1]
        require(
            stream.reservoir.tokens > 0 or how.replay == "both",
            "the stream has no reservoir (reservoir=0) and keeps no text; sleep on generated "
            "text (replay='generated')",
        )
        require(
            bool(windows) or how.replay == "both",
            "the reservoir is empty: read something first, or sleep on generated text "
            "(replay='generated')",
        )
    if how.replay in ("generated", "both"):
        dreamed = dream(stream, how.generated, how.seed, awake=True)
    begin_T = beginning(stream.model, stream.base.tokenizer)
    windows = [np.concatenate([begin_T, w]) for w in windows] + dreamed
    width = len(begin_T) + stream.reservoir.window
    ids = np.stack([np.pad(w, (0, width - len(w))) for w in windows])
    marks = np.stack([np.arange(width) < len(w) for w in windows])
    return ids.astype(np.int32), marks


def _marks(stream: Stream, how: Sleep, replayed: Any) -> dict[str, Any]:
    """What an interrupted sleep has to have in common with the one that goes on."""
    lived = {"params": stream.params, "fast": stream.fast_weights, "replayed": replayed}
    return {"how": dataclasses.asdict(how), "lived": digest(lived)}


def _keep(path: Path, marks: dict[str, Any], steps: int, state: Asleep) -> None:
    write_archive(path, {"marks": marks, "steps": steps}, flatten(state))


def _resume(path: Path, marks: dict[str, Any], state: Asleep) -> tuple[int, Asleep]:
    """Steps done, and the state after them."""
    if not path.exists():
        return 0, state
    manifest, arrays = read_archive(path, "an interrupted sleep")
    if json.loads(json.dumps(marks)) != manifest.get("marks"):
        raise ValueError(
            f"{path} is of a sleep with other settings, or of another stream; remove it to "
            "begin anew, or go on with the settings it has"
        )
    leaves = [jnp.asarray(arrays[name]) for name in flatten(state)]
    return int(manifest["steps"]), jax.tree.unflatten(jax.tree.structure(state), leaves)
