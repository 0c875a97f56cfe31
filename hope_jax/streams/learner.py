"""The optimization of a sleep."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from hope_jax.models import LanguageModel, next_token_losses
from hope_jax.models.in_context import Reader, with_slow_weights
from hope_jax.nested import Level, Levels, LevelsState
from hope_jax.nested.paths import flatten, matches, nest
from hope_jax.optim.rules import transformation
from hope_jax.streams.changes import level_changes
from hope_jax.streams.levels import frozen_config

if TYPE_CHECKING:
    from hope_jax.streams.sleep import Sleep
    from hope_jax.streams.stream import Stream

EVALUATED = 16  # windows at a time


@flax.struct.dataclass
class Asleep:
    """Where an optimization stands: the matrices that learn, by path, and their levels."""

    slow: dict[str, Any]
    levels: LevelsState


@dataclasses.dataclass(frozen=True)
class Losses:
    """Nats per token of what was replayed and of samples of the checkpoint."""

    replayed: float
    samples: float


class Learner:
    """Some CMS levels of a model, the objective of a sleep, and the levels' own optimizers.

    Args:
      stream: the awake stream; it is not changed.
      how: the sleep.
      periods: of the levels that learn.
      samples: tokens of the checkpoint's own samples, `[N, T]`.
    """

    def __init__(
        self, stream: Stream, how: Sleep, periods: tuple[int, ...], samples: np.ndarray
    ):
        self._how, self._config, self._stream = how, stream.model.config, stream
        self._asleep = LanguageModel(frozen_config(self._config))
        self._samples = samples
        least = min(periods)
        optim = stream.base.config.optim
        optim = dataclasses.replace(
            optim,
            lr=optim.lr if how.lr is None else how.lr,
            warmup=how.steps * least // 10,
            levels=tuple(dataclasses.replace(one, warmup=None) for one in optim.levels),
        )
        self._levels = Levels(
            tuple(
                Level(
                    f"period_{period}",
                    period // least,
                    transformation(optim, how.steps * least, period),
                    rf"(.*/)?cms/period_{period}",
                    reduction=optim.at(period).reduction,
                )
                for period in periods
            ),
            pre=optax.identity()
            if optim.clip is None
            else optax.clip_by_global_norm(optim.clip),
        )
        # what is compiled takes these as arguments; as constants they would stay in the program
        self._lived = {
            "params": stream.params,
            "base": stream.base.params,
            "fast": stream.fast_weights,
        }
        self._jit_step = jax.jit(self._step_on)
        self._plain_losses = jax.jit(self._plain_losses_of)
        self._awake_losses = jax.jit(self._awake_losses_of)
        self._selectors = tuple(rf"(.*/)?cms/period_{period}" for period in periods)
        self._start = {
            path: leaf
            for path, leaf in flatten(stream.params).items()
            if matches(self._selectors, path)
        }
        self._matters = jax.tree.map(jnp.ones_like, self._start)
        if how.penalty == "ewc" and how.anchor:
            self._matters = self._fisher()

    def begin(self) -> Asleep:
        """Nothing learned yet."""
        slow = nest(jax.tree.map(jnp.copy, self._start))
        return Asleep(slow, self._levels.init(slow))

    def params_of(self, state: Asleep) -> Any:
        """The model's parameters with what was learned."""
        return nest(flatten(self._stream.params) | flatten(state.slow))

    def step(self, state: Asleep, replayed: tuple[np.ndarray, np.ndarray], number: int):
        """One step on windows that depend on its number alone."""
        rng = np.random.default_rng((self._how.seed, number))
        ids, marks = replayed
        rows = rng.integers(len(ids), size=self._how.batch)
        own = self._samples[rng.integers(len(self._samples), size=self._how.batch)]
        return self._jit_step(state, self._lived, ids[rows], marks[rows], own)

    def losses(self, params: Any, replayed: tuple[np.ndarray, np.ndarray]) -> Losses:
        """Without fast state, from fresh contexts."""
        ids, marks = replayed
        all_marks = np.ones(self._samples.shape, bool)
        return Losses(
            self._mean(self._plain_losses, params, ids, marks),
            self._mean(self._plain_losses, params, self._samples, all_marks),
        )

    def awake_loss(self, replayed: tuple[np.ndarray, np.ndarray]) -> float:
        """With the fast weights that the stream has, from fresh contexts."""
        return self._mean(self._awake_losses, self._lived, *replayed)

    def changes(self, params: Any) -> Any:
        """Of the levels, against the stream's slow weights."""
        return level_changes(self._config, params, None, self._stream.params)

    def _step_on(self, state, lived, ids_BT, marks_BT, own_BT):
        grads = jax.grad(self._objective)(state.slow, lived, ids_BT, marks_BT, own_BT)
        slow, levels, _ = self._levels.step(state.slow, state.levels, grads)
        return Asleep(slow, levels)

    def _objective(self, slow, lived, ids_BT, marks_BT, own_BT):
        how, params = self._how, nest(flatten(lived["params"]) | flatten(slow))
        total = jnp.float32(0.0)
        logits_BTW = self._plain_logits(params, ids_BT)
        counted_BT = marks_BT[:, 1:]
        mean = lambda x_BT: jnp.sum(x_BT * counted_BT) / jnp.maximum(counted_BT.sum(), 1)
        if how.task:
            total += how.task * mean(next_token_losses(logits_BTW, ids_BT[:, 1:]))
        if how.distill:
            awake_BTW = jax.lax.stop_gradient(self._awake_logits(lived, ids_BT))
            total += how.distill * mean(divergence(awake_BTW, logits_BTW))
        if how.protect:
            before_BTW = self._plain_logits(lived["base"], own_BT)
            now_BTW = self._plain_logits(params, own_BT)
            total += how.protect * divergence(before_BTW, now_BTW).mean()
        if how.anchor:
            moved = jax.tree.map(
                lambda w, old, m: jnp.sum(m * (w - old) ** 2),
                flatten(slow),
                self._start,
                self._matters,
            )
            total += 0.5 * how.anchor * sum(moved.values())
        return total

    def _plain_logits(self, params, ids_BT):
        params = with_slow_weights(self._asleep.config, params)
        return self._asleep.apply({"params": params}, ids_BT[:, :-1]).logits_BTW

    def _awake_logits(self, lived, ids_BT):
        if lived["fast"] is None:
            return self._plain_logits(lived["params"], ids_BT)
        reader, batch = Reader(self._config, lived["params"]), len(ids_BT)
        rows = lambda w: jnp.broadcast_to(w, (w.shape[0], batch, *w.shape[2:]))
        fast = reader.fast_weights(jax.tree.map(rows, lived["fast"]))
        below = reader.read_below(ids_BT[:, :-1], None)
        return reader.read_above(below.y, None, fast).y

    def _plain_losses_of(self, params, ids_BT):
        return next_token_losses(self._plain_logits(params, ids_BT), ids_BT[:, 1:])

    def _awake_losses_of(self, lived, ids_BT):
        return next_token_losses(self._awake_logits(lived, ids_BT), ids_BT[:, 1:])

    def _mean(self, losses, params, ids, marks) -> float:
        total = count = 0.0
        for start in range(0, len(ids), EVALUATED):
            part, mark = (x[start : start + EVALUATED] for x in (ids, marks[:, 1:]))
            pad = EVALUATED - len(part)
            loss_BT = losses(params, jnp.asarray(np.pad(part, ((0, pad), (0, 0)))))
            total += float((np.asarray(loss_BT)[: len(part)] * mark).sum())
            count += mark.sum()
        return total / count

    def _fisher(self) -> dict[str, jax.Array]:
        """By how much each weight matters for the samples: squares of gradients, mean 1."""

        def loss(slow, ids_T):
            params = nest(flatten(self._stream.params) | slow)
            return next_token_losses(
                self._plain_logits(params, ids_T[None]), ids_T[None, 1:]
            ).mean()

        @jax.jit
        def squares(slow, ids_T):
            return jax.tree.map(jnp.square, jax.grad(loss)(slow, ids_T))

        parts = [squares(self._start, jnp.asarray(ids_T)) for ids_T in self._samples]
        sums = jax.tree.map(lambda *x: sum(x), *parts)
        count = sum(x.size for x in sums.values())
        mean = sum(jnp.sum(x) for x in sums.values()) / count
        return jax.tree.map(lambda x: x / jnp.maximum(mean, 1e-30), sums)


def divergence(from_BTW: jax.Array, to_BTW: jax.Array) -> jax.Array:
    """Kullback-Leibler divergence of what is expected, in nats per token.

    >>> float(divergence(jnp.zeros((1, 1, 2)), jnp.zeros((1, 1, 2)))[0, 0])
    0.0
    """
    log_from, log_to = jax.nn.log_softmax(from_BTW), jax.nn.log_softmax(to_BTW)
    # ids that pad the vocabulary have no probability in either
    terms = jnp.where(jnp.isneginf(log_from), 0.0, jnp.exp(log_from) * (log_from - log_to))
    return jnp.sum(terms, axis=-1)
