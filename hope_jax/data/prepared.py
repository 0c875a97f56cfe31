"""A split of a prepared folder: find it, check it, say what to do if it does not fit."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from hope_jax.config.paths import local_path
from hope_jax.data.builder import Parts
from hope_jax.data.cache import prepared_corpus
from hope_jax.data.manifest import Manifest, SplitInfo
from hope_jax.data.records import TokenStream
from hope_jax.data.tokenizers import Tokenizer, load_tokenizer
from hope_jax.data.verify import check_sizes


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """Where the tokens of a split are and what they mean.

    Attributes:
      folder: as `hope prepare` wrote it.
      split: "train" or "validation".
      manifest: of the folder.
      tokenizer: that made the tokens.
    """

    folder: pathlib.Path
    split: str
    manifest: Manifest
    tokenizer: Tokenizer

    @property
    def info(self) -> SplitInfo:
        """Counts of the split."""
        return self.manifest.splits[self.split]

    @functools.cached_property
    def stream(self) -> TokenStream:
        """The tokens by position.

        Raises:
          ValueError: a shard is missing or has another size than the manifest says.
        """
        check_sizes(self.folder, self.info.shards)
        parts = Parts(self.folder, self.split, self.info.records, self.manifest.part)
        return TokenStream(parts, self.info.streams)


def find_split(path: str | None, tokenizer: Tokenizer | None, split: str) -> PreparedSplit:
    """A split of the folder `path`, or of the shipped corpus.

    Args:
      path: a folder that `hope prepare` wrote; None means the shipped corpus.
      tokenizer: checked against the one that the data was made with; None takes that one.
      split: "train" or "validation".

    Raises:
      ValueError: no such data or split, or another tokenizer.

    >>> find_split(None, None, "validation").info.documents
    4
    """
    folder = local_path(path, "data.path") if path else prepared_corpus()
    manifest = Manifest.read(folder)
    if split not in manifest.splits:
        raise ValueError(f"{folder} has no split {split!r}; it has {list(manifest.splits)}")
    saved = load_tokenizer(folder)
    if saved.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"the tokenizer in {folder} is {_name(saved)}, but its tokens were made with "
            f"{manifest.tokenizer} {manifest.fingerprint}; prepare the data again"
        )
    if tokenizer is not None and tokenizer.fingerprint != manifest.fingerprint:
        raise ValueError(
            f"{folder} was made with tokenizer {_name(saved)}, not with the given "
            f"{_name(tokenizer)}; prepare the text again with that one"
        )
    return PreparedSplit(folder, split, manifest, saved)


def more_text(split: str) -> str:
    """What to do about a split that is too short, for messages."""
    if split == "train":
        return "more text"
    return "a larger held-out part (hope prepare --validation)"


def _name(tokenizer: Tokenizer) -> str:
    return f"{tokenizer.name} {tokenizer.fingerprint}"
