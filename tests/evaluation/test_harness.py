"""The lm-evaluation-harness, where it is installed, gives the figures of `hope evaluate`."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest

from hope_jax.checkpoint import CheckpointManager, Snapshot
from hope_jax.config import AttentionConfig, ModelConfig, TrainConfig
from hope_jax.data import ByteTokenizer
from hope_jax.evaluation import Scorer, Source, chosen
from hope_jax.models import LanguageModel, init_params
from hope_jax.training.identity import describe_run

there = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not there, reason="lm_eval is not installed")
MODEL = ModelConfig(
    dim=16, depth=1, mixer=AttentionConfig(heads=2), init_std=0.3, vocab_size=257
)
QUESTIONS = [
    {"goal": goal, "sol1": one, "sol2": other, "label": label}
    for goal, one, other, label in [
        ("Sit.", "on a chair", "on a cat", 0),
        ("Eat.", "a stone", "an apple or a pear", 1),
        ("Run.", "fast", "never, ever, at all", 0),
        ("Read a book.", "with your eyes", "by ear", 0),
        ("Warm the soup.", "in a fridge", "on a stove", 1),
    ]
]
PIQA = """
task: local_piqa
dataset_path: json
dataset_kwargs: {data_files: {validation: FOLDER/piqa.jsonl}}
validation_split: validation
output_type: multiple_choice
doc_to_text: "Question: {{goal}}\\nAnswer:"
doc_to_target: label
doc_to_choice: "{{[sol1, sol2]}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
TEXT = """
task: local_text
dataset_path: json
dataset_kwargs: {data_files: {validation: FOLDER/text.jsonl}}
validation_split: validation
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
WRITING = """
task: local_writing
dataset_path: json
dataset_kwargs: {data_files: {validation: FOLDER/piqa.jsonl}}
validation_split: validation
output_type: generate_until
doc_to_text: "{{goal}}"
doc_to_target: "{{sol1}}"
generation_kwargs: {until: ["", "\\n"], max_gen_toks: 40, do_sample: false}
metric_list: [{metric: exact_match}]
"""


class Silent:
    def start(self, total):
        pass

    def advance(self, count):
        pass


@pytest.mark.skipif(there, reason="lm_eval is installed")
def test_without_the_harness_the_error_says_what_to_install():
    with pytest.raises(ImportError, match=r"pip install 'hope_jax\[harness\]'"):
        importlib.import_module("hope_jax.evaluation.harness")


@needs_harness
@pytest.mark.slow
def test_the_harness_gives_the_same_figures(tmp_path):
    params = init_params(MODEL, jax.random.key(0))
    run = describe_run(TrainConfig(model=MODEL), ByteTokenizer(end=True))
    checkpoints = CheckpointManager(tmp_path / "run/checkpoints")
    checkpoints.save(Snapshot(1, params, {}, {}, {}, run))
    checkpoints.close()
    lines = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "piqa.jsonl").write_text(lines(QUESTIONS))
    texts = [{"text": text} for text in ("To be, or not to be.", "Who is there?", "A jest")]
    (tmp_path / "text.jsonl").write_text(lines(texts))
    for name, task in (("piqa", PIQA), ("text", TEXT), ("writing", WRITING)):
        (tmp_path / f"{name}.yaml").write_text(task.replace("FOLDER", str(tmp_path)))
    command = [sys.executable, "-m", "hope_jax.evaluation.harness", "--model", "hope"]
    command += ["--model_args", f"workdir={tmp_path}/run", "--include_path", str(tmp_path)]
    command += ["--tasks", "local_piqa,local_text,local_writing", "--batch_size", "4"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    local = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | local)
    assert done.returncode == 0, done.stderr[-3000:]
    [path] = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(path.read_text())["results"]
    scorer = Scorer(LanguageModel(MODEL), params, ByteTokenizer(end=True), batch=4)
    measure = lambda task: {
        one.metric: one for one in chosen([task])[0].measure(scorer, Source(tmp_path), Silent())
    }
    ours, text = measure("piqa"), measure("text")
    for mine, other in (("acc", "acc"), ("acc_n", "acc_norm")):
        assert theirs["local_piqa"][f"{other},none"] == pytest.approx(ours[mine].value)
        error = theirs["local_piqa"][f"{other}_stderr,none"]
        assert error == pytest.approx(ours[mine].standard_error)
    for name in ("bits_per_byte", "word_perplexity"):
        assert theirs["local_text"][f"{name},none"] == pytest.approx(text[name].value, rel=1e-4)
    [samples] = (tmp_path / "out").rglob("samples_local_writing*.jsonl")
    written = [json.loads(line)["resps"][0][0] for line in samples.read_text().splitlines()]
    assert len(written) == 5 and all(len(w) <= 40 and "\n" not in w for w in written)
    assert max(map(len, written)) > 16  # an empty text of `until` ends nothing
