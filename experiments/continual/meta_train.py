"""Training on streams in which facts are read, and asked for after the context is gone."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from continual.arms import FACTS, FEW_FORMS, FEW_FORMS_STEPS, get_config
from continual.facts import VOCABULARY, Maker, train_tokenizer
from rich.progress import track

from hope_jax.checkpoint.manager import CheckpointManager
from hope_jax.models import LanguageModel, init_params, next_token_losses
from hope_jax.models.in_context import in_context_losses
from hope_jax.optim import make
from hope_jax.training.identity import describe_run
from hope_jax.training.state import TrainState, from_snapshot, to_snapshot
from hope_jax.training.step import make_step

ANSWERS = 3.0  # weight of the mean loss of answers beside that of all tokens
ASKED = 8


def losses_of(config, params, batch):
    """Loss of every token, whatever the arm."""
    inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    if config.cms.in_context.on:
        return in_context_losses(config, params, inputs, targets, None, batch["drop"])[0]
    out = LanguageModel(config).apply({"params": params}, inputs, reset_BT=batch["drop"])
    return next_token_losses(out.logits_BTW, targets)


def train(arm: str, workdir: Path, steps: int, seed: int) -> None:
    """Train an arm in `workdir`, or go on with it; the checkpoint is one of `hope_jax`."""
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    config = get_config(arm, VOCABULARY, steps)
    params = init_params(config.model, jax.random.key(seed))
    levels = make(config, params)

    def losses(params, batch):
        loss_BT = losses_of(config.model, params, batch)
        answers = batch["answer"]
        weights = 1.0 + ANSWERS * answers * answers.size / answers.sum()
        return loss_BT * weights, {"answers": (loss_BT * answers).sum() / answers.sum()}

    step_fn = jax.jit(make_step(losses, levels, config), donate_argnums=0)
    zero = lambda: jnp.zeros((), jnp.int32)
    state = TrainState(zero(), zero(), params, levels.init(params))
    run = describe_run(config, tokenizer)
    checkpoints = CheckpointManager(workdir / "checkpoints", keep=1)
    start = checkpoints.newest() or 0
    if start:
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        found = checkpoints.restore(to_snapshot(like, 0, {}, {}))
        state = from_snapshot(found)
    maker = Maker(tokenizer, "train", seed)
    log = workdir / "train.jsonl"
    for number in track(range(start, steps), arm):
        maker.rng = np.random.default_rng((seed, number))
        maker.most = FEW_FORMS if number < FEW_FORMS_STEPS else None
        count = int(maker.rng.integers(FACTS[0], FACTS[1] + 1))
        batch = maker.batch(config.data.batch, config.data.length, count, ASKED)
        if not config.model.cms.in_context.on:
            batch["drop"][:] = False
        del batch["question"]
        state, metrics = step_fn(state, batch)
        if (number + 1) % 50 == 0:
            found = {k: float(v) for k, v in metrics.items() if jnp.ndim(v) == 0}
            with log.open("a") as file:
                file.write(json.dumps({"step": number + 1, "facts": count, **found}) + "\n")
        if (number + 1) % 200 == 0 or number + 1 == steps:
            checkpoints.save(to_snapshot(state, number + 1, {}, run))
    checkpoints.close()
