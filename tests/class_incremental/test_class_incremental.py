"""Class-incremental learning: the protocol, the arms' arithmetic, and a whole tiny run."""

import dataclasses
import doctest
import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))

from class_incremental import arms, fisher, report, run, trials, tuning_page
from class_incremental import measure as measure_module
from class_incremental.classes import Example, Pool, Task, read, tasks
from class_incremental.coding import Coder, label_ids
from class_incremental.fisher import fisher_of, hold, nothing_held, penalty
from class_incremental.learners import Levels, Settings
from class_incremental.measure import ask, forgetting_of, measure
from class_incremental.model import scores

from hope_jax.checkpoint.load import Loaded
from hope_jax.config import AttentionConfig, InContextConfig, ModelConfig, TrainConfig
from hope_jax.data import corpus
from hope_jax.data.documents import Document
from hope_jax.data.tokenizers.sentence_piece import SentencePieceTokenizer
from hope_jax.models import LanguageModel, init_params
from hope_jax.streams import NO_LIMITS, Stream

INTENTS = ["alarm", "balance", "card", "deposit", "exchange", "fees"]


def texts(split: str, count: int) -> dict[str, list[str]]:
    return {c: [f"{split} {n} about my {c}" for n in range(count)] for c in INTENTS}


@pytest.fixture(scope="module")
def pool():
    domains = tuple(tuple(INTENTS[i : i + 2]) for i in (0, 2, 4))
    return Pool("clinc150", texts("learn", 5), texts("try", 2), texts("ask", 3), domains)


@pytest.fixture(scope="module")
def base():
    some = Document("play", next(iter(corpus.documents("train"))).data[:60_000])
    tokenizer = SentencePieceTokenizer.train([some], 500)
    config = TrainConfig(
        model=ModelConfig(
            vocab_size=tokenizer.vocab_size, dim=16, depth=2, mixer=AttentionConfig(heads=2)
        )
    )
    params = init_params(config.model, jax.random.key(0))
    model = LanguageModel(config.model)
    return Loaded(config, model, params, tokenizer, 0, {}, Path("nowhere"))


@pytest.fixture(scope="module")
def coder(base, pool):
    return Coder(base.tokenizer, label_ids(base.tokenizer, pool))


@pytest.mark.parametrize("module", [fisher, measure_module, tuning_page])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_tasks_hold_every_class_once_and_their_order_is_the_seeds(pool):
    found = tasks(pool, 0, per_class=4, queries=2)
    assert sorted(c for task in found for c in task.intents) == INTENTS
    assert {task.intents for task in found} == set(pool.domains)
    for task in found:
        assert sorted(e.intent for e in task.examples) == sorted(4 * task.intents)
        assert {q.intent for q in task.queries} == set(task.intents)
    orders = {tuple(task.intents for task in tasks(pool, seed, 4, 2)) for seed in range(20)}
    assert len(orders) > 3
    assert tasks(pool, 7, 4, 2) == tasks(pool, 7, 4, 2)


def test_classes_without_domains_are_dealt_to_eleven_tasks():
    many = {f"class {n}": ["one", "two"] for n in range(77)}
    found = tasks(Pool("banking77", many, many, many), 3, per_class=1, queries=1)
    assert [len(task.intents) for task in found] == [7] * 11
    assert len({c for task in found for c in task.intents}) == 77


def test_too_many_examples_are_refused(pool):
    with pytest.raises(ValueError, match=r"6 examples per class: clinc150 has 5 of 'alarm'"):
        tasks(pool, 0, per_class=6, queries=1)


def test_no_query_is_in_training(tmp_path):
    data = {
        "train": [["call me", "phone"], ["pay it", "bill"]],
        "val": [["PAY  it", "bill"], ["ring", "phone"], ["pay", "bill"]],
        "test": [["Call me", "phone"], ["call him", "phone"], ["pay now", "bill"]],
    }
    (tmp_path / "data_full.json").write_text(json.dumps(data))
    (tmp_path / "domains.json").write_text(json.dumps({"all": ["phone", "bill"]}))
    found = read(tmp_path, "clinc150")
    assert found.test == {"phone": ["call him"], "bill": ["pay now"]}
    assert found.validation == {"phone": ["ring"], "bill": ["pay"]}


def test_banking_holds_out_examples_for_validation(tmp_path):
    rows = [f"pay {n},fees" for n in range(12)] + [f"card {n},card" for n in range(11)]
    (tmp_path / "train.csv").write_text("\n".join(["text,category", *rows]))
    (tmp_path / "test.csv").write_text('text,category\n"pay, now",fees\ncard?,card\n')
    found = read(tmp_path, "banking77")
    assert found.train == {"fees": ["pay 0", "pay 1"], "card": ["card 0"]}
    assert len(found.validation["fees"]) == 10 and found.test["fees"] == ["pay, now"]


def test_missing_files_are_named_with_where_they_are_published(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train.csv and test.csv in .*PolyAI-LDN"):
        read(tmp_path, "banking77")


def test_a_class_is_one_token_of_its_own(base, pool, coder):
    ids = list(coder.labels.values())
    assert len(set(ids)) == len(INTENTS) and set(coder.labels) == set(INTENTS)
    for i in ids:
        word = base.tokenizer.decode([i])
        assert list(base.tokenizer.encode(word)) == [i]
    example = Example("learn 0 about my fees", "fees")
    tokens = coder.example(example)
    assert base.tokenizer.decode(tokens[:-1]) == b"\n learn 0 about my fees =>"
    assert tokens[-1] == coder.labels["fees"]


def test_a_vocabulary_without_words_is_refused(pool):
    class Letters:
        vocab_size = 256

        def encode(self, text):
            return np.frombuffer(text.encode(), np.uint8)

        def decode(self, ids):
            return bytes(ids)

    with pytest.raises(ValueError, match=r"has 0 whole words and clinc150 6 classes"):
        label_ids(Letters(), pool)


def test_prompts_end_at_the_arrow_and_rows_hold_whole_examples(coder):
    examples = [Example("a fee", "fees"), Example("how many fees are there, please", "fees")]
    batch = coder.batch(examples)
    assert batch.ids_NT.shape[1] % 8 == 0
    for row, last in zip(batch.ids_NT, batch.last_N, strict=True):
        assert row[last] == coder.arrow and (row[last + 1 :] == row[0]).all()
    long = coder.prompt("a very " * 50)
    assert len(long) == coder.longest and long[-1] == coder.arrow
    rows = list(coder.rows(examples * 3, 64))
    assert all(len(row) == 64 and row[-1] == row[0] for row in rows)
    answered = [np.flatnonzero(row == coder.arrow) for row in rows]
    assert sum(map(len, answered)) == 6
    for row, places in zip(rows, answered, strict=True):
        assert (row[places + 1] == coder.labels["fees"]).all()


class Fixed:
    """A learner that answers from a list."""

    def __init__(self, labels, given):
        self.labels, self.given, self.met = labels, given, 0

    def learn(self, task):
        self.met += 1

    def answer(self, queries):
        return np.array([self.labels[c] for c in self.given[self.met - 1]])

    def measured(self, number, count):
        return number > 1 or not self.given[0] == ()


def test_accuracy_and_forgetting_by_hand(coder):
    first = Task(("alarm",), [], [Example("a", "alarm"), Example("b", "alarm")])
    second = Task(("card",), [], [Example("c", "card"), Example("d", "card")])
    given = [("alarm", "alarm"), ("alarm", "card", "card", "card")]
    found = measure(Fixed(coder.labels, given), [first, second], coder, 2)
    assert found["accuracy"] == [1.0, 0.75] and found["matrix"] == [[1.0], [0.5, 1.0]]
    assert found["forgetting"] == 0.5 and found["final"] == 0.75
    assert found["average"] == 0.875 and found["queries"] == 4
    unasked = measure(Fixed(coder.labels, [(), given[1]]), [first, second], coder, 2)
    assert unasked["accuracy"] == [None, 0.75] and unasked["forgetting"] is None


def test_forgetting_counts_from_the_best():
    assert forgetting_of([[0.5], [0.75, 1.0], [0.25, 0.5, 1.0]]) == 0.5
    assert forgetting_of([[1.0]]) is None


def test_the_penalty_is_the_sum_of_the_terms_of_all_tasks():
    one, two, here = ({"w": jnp.array(x)} for x in ([1.0, 2.0], [3.0, 0.0], [5.0, 1.0]))
    fishers = {"w": jnp.array([2.0, 0.0])}, {"w": jnp.array([1.0, 4.0])}
    held = hold(hold(nothing_held(one), fishers[0], one), fishers[1], two)
    sum_of_terms = lambda w: sum(
        0.5 * 0.1 * (f["w"] * (w["w"] - at["w"]) ** 2).sum()
        for f, at in zip(fishers, (one, two), strict=True)
    )
    got = jax.grad(lambda w: penalty(held, w, 0.1))(here)["w"]
    # 0.1 (2 (5 - 1) + 1 (5 - 3)) and 0.1 * 4 (1 - 0)
    np.testing.assert_allclose(got, [1.0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(got, jax.grad(sum_of_terms)(here)["w"], rtol=1e-6)
    there = {"w": jnp.array([0.0, 2.0])}
    np.testing.assert_allclose(
        penalty(held, here, 0.1) - penalty(held, there, 0.1),
        sum_of_terms(here) - sum_of_terms(there),
        rtol=1e-5,
    )


def test_the_fisher_is_the_mean_square_of_the_gradients_of_single_examples(base, coder):
    batch = coder.batch([Example("my card", "card"), Example("a long wait for fees", "fees")])
    found = fisher_of(base.config.model, base.params, [batch])["final_norm"]["scale"]

    def log_probability(params, i):
        ids_NT, last_N, label_N = map(jnp.asarray, dataclasses.astuple(batch))
        row = scores(base.config.model, params, ids_NT[i][None], last_N[i][None])
        return jax.nn.log_softmax(row[0])[label_N[i]]

    gradient = jax.jit(jax.grad(log_probability))
    grads = [gradient(base.params, i)["final_norm"]["scale"] for i in range(2)]
    np.testing.assert_allclose(found, (grads[0] ** 2 + grads[1] ** 2) / 2, rtol=1e-3)


@pytest.mark.slow
def test_levels_learn_what_a_stream_learns(base, pool, coder):
    settings = Settings(chunks=(64, 128), blocks=2, lr=0.5)
    task = tasks(pool, 0, 5, 1)[0]
    task = dataclasses.replace(task, examples=task.examples * 3)
    learner = Levels(base, coder, settings, 0)
    learner.learn(task)
    stream = Stream.open(
        base, levels=(64, 128), blocks=2, lr=0.5, stack="interleaved", limits=NO_LIMITS
    )
    rows = list(coder.rows(task.examples, 256))
    assert len(rows) > 1
    for row_T in rows:
        stream.read_ids(row_T)
        stream.forget_context()
    ids = np.array(coder.prompt("where is my card"), np.int32)
    stream.read_ids(ids, learn=False)
    got = scores(learner.config, learner.params, ids[None], np.array([len(ids) - 1]))
    np.testing.assert_allclose(got, stream.state.logits_BW, atol=1e-5)
    before = scores(learner.config, base.params, ids[None], np.array([len(ids) - 1]))
    assert np.abs(got - before).max() > 1e-3


def test_levels_that_learn_from_labels_see_no_other_token(base, coder):
    row_T = next(coder.rows([Example("my card", "card")] * 9, 256))
    settings = Settings(chunks=(64,), blocks=1, learns_from="label", lr=0.5)

    def learned(row_T):
        learner = Levels(base, coder, settings, 0)
        learner.coder = Rows(row_T, coder)
        learner.learn(Task(("card",), [], []))
        return learner.params["blocks"]["cms"]["period_1"]["w_out"]

    class Rows:
        def __init__(self, row_T, coder):
            self.row_T, self.labels, self.arrow = row_T, coder.labels, coder.arrow

        def rows(self, examples, length):
            return [self.row_T]

    found = learned(row_T)
    after = np.flatnonzero(row_T == coder.arrow)[-1]  # of what follows it only its class counts
    other = row_T.copy()
    other[after + 2 :] = 7
    np.testing.assert_allclose(learned(other), found, atol=1e-7)
    other[after + 1] = 7
    assert np.abs(np.asarray(learned(other) - found)).max() > 1e-6


def test_a_query_is_answered_with_a_class_that_was_seen(base, pool, coder):
    found = tasks(pool, 0, 2, 1)
    learner = arms.ARMS["in_context"].learner(base, coder, Settings(), 0)
    learner.learn(found[0])
    right = ask(learner, found[:2], coder)
    assert [len(one) for one in right] == [2, 2] and not right[1].any()


def test_a_finished_run_is_skipped_and_other_settings_are_refused(
    base, pool, tmp_path, monkeypatch, capsys
):
    made = []

    def counted(*args, **kwargs):
        made.append(args)
        return {
            "final": 0.5,
            "settings": dataclasses.asdict(arms.ARMS["fine_tuned"].settings),
            "per_class": 15,
            "queries_per_class": 4,
        }

    monkeypatch.setattr(run, "run", counted)
    args = ["--data", ".", "--base", ".", "--dataset", "clinc150", "--arm", "fine_tuned"]
    args = run.parser().parse_args([*args, "--out", str(tmp_path)])
    for _ in range(2):
        run.measure_once(base, pool, "fine_tuned", 0, args)
    assert len(made) == 1 and "measured before" in capsys.readouterr().out
    longer = dataclasses.replace(base, step=base.step + 1)
    with pytest.raises(ValueError, match="or another base"):
        run.measure_once(longer, pool, "fine_tuned", 0, args)
    args.per_class = 3
    with pytest.raises(ValueError, match="measured with other settings"):
        run.measure_once(base, pool, "fine_tuned", 0, args)


def test_every_arm_is_set_to_something_that_fits_the_base():
    for name, arm in arms.ARMS.items():
        for values in itertools.product(*arm.tried.values()):
            tried = dict(zip(arm.tried, values, strict=True))
            settings = dataclasses.replace(arm.settings, **tried)
            assert arm.help and settings.lr, name
            if settings.chunks:
                InContextConfig(
                    settings.chunks, settings.blocks, lr=settings.lr, stack="interleaved"
                )


@pytest.fixture
def tune(base, monkeypatch, tmp_path):
    """Tunes fine_tuned with accuracies that are made up; gives how many trials it took."""
    made = []

    def stub(base, pool, arm, settings, seed, per_class, queries, split, first):
        made.append((pool, settings.lr, per_class, first))
        # what is right depends on the dataset and the examples
        final = settings.lr if pool == "banking77" or per_class > 15 else 1 - settings.lr
        return {
            "arm": arm,
            "settings": dataclasses.asdict(settings),
            "classes": [7] * first,
            "final": final,
        }

    monkeypatch.setattr(run, "run", stub)

    def tune(dataset, per_class, first, base=base):
        before = len(made)
        args = ["--data", ".", "--base", ".", "--dataset", dataset, "--arm", "fine_tuned"]
        args += ["--out", str(tmp_path), "--per-class", f"{per_class}", "--first", f"{first}"]
        run.tune(base, dataset, "fine_tuned", run.parser().parse_args(args))
        return len(made) - before

    return tune


def rate_of(base, out, dataset, per_class):
    return trials.best(out, "fine_tuned", trials.conditions(base, dataset, per_class)).lr


def test_trials_count_for_their_own_conditions_alone(base, tune, tmp_path):
    assert tune("clinc150", 20, 3) == 2 and tune("banking77", 15, 11) == 2
    assert tune("clinc150", 20, 3) == tune("banking77", 15, 11) == 0
    assert tune("clinc150", 15, 3) == 2 and tune("clinc150", 15, 10) == 2
    slow, fast = arms.ARMS["fine_tuned"].tried["lr"]
    assert rate_of(base, tmp_path, "clinc150", 20) == fast
    assert rate_of(base, tmp_path, "clinc150", 15) == slow
    assert rate_of(base, tmp_path, "banking77", 15) == fast
    longer = dataclasses.replace(base, step=base.step + 1)
    assert tune("clinc150", 15, 3, longer) == 2
    other = dataclasses.replace(base, params=jax.tree.map(lambda x: x + 1, base.params))
    assert tune("clinc150", 15, 3, other) == 2


def test_trials_with_more_tasks_decide(base, tune, tmp_path):
    tune("clinc150", 15, 3)
    tune("clinc150", 15, 10)
    file = trials.file_of(tmp_path, "clinc150", "fine_tuned")
    done = json.loads(file.read_text())
    done[0]["final"] = 2.0  # of 3 tasks; of 10 the other rate is better
    done[2]["final"], done[3]["final"] = 0.1, 0.2
    file.write_text(json.dumps(done))
    assert rate_of(base, tmp_path, "clinc150", 15) == done[3]["settings"]["lr"]


def test_trials_of_other_conditions_and_of_the_older_form_are_refused(base, tune, tmp_path):
    wanted = trials.conditions(base, "clinc150", 15)
    assert trials.best(tmp_path, "fine_tuned", wanted) is None
    tune("clinc150", 20, 3)
    with pytest.raises(
        ValueError, match=r"trials with per_class 20, and none with per_class 15"
    ):
        trials.best(tmp_path, "fine_tuned", wanted)
    older = tmp_path / "tuned" / "fine_tuned.json"
    older.write_text("[]")
    for use in (
        lambda: trials.best(tmp_path, "fine_tuned", wanted),
        lambda: tune("banking77", 9, 1),
    ):
        with pytest.raises(ValueError, match=r"older form, which do not say with what base"):
            use()


def test_the_page_says_with_what_was_tuned_and_where_a_grid_ends(base, tune, tmp_path):
    tune("clinc150", 20, 3)
    tune("clinc150", 15, 3)
    kept = json.loads(trials.file_of(tmp_path, "clinc150", "fine_tuned").read_text())
    older = [{k: v for k, v in one.items() if not k.startswith("base")} for one in kept[:2]]
    facts = {"dataset": "clinc150", "arm": "fine_tuned", "per_class": 15, "classes": [7] * 10}
    measured = [facts | {"settings": kept[2]["settings"]}]
    page = "\n".join(tuning_page.tuning(older + kept[2:], measured))
    few = "first 3 tasks, 21 classes, {} examples and 4 queries of each, seed 100, base"
    assert f"clinc150, {few.format(20)} not recorded." in page
    assert f"clinc150, {few.format(15)} {base.config.name} of 0 steps, weights " in page
    assert "were measured with 15 examples of each class and 10 tasks." in page
    assert "were measured with 10 tasks." in page
    assert "| fine_tuned | lr 0.003, passes 1 | 0.3 | best, highest lr |" in page
    assert "| fine_tuned | lr 0.001, passes 1 | 99.9 | best, lowest lr, measured |" in page


def test_the_command_says_what_is_missing(tmp_path, capsys):
    args = ["--data", str(tmp_path), "--base", "x", "--dataset", "clinc150", "--out", "y"]
    with pytest.raises(SystemExit):
        run.main([*args, "--arm", "joint"])
    assert "data_full.json and domains.json" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_of_a_tiny_model(base, pool, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "read", lambda *_: pool)
    monkeypatch.setattr(run, "load_base", lambda _: base)
    hope = arms.ARMS["hope_2"]
    shallow = dataclasses.replace(hope, settings=dataclasses.replace(hope.settings, blocks=2))
    monkeypatch.setitem(arms.ARMS, "hope_2", shallow)
    names = ["hope_2", "in_context", "ewc", "joint"]  # one of each kind
    args = ["--data", ".", "--base", ".", "--dataset", "clinc150", "--out", str(tmp_path)]
    args += ["--per-class", "4", "--queries", "2", "--seed", "0", "1", "--arm", *names]
    run.main([*args, "--tune", "--first", "2", "--arm", "in_context"])
    run.main(args)
    out = tmp_path / "page"
    page = report.report(tmp_path, out)
    assert all(f"| {name} |" in page for name in names)
    kept = json.loads((out / "runs.json").read_text())
    assert len(kept) == 2 * len(names) + 1 and kept[-1]["tuning"]
    assert "clinc150, first 2 tasks, 4 classes, 4 examples and 4 queries of each" in page
    assert all(0 <= one["final"] <= 1 for one in kept)
    assert (out / "clinc150.png").stat().st_size > 10_000
