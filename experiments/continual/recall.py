"""How much of what was read a model still knows: exact recall of values, and ordinary text.

A question is read from a fresh context, after whatever the arm may keep; a value counts if
every one of its tokens is the likeliest when those before it are right, which is when greedy
writing gives it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from continual.facts import QUESTIONS, STATEMENTS, Maker, facts

from hope_jax.models import LanguageModel, next_token_losses
from hope_jax.models.in_context import Reader
from hope_jax.streams import ManyStreams, Stream
from hope_jax.streams.levels import frozen_config

WIDTH = 48  # tokens of a question with its answer, padded


def lived(maker: Maker, rows: int, count: int, distance: int, prose: int = 4):
    """What is read: by row, ids of the text, and its facts.

    `prose` tokens lie between two facts, and `distance` tokens after the last. Before the
    first there is so much that all rows have one length, which some mixers ask for.
    """
    texts, known = [], []
    for _ in range(rows):
        told = facts(maker.split, maker.rng, count)
        parts = []
        for fact in told:
            parts += [maker.prose(prose), maker.sentence(STATEMENTS[maker.split], fact)[0]]
        texts.append(np.concatenate([*parts, maker.prose(distance)]))
        known.append(told)
    longest = max(map(len, texts))
    return [np.concatenate([maker.prose(longest - len(t)), t]) for t in texts], known


def questions(maker: Maker, known, asked: int, width: int = WIDTH):
    """Ids `[rows, asked, width]` of questions with answers, and which tokens are values."""
    rows = len(known)
    ids = np.zeros((rows, asked, width), np.int32)
    marks = np.zeros((rows, asked, width), bool)
    for row, told in enumerate(known):
        for n, place in enumerate(maker.rng.permutation(len(told))[:asked]):
            i, m = maker.sentence(QUESTIONS[maker.split], told[place])
            ids[row, n, : len(i)], marks[row, n, : len(m)] = i, m
    return ids, marks


def recalled(logits_QTW, ids_QT, marks_QT) -> np.ndarray:
    """Whether each value is right, `[Q]`; scores are of the token after each."""
    right = np.asarray(jnp.argmax(logits_QTW, axis=-1)) == ids_QT[:, 1:]
    return (right | ~marks_QT[:, 1:]).all(axis=1)


@functools.partial(jax.jit, static_argnames="config")
def with_fast_weights(config, params, weights, ids_QT):
    """Scores from a fresh context, `[Q, T - 1, W]`; one row of fast weights per question."""
    reader = Reader(config, params)
    below = reader.read_below(ids_QT[:, :-1], None)
    states = reader.empty_states(len(ids_QT), ids_QT.shape[1])
    return reader.read_above(below.y, states, reader.fast_weights(weights)).y


@functools.partial(jax.jit, static_argnames="config")
def plainly(config, params, ids_QT):
    """Scores of the model without fast weights, from a fresh context."""
    config = frozen_config(config)
    params = {name: part for name, part in params.items() if name != "in_context"}
    return LanguageModel(config).apply({"params": params}, ids_QT[:, :-1]).logits_BTW


def by_streams(stream: Stream, texts, ids, marks) -> float:
    """Recall after reading with learning and dropping the context."""
    rows, asked, width = ids.shape
    many = ManyStreams(stream, rows)
    many.read_ids(texts)
    many.forget_context()
    weights = jax.tree.map(lambda w: jnp.repeat(w, asked, axis=1), many.state.state.weights)
    flat, flat_marks = ids.reshape(-1, width), marks.reshape(-1, width)
    logits = with_fast_weights(stream.model.config, stream.params, weights, flat)
    return float(recalled(logits, flat, flat_marks).mean())


def without_anything(config, params, ids, marks) -> float:
    """Recall from a fresh context by slow weights alone."""
    flat, flat_marks = ids.reshape(-1, ids.shape[-1]), marks.reshape(-1, ids.shape[-1])
    return float(recalled(plainly(config, params, flat), flat, flat_marks).mean())


def in_the_window(config, params, texts, ids, marks) -> float:
    """Recall with all that was read still in the context."""
    found = []
    for text, asks, values in zip(texts, ids, marks, strict=True):
        before = np.broadcast_to(text, (len(asks), len(text)))
        whole = np.concatenate([before, asks], axis=1)
        padded = -(-whole.shape[1] // 128) * 128
        whole = np.pad(whole, ((0, 0), (0, padded - whole.shape[1])))
        logits = plainly(config, params, whole)
        here = slice(len(text) - 1, len(text) + asks.shape[1] - 1)
        right = np.asarray(jnp.argmax(logits[:, here], axis=-1)) == asks
        found.append((right | ~values).all(axis=1).mean())
    return float(np.mean(found))


def ordinary(config, params, maker: Maker, windows: int = 64, length: int = 256) -> float:
    """Loss of held-out plays in nats per token, from fresh contexts, without fast weights."""
    rng = np.random.default_rng(0)
    starts = rng.integers(len(maker.text) - length - 1, size=windows)
    ids = np.stack([maker.text[s : s + length + 1] for s in starts])
    losses = [
        next_token_losses(plainly(config, params, part), part[:, 1:])
        for part in np.split(ids, windows // 16)
    ]
    return float(jnp.concatenate(losses).mean())
