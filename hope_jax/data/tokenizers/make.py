"""Build a tokenizer from a word on the command line, or from what `prepare` has saved."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable

from hope_jax.data.documents import Document
from hope_jax.data.tokenizers import byte, hugging_face, sentence_piece, symbols
from hope_jax.data.tokenizers.protocol import Tokenizer

_LOADERS = {
    byte.FILE: byte.ByteTokenizer.load,
    sentence_piece.FILE: sentence_piece.SentencePieceTokenizer.load,
    hugging_face.FILE: hugging_face.HuggingFaceTokenizer.load,
    symbols.FILE: symbols.SymbolTokenizer.load,
}


def make_tokenizer(
    spec: str = "byte",
    *,
    vocab_size: int = 4096,
    documents: Callable[[], Iterable[Document]] | None = None,
) -> Tokenizer:
    """A tokenizer for `spec`.

    Args:
      spec: "byte", "byte+end", "sentencepiece" (trained on `documents`), or a path that
        `load_tokenizer` accepts.
      vocab_size: size of a SentencePiece vocabulary.
      documents: called once to get the training text of SentencePiece.

    Raises:
      ValueError: an unknown spec, or a file that is no tokenizer.

    >>> make_tokenizer("byte+end").vocab_size
    257
    """
    if spec in ("byte", "byte+end"):
        return byte.ByteTokenizer(end=spec == "byte+end")
    if spec == "sentencepiece":
        if documents is None:
            raise ValueError("tokenizer 'sentencepiece' is trained: give it documents")
        return sentence_piece.SentencePieceTokenizer.train(documents(), vocab_size)
    if pathlib.Path(spec).exists():
        return load_tokenizer(spec)
    raise ValueError(
        f"tokenizer {spec!r} is neither 'byte', 'byte+end', 'sentencepiece' nor a file; a "
        "file ends in .model (SentencePiece) or .json (tokenizer.json)"
    )


def tokenizer_files() -> list[str]:
    """Names that a tokenizer may have in a prepared folder; there is one of them."""
    return list(_LOADERS)


def load_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """Load the tokenizer saved in a folder, or a `.model` or `.json` file.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        found = [path / name for name in _LOADERS if (path / name).is_file()]
        if len(found) != 1:
            raise ValueError(
                f"{path} holds {len(found)} tokenizers; expected one of {', '.join(_LOADERS)}"
            )
        return _LOADERS[found[0].name](found[0])
    if not path.is_file():
        raise ValueError(f"tokenizer {path} does not exist")
    if path.name in _LOADERS:
        return _LOADERS[path.name](path)
    if path.suffix == ".model":
        return sentence_piece.SentencePieceTokenizer.load(path)
    if path.suffix == ".json":
        return hugging_face.HuggingFaceTokenizer.load(path)
    raise ValueError(f"tokenizer {path} ends in neither .model nor .json")
