"""An example of a task for the eye."""

from __future__ import annotations

import numpy as np

from hope_jax.data.tasks.task import Example
from hope_jax.data.tokenizers import SymbolTokenizer, Tokenizer

MOST = 60  # symbols of a text, and answers, that are shown
PASSAGE = 200  # tokens of each shown passage of a text that is longer


def shown(
    example: Example, tokenizer: Tokenizer, scores_TW: np.ndarray | None, answers: str
) -> str:
    """The text, what was asked and what was answered.

    Of a long text are shown its beginning, or the passage at the depth of what is asked, and
    of real text its end, where the question is.

    Args:
      example: of the task.
      tokenizer: between ids and symbols or text.
      scores_TW: the model's score of every id after every token; None shows no answers.
      answers: which kind, as `hope_jax.config.tasks.answers_of` says.
    """
    symbols = isinstance(tokenizer, SymbolTokenizer)
    lines = [f"  text:   {(_symbols if symbols else _passages)(example, tokenizer)}"]
    places = np.flatnonzero(example.asked_T)[: MOST if symbols else None]
    lines.append(f"  asked:  {_names(example.targets_T[places], tokenizer, answers)}")
    if scores_TW is not None:
        scores_TW = scores_TW[:, : tokenizer.vocab_size]
        given = np.array([_answer(scores_TW[t], answers) for t in places])
        lines.append(f"  answer: {_names(given, tokenizer, answers)}")
    return "\n".join(lines)


def _symbols(example: Example, tokenizer: Tokenizer) -> str:
    more = " ..." if len(example.inputs_T) > MOST else ""
    return _text(example.inputs_T[:MOST], tokenizer) + more


def _passages(example: Example, tokenizer: Tokenizer) -> str:
    text_T = example.inputs_T
    if len(text_T) <= 3 * PASSAGE:
        return _text(text_T, tokenizer)
    first_asked = int(np.flatnonzero(example.asked_T)[0])
    middle = int((example.depth or 0.0) * first_asked)
    end = first_asked - PASSAGE // 2
    start = min(max(middle - PASSAGE // 2, 0), end)
    stop = min(start + PASSAGE, end)
    passage, ending = _text(text_T[start:stop], tokenizer), _text(text_T[end:], tokenizer)
    return f"{'... ' * (start > 0)}{passage}{' ... ' * (stop < end)}{ending}"


def _text(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    """Ids as one line."""
    return tokenizer.decode(ids).decode(errors="replace").replace("\n", "\\n")


def _answer(scores_W: np.ndarray, answers: str) -> int:
    if answers == "legal":
        return sum(1 << i for i, score in enumerate(scores_W) if score > 0)
    return int(scores_W.argmax())


def _names(answers_N: np.ndarray, tokenizer: Tokenizer, answers: str) -> str:
    if answers != "legal":
        return _text(answers_N, tokenizer)
    sets = [[i for i in range(tokenizer.vocab_size) if answer >> i & 1] for answer in answers_N]
    return " ".join("{" + ",".join(_text([i], tokenizer) for i in ids) + "}" for ids in sets)
