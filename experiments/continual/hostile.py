"""What a hostile text does to a stream: ordinary text is read before and after it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from continual.facts import Maker
from continual.recall import by_streams, lived, questions
from rich.progress import track

import hope_jax
from hope_jax.streams import NO_LIMITS, Limits, Stream

LENGTH = 200_000
LIMITS = {
    "none": NO_LIMITS,
    "default, but noise is learned": Limits(surprise=None),
    "default": Limits(),
}


def hostile_texts(tokenizer, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Token ids of hostile texts, int32 `[length]`."""
    rng = np.random.default_rng(seed)
    word = np.asarray(tokenizer.encode(b" the"), np.int32)[-1:]
    data = rng.integers(0, 256, 4 * length, dtype=np.uint8).tobytes().decode("latin-1")
    return {
        "one token": np.repeat(word, length),
        "random characters": np.asarray(tokenizer.encode(data), np.int32)[:length],
        "random tokens": rng.integers(0, tokenizer.vocab_size, length).astype(np.int32),
    }


def ordinary(stream: Stream, ids_NT: np.ndarray) -> float:
    """Loss of ordinary texts, each read by the stream from an empty context, learning."""
    losses = []
    for ids_T in ids_NT:
        reader = stream.copy()
        reader.forget_context()
        losses.append(reader.read_ids(ids_T))
    return float(np.mean(losses))


def attack(base, limits: Limits, known: int = 8) -> dict[str, Any]:
    """Loss on ordinary text before and after each hostile text, with the context forgotten.

    The stream has read `known` texts before, so that it has something to lose.
    """
    maker = Maker(base.tokenizer, "test", 0)
    stream = Stream.open(base, limits=limits)
    for _ in range(known):
        stream.read_ids(maker.prose(256))
    windows_NT = np.stack([maker.prose(256) for _ in range(32)])
    before = ordinary(stream, windows_NT)
    found: dict[str, Any] = {"limits": dataclasses.asdict(limits), "before": before}
    for name, ids_T in hostile_texts(base.tokenizer, LENGTH).items():
        victim, begin = stream.copy(), time.perf_counter()
        victim.read_ids(ids_T)
        seconds = time.perf_counter() - begin
        victim.forget_context()
        after = ordinary(victim, windows_NT)
        found[name] = {
            "after": after,
            "change": after / before - 1,
            "refused": victim.refused,
            "tokens per second": len(ids_T) / seconds,
            "fast weights": {p: c.total for p, c in victim.diff().items()},
        }
    return found


def attacks(checkpoint: Path) -> list[dict[str, Any]]:
    """By limits: what hostile texts do, and recall of 16 facts."""
    base = hope_jax.load(checkpoint)
    maker = Maker(base.tokenizer, "test", 1)
    texts, known = lived(maker, 32, 16, 0)
    ids, marks = questions(maker, known, 8)
    found = []
    for name, limits in track(LIMITS.items(), "by limits"):
        recall = by_streams(Stream.open(base, limits=limits), texts, ids, marks)
        found.append({"name": name, "recall of 16 facts": recall, **attack(base, limits)})
    return found
