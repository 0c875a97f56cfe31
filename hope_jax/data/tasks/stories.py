"""Stories of bAbI (arXiv 1502.05698) as they are published.

A line is a number and a sentence; number 1 begins a new story. A question has three fields
between tabs: its sentence, the answer, and the numbers of the lines that it follows from.
"""

from __future__ import annotations

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with the story so far.

    Attributes:
      facts: sentences before it, in order; earlier questions are left out.
      question: its sentence.
      answer: one word, or several with commas.
      support: which of `facts` the answer follows from.
    """

    facts: tuple[str, ...]
    question: str
    answer: str
    support: tuple[int, ...]


def story_file(folder: pathlib.Path, task: int, split: str) -> pathlib.Path:
    """The file of a task: `split` "train", or "validation", which bAbI calls test.

    Raises:
      ValueError: there is no such file, or there are several.
    """
    pattern = f"qa{task}_*_{'train' if split == 'train' else 'test'}.txt"
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        there = sorted(path.name for path in folder.glob("qa*.txt"))
        raise ValueError(
            f"task.stories: {folder} has {len(found)} files {pattern}, and should have one; it "
            f"has {len(there)} files qa*.txt{': ' + ', '.join(there[:6]) if there else ''}. "
            "Give a folder with the files of bAbI v1.0 or v1.2, such as .../en"
        )
    return found[0]


def read_stories(path: pathlib.Path) -> list[Question]:
    """All questions of a file.

    Raises:
      ValueError: a line is not as it should be, with its number.
    """
    questions: list[Question] = []
    facts: dict[int, int] = {}  # number of a line -> which fact
    story: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8") from None
    for at, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        number, _, rest = line.strip().partition(" ")
        if not number.isdecimal() or not rest:
            raise ValueError(f"{path}, line {at}: {line!r} is not a number and a sentence")
        if number == "1":
            facts, story = {}, []
        sentence, *fields = (field.strip() for field in rest.split("\t"))
        if not fields:
            facts[int(number)] = len(story)
            story.append(sentence)
            continue
        support = fields[1].split() if len(fields) == 2 else []
        if not support or not fields[0] or not all(n.isdecimal() for n in support):
            raise ValueError(
                f"{path}, line {at}: {line!r} is not a question, its answer and the numbers of "
                "lines that it follows from, between tabs"
            )
        strange = [n for n in support if int(n) not in facts]
        if strange:
            raise ValueError(f"{path}, line {at}: this story has no fact {strange[0]} so far")
        places = tuple(facts[int(n)] for n in support)
        questions.append(Question(tuple(story), sentence, fields[0], places))
    return questions
