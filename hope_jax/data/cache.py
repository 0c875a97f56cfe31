"""The shipped corpus, prepared once per machine."""

from __future__ import annotations

import pathlib

from hope_jax.config.paths import cache_folder
from hope_jax.data import corpus
from hope_jax.data.manifest import FILE as MANIFEST_FILE
from hope_jax.data.manifest import FORMAT
from hope_jax.data.prepare import prepare
from hope_jax.data.sources import CorpusSource
from hope_jax.data.tokenizers import ByteTokenizer


def prepared_corpus() -> pathlib.Path:
    """Folder of the shipped corpus as bytes; the first call on a machine prepares it.

    Several processes may call this at once: each works apart, the first to finish names
    the folder, and the others use that one, which is the same.

    Raises:
      OSError: the cache cannot be written.
    """
    folder = cache_folder() / f"{corpus.NAME}-byte-{corpus.checksum()[:8]}-v{FORMAT}"
    if (folder / MANIFEST_FILE).is_file():
        return folder
    try:
        prepare(folder, CorpusSource(), ByteTokenizer())
    except (OSError, ValueError) as error:
        if (folder / MANIFEST_FILE).is_file():  # another process was faster
            return folder
        if isinstance(error, OSError):
            raise OSError(f"{error}; set HOPE_CACHE to a folder that can be written") from error
        raise
    return folder
