"""After training: read, remember, write."""

from hope_jax.inference.generate import Generation, generate
from hope_jax.inference.identity import Fingerprint, fingerprint
from hope_jax.inference.reading import Reading, read
from hope_jax.inference.sampling import Sampling, filter_logits, sample, sampling
from hope_jax.inference.saving import load_state, save_state
from hope_jax.inference.stream import StreamState, fresh
from hope_jax.inference.text import TextStream

__all__ = [
    "Fingerprint",
    "Generation",
    "Reading",
    "Sampling",
    "StreamState",
    "TextStream",
    "filter_logits",
    "fingerprint",
    "fresh",
    "generate",
    "load_state",
    "read",
    "sample",
    "sampling",
    "save_state",
]
