"""Smoothed n-gram models: what counting alone predicts, to set a learnt model beside.

Interpolated Kneser-Ney smoothing with three discounts per order (Chen and Goodman 1999,
Section 3; Kneser and Ney 1995), over token ids of any vocabulary.

>>> text = np.frombuffer(b"the cat sat on the mat; the cat sat on the rat. " * 9, np.uint8)
>>> ngram_loss(text[:300], text[300:], order=3) < ngram_loss(text[:300], text[300:], order=2)
True
"""

from __future__ import annotations

import dataclasses

import numpy as np


def ngram_loss(
    train_ids: np.ndarray, valid_ids: np.ndarray, order: int, vocab_size: int = 256
) -> float:
    """Mean negative log-probability of `valid_ids`, in nats per token.

    Args:
      train_ids: `[tokens]`, the text that is counted.
      valid_ids: `[tokens]`, the text that is predicted, as one stream; its first tokens
        have shorter contexts.
      order: length of the n-gram, e.g. 3 for two tokens of context.
      vocab_size: number of ids that could occur.
    """
    model = NGram.fit(train_ids, order, vocab_size)
    return -float(model.log_probs(valid_ids).mean())


@dataclasses.dataclass(frozen=True)
class _Order:
    """One order: its n-grams, sorted by code = context id * vocabulary + token.

    The id of an n-gram is its place in `codes`; a context is the id of an n-gram of the
    order below.
    """

    codes: np.ndarray  # int64 [grams]
    kept: np.ndarray  # [grams] (count - discount) / total of the context
    backoff: np.ndarray  # [contexts] weight of the order below


@dataclasses.dataclass(frozen=True)
class NGram:
    """A fitted model; make it with `fit`."""

    orders: tuple[_Order, ...]
    vocab_size: int

    @classmethod
    def fit(cls, ids: np.ndarray, order: int, vocab_size: int = 256) -> NGram:
        """Count `ids`, `[tokens]`.

        Raises:
          ValueError: order below 1, no tokens, or ids outside the vocabulary.
        """
        ids = _checked(ids, vocab_size)
        if order < 1:
            raise ValueError(f"order is {order}; use at least 1")
        if ids.size == 0:
            raise ValueError("an n-gram model needs at least one token to count")
        order = min(order, ids.size)
        # grams[i]: id of the n-gram that ends at position i + length - 1
        grams, contexts = None, np.zeros(ids.size, np.int64)
        levels = []
        for length in range(1, order + 1):
            codes, first, longer, counts = np.unique(
                contexts * vocab_size + ids[length - 1 :],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            if length > 1:  # lower orders count the different tokens that came before
                _, previous_codes, size = levels[-1]
                preceded = np.bincount(grams[1:][first], minlength=size)
                preceded[grams[0]] += 1  # at the start of the text: nothing came before
                levels[-1] = (preceded, previous_codes, size)
            levels.append((counts, codes, codes.size))
            grams, contexts = longer, longer[:-1]
        sizes = [1] + [size for _, _, size in levels]
        return cls(
            orders=tuple(
                _smoothed(counts, codes, sizes[level], vocab_size)
                for level, (counts, codes, _) in enumerate(levels)
            ),
            vocab_size=vocab_size,
        )

    def log_probs(self, ids: np.ndarray) -> np.ndarray:
        """Log-probability of every token of `ids` given those before it, `[tokens]`."""
        ids = _checked(ids, self.vocab_size)
        probability = np.full(ids.size, 1 / self.vocab_size)
        context = np.zeros(ids.size, np.int64)  # -1: not seen, or too near to the start
        for level in self.orders:
            gram = _find(level.codes, context, ids, self.vocab_size)
            seen = context >= 0
            mixed = level.backoff[context] * probability
            mixed += np.where(gram >= 0, level.kept[gram], 0.0)
            probability = np.where(seen, mixed, probability)
            context = np.concatenate([[-1], gram[:-1]])
        return np.log(probability)

    def next_token(self, context: np.ndarray) -> np.ndarray:
        """Distribution of the token after `context`, `[vocab_size]`."""
        context = _checked(context, self.vocab_size)[-(len(self.orders) - 1) or len(context) :]
        candidates = np.arange(self.vocab_size)
        texts = [np.append(context, candidate) for candidate in candidates]
        return np.exp([self.log_probs(text)[-1] for text in texts])


def _smoothed(counts: np.ndarray, codes: np.ndarray, contexts: int, vocab_size: int) -> _Order:
    discount = _discounts(counts)[np.minimum(counts, 3)]
    context = codes // vocab_size
    total = np.bincount(context, counts, minlength=contexts)
    spared = np.bincount(context, discount, minlength=contexts)
    # a context that only the end of the text has was never followed by anything
    backoff = np.divide(spared, total, out=np.ones(contexts), where=total > 0)
    return _Order(codes, (counts - discount) / total[context], backoff)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Discounts for counts 0, 1, 2 and more, from how many n-grams occur 1 to 4 times;
    1/2 where the text is too small or too regular to tell."""
    n1, n2, n3, n4 = (float(np.count_nonzero(counts == c)) for c in (1, 2, 3, 4))
    discounts = np.asarray([0.0, 0.5, 0.5, 0.5])
    if min(n1, n2, n3, n4) > 0:
        share = n1 / (n1 + 2 * n2)
        estimate = 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3
        if all(0 < value < count for count, value in enumerate(estimate, start=1)):
            discounts[1:] = estimate
    return discounts


def _find(codes: np.ndarray, context: np.ndarray, ids: np.ndarray, vocab_size: int):
    """Id of the n-gram at every position, -1 where it was never counted."""
    wanted = context * vocab_size + ids
    place = np.minimum(np.searchsorted(codes, wanted), codes.size - 1)
    return np.where((context >= 0) & (codes[place] == wanted), place, -1)


def _checked(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    ids = np.asarray(ids).astype(np.int64).reshape(-1)
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        raise ValueError(
            f"ids reach from {ids.min()} to {ids.max()}, outside a vocabulary of {vocab_size}"
        )
    return ids
