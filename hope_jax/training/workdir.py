"""The folder of a run: one configuration, one process at a time."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import jax

from hope_jax.checkpoint.load import checkpoint_at
from hope_jax.checkpoint.storage import finished_steps
from hope_jax.checkpoint.whole_file import write_whole
from hope_jax.config import TrainConfig, from_dict, to_dict
from hope_jax.parallel.processes import of_each, on_main
from hope_jax.training.lock import locked

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
SUMMARY = "summary.json"
SEEN_WITHIN_SECONDS = 20  # network file systems keep old listings for a while

# Fields that may differ when a run goes on; they do not change what a step computes.
# `steps` bends the learning-rate schedule from there on, which extending a run asks for.
HARMLESS = {
    "name",
    "steps",
    "log_every",
    "eval_every",
    "eval_batches",
    "checkpoint_every",
    "keep_checkpoints",
    "max_bad_steps",
    "sample_tokens",
    "sample_prompt",
    "position_plot",
    "ngrams",
    "tests",
    "enough",
    "data.workers",
    "mesh.data",
    "mesh.fsdp",
    "mesh.tensor",
}
PATHS = {"start", "data.path", "data.task.stories"}


@contextlib.contextmanager
def claim(workdir: Path, config: TrainConfig, change_optimizer: bool = False) -> Iterator[None]:
    """Make the folder ours: alone, and with this configuration.

    With `change_optimizer`, fields of `optim` may differ from those of the run so far.

    A run with neither a checkpoint nor a summary has nothing that another configuration could
    spoil, as after a mistake that stopped it before the first step; it gives way.

    Raises:
      Busy: another process trains there.
      ValueError: the folder holds checkpoints or the summary of another configuration (the
        fields that differ are named), or a run that is further than `config.steps`; or it is
        itself a checkpoint.
    """
    check_folder(workdir, config)
    workdir.mkdir(parents=True, exist_ok=True)
    with locked(workdir):
        check_folder(workdir, config)  # again: nobody else trains there now
        _check_config(workdir, config, change_optimizer)
        yield


def check_folder(workdir: Path, config: TrainConfig) -> None:
    """Make sure that a run of `config.steps` may begin or go on here; writes nothing.

    Raises:
      ValueError: the folder is itself a checkpoint, or its run is further than that.
    """
    steps = finished_steps(workdir / CHECKPOINTS)
    if not steps:
        found = checkpoint_at(workdir)
        if found is not None:
            raise ValueError(
                f"{workdir} holds a model, the checkpoint {found}, and is not the folder of a "
                f"run; to train from its weights use --set start={workdir} and another "
                "--workdir"
            )
    elif steps[-1] > config.steps:
        older = max((step for step in steps if step <= config.steps), default=None)
        rest = (
            ""
            if older is None
            else f"; the model after step {older} is {workdir / CHECKPOINTS / str(older)}"
        )
        raise ValueError(
            f"the run in {workdir} is at step {steps[-1]}, and steps is {config.steps}; use "
            f"steps={steps[-1]} or more, or another --workdir{rest}"
        )


def reopen(workdir: Path) -> None:
    """Remove the summary: of a run that goes on it is no longer true."""
    (workdir / SUMMARY).unlink(missing_ok=True)


def check_shared(workdir: Path) -> None:
    """Make sure that all processes of a run see one and the same folder.

    Without this, each would write its part of a checkpoint to a disk of its own, and no
    checkpoint could ever be read.

    Raises:
      ValueError: naming the processes that do not see it.
    """
    if jax.process_count() == 1:
        return
    mark = workdir / "shared"
    word = on_main(lambda: _write(mark, secrets.token_hex(8)))
    until = time.monotonic() + SEEN_WITHIN_SECONDS
    while not (seen := mark.exists() and mark.read_text() == word):
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    blind = [i for i, found in enumerate(of_each(seen)) if not found]
    on_main(mark.unlink)
    if blind:
        who = f"process {blind[0]} does" if len(blind) == 1 else f"processes {blind} do"
        raise ValueError(
            f"{who} not see the work folder {workdir} of process 0; give all of them the same "
            "--workdir on storage that they share"
        )


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return text


def _check_config(workdir: Path, config: TrainConfig, change_optimizer: bool) -> None:
    path = workdir / CONFIG
    new = to_dict(config)
    if path.exists():
        try:
            old = json.loads(path.read_text())
        except ValueError:
            raise ValueError(f"{path} is not JSON; mend it or use another --workdir") from None
        if not isinstance(old, dict):
            raise ValueError(f"{path} is not a configuration; mend it or use another --workdir")
        changes = differences(of_today(old), new)
        others = [change for change in changes if not change[0].startswith("optim.")]
        if (others if change_optimizer else changes) and _has_results(workdir):
            flag = "" if others else ", add --change-optimizer to go on with it changed"
            raise ValueError(
                f"{workdir} holds a run with another configuration:\n{listed(changes)}\n"
                f"undo the change to go on with that run{flag}, or use another --workdir"
            )
    write_whole(path, json.dumps(new, indent=2) + "\n")


def _has_results(workdir: Path) -> bool:
    folder = workdir / CHECKPOINTS
    return (folder.is_dir() and any(folder.iterdir())) or (workdir / SUMMARY).exists()


def of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that was read, with fields that are new since then at their defaults;
    as it is, if it has one that is gone.
    """
    with contextlib.suppress(ValueError):
        return to_dict(from_dict(config))
    return config


def differences(
    old: dict[str, Any], new: dict[str, Any], harmless: Container[str] = HARMLESS
) -> list[tuple[str, Any, Any]]:
    """Fields of two configurations that differ and are not harmless, with both values.

    One file or folder may be named in two ways.

    >>> differences({"steps": 1, "optim": {"lr": 0.1}}, {"steps": 2, "optim": {"lr": 0.2}})
    [('optim.lr', 0.1, 0.2)]
    >>> differences({"start": "runs/a"}, {"start": str(Path("runs/a").absolute())})
    []
    """
    a, b = flat(old), flat(new)
    return [
        (field, a.get(field), b.get(field))
        for field in sorted(a.keys() | b.keys())
        if _place(field, a.get(field)) != _place(field, b.get(field)) and field not in harmless
    ]


def listed(changes: list[tuple[str, Any, Any]]) -> str:
    """What `differences` gives, a line for each."""
    return "\n".join(f"  {field}: {a!r} -> {b!r}" for field, a, b in changes)


def _place(field: str, value: Any) -> Any:
    """The value, of a path the place that it means."""
    if field in PATHS and isinstance(value, str):
        return Path(value).expanduser().resolve()
    return value


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value.

    >>> flat({"steps": 2, "model": {"dim": 8, "cms": {"periods": [1, 8]}}})
    {'steps': 2, 'model.dim': 8, 'model.cms.periods': [1, 8]}
    """
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            fields |= flat(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields
