"""bAbI stories hidden in books (arXiv 2406.10149)."""

from __future__ import annotations

import hashlib
import pathlib

import numpy as np

from hope_jax.config.check import require
from hope_jax.config.paths import local_path
from hope_jax.config.tasks import BabilongConfig
from hope_jax.data.prepared import PreparedSplit
from hope_jax.data.tasks.hay import Gaps, TextHay, depth_of, hide
from hope_jax.data.tasks.stories import Question, read_stories, story_file
from hope_jax.data.tasks.task import Example, text_example


class Babilong:
    """The facts of a story as lines of a long text, in their order, and a question at its end.

    The text, with question and answer, has exactly `length` tokens: the haystack is cut to
    fill what the rest leaves. The depth of an example is that of the earliest fact that its
    answer follows from: how far back a model has to remember.
    """

    chance = None

    def __init__(self, config: BabilongConfig, length: int, text: PreparedSplit):
        require(
            config.stories is not None,
            "task.stories is not set; give a folder with the files of bAbI v1.0 or v1.2",
        )
        self.tokenizer, self._length = text.tokenizer, length
        self._ids: dict[str, np.ndarray] = {}  # sentences come many times
        self._questions: list[list[Question]] = []
        digest = hashlib.sha256(text.info.sha256.encode())
        for number in config.tasks:
            path = story_file(local_path(config.stories, "task.stories"), number, text.split)
            digest.update(path.read_bytes())
            self._questions.append(self._fitting(read_stories(path), config, path))
        self.source = digest.hexdigest()
        self._hay, self._gaps = TextHay(text, length), Gaps(text.tokenizer)

    def example(self, rng: np.random.Generator) -> Example:
        """Draw a task, a question, a haystack, and where the facts are in it."""
        questions = self._questions[rng.integers(len(self._questions))]
        asked = questions[rng.integers(len(questions))]
        facts, question, answer = self._parts(asked)
        count = self._length - sum(map(len, (*facts, question, answer)))
        hay_T = self._hay.draw(rng, count)
        places = self._gaps.draw(rng, hay_T, len(facts))
        text_T = np.concatenate([hide(hay_T, facts, places), question, answer])
        depth = depth_of(int(places[min(asked.support)]), hay_T)
        return text_example(text_T, len(answer), depth)

    def _fitting(
        self, questions: list[Question], config: BabilongConfig, path: pathlib.Path
    ) -> list[Question]:
        most = config.facts
        kept = [q for q in questions if most is None or len(q.facts) <= most]
        require(
            bool(kept),
            f"{path} has no question after at most {most} facts; raise task.facts",
        )
        longest = max(
            sum(len(f) for f in facts) + len(q) + len(a)
            for facts, q, a in map(self._parts, kept)
        )
        require(
            self._length >= longest,
            f"data.length is {self._length}, and the longest story of {path} needs {longest} "
            "tokens; use a longer data.length, or task.facts to leave out long stories",
        )
        return kept

    def _parts(self, asked: Question):
        """Token ids of the facts, one array each, of the question, and of the answer."""
        facts = [self._encoded(f"\n{fact}\n") for fact in asked.facts]
        answer = self._encoded(f" {asked.answer}"), self._encoded(".")
        return facts, self._encoded(f"\n{asked.question}"), np.concatenate(answer)

    def _encoded(self, sentence: str) -> np.ndarray:
        if sentence not in self._ids:
            self._ids[sentence] = self.tokenizer.encode(sentence)
        return self._ids[sentence]
