"""Tokenizers behind one protocol: bytes, SentencePiece, Hugging Face `tokenizer.json`."""

from hope_jax.data.tokenizers.byte import ByteTokenizer
from hope_jax.data.tokenizers.make import load_tokenizer, make_tokenizer, tokenizer_files
from hope_jax.data.tokenizers.protocol import Tokenizer
from hope_jax.data.tokenizers.symbols import SymbolTokenizer

__all__ = [
    "ByteTokenizer",
    "SymbolTokenizer",
    "Tokenizer",
    "load_tokenizer",
    "make_tokenizer",
    "tokenizer_files",
]
