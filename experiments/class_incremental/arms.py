"""The arms, what each is set to, and what is tried in tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from class_incremental.learners import (
    Consolidated,
    FineTuned,
    InContext,
    Joint,
    Learner,
    Levels,
    Settings,
)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A kind of learner, and its settings.

    Attributes:
      learner: the kind.
      settings: what it is set to unless tuning found better.
      tried: by setting, the values that tuning tries.
      help: what it is, in a line.
    """

    learner: type[Learner]
    settings: Settings
    tried: dict[str, Sequence]
    help: str


NO_CLIP = 1e9  # Adam's steps have a size of their own
_PASSES = 3
_LEVELS = ((64,), (64, 512), (64, 512, 4096))
# of the fastest level, and how many times more each next one has, whose steps are fewer
_RATES = {1: (5e-4, 1e-3, 2e-3), 2: (1e-3, 2e-3), 3: (1e-3, 2e-3)}
_TIMES = {1: (1,), 2: (1, 3), 3: (1, 3)}
_TIMES_OVER = {1: "one pass", _PASSES: "three passes"}
_ADAMW = {"lr": (1e-3, 3e-3)}


def _levels(count: int, learns_from: str, passes: int = 1) -> Arm:
    source = {"text": "all it reads", "label": "labels alone"}[learns_from]
    rates = [
        tuple(rate * times**n for n in range(count))
        for rate in _RATES[count]
        for times in _TIMES[count]
    ]
    settings = Settings(
        chunks=_LEVELS[count - 1],
        rule="adam",
        lr=tuple(1e-3 for _ in range(count)),
        clip=NO_CLIP,
        blocks=4,
        learns_from=learns_from,
        context="example",
        passes=passes,
    )
    levels = f"{count} level{'s' if count > 1 else ''}"
    words = f"HOPE, {levels}, learning from {source}, {_TIMES_OVER[passes]}"
    return Arm(Levels, settings, {"lr": rates}, words)


ARMS = {
    "hope_1": _levels(1, "text"),
    "hope_2": _levels(2, "text"),
    "hope_3": _levels(3, "text"),
    "hope_1_labels": _levels(1, "label"),
    "hope_2_labels": _levels(2, "label"),
    "hope_3_labels": _levels(3, "label"),
    "hope_1_labels_3": _levels(1, "label", _PASSES),
    "in_context": Arm(InContext, Settings(), {}, "examples in the context, nothing learns"),
    "fine_tuned": Arm(FineTuned, Settings(), _ADAMW, "AdamW, one pass"),
    "fine_tuned_3": Arm(
        FineTuned,
        Settings(lr=3e-4, passes=_PASSES),
        {"lr": (3e-4, 1e-3)},
        "AdamW, three passes",
    ),
    "ewc": Arm(
        Consolidated,
        Settings(lr=3e-4, passes=_PASSES, strength=1e4),
        {"strength": (1e4, 1e5)},
        "AdamW with the penalty of EWC, three passes",
    ),
    "joint": Arm(
        Joint,
        Settings(lr=3e-4, passes=_PASSES),
        {"lr": (3e-4, 1e-3)},
        "AdamW on all classes at once, three passes",
    ),
}
