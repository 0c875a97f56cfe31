"""Arrays and a manifest in one file, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

_MANIFEST = "manifest"
_BROKEN = (
    zipfile.BadZipFile,
    EOFError,
    KeyError,
    NotImplementedError,  # bits that ask for another compression
    TypeError,
    ValueError,
)


class Damaged(ValueError):
    """A file that is not what it should be, or not any more."""


def write_archive(
    path: str | Path, manifest: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write a `.npz` archive: one entry per array, and the entry `manifest`, JSON text.

    Args:
      path: the file; an older one is replaced, and its folder is made.
      manifest: what JSON can hold; the types of the arrays are added as `dtypes`.
      arrays: by name, of any type.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    text = json.dumps({**manifest, "dtypes": dtypes})
    # NumPy's format has no bfloat16; store the bits of such arrays as integers
    stored = {name: array.view(_plain(array.dtype)) for name, array in arrays.items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{_MANIFEST: np.array(text)}, **stored)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_archive(path: str | Path, what: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Manifest and arrays of a file that `write_archive` wrote.

    Args:
      path: the file.
      what: what it should be, for the message.

    Raises:
      Damaged: it is damaged or something else.
    """
    with damage_named(path, what), open(path, "rb") as file:
        with np.load(file, allow_pickle=False) as archive:
            stored = dict(archive)
        manifest = json.loads(str(stored.pop(_MANIFEST)))
        dtypes = manifest["dtypes"]
        arrays = {name: a.view(jnp.dtype(dtypes[name])) for name, a in stored.items()}
    return manifest, arrays


@contextlib.contextmanager
def damage_named(path: str | Path, what: str) -> Iterator[None]:
    """Whatever a damaged file makes NumPy and JSON say, say which file it is: `Damaged`."""
    try:
        yield
    except _BROKEN as error:
        raise Damaged(f"{path} is not {what}, or it is damaged: {error}") from None


def _plain(dtype: np.dtype) -> np.dtype:
    return dtype if dtype.isbuiltin else np.dtype(f"uint{8 * dtype.itemsize}")
