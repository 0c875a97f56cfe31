"""A new language, then another: the languages, and a whole run of a tiny model."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

pytest.importorskip("sacrebleu")
from languages import corpus, report, run
from languages.asking import ask
from languages.cipher import Cipher

from hope_jax.checkpoint.load import Loaded
from hope_jax.config import AttentionConfig, ModelConfig, TrainConfig
from hope_jax.data import ByteTokenizer
from hope_jax.models import LanguageModel, init_params
from hope_jax.streams import Stream

NAMES = ["Ana", "Bo", "Cem", "Dina", "Edo", "Fay", "Gil", "Hana", "Ivo", "Jun"]
VERBS = {"tok": "sees", "mar": "hears", "pil": "knows", "gus": "calls"}


def write(path, fields, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The form of Dictionaria, with a row whose translations are swapped, and one twice."""
    folder = tmp_path_factory.mktemp("cldf")
    sentences = [
        (f"{a} {b} {verb}.", f"{a} {meaning} {b}.")
        for a in NAMES
        for b in NAMES
        for verb, meaning in VERBS.items()
        if a != b
    ]
    sentences += [sentences[0], ("Ana sandal nunggi.", "Ana kasih sandal dengan teman.")]
    write(
        folder / "examples.csv",
        ["Primary_Text", "Translated_Text"],
        [{"Primary_Text": f, "Translated_Text": e} for f, e in sentences],
    )
    write(
        folder / "entries.csv",
        ["ID", "Headword"],
        [{"ID": verb, "Headword": verb} for verb in (*VERBS, "unknown")],
    )
    write(
        folder / "senses.csv",
        ["Entry_ID", "Description"],
        [{"Entry_ID": verb, "Description": f"to {VERBS[verb]}"} for verb in VERBS],
    )
    return folder


@pytest.fixture(scope="module")
def base():
    config = TrainConfig(
        model=ModelConfig(vocab_size=256, dim=16, depth=2, mixer=AttentionConfig(heads=2))
    )
    params = init_params(config.model, jax.random.key(0))
    return Loaded(
        config, LanguageModel(config.model), params, ByteTokenizer(), 0, {}, Path("nowhere")
    )


WORDS = st.text("abcdefgh", min_size=1, max_size=8)


@given(st.lists(WORDS, max_size=60, unique=True), st.integers(0, 99))
def test_every_word_has_a_word_of_its_own(words, seed):
    cipher = Cipher(seed)
    made = [cipher.word(word) for word in words]
    assert len(set(made)) == len(words)
    assert [cipher.word(word.upper()) for word in words] == made
    again = Cipher(seed)
    assert [again.word(word) for word in words] == made


def test_sentences_keep_order_signs_and_capitals():
    cipher = Cipher(3)
    dog, sleeps, doesnt = (cipher.word(w) for w in ("dog", "sleeps", "doesn't"))
    assert cipher.sentence("Dog, dog doesn't sleeps!") == (
        f"{dog.capitalize()}, {dog} {doesnt} {sleeps}!"
    )
    assert Cipher(4).sentence("Dog, dog doesn't sleeps!") != cipher.sentence(
        "Dog, dog doesn't sleeps!"
    )


def test_what_is_doubtful_or_there_twice_is_left_out(folder):
    source = corpus.read(folder)
    assert len(source.sentences) == len(NAMES) * (len(NAMES) - 1) * len(VERBS)
    assert not any("kasih" in pair.english for pair in source.sentences)
    assert [entry.english for entry in source.entries] == [f"to {v}" for v in VERBS.values()]


@pytest.mark.parametrize("make", run.MAKE)
def test_languages_ask_what_they_do_not_let_read(folder, make):
    source = corpus.read(folder)
    language = make(source, 0, entries=3, sentences=50, asked=20)
    assert (len(language.entries), len(language.sentences), len(language.asked)) == (3, 50, 20)
    sentences = [*language.sentences, *language.asked, *language.shown]
    assert len({pair.foreign for pair in sentences}) == len(sentences)
    text = "".join(language.pages(40))
    assert text == "".join(map(language.line, [*language.entries, *language.sentences]))
    assert all(language.question(pair) not in text for pair in language.asked)
    assert make(source, 0, 3, 50, 20) == language != make(source, 1, 3, 50, 20)


def test_the_languages_share_no_sentence_and_meanings_are_right(folder):
    source = corpus.read(folder)
    one, two = (make(source, 0, 8, 100, 50) for make in run.MAKE)
    english = lambda of: {p.english for p in (*of.sentences, *of.asked, *of.shown)}
    assert not english(one) & english(two)
    cipher = Cipher(0)
    for pair in two.sentences:
        cipher.sentence(pair.english)
    meanings = {entry.english: entry.foreign for entry in two.entries}
    sentence = next(p for p in two.sentences if p.english.split()[1] in meanings)
    verb = sentence.english.split()[1]
    assert meanings[verb] in sentence.foreign.lower()


def test_mistakes_are_told(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="entries.csv.*published at"):
        corpus.read(tmp_path)
    with pytest.raises(ValueError, match="there are 180 of Kalamang: ask for fewer"):
        corpus.kalamang(corpus.read(folder), 0, 5, 170, 20)
    with pytest.raises(ValueError, match="holds no finished run"):
        report.report(tmp_path, tmp_path)


@pytest.mark.slow
def test_asking_changes_nothing_and_finds_the_loss_of_plain_reading(folder, base):
    language = corpus.kalamang(corpus.read(folder), 0, 2, 8, 2)
    stream = Stream.open(base, levels=(64,), lr=1e-2, blocks=2)
    known = ask(stream, language)
    assert stream.tokens_read == 0 and stream.diff()[64].total == 0
    assert len(known.translations) == 2 and 0 <= known.chrf <= 100
    losses = []
    for pair in language.asked:
        plain = Stream.open(base, levels=())
        plain.read(language.lesson() + language.question(pair))
        plain.read(f" {pair.english}\n")
        losses += list(plain.surprise().loss_T)
    assert known.loss == pytest.approx(sum(losses) / len(losses), rel=1e-3)


def test_pages_in_the_context_are_the_last_that_fit(base):
    stream = Stream.open(base, levels=())
    pages = ["a" * 30, "b" * 20, "c" * 10]
    assert run.with_pages(stream, pages, 35).tokens_read == 30
    assert run.with_pages(stream, pages, 5).tokens_read == 0
    assert stream.tokens_read == 0


@pytest.mark.slow
def test_read_both_ask_after_each_go_on_and_report(folder, base, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "LEVELS", {0: (), 2: (16, 64)})
    how = run.How(entries=2, sentences=6, asked=2, passes=2, lr=3e-2, blocks=2, window=200)
    for levels in (0, 2):
        run.run(base, folder, levels, 0, how, tmp_path / f"runs/levels_{levels}-seed_0.json")
    file = tmp_path / "runs/levels_2-seed_0.json"
    found = json.loads(file.read_text())
    known = lambda after, of: report.measured(found, after, of, "empty")["loss"]
    assert known("Kalamang", "Kalamang") < known(None, "Kalamang") - 0.05
    assert list(found["after"]["Velish"]["asked"]) == ["Kalamang", "Velish"]

    second = found["after"].pop("Velish")  # as if it had been stopped there
    file.write_text(json.dumps(found))
    run.run(base, folder, 2, 0, how, file)
    again = json.loads(file.read_text())["after"]["Velish"]
    assert again["asked"]["Kalamang"] == second["asked"]["Kalamang"]

    with pytest.raises(ValueError, match="give another --out"):
        run.run(base, folder, 2, 0, dataclasses.replace(how, lr=0.1), file)
    page = report.report(tmp_path / "runs", tmp_path / "out")
    assert "Kalamang, after Velish" in page and (tmp_path / "out/chrf.png").stat().st_size
