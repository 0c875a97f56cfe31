"""A needle in a haystack, up to 16 times the length of training (Table 1 of the paper).

    hope prepare data/wikitext-2 --input wiki.train.tokens --validation-input wiki.valid.tokens
    hope sweep experiments/tasks/needles.py --local 2 --tune optim.lr --workdir runs/needles \\
        --set data.path=data/wikitext-2
    python experiments/tasks/report.py runs/needles --out experiments/results/needles

A variant is a mixer and one of RULER's single forms, such as "hope/single_2": a number in noise
(S-1), a number in real text (S-2), a UUID in real text (S-3). Bytes, texts of 320 tokens in
training, which leave half of one to the haystack around a UUID, and of 320 to 5,120 in tests,
with other keys and numbers; the needle is anywhere. Two blocks of width 64 with a feed-forward
part that makes all mixers equal in parameters.
"""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from hope_jax.config import (
    CMSConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    grid,
)
from hope_jax.config.tasks import NeedleConfig
from hope_jax.models import match_params

_MAD = runpy.run_path(str(Path(__file__).with_name("mad.py")))
WIDTH, TOKENS, BYTES = _MAD["WIDTH"], _MAD["TOKENS"], 256
MIXERS, PARAMETERS = _MAD["MIXERS"], _MAD["PARAMETERS"] + BYTES * WIDTH
FORMS = ("single_1", "single_2", "single_3")
LENGTH = 320
TIMES = (2, 4, 8, 16)


def get_config(variant: str = "hope/single_1") -> TrainConfig:
    """The run of one mixer on one form."""
    name, _, form = variant.partition("/")
    if name not in MIXERS or form not in FORMS:
        raise ValueError(
            f"variant {variant!r}; give MIXER/FORM, of {', '.join(MIXERS)} and "
            f"{', '.join(FORMS)}"
        )
    return TrainConfig(
        name=variant.replace("/", "-"),
        model=ModelConfig(
            vocab_size=BYTES,
            dim=WIDTH,
            depth=2,
            mixer=MIXERS[name],
            cms=CMSConfig(periods=(1,)),
        ),
        data=DataConfig(task=NeedleConfig(form=form), batch=TOKENS // LENGTH, length=LENGTH),
        optim=OptimConfig(lr=3e-3, warmup=50, end_lr=0.05),
        steps=2000,
        eval_every=500,
        log_every=50,
        checkpoint_every=500,
        tests=tuple(f"data.length={times * LENGTH}" for times in TIMES),
        enough=0.999,
        position_plot=False,
    )


def finish(config: TrainConfig) -> TrainConfig:
    """The feed-forward part as wide as the budget allows."""
    return dataclasses.replace(config, model=match_params(config.model, PARAMETERS))


def sweep(which: str = ""):
    """Every mixer on every form at three learning rates; `FILE:FORM` one form alone."""
    forms = [which] if which else [*FORMS]
    variants = [f"{name}/{form}" for form in forms for name in MIXERS]
    yield from grid({"variant": variants, "optim.lr": [1e-3, 3e-3, 1e-2]})
