"""Pretrained models predict what their equations say, from either kind of file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from llama_files import (
    SIZE,
    THETA,
    VOCAB,
    byte_level_tokenizer,
    forward,
    make_weights,
    write_folder,
    write_gguf,
)

import hope_jax
from hope_jax.cli.main import main
from hope_jax.config import RopeScalingConfig
from hope_jax.inference import read
from hope_jax.ops.rope import rates
from hope_jax.pretrained import read_pretrained
from hope_jax.streams import Limits

TEXT = "Then the other of 1867 went there.\n"


@pytest.fixture(scope="module")
def ids_T():
    return np.random.default_rng(5).integers(VOCAB, size=20)


def logits(loaded, ids_T):
    apply = jax.jit(lambda p, ids: loaded.model.apply({"params": p}, ids).logits_BTW)
    return np.asarray(apply(loaded.params, jnp.asarray(ids_T)[None])[0])


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder(tied, ids_T, tmp_path):
    weights = make_weights(tied=tied)
    loaded = read_pretrained(write_folder(tmp_path / "small", weights))
    close(logits(loaded, ids_T), forward(weights, ids_T))
    assert loaded.config.name == "small" and loaded.tokenizer.end_id == 0


def test_a_folder_in_parts_with_biases(ids_T, tmp_path):
    weights = make_weights(bias=True)
    loaded = read_pretrained(write_folder(tmp_path, weights, parts=3))
    close(logits(loaded, ids_T), forward(weights, ids_T))


def test_bfloat16_is_read(ids_T, tmp_path):
    from safetensors.flax import save_file

    weights = make_weights()
    write_folder(tmp_path, weights)
    short = {name: jnp.asarray(w, jnp.bfloat16) for name, w in weights.items()}
    save_file(short, tmp_path / "model.safetensors")
    rounded = {name: np.asarray(w, np.float32) for name, w in short.items()}
    close(logits(read_pretrained(tmp_path), ids_T), forward(rounded, ids_T))


@pytest.mark.parametrize(("kind", "bias"), [("llama", False), ("qwen2", True)])
def test_a_gguf_file(kind, bias, ids_T, tmp_path):
    """Of either kind, in which the pairs that turn stand in different places."""
    weights = make_weights(bias=bias, tied=bias)
    loaded = read_pretrained(write_gguf(tmp_path / "small.gguf", weights, kind=kind))
    close(logits(loaded, ids_T), forward(weights, ids_T))


def test_quantised_weights_are_read_as_they_are_meant(ids_T, tmp_path):
    import gguf

    weights, q8 = make_weights(hidden=64), gguf.GGMLQuantizationType.Q8_0
    path = write_gguf(tmp_path / "small.gguf", weights, quantise=("ffn_down",))
    rounded = {
        name: gguf.quants.dequantize(gguf.quants.quantize(w, q8), q8) if "down" in name else w
        for name, w in weights.items()
    }
    close(logits(read_pretrained(path), ids_T), forward(rounded, ids_T))


def test_long_contexts(ids_T, tmp_path):
    """Both kinds of files say in their own ways how slow pairs turn slower."""
    weights = make_weights()
    scaling = RopeScalingConfig(factor=8.0)
    slower = np.asarray(rates(SIZE // 2, THETA, scaling), np.float64)
    wanted = forward(weights, ids_T, rates=slower)
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    folder = write_folder(tmp_path / "folder", weights, rope_scaling=rope)
    close(logits(read_pretrained(folder), ids_T), wanted)
    factors = np.asarray(rates(SIZE // 2, THETA) / rates(SIZE // 2, THETA, scaling))
    if (factors > 1).any():
        extra = {"rope_freqs.weight": factors}
        file = write_gguf(tmp_path / "small.gguf", weights, extra=extra)
        close(logits(read_pretrained(file), ids_T), wanted)
    odd = {"rope_freqs.weight": np.float32([3.0, 2.0])}
    with pytest.raises(ValueError, match="in another way than Llama 3.1"):
        read_pretrained(write_gguf(tmp_path / "odd.gguf", weights, extra=odd))


def test_tokenizers_of_both_files_are_the_original(tmp_path):
    original, _, _ = byte_level_tokenizer()
    wanted = original.encode(TEXT, add_special_tokens=False).ids
    for path in (
        write_folder(tmp_path / "folder", make_weights()),
        write_gguf(tmp_path / "small.gguf", make_weights()),
    ):
        tokenizer = read_pretrained(path).tokenizer
        assert tokenizer.encode(TEXT).tolist() == wanted
        assert tokenizer.decode(wanted) == TEXT.encode()


def test_scores_of_sentence_piece_are_the_original(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the other mother and the father went there together\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "small"),
        vocab_size=VOCAB - 10,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        hard_vocab_limit=False,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    original = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "small.model"))
    count = range(original.vocab_size())
    kinds = [
        2
        if original.is_unknown(i)
        else 3
        if original.is_control(i)
        else 6
        if original.is_byte(i)
        else 1
        for i in count
    ]
    pieces = [original.id_to_piece(i) for i in count]
    scores = [original.get_score(i) for i in count]
    path = tmp_path / "small.gguf"
    write_gguf(path, make_weights(), tokenizer=(pieces, scores, kinds))
    tokenizer = read_pretrained(path).tokenizer
    for text in ("the mother went  there", "Zo\u00eb the 7th\n"):
        ids = tokenizer.encode(text)
        assert ids.tolist() == original.encode(text)
        assert tokenizer.decode(ids) == text.encode()
    assert tokenizer.end_id == 1


@pytest.mark.parametrize("says", [True, False])
def test_the_file_says_what_texts_begin_with(says, tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(path, make_weights(), begin=(0, says))
    tokenizer = read_pretrained(path).tokenizer
    assert tokenizer.begin_id == (0 if says else None)
    assert tokenizer.end_id == 0  # by its name
    assert 0 not in tokenizer.encode("the mother")


def test_a_part_of_a_model_is_refused(tmp_path):
    path = tmp_path / "small-00001-of-00002.gguf"
    write_gguf(path, {}, parts=2)
    with pytest.raises(ValueError, match="one of 2 parts of a model; join them"):
        read_pretrained(path)
    write_gguf(path, {})
    with pytest.raises(ValueError, match="lacks token_embd.weight"):
        read_pretrained(path)


def test_the_file_says_what_ends_a_text(tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(path, make_weights(), end=5)
    assert read_pretrained(path).tokenizer.end_id == 5
    folder = write_folder(tmp_path / "small", make_weights())
    tokenizer = read_pretrained(folder).tokenizer
    assert tokenizer.end_id == 0 and tokenizer.token_id("<|endoftext|>") == 0
    other = tokenizer._tokenizer.id_to_token(7)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": other}))
    found = read_pretrained(folder).tokenizer
    assert found.end_id == 7 and found.begin_id is None
    np.testing.assert_array_equal(found.encode("the mother"), tokenizer.encode("the mother"))
    with pytest.raises(ValueError, match="no token of this tokenizer is named '<none>'"):
        tokenizer.token_id("<none>")


def test_a_converted_model_is_a_checkpoint(ids_T, tmp_path, capsys):
    weights = make_weights()
    folder = write_folder(tmp_path / "small", weights)
    assert main(["convert", str(folder), str(tmp_path / "hope")]) == 0
    said = capsys.readouterr().out
    assert "3 blocks of width 16, vocabulary 300" in said
    loaded = hope_jax.load(tmp_path / "hope")
    close(logits(loaded, ids_T), forward(weights, ids_T))
    assert main(["convert", str(folder), str(tmp_path / "hope")]) == 2
    assert "not empty; give a new folder" in capsys.readouterr().err


def test_rate_zero_is_the_pretrained_model_and_others_learn(tmp_path):
    """Level stacking: MLPs of blocks as levels, which move only if they are asked to."""
    loaded = read_pretrained(write_folder(tmp_path, make_weights()))
    plain = read(loaded.model, loaded.params, loaded.tokenizer, TEXT * 3).loss_T
    losses = {}
    for lr in (0.0, 0.5):
        limits = Limits(surprise=None)
        stream = hope_jax.Stream.open(loaded, levels=(4, 16), blocks=2, lr=lr, limits=limits)
        stream.read(TEXT * 3)
        losses[lr] = stream.surprise().loss_T
        changes = {tokens: change.fast for tokens, change in stream.diff().items()}
        assert set(changes) == {0, 4, 16} and changes[0] == 0
        assert (changes[4] > 0) == (changes[16] > 0) == (lr > 0)
    np.testing.assert_allclose(losses[0.0], plain, rtol=1e-4, atol=1e-5)
    assert losses[0.5][-20:].mean() < plain[-20:].mean()


def test_levels_can_be_chosen_when_it_is_converted(tmp_path):
    folder = write_folder(tmp_path / "small", make_weights())
    how = {"chunks": (4, 16), "blocks": 2, "stack": "contiguous", "rank": 2}
    changes = {f"model.cms.in_context.{name}": value for name, value in how.items()}
    hope_jax.convert(folder, tmp_path / "hope", changes)
    stream = hope_jax.Stream.open(tmp_path / "hope")
    assert stream.learns and set(stream.diff()) == {0, 4, 16}
    with pytest.raises(ValueError, match="and the model has .* change only what leaves"):
        read_pretrained(folder, {"model.cms.hidden": 48})
    with pytest.raises(ValueError, match="did you mean 'chunks'"):
        read_pretrained(folder, {"model.cms.in_context.chunk": 4})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "gpt_neox"}, "of kind 'gpt_neox'; what can be read are llama, qwen2"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"head_dim": 8}, "4 heads of 8 do not share the width of 16"),
        ({"num_key_value_heads": 4}, "weight 'key' of block 0 is .8, 16., .* .16, 16."),
        ({"num_hidden_layers": 4}, "lacks model.layers.3.self_attn.q_proj.weight"),
        ({"num_hidden_layers": 2}, "no place for, such as model.layers.2"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "by 'yarn', which is not known here"),
        ({"vocab_size": 200}, "the tokenizer has 261 ids and the embedding 200 rows"),
    ],
)
def test_forms_that_are_not_known_are_named(changes, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        read_pretrained(write_folder(tmp_path, make_weights(), **changes))


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model at"):
        read_pretrained(tmp_path / "none")
    folder = write_folder(tmp_path / "small", make_weights())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has no tokenizer; add one of"):
        read_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        read_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks .*safetensors"):
        read_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is damaged"):
        read_pretrained(folder)
    write_folder(folder, make_weights())
    settings = json.loads((folder / "config.json").read_text())
    del settings["hidden_size"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="config.json lacks hidden_size"):
        read_pretrained(folder)
    (tmp_path / "text.gguf").write_text("not a model, " * 10)
    with pytest.raises(ValueError, match="text.gguf is no GGUF file, or is damaged"):
        read_pretrained(tmp_path / "text.gguf")
    whole = write_gguf(tmp_path / "whole.gguf", make_weights()).read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="half.gguf is no GGUF file, or is damaged"):
        read_pretrained(tmp_path / "half.gguf")
