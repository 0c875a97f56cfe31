"""Configuration of the update rules of the outer optimizer, one dataclass per rule.

A rule's `type` is its name in configuration files and on the command line. Learning rate,
schedule, weight decay and clipping are not here: they are common to all rules
(`hope_jax.config.OptimConfig`). All rules but AdamW update matrices; embeddings, norms,
biases, convolutions and whatever else is no matrix get AdamW, at the same learning rate.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import ClassVar, Literal

from hope_jax.config.check import choose, require


@dataclasses.dataclass(frozen=True)
class AdamWRule:
    """AdamW for everything; its constants are `optim.b1`, `b2` and `eps`."""

    type: ClassVar[str] = "adamw"


@dataclasses.dataclass(frozen=True)
class MuonRule:
    """Muon, optax's own: orthogonalised momentum."""

    type: ClassVar[str] = "muon"

    momentum: float = 0.95
    nesterov: bool = True
    steps: int = 5  # of Newton-Schulz
    rms: float = 0.2  # of an update, before the learning rate

    def __post_init__(self):
        _fraction("muon", momentum=self.momentum)
        _positive("muon", rms=self.rms)
        _whole("muon", steps=self.steps)


@dataclasses.dataclass(frozen=True)
class M3Rule:
    """Multi-scale momentum Muon (Algorithm 1): a fast and a slow orthogonalised momentum."""

    type: ClassVar[str] = "m3"

    b1: float = 0.9  # averaging of the fast momentum
    b2: float = 0.95  # averaging of the second moment
    b3: float = 0.5  # averaging of the slow momentum, per period
    alpha: float = 0.2  # weight of the slow momentum
    period: int = 8  # updates per step of the slow momentum
    second_moment: Literal["gradient", "none"] = "gradient"  # what divides an update
    nesterov: bool = True
    steps: int = 5  # of Newton-Schulz
    rms: float = 0.2  # of an update, before the learning rate

    def __post_init__(self):
        _fraction("m3", b1=self.b1, b2=self.b2, b3=self.b3)
        _not_negative("m3", alpha=self.alpha)
        _positive("m3", rms=self.rms)
        _whole("m3", period=self.period, steps=self.steps)
        choose("m3.second_moment", self.second_moment, "gradient", "none")


@dataclasses.dataclass(frozen=True)
class DeltaMomentumRule:
    """Momentum that forgets along the present gradient (Eqs. 48-49)."""

    type: ClassVar[str] = "delta_momentum"

    decay: float = 0.9  # alpha of Eq. 49
    delta: float = 0.5  # step on the outer product of the gradient; 1 in Eq. 49
    step: Literal["normalized", "proximal", "literal"] = "normalized"
    side: Literal["input", "output"] = "input"  # of the outer product
    value: Literal["rms", "identity"] = "rms"  # P of Eq. 48: second moment, or none
    rms: float = 0.2  # of an update, before the learning rate

    def __post_init__(self):
        _fraction("delta_momentum", decay=self.decay)
        _not_negative("delta_momentum", delta=self.delta)
        _positive("delta_momentum", rms=self.rms)
        choose("delta_momentum.step", self.step, "normalized", "proximal", "literal")
        choose("delta_momentum.side", self.side, "input", "output")
        choose("delta_momentum.value", self.value, "rms", "identity")


@dataclasses.dataclass(frozen=True)
class DeepMomentumRule:
    """Momentum that is an MLP, trained on its own objective at every update (Eq. 50)."""

    type: ClassVar[str] = "deep_momentum"

    hidden: int = 64  # width of the memory
    decay: float = 0.99  # alpha of Eq. 50: what the memory keeps per write
    rate: float = 0.3  # learning rate of the memory
    objective: Literal["l2", "dot", "ones"] = "l2"
    trace: float = 0.9  # of the momentum that the memory reads; 0: the bare gradient
    period: int = 1  # updates per write of the memory
    output: Literal["identity", "newton_schulz"] = "identity"  # sigma of Eq. 52
    rms: float = 0.2  # of an update, before the learning rate

    def __post_init__(self):
        _fraction("deep_momentum", decay=self.decay, trace=self.trace)
        _positive("deep_momentum", rate=self.rate, rms=self.rms)
        _whole("deep_momentum", hidden=self.hidden, period=self.period)
        choose("deep_momentum.objective", self.objective, "l2", "dot", "ones")
        choose("deep_momentum.output", self.output, "identity", "newton_schulz")


RuleConfig = AdamWRule | MuonRule | M3Rule | DeltaMomentumRule | DeepMomentumRule
RULE_CONFIGS: dict[str, type] = {c.type: c for c in typing.get_args(RuleConfig)}


def _fraction(rule: str, **values: float) -> None:
    for name, value in values.items():
        require(0 <= value < 1, f"{rule}.{name} is {value}; use 0 or more, and less than 1")


def _positive(rule: str, **values: float) -> None:
    for name, value in values.items():
        require(0 < value < math.inf, f"{rule}.{name} is {value}; use more than 0")


def _not_negative(rule: str, **values: float) -> None:
    for name, value in values.items():
        require(0 <= value < math.inf, f"{rule}.{name} is {value}; use 0 or more")


def _whole(rule: str, **values: int) -> None:
    for name, value in values.items():
        require(value >= 1, f"{rule}.{name} is {value}; use a whole number from 1")
