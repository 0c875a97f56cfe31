"""hope evaluate: from a checkpoint and files to a table and a JSON file."""

import json

import jax
import pytest

from hope_jax.checkpoint import CheckpointManager, Snapshot
from hope_jax.cli.main import main
from hope_jax.config import (
    AttentionConfig,
    DataConfig,
    GatedDeltaNetConfig,
    ModelConfig,
    TrainConfig,
)
from hope_jax.config.tasks import MQARConfig
from hope_jax.data import ByteTokenizer, open_dataset
from hope_jax.models import init_params
from hope_jax.training.identity import describe_run

PAIRS = [{"sentence_good": "They sing.", "sentence_bad": "They sings.", "UID": "agreement"}] * 2
QUESTIONS = [{"goal": "Sit.", "sol1": "on a chair", "sol2": "on a cat", "label": 0}] * 3


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Folder of a run with the checkpoint of an untrained model."""
    folder = tmp_path_factory.mktemp("run")
    model = ModelConfig(dim=8, depth=1, mixer=AttentionConfig(heads=1), init_std=0.5)
    run = describe_run(TrainConfig(model=model), ByteTokenizer())
    checkpoints = CheckpointManager(folder / "checkpoints")
    checkpoints.save(Snapshot(7, init_params(model, jax.random.key(0)), {}, {}, {}, run))
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "blimp").mkdir()
    (folder / "blimp/agreement.jsonl").write_text(lines(PAIRS))
    (folder / "piqa.jsonl").write_text(lines(QUESTIONS))
    (folder / "lambada.jsonl").write_text(lines([{"text": "to be or not to be"}] * 4))
    (folder / "text.txt").write_text("To be, or not to be.\n")
    return folder


def evaluate(workdir, *options):
    return main(["evaluate", "--workdir", str(workdir), *map(str, options)])


def test_a_table_and_a_file(workdir, data, tmp_path, capsys):
    out = tmp_path / "figures.json"
    tasks = ("--tasks", "text", "lambada", "blimp", "piqa", "--limit", 2)
    assert evaluate(workdir, *tasks, "--data", data, "--batch", 4, "--out", out) == 0
    said = capsys.readouterr()
    header, *rows = [line.split() for line in said.out.splitlines()]
    assert header[:2] == ["task", "metric"] and "chance" in header and "updates" in header
    assert [row[:2] for row in rows] == [
        ["text", "perplexity"],
        ["text", "bits_per_byte"],
        ["text", "word_perplexity"],
        ["lambada", "acc"],
        ["lambada", "perplexity"],
        ["blimp", "acc"],
        ["piqa", "acc"],
        ["piqa", "acc_n"],
    ]
    piqa = rows[6]  # value, standard error, chance, items, mean tokens, longest, updates
    assert piqa[4:] == ["0.5000", "2", "32.0", "33", "0", "0"]
    assert "piqa: 0 of 4" in said.err and f"written to {out}" in said.err
    written = json.loads(out.read_text())
    assert written["step"] == 7 and written["limit"] == 2 and written["batch"] == 4
    assert {"command", "versions", "device", "seconds"} <= set(written)
    assert [one["task"] for one in written["results"]] == [row[0] for row in rows]
    by = {(one["task"], one["metric"]): one for one in written["results"]}
    for row in rows:
        assert float(row[2]) == pytest.approx(by[row[0], row[1]]["value"], rel=2e-2, abs=1e-4)
    [part] = by["blimp", "acc"]["parts"]
    assert part["task"] == "blimp/agreement" and part["items"] == 2
    assert by["text", "perplexity"]["work"]["scored"] == 21


def test_text_of_files(workdir, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("To be, or not to be.\n")
    (tmp_path / "b.jsonl").write_text('{"text": "Who is there?"}\n')
    files = ("--text", tmp_path / "a.txt", tmp_path / "b.jsonl")
    assert evaluate(workdir, "--tasks", "text", *files, "--window", 10) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:2] == ["text", "perplexity"] and row[5] == "2" and row[7] == "10"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--tasks", "pica"),
            "there is no task 'pica'; choose from text, lambada, blimp, piqa",
        ),
        (("--tasks", "siqa", "--data", "DATA"), "task siqa finds no file in"),
        (("--tasks", "piqa"), "give --data DIR with piqa.jsonl or piqa.jsonl.gz: a line per"),
        (("--tasks", "text", "--text", "/nowhere/a.txt"), "/nowhere/a.txt: No such file"),
        (("--tasks", "text", "--limit", "0"), "--limit is 0; use 1 or more"),
        (("--tasks", "text", "--out", "/nowhere/a.json"), "of --out /nowhere/a.json does not"),
    ],
)
def test_mistakes_are_one_message(workdir, data, capsys, options, said):
    options = [str(data) if option == "DATA" else option for option in options]
    assert evaluate(workdir, *options) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_the_help_names_every_task(capsys):
    from hope_jax.evaluation import TASKS

    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in TASKS)


@pytest.fixture(scope="module")
def trained_on_a_task(tmp_path_factory):
    """Folder of a run on a task whose model writes to its memories."""
    folder = tmp_path_factory.mktemp("task")
    task = DataConfig(task=MQARConfig(pairs=2, keys=4, values=4), length=12)
    mixer = GatedDeltaNetConfig(heads=1, chunk=4)
    model = ModelConfig(
        vocab_size=9, dim=8, depth=1, mixer=mixer, init_std=0.5, tied_head=False
    )
    tokenizer = open_dataset(task).tokenizer
    run = describe_run(TrainConfig(model=model, data=task), tokenizer)
    checkpoints = CheckpointManager(folder / "checkpoints")
    checkpoints.save(Snapshot(3, init_params(model, jax.random.key(0)), {}, {}, {}, run))
    checkpoints.close()
    return folder


def test_the_task_of_a_run(workdir, trained_on_a_task, data, capsys):
    options = ("--tasks", "task", "--set", "data.length=20", "data.task.pairs=3")
    assert evaluate(trained_on_a_task, *options, "--limit", 20, "--batch", 8) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[:3] == ["task", "mqar", "acc"]
    assert row[5:] == ["0.2500", "20", "20.0", "20", "400", "0"]
    for options, message in (
        (("--set", "steps=3"), "name a field of data"),
        (("--set", "data.task.keys=5"), "not those of the given tokenizer"),
        (("--set", "data.task=None"), "--set data.task=NAME"),
        (("lambada", "--data", data, "--set", "data.length=3"), "2 pairs and as many"),
    ):
        assert evaluate(trained_on_a_task, "--tasks", "task", *options) == 2
        said = capsys.readouterr().err
        assert message in said and "lambada: 0 of" not in said  # before anything is measured
    assert evaluate(workdir, "--tasks", "task") == 2
    assert "the model was trained on text" in capsys.readouterr().err


def test_the_batch_changes_no_figure_of_a_task(trained_on_a_task, tmp_path, capsys):
    """Exactly as many examples count as --limit says."""
    figures = []
    for batch in (4, 16, 64):
        out = tmp_path / f"{batch}.json"
        options = ("--tasks", "task", "--limit", 10, "--batch", batch, "--out", out)
        assert evaluate(trained_on_a_task, *options) == 0
        figures.append(json.loads(out.read_text())["results"])
    assert figures[0] == figures[1] == figures[2]
    [one] = figures[0]
    assert one["items"] == 10 and 0 < one["value"] < 1
    assert one["work"] == {
        "rows": 10,
        "tokens": 120,
        "longest": 12,
        "scored": 20,
        "memory_updates": 120,
        "level_updates": 0,
    }
