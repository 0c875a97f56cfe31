"""Streams on disk: what a model remembers, apart from the model.

A file is an archive of the state's arrays, named by their paths in it, with the fingerprints of
the configuration, the slow weights and the tokenizer that the stream belongs to.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.inference.archive import damage_named, read_archive, write_archive
from hope_jax.inference.identity import fingerprint
from hope_jax.inference.stream import StreamState, compact, fresh
from hope_jax.models import LanguageModel
from hope_jax.nested.paths import flatten

FORMAT = 2  # 1 did not name the weights
DIFFERS = {  # what a state is tied to -> what to say when it is not the same
    "configuration": "the configuration of the model differs",
    "weights": "the configuration is the same and the weights differ, as they do after "
    "another seed or another number of steps",
    "tokenizer": "the tokenizer differs",
}


def save_state(
    path: str | Path, state: StreamState, model: LanguageModel, params: Any, tokenizer: Any
) -> None:
    """Write a stream to `path`, whole or not at all.

    Args:
      path: the file; an older one is replaced.
      state: stream of `generate` or `read`.
      model: the model that made it.
      params: its parameters; see `fingerprint` for the cost of naming them.
      tokenizer: the tokenizer that the model reads with.
    """
    manifest = {"format": FORMAT, "fingerprints": _fingerprints(model, params, tokenizer)}
    write_archive(path, manifest, flatten(compact(state)))


def load_state(
    path: str | Path, model: LanguageModel, params: Any, tokenizer: Any
) -> StreamState:
    """Read a stream that `save_state` wrote.

    Args:
      path: the file.
      model: the model that goes on from it.
      params: its parameters; see `fingerprint` for the cost of comparing them.
      tokenizer: the tokenizer that the model reads with.

    Raises:
      ValueError: it was made with another configuration, other weights or another tokenizer
        (the message says which and names both fingerprints), or the file is damaged or of
        another kind.
    """
    saved, arrays = _read(path)
    for what, here in _fingerprints(model, params, tokenizer).items():
        if saved[what] != here:
            raise ValueError(
                f"{path} belongs to another model: {DIFFERS[what]}: {saved[what]} in the "
                f"file, {here} here"
            )
    return fill_state(path, arrays, model, params)


def fill_state(
    path: str | Path, arrays: dict[str, np.ndarray], model: LanguageModel, params: Any
) -> StreamState:
    """A stream from its arrays by name.

    Raises:
      ValueError: they are not those of a stream of this model.
    """
    if "logits_BW" not in arrays:
        raise ValueError(f"{path} is damaged: there are no scores of the next token")
    batch = len(arrays["logits_BW"])
    like = jax.eval_shape(lambda: fresh(model, params, batch))
    wanted = flatten(like)
    wrong = sorted(set(arrays) ^ set(wanted)) or [
        name
        for name, leaf in wanted.items()
        if arrays[name].dtype != leaf.dtype or not _fits(arrays[name].shape, leaf.shape)
    ]
    if wrong:
        raise ValueError(f"{path} is damaged or of another version: {', '.join(wrong)}")
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _fingerprints(model: LanguageModel, params: Any, tokenizer: Any) -> dict[str, str]:
    """What a state is tied to, with the keys of `DIFFERS`."""
    names = dataclasses.asdict(fingerprint(model, params))
    return names | {"tokenizer": tokenizer.fingerprint}


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Fingerprints and arrays of a file, whatever model it belongs to."""
    manifest, arrays = read_archive(path, "a saved state")
    with damage_named(path, "a saved state"):
        written = int(manifest["format"])
    if written > FORMAT:
        raise ValueError(
            f"{path} has state format {written} and this version of hope_jax reads {FORMAT}; "
            "upgrade hope_jax"
        )
    if written < FORMAT:
        raise ValueError(
            f"{path} has state format {written}, which does not say which weights the state "
            "belongs to; read the text again"
        )
    with damage_named(path, "a saved state"):
        saved = {what: manifest["fingerprints"][what] for what in DIFFERS}
    return saved, arrays


def _fits(shape: tuple[int, ...], like: tuple[int, ...]) -> bool:
    """Equal, except where a fresh state is empty: key-value caches grow there."""
    return len(shape) == len(like) and all(
        a == b or b == 0 for a, b in zip(shape, like, strict=True)
    )
