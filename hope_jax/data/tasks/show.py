"""An example of a task for the eye."""

from __future__ import annotations

import numpy as np

from hope_jax.data.tasks.task import Example
from hope_jax.data.tokenizers import Tokenizer

MOST = 60  # tokens of a text, and answers, that are shown


def shown(
    example: Example, tokenizer: Tokenizer, scores_TW: np.ndarray | None, answers: str
) -> str:
    """The text, what was asked and what was answered.

    Args:
      example: of the task.
      tokenizer: between ids and symbols.
      scores_TW: the model's score of every id after every token; None shows no answers.
      answers: which kind, as `hope_jax.config.tasks.answers_of` says.
    """
    text = [tokenizer.decode([i]).decode() for i in example.inputs_T[:MOST]]
    more = " ..." if len(example.inputs_T) > MOST else ""
    lines = [f"  text:   {' '.join(text)}{more}"]
    places = np.flatnonzero(example.asked_T)[:MOST]
    wanted = [_name(example.targets_T[t], tokenizer, answers) for t in places]
    lines.append(f"  asked:  {' '.join(wanted)}")
    if scores_TW is not None:
        given = [_name(_answer(scores_TW[t], answers), tokenizer, answers) for t in places]
        lines.append(f"  answer: {' '.join(given)}")
    return "\n".join(lines)


def _answer(scores_W: np.ndarray, answers: str) -> int:
    if answers == "legal":
        return sum(1 << i for i, score in enumerate(scores_W) if score > 0)
    return int(scores_W.argmax())


def _name(answer: int, tokenizer: Tokenizer, answers: str) -> str:
    if answers != "legal":
        return tokenizer.decode([answer]).decode()
    ids = [i for i in range(tokenizer.vocab_size) if answer >> i & 1]
    return "{" + ",".join(tokenizer.decode([i]).decode() for i in ids) + "}"
