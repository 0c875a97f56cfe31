"""CLINC150 and Banking77 as they are published, and the tasks that their classes come in.

CLINC150 (Larson et al. 2019, CC BY 3.0): `data_full.json` and `domains.json` of the folder
`data` of https://github.com/clinc/oos-eval. Ten tasks: its domains of 15 intents.
Banking77 (Casanueva et al. 2020, CC BY 4.0): `train.csv` and `test.csv` of the folder
`banking_data` of https://github.com/PolyAI-LDN/task-specific-datasets. Eleven tasks of 7
intents, drawn by the seed.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import published

FILES = {
    "clinc150": ("data_full.json", "domains.json"),
    "banking77": ("train.csv", "test.csv"),
}
PUBLISHED = {
    "clinc150": "https://github.com/clinc/oos-eval/tree/master/data",
    "banking77": "https://github.com/PolyAI-LDN/task-specific-datasets/tree/master/banking_data",
}
BANKING_TASKS = 11
# Banking77 has no validation split: the last examples of each class are kept for it.
HELD_OUT = 10

Texts = dict[str, list[str]]  # by class


@dataclasses.dataclass(frozen=True)
class Example:
    """An utterance and the class that it belongs to."""

    text: str
    intent: str


@dataclasses.dataclass(frozen=True)
class Pool:
    """A dataset: texts by class, and which classes come together (None: any)."""

    dataset: str
    train: Texts
    validation: Texts
    test: Texts
    domains: tuple[tuple[str, ...], ...] | None = None

    @property
    def intents(self) -> list[str]:
        """All classes, in alphabetical order."""
        return sorted(self.train)


@dataclasses.dataclass(frozen=True)
class Task:
    """Classes that come together: what is learned, and what is asked from then on."""

    intents: tuple[str, ...]
    examples: list[Example]
    queries: list[Example]


def read(folder: Path, dataset: str) -> Pool:
    """Read a dataset; test and validation texts that are also in training are left out.

    Raises:
      ValueError: `dataset` is not known.
      FileNotFoundError: a file is missing; says which, and where it is published.
    """
    if dataset not in FILES:
        raise ValueError(f"dataset {dataset!r}; give one of {', '.join(FILES)}")
    published.require(dataset, folder, FILES[dataset], PUBLISHED[dataset])
    pool = _clinc(folder) if dataset == "clinc150" else _banking(folder)
    known = {_plain(text) for texts in pool.train.values() for text in texts}
    unseen = lambda texts: {
        intent: [text for text in found if _plain(text) not in known]
        for intent, found in texts.items()
    }
    return dataclasses.replace(pool, validation=unseen(pool.validation), test=unseen(pool.test))


def tasks(
    pool: Pool, seed: int, per_class: int, queries: int, split: str = "test"
) -> list[Task]:
    """The tasks of a seed, which draws their order, the examples and the queries.

    Args:
      pool: the dataset.
      seed: of everything that is drawn.
      per_class: training examples of each class.
      queries: of each class; all where a class has fewer.
      split: "test" or "validation", where the queries come from.

    Raises:
      ValueError: a class has too few training examples.
    """
    rng = np.random.default_rng(seed)
    if pool.domains is None:
        parts = np.array_split(rng.permutation(pool.intents), BANKING_TASKS)
        groups = [tuple(map(str, part)) for part in parts]
    else:
        groups = [pool.domains[i] for i in rng.permutation(len(pool.domains))]
    few = min(pool.train, key=lambda intent: len(pool.train[intent]))
    if len(pool.train[few]) < per_class:
        raise ValueError(
            f"{per_class} examples per class: {pool.dataset} has {len(pool.train[few])} of "
            f"{few!r}; use at most so many"
        )
    asked = getattr(pool, split)
    found = []
    for group in groups:
        examples = [e for c in group for e in _draw(pool.train, c, per_class, rng)]
        rng.shuffle(examples)
        wanted = [e for c in group for e in _draw(asked, c, queries, rng)]
        found.append(Task(group, examples, wanted))
    return found


def _draw(texts: Texts, intent: str, count: int, rng: np.random.Generator) -> list[Example]:
    chosen = rng.permutation(len(texts[intent]))[:count]
    return [Example(texts[intent][i], intent) for i in chosen]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _by_intent(pairs) -> Texts:
    found: Texts = collections.defaultdict(list)
    for text, intent in pairs:
        found[intent].append(text)
    return dict(found)


def _clinc(folder: Path) -> Pool:
    data = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
    splits = {"train": "train", "validation": "val", "test": "test"}
    texts = {name: _by_intent(data[key]) for name, key in splits.items()}
    return Pool("clinc150", domains=tuple(map(tuple, domains.values())), **texts)


def _banking(folder: Path) -> Pool:
    def rows(name):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return [(row["text"], row["category"]) for row in csv.DictReader(file)]

    train, test = _by_intent(rows("train.csv")), _by_intent(rows("test.csv"))
    return Pool(
        "banking77",
        {intent: texts[:-HELD_OUT] for intent, texts in train.items()},
        {intent: texts[-HELD_OUT:] for intent, texts in train.items()},
        test,
    )
