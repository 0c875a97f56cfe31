"""Data: corpus, tokenizers, preparation, and the reader that training uses."""

from hope_jax.data.batches import Batches, BatchIterator, Dataset
from hope_jax.data.loader import open_dataset
from hope_jax.data.prepare import prepare
from hope_jax.data.tasks.dataset import TaskData
from hope_jax.data.tokenizers import ByteTokenizer, Tokenizer, load_tokenizer, make_tokenizer

__all__ = [
    "BatchIterator",
    "Batches",
    "ByteTokenizer",
    "Dataset",
    "TaskData",
    "Tokenizer",
    "load_tokenizer",
    "make_tokenizer",
    "open_dataset",
    "prepare",
]
