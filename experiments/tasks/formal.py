"""Formal languages: Table 5 of the paper, which models can tell what may come next.

    hope sweep experiments/tasks/formal.py --local 2 --tune optim.lr
    hope report runs/formal --best optim.lr

A variant is a mixer and a language, such as "hope/parity". Training has strings of 2 to 50
symbols, as the first bin of the table; the second bin has 51 to 100. As in the published
protocol (Irie et al. 2023) a run ends when everything is right in both bins, which is looked at
every 100 steps on 512 strings of each, or else after 3,000 steps; the figures are of 1,024
strings of each bin, these 512 among them. Two layers of width 32, equal in parameters. No mixer
has positions of its own but attention.

HOPE has matrix memories (Eqs. 92-93) that read and write token by token (`chunk=1`): what one
token writes then decides the next one's key, value and rate. At a rate of 1 the L2 objective
with delta gradient descent turns a memory round along its key (1 - 2 eta = -1), which is how a
state can count modulo two. So that this rate is not only reached in the limit it goes up to
1.1, and nothing fades (`retention`): with the defaults for both, parity was right in the first
bin after 500 steps and for 69 to 81 % of the strings in the second.
"""

from __future__ import annotations

import dataclasses

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    DataConfig,
    DeltaNetConfig,
    LinearAttentionConfig,
    LSTMConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    SRWMConfig,
    TrainConfig,
    grid,
)
from hope_jax.config.tasks import FormalConfig
from hope_jax.data.tasks import make_task
from hope_jax.models import match_params

LANGUAGES = ("parity", "aa", "abab", "anbn", "anbncn", "shuffle2")
WIDTH, PARAMETERS = 32, 40_000
MIXERS = {
    "hope": SelfModifyingConfig(
        heads=1, chunk=1, memory="linear", retention="none", max_rate=1.1
    ),
    "lstm": LSTMConfig(),
    "transformer": AttentionConfig(heads=2),
    "linear_attention": LinearAttentionConfig(heads=1),
    "delta_net": DeltaNetConfig(heads=1),
    "srwm": SRWMConfig(heads=2),
}
SECOND_BIN = "data.length=100 data.task.shortest=51 data.task.longest=100"


def get_config(variant: str = "hope/parity") -> TrainConfig:
    """The run of one mixer on one language."""
    name, _, language = variant.partition("/")
    if name not in MIXERS or language not in LANGUAGES:
        raise ValueError(
            f"variant {variant!r}; give MIXER/LANGUAGE, of {', '.join(MIXERS)} and "
            f"{', '.join(LANGUAGES)}"
        )
    data = DataConfig(task=FormalConfig(language=language), batch=32, length=50)
    symbols = make_task(data.task, data.length).symbols
    return TrainConfig(
        name=variant.replace("/", "-"),
        model=ModelConfig(
            vocab_size=len(symbols),
            dim=WIDTH,
            depth=2,
            mixer=MIXERS[name],
            cms=CMSConfig(periods=(1,)),
        ),
        data=data,
        optim=OptimConfig(lr=3e-3, warmup=50, end_lr=0.05),
        steps=3000,
        eval_every=100,
        log_every=50,
        checkpoint_every=500,
        tests=(SECOND_BIN,),
        enough=1.0,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as the budget allows."""
    return dataclasses.replace(config, model=match_params(config.model, PARAMETERS))


def sweep(which: str = ""):
    """Every mixer on every language at three learning rates; `FILE:MIXER` one mixer alone."""
    mixers = [which] if which else [*MIXERS]
    variants = [f"{name}/{language}" for name in mixers for language in LANGUAGES]
    yield from grid({"variant": variants, "optim.lr": [1e-3, 3e-3, 1e-2]})
