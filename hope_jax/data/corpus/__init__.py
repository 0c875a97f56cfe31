"""The corpus that ships with the package: Shakespeare's plays, one document per play.

Origin, licence and normalisation are described in `LICENCE.md` beside this file.

>>> from hope_jax.data import corpus
>>> [document.name for document in corpus.documents("validation")]
['king-john.txt', 'macbeth.txt', 'the-tempest.txt', 'twelfth-night.txt']
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import tarfile

from hope_jax.data.documents import Document

NAME = "shakespeare"
VALIDATION = ("king-john.txt", "macbeth.txt", "the-tempest.txt", "twelfth-night.txt")


def documents(split: str) -> list[Document]:
    """The plays of `split` ("train" or "validation") in alphabetical order."""
    if split not in ("train", "validation"):
        raise ValueError(f"split is {split!r}; the corpus has 'train' and 'validation'")
    wanted = split == "validation"
    return [play for play in _plays() if (play.name in VALIDATION) == wanted]


def checksum() -> str:
    """Hexadecimal SHA-256 of the archive."""
    return hashlib.sha256(_archive()).hexdigest()


def _archive() -> bytes:
    return importlib.resources.files(__name__).joinpath("shakespeare.tar.xz").read_bytes()


@functools.cache
def _plays() -> tuple[Document, ...]:
    with tarfile.open(fileobj=io.BytesIO(_archive()), mode="r:xz") as archive:
        return tuple(
            Document(member.name, archive.extractfile(member).read()) for member in archive
        )
