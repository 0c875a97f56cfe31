"""Streams on disk: what a model remembers, apart from the model.

A file is a `.npz` archive: one entry per array, named by its path in the state, and the
entry `manifest`, JSON text with the fingerprints of the configuration, the slow weights and
the tokenizer that the stream belongs to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.inference.identity import fingerprint
from hope_jax.inference.stream import Stream, compact
from hope_jax.models import LanguageModel, abstract_state

FORMAT = 2  # 1 did not name the weights
_MANIFEST = "manifest"
_DIFFERS = {  # what a state is tied to -> what to say when it is not the same
    "configuration": "the configuration of the model differs",
    "weights": "the configuration is the same and the weights differ, as they do after "
    "another seed or another number of steps",
    "tokenizer": "the tokenizer differs",
}


def save_state(
    path: str | Path, state: Stream, model: LanguageModel, params: Any, tokenizer: Any
) -> None:
    """Write a stream to `path`, whole or not at all.

    Args:
      path: the file; an older one is replaced.
      state: stream of `generate` or `read`.
      model: the model that made it.
      params: its parameters; see `fingerprint` for the cost of naming them.
      tokenizer: the tokenizer that the model reads with.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in _named(compact(state)).items()}
    manifest = {
        "format": FORMAT,
        "fingerprints": _fingerprints(model, params, tokenizer),
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
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_state(path: str | Path, model: LanguageModel, params: Any, tokenizer: Any) -> Stream:
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
                f"{path} belongs to another model: {_DIFFERS[what]}: {saved[what]} in the "
                f"file, {here} here"
            )
    batch = len(arrays["logits_BW"])
    like = Stream(
        abstract_state(model.config, batch),
        jax.ShapeDtypeStruct((batch, model.config.vocab_rows), jnp.float32),
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


def _fingerprints(model: LanguageModel, params: Any, tokenizer: Any) -> dict[str, str]:
    """What a state is tied to, with the keys of `_DIFFERS`."""
    names = dataclasses.asdict(fingerprint(model, params))
    return names | {"tokenizer": tokenizer.fingerprint}


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Fingerprints and arrays of a file, whatever model it belongs to."""
    with _damage_named(path), open(path, "rb") as file:
        with np.load(file, allow_pickle=False) as archive:
            stored = dict(archive)
        manifest = json.loads(str(stored.pop(_MANIFEST)))
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
    with _damage_named(path):
        saved = {what: manifest["fingerprints"][what] for what in _DIFFERS}
        dtypes = manifest["dtypes"]
        arrays = {name: a.view(jnp.dtype(dtypes[name])) for name, a in stored.items()}
        if "logits_BW" not in arrays:
            raise ValueError("there are no scores of the next token")
    return saved, arrays


@contextlib.contextmanager
def _damage_named(path: str | Path) -> Iterator[None]:
    """Whatever a damaged file makes NumPy and JSON say, say which file it is."""
    try:
        yield
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a saved state, or it is damaged: {error}") from None


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
