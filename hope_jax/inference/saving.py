"""Streams on disk: what a model remembers, apart from the model.

A file is a `.npz` archive: one entry per array, named by its path in the state, and the
entry `manifest`, JSON text with the fingerprints of the model and the tokenizer that the
stream belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.config import ModelConfig, to_json
from hope_jax.inference.stream import Stream, compact
from hope_jax.models import abstract_state

FORMAT = 1
_MANIFEST = "manifest"


def fingerprint(config: ModelConfig) -> str:
    """Short hash of a model's configuration.

    >>> fingerprint(ModelConfig()) == fingerprint(ModelConfig(depth=5))
    False
    """
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:16]


def save_state(path: str | Path, state: Stream, config: ModelConfig, tokenizer: Any) -> None:
    """Write a stream to `path`, whole or not at all.

    Args:
      path: the file; an older one is replaced.
      state: stream of `generate` or `read`.
      config: configuration of the model that made it.
      tokenizer: the tokenizer that the model reads with.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(compact(state)).items()}
    manifest = {
        "format": FORMAT,
        "model": fingerprint(config),
        "tokenizer": tokenizer.fingerprint,
        "dtypes": {name: str(array.dtype) for name, array in arrays.items()},
    }
    # NumPy's format has no bfloat16; store the bits of such arrays as integers
    stored = {name: array.view(_plain(array.dtype)) for name, array in arrays.items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{_MANIFEST: np.array(json.dumps(manifest))}, **stored)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_state(path: str | Path, config: ModelConfig, tokenizer: Any) -> Stream:
    """Read a stream that `save_state` wrote.

    Raises:
      ValueError: it belongs to another model or tokenizer (both fingerprints are named),
        or the file is damaged or of another kind.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            stored = dict(archive)
        manifest = json.loads(str(stored.pop(_MANIFEST)))
        written = manifest["format"]
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a saved state, or it is damaged: {error}") from None
    if written > FORMAT:
        raise ValueError(
            f"{path} has state format {written} and this version of hope_jax reads up to "
            f"{FORMAT}; upgrade hope_jax"
        )
    _check(path, "model", manifest["model"], fingerprint(config))
    _check(path, "tokenizer", manifest["tokenizer"], tokenizer.fingerprint)
    arrays = {n: a.view(jnp.dtype(manifest["dtypes"][n])) for n, a in stored.items()}
    if "logits_BW" not in arrays:
        raise ValueError(f"{path} is damaged: it has no scores of the next token")
    batch = len(arrays["logits_BW"])
    like = Stream(
        abstract_state(config, batch),
        jax.ShapeDtypeStruct((batch, config.vocab_size), jnp.float32),
    )
    wanted = _named(like)
    wrong = sorted(set(arrays) ^ set(wanted)) or [
        name
        for name, leaf in wanted.items()
        if arrays[name].dtype != leaf.dtype or not _fits(arrays[name].shape, leaf.shape)
    ]
    if wrong:
        raise ValueError(f"{path} is damaged or of another version: {', '.join(wrong)}")
    leaves = [jnp.asarray(arrays[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check(path: str | Path, what: str, saved: str, here: str) -> None:
    if saved != here:
        raise ValueError(
            f"{path} was saved with {what} {saved} and this {what} is {here}; a state "
            f"belongs to the {what} that made it"
        )


def _named(stream: Stream) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(stream)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def _fits(shape: tuple[int, ...], like: tuple[int, ...]) -> bool:
    """Equal, except where a fresh state is empty: key-value caches grow there."""
    return len(shape) == len(like) and all(
        a == b or b == 0 for a, b in zip(shape, like, strict=True)
    )


def _plain(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.isbuiltin else np.dtype(f"uint{8 * dtype.itemsize}")
