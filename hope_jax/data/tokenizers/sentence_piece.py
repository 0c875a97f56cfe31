"""SentencePiece: a subword vocabulary, trained on the text at hand or given as a file."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterable

import numpy as np

from hope_jax.data.documents import Document, pieces
from hope_jax.data.tokenizers.protocol import as_text, check_ids, fingerprint_of

FILE = "tokenizer.model"
TRAINING_BYTES = 64_000_000  # more text changes the vocabulary little and costs memory
_BLANK = "\u2581"  # SentencePiece writes a blank as this character


class SentencePieceTokenizer:
    """A SentencePiece model.

    Models made by `train` lose nothing: no normalisation, no added blank, single bytes for
    unknown characters. A model from elsewhere keeps its own normalisation, and its text may
    come back changed by that.

    Args:
      model: the serialised model, i.e. the bytes of a `.model` file.
    """

    def __init__(self, model: bytes):
        processor_type = _library().SentencePieceProcessor
        try:
            self._processor = processor_type(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"not a SentencePiece model: {error}") from None
        self._model = model
        self.name = "sentencepiece"
        self.vocab_size = self._processor.vocab_size()
        known = lambda index: index if index >= 0 else None
        self.begin_id = known(self._processor.bos_id())
        self.end_id = known(self._processor.eos_id())
        self.fingerprint = fingerprint_of(b"sentencepiece", model)
        self._bytes = [self._piece_bytes(i) for i in range(self.vocab_size)]
        # a literal U+2581 would come back as a blank; its three bytes do not
        mark = [self._processor.piece_to_id(f"<0x{b:02X}>") for b in _BLANK.encode()]
        self._mark = mark if all(map(self._processor.is_byte, mark)) else None

    @classmethod
    def train(cls, documents: Iterable[Document], vocab_size: int) -> SentencePieceTokenizer:
        """Learn byte-pair merges from the first 64 MB of `documents`, which must be UTF-8.

        Raises:
          ValueError: the text is not UTF-8, or too small for `vocab_size`.
        """
        if vocab_size < 300:
            raise ValueError(
                f"vocabulary of {vocab_size}: SentencePiece needs room for 256 bytes and "
                "some letters; use at least 300, or the byte tokenizer"
            )
        model = io.BytesIO()
        try:
            _library().SentencePieceTrainer.train(
                sentence_iterator=_training_lines(documents),
                model_writer=model,
                vocab_size=vocab_size,
                model_type="bpe",
                byte_fallback=True,
                character_coverage=1.0,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                allow_whitespace_only_pieces=True,
                split_digits=True,
                user_defined_symbols=["\n"],
                unk_id=0,
                eos_id=1,
                bos_id=-1,
                pad_id=-1,
                max_sentence_length=1 << 16,
                hard_vocab_limit=False,
                num_threads=1,  # the result must not depend on the machine
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePiece could not learn {vocab_size} pieces from this text ({error}); "
                "use a smaller --vocab-size or more text"
            ) from None
        return cls(model.getvalue())

    def encode(self, text: bytes | str) -> np.ndarray:
        """Piece ids, int32."""
        text = as_text(text)
        if self._mark is None or _BLANK not in text:
            return np.asarray(self._processor.encode(text), np.int32)
        ids: list[int] = []
        for index, part in enumerate(text.split(_BLANK)):
            ids += (self._mark if index else []) + self._processor.encode(part)
        return np.asarray(ids, np.int32)

    def decode(self, ids) -> bytes:
        """Bytes of the pieces in a row; also right for a part of a character."""
        return b"".join(self._bytes[i] for i in check_ids(ids, self.vocab_size))

    def save(self, folder: str | pathlib.Path) -> None:
        """Write the model into `folder`."""
        (pathlib.Path(folder) / FILE).write_bytes(self._model)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> SentencePieceTokenizer:
        """Read a `.model` file."""
        try:
            return cls(pathlib.Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _piece_bytes(self, index: int) -> bytes:
        processor = self._processor
        if processor.is_control(index) or processor.is_unknown(index):
            return b""
        piece = processor.id_to_piece(index)
        if processor.is_byte(index):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_BLANK, " ").encode("utf-8")


def _training_lines(documents: Iterable[Document]):
    left = TRAINING_BYTES
    for document in documents:
        for part in pieces(document, limit=1 << 15):
            left -= len(part.data)
            if left < 0:
                return
            try:
                yield part.data.decode("utf-8").replace("\0", " ")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{part.name}: byte {part.offset + error.start} is not UTF-8"
                ) from None


def _library():
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            "this tokenizer needs the package sentencepiece: pip install sentencepiece"
        ) from error
    return sentencepiece
