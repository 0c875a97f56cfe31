"""Tokenizers as GGUF files describe them: tokens, and merges or scores."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from hope_jax.data import Tokenizer
from hope_jax.data.tokenizers.hugging_face import HuggingFaceTokenizer, with_ends
from hope_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer

Field = Callable[..., Any]  # `(name, default)` to the value of a field

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # kinds of tokens

# How byte-level vocabularies cut a text before they merge, by the name that files give it.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS = {
    "gpt-2": None,  # the pattern that is built into the library
    "default": None,
    "smollm": None,  # after cutting digits apart
    "qwen2": rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}",
    "llama-bpe": rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",
}


def tokenizer_of(field: Field, source: str) -> Tokenizer:
    """The tokenizer that fields `tokenizer.ggml.*` describe.

    Args:
      field: gives their values.
      source: where they are from, for messages.

    Raises:
      ValueError: a kind of tokenizer that is not known here.
    """
    kind = field("tokenizer.ggml.model")
    if kind == "gpt2":
        return _byte_level(field, source)
    if kind == "llama":
        return _sentence_piece(field)
    raise ValueError(
        f"{source} has a tokenizer of kind {kind!r}; what can be read are gpt2 (byte-level "
        "merges) and llama (SentencePiece)"
    )


def _byte_level(field: Field, source: str) -> Tokenizer:
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    cut = field("tokenizer.ggml.pre", "default")
    if cut not in _CUTS:
        raise ValueError(
            f"{source} cuts text in the way of {cut!r}, which is not known here; convert the "
            "model's folder in the layout of Hugging Face, which brings its tokenizer"
        )
    tokens = field("tokenizer.ggml.tokens")
    kinds = field("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    merges = [tuple(merge.split(" ", 1)) for merge in field("tokenizer.ggml.merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=cut == "llama-bpe")
    tokenizer = tokenizers.Tokenizer(model)
    pattern = _CUTS[cut]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    steps = [byte_level]
    if pattern is not None:
        steps.insert(0, pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"))
    if cut == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    if cut == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens(special)
    added = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _USER_DEFINED]
    tokenizer.add_tokens(added)
    begin_id = field("tokenizer.ggml.bos_token_id", None)
    if not field("tokenizer.ggml.add_bos_token", cut == "llama-bpe"):
        begin_id = None
    end_id = field("tokenizer.ggml.eos_token_id", None)
    return HuggingFaceTokenizer(with_ends(tokenizer.to_str().encode("utf-8"), begin_id, end_id))


def _sentence_piece(field: Field) -> Tokenizer:
    """A SentencePiece model with these pieces, which the library then runs itself."""
    tokens = field("tokenizer.ggml.tokens")
    scores = field("tokenizer.ggml.scores")
    kinds = field("tokenizer.ggml.token_type")
    pieces = [
        _message({1: token, 2: float(score), 3: kind})
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
    ]
    trainer = {_MODEL_TYPE: _BPE, _VOCAB_SIZE: len(tokens), _BYTE_FALLBACK: _BYTE in kinds}
    for name, (number_at, piece_at) in _SPECIAL.items():
        number = field(f"tokenizer.ggml.{name}_token_id", -1)
        if name == "bos" and not field("tokenizer.ggml.add_bos_token", True):
            number = -1
        trainer[number_at] = number
        if number >= 0:
            trainer[piece_at] = tokens[number]
    normalizer = {
        1: "identity",
        3: field("tokenizer.ggml.add_space_prefix", True),
        4: False,  # blanks in a row stay
        5: True,  # blanks are written as U+2581
    }
    model = _message({1: pieces, 2: _message(trainer), 3: _message(normalizer)})
    return SentencePieceTokenizer(model)


# Numbers of the fields of SentencePiece's TrainerSpec; of special tokens those of the id and
# the piece.
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK = 3, 4, 35
_SPECIAL = {"unknown": (40, 45), "bos": (41, 46), "eos": (42, 47), "padding": (43, 48)}
_BPE = 2


def _message(fields: dict[int, Any]) -> bytes:
    """A protocol buffer: the classes that the library ships need one version of protobuf.

    >>> _message({1: "ab", 3: 150}).hex()
    '0a026162189601'
    """
    parts = []
    for number, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, float):
                parts += [_varint(number << 3 | 5), struct.pack("<f", value)]
            elif isinstance(value, (str, bytes)):
                data = value.encode("utf-8") if isinstance(value, str) else value
                parts += [_varint(number << 3 | 2), _varint(len(data)), data]
            else:
                parts += [_varint(number << 3), _varint(int(value))]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # negative numbers as two's complement
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
