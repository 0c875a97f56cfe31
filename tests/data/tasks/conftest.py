"""Text and stories that the tests of tasks are set in."""

import numpy as np
import pytest

from hope_jax.data import corpus
from hope_jax.data.prepare import prepare
from hope_jax.data.sources import TextSource
from hope_jax.data.tokenizers import make_tokenizer

PEOPLE, PLACES = ("Ann", "Bo", "Cy", "Dee"), ("barn", "mill", "old well", "shed")


@pytest.fixture(scope="session")
def subwords(tmp_path_factory):
    """A play as SentencePiece tokens, every speech a document; its folder."""
    texts, folder = tmp_path_factory.mktemp("texts"), tmp_path_factory.mktemp("subwords") / "sp"
    play = corpus.documents("train")[0]
    for number, speech in enumerate(play.data.split(b"\n\n")):
        (texts / f"{number:04}.txt").write_bytes(speech)
    source = TextSource([texts], validation=0.3)
    tokenizer = make_tokenizer("sentencepiece", vocab_size=500, documents=lambda: [play])
    prepare(folder, source, tokenizer)
    return folder


@pytest.fixture(scope="session")
def stories(tmp_path_factory):
    """Two tasks in the form of bAbI: who is where, and how many went there."""
    folder = tmp_path_factory.mktemp("stories")
    for task, name in ((1, "where"), (7, "counting")):
        for seed, split in enumerate(("train", "test")):
            rng = np.random.default_rng([task, seed])
            text = "".join(_story(rng, counting=task == 7) for _ in range(30))
            (folder / f"qa{task}_{name}_{split}.txt").write_text(text)
    return folder


def _story(rng, counting):
    """Four facts, a question after each two."""
    lines, at = [], {}
    for _ in range(2):
        for _ in range(2):
            person, place = rng.choice(PEOPLE), rng.choice(PLACES)
            lines.append(f"{person} went to the {place}.")
            at[person] = (place, len(lines))
        person = rng.choice(sorted(at))
        place, line = at[person]
        if counting:
            there = [n for p, n in at.values() if p == place]
            numbers = " ".join(map(str, there))
            lines.append(f"How many went to the {place}? \t{len(there)}\t{numbers}")
        else:
            lines.append(f"Where is {person}? \t{place}\t{line}")
    return "".join(f"{n} {line}\n" for n, line in enumerate(lines, start=1))
