"""A stream that learns: equal to training, in pieces of any size, each row for itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax import inference
from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    GatedDeltaNetConfig,
    InContextConfig,
    ModelConfig,
    SelfModifyingConfig,
)
from hope_jax.data import ByteTokenizer
from hope_jax.inference import load_state, save_state
from hope_jax.inference.apart import params_apart
from hope_jax.inference.learning import Mode, drop_context, settle
from hope_jax.inference.limits import NO_LIMITS, Limits
from hope_jax.inference.stream import (
    forget_context,
    fresh,
    layers_apart,
    layers_together,
    open_stream,
    read_ids,
    step_tokens,
)
from hope_jax.models import LanguageModel, init_params
from hope_jax.models.in_context import Reader, in_context_losses

# The model is not trained: at the usual limits all that it reads would be noise to it.
LIMITS = Limits(surprise=None)
MODE = Mode(limits=LIMITS)
read = functools.partial(inference.read, limits=LIMITS)
generate = functools.partial(inference.generate, limits=LIMITS)
in_training = jax.jit(in_context_losses, static_argnums=0)

TEXT = bytes(range(65, 65 + 26)) + b" the same again " + bytes(range(65, 65 + 20))


def make(mixer=None, **how):
    how = {"chunks": (4, 8), "blocks": 1, "lr": 2.0, "clip": 0.3} | how
    mixer = mixer or GatedDeltaNetConfig(heads=2, chunk=4)
    cms = CMSConfig((1, 4), 16, in_context=InContextConfig(**how))
    config = ModelConfig(vocab_size=256, dim=8, depth=3, mixer=mixer, cms=cms)
    params = init_params(config, jax.random.key(0))
    return LanguageModel(config), jax.tree.map(lambda x: 2 * x if x.ndim > 1 else x, params)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("at all", "low rank")]


@pytest.fixture(scope="module", params=["at the last block", *SLOW])
def reader(request):
    changes = {
        "at the last block": {},
        # At higher rates three blocks are chaotic: rounding errors grow fivefold in a chunk.
        "at all": {
            "mixer": AttentionConfig(heads=2),
            "blocks": 3,
            "rule": "momentum",
            "lr": 0.02,
        },
        "low rank": {"rank": 2, "rule": "adam", "lr": 0.03},
    }
    return make(**changes[request.param])


def distance(a, b):
    """Largest difference of the fast weights of two streams."""
    gaps = jax.tree.map(lambda x, y: abs(x - y).max(), a.state.weights, b.state.weights)
    return float(max(jax.tree.leaves(gaps)))


def test_losses_are_those_of_training(reader):
    model, params = reader
    ids_BT = jnp.asarray(np.frombuffer(TEXT, np.uint8)[None], jnp.int32)
    expected = in_training(model.config, params, ids_BT[:, :-1], ids_BT[:, 1:]).losses_BT
    found = read(model, params, ByteTokenizer(), TEXT, limits=NO_LIMITS)
    np.testing.assert_allclose(found.loss_T[1:], expected[0], rtol=2e-3, atol=1e-3)
    frozen = read(model, params, ByteTokenizer(), TEXT, learns=False)
    assert abs(found.loss_T - frozen.loss_T).max() > 0.02
    assert not any(w.any() for w in jax.tree.leaves(frozen.state.state.weights))


@pytest.mark.parametrize("cuts", [(1,), (4, 8, 24), (7, 9, 10, 30)])
def test_pieces_of_any_size_are_the_same_stream(reader, cuts, tmp_path):
    model, params = reader
    tokenizer = ByteTokenizer()
    whole = read(model, params, tokenizer, TEXT)
    state, losses = None, []
    for start, end in zip((0, *cuts), (*cuts, len(TEXT)), strict=True):
        part = read(model, params, tokenizer, TEXT[start:end], state)
        save_state(tmp_path / "stream.npz", part.state, model, params, tokenizer)
        state = load_state(tmp_path / "stream.npz", model, params, tokenizer)
        losses.append(part.loss_T)
    np.testing.assert_allclose(np.concatenate(losses), whole.loss_T, rtol=2e-3, atol=1e-3)
    assert distance(state, whole.state) < 1e-3
    if all(cut % 4 == 0 for cut in cuts):  # bit for bit between chunks
        np.testing.assert_array_equal(np.concatenate(losses), whole.loss_T)
        assert distance(state, whole.state) == 0


def test_rows_are_isolated(reader):
    model, params = reader
    apart = params_apart(params)
    ids_BT = np.stack([np.frombuffer(TEXT, np.uint8)] * 3).astype(np.int32)
    other_BT = ids_BT.copy()
    other_BT[1] = ids_BT[1][::-1]

    def run(ids_BT):
        stream = open_stream(model, params, ids_BT.shape[1], fresh(model, params, 3))
        return read_ids(model, params, apart, stream, ids_BT, 256, MODE)

    (one, one_loss), (other, other_loss) = run(ids_BT), run(other_BT)
    for row in (0, 2):
        np.testing.assert_array_equal(one_loss[row], other_loss[row])
    weights = zip(
        jax.tree.leaves(one.state.weights), jax.tree.leaves(other.state.weights), strict=True
    )
    for a, b in weights:
        np.testing.assert_array_equal(a[:, [0, 2]], b[:, [0, 2]])
        assert (a[:, 1] != b[:, 1]).any()


def test_a_dropped_context_is_that_of_training(reader):
    model, params = reader
    ids_T = np.frombuffer(TEXT, np.uint8)
    for at in (18, 20):
        first = read(model, params, ByteTokenizer(), TEXT[:at], limits=NO_LIMITS).state
        state = first.replace(state=drop_context(fresh(model, params).state, first.state))
        second = read(model, params, ByteTokenizer(), TEXT[at:], state, limits=NO_LIMITS)
        drop_BT = jnp.zeros((1, len(TEXT) - 1), bool).at[0, at].set(True)
        ids_BT = jnp.asarray(ids_T[None], jnp.int32)
        expected = in_training(
            model.config, params, ids_BT[:, :-1], ids_BT[:, 1:], None, drop_BT
        ).losses_BT
        np.testing.assert_allclose(second.loss_T[1:], expected[0, at:], rtol=2e-3, atol=1e-3)


@pytest.fixture(
    scope="module", params=["attention", pytest.param("self_modifying", marks=pytest.mark.slow)]
)
def context_reader(request):
    """Two blocks learn, so that there is a mixer above the cut, and contexts matter."""
    mixers = {
        "attention": AttentionConfig(heads=2),
        "self_modifying": SelfModifyingConfig(heads=2, chunk=12, rate_hidden=4),
    }
    model, params = make(mixers[request.param], blocks=2, lr=0.1)
    return model, jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)


@functools.partial(jax.jit, static_argnums=0)
def chunk_losses(config, params, state):
    targets_BC = jnp.roll(state.ids_BC, -1, axis=1)
    return Reader(config, params).chunk_gradient(
        state.weights, state.x_BCD, state.start, targets_BC, mixers_BC=state.dropped_BC
    )[1]


def learned_losses(model, params, state):
    """What the open chunk would be learned from: losses of all its tokens but the first."""
    return chunk_losses(model.config, params, state)[0, : int(state.count_B[0]) - 1]


def test_a_chunk_is_learned_from_in_the_context_it_was_read_in(context_reader):
    model, params = context_reader
    tokens = model, params, ByteTokenizer()
    start = read(*tokens, b"before ", learns=False).state
    other = read(*tokens, b"xyz", learns=False).state
    half = read(*tokens, b"of").state
    forgotten = forget_context(model, params, half, LIMITS)
    gap = read(*tokens, b" a gap", half, learns=False).state
    for before in (None, start, other, forgotten, gap):
        read_T = read(*tokens, b"abcd", before)
        count = int(read_T.state.state.count_B[0])
        assert count == 4  # of a chunk of its own
        found = learned_losses(model, params, read_T.state.state)
        np.testing.assert_allclose(found, read_T.loss_T[1:], rtol=2e-3, atol=2e-3)


def test_a_gap_ends_the_chunk_and_what_came_before_it_is_learned(reader):
    model, params = reader
    tokens = model, params, ByteTokenizer()
    half = read(*tokens, TEXT[:3]).state
    gap = read(*tokens, b"zz", half, learns=False).state
    assert distance(gap, half) == 0
    on = read(*tokens, b"a", gap).state
    settled = settle(model.config, params, open_stream(model, params, 0, half).state, LIMITS)
    assert distance(on, half.replace(state=settled)) < 1e-5 < distance(on, half)
    assert int(on.state.count_B[0]) == 1


def test_writing_goes_on_and_learns_only_if_asked_to(reader):
    model, params = reader
    tokenizer = ByteTokenizer()
    state = read(model, params, tokenizer, TEXT).state
    options = {"tokens": 20, "state": state, "seed": 3}
    silent = generate(model, params, tokenizer, "so ", learns=False, **options)
    assert distance(silent.state, state) == 0
    learnt = generate(model, params, tokenizer, "so ", **options)
    assert distance(learnt.state, state) > 0
    again = read(model, params, tokenizer, b"so " + learnt.text.encode(), state)
    if learnt.text.encode().decode() == learnt.text and "\ufffd" not in learnt.text:
        assert distance(again.state, learnt.state) < 1e-3


def test_limits_hold_and_what_is_not_finite_is_refused():
    model, params = make(lr=50.0, clip=1e9)
    limits = Limits(norm=0.1, change=0.02, surprise=None)
    slow = jnp.sqrt(
        sum(
            jnp.sum(w[-1:] ** 2)
            for k, w in params["blocks"]["cms"]["period_1"].items()
            if k.startswith("w_")
        )
    )
    state, before = None, None
    for start in range(0, 40, 4):
        piece = TEXT[start : start + 4] if start else TEXT[:5]
        state = read(model, params, ByteTokenizer(), piece, state, limits=limits).state
        weights = state.state.weights["period_1"]
        norm = jnp.sqrt(sum(jnp.sum(w**2) for w in weights.values()))
        assert norm <= 0.1 * slow * 1.0001
        if before is not None:
            moved = jnp.sqrt(sum(jnp.sum((weights[k] - before[k]) ** 2) for k in weights))
            assert moved <= 0.02 * 4 * slow * 1.0001
        before = weights
    assert norm > 0.09 * slow
    assert int(state.state.refused_B[0]) == 0
    broken = jax.tree.map(lambda x: x, params)
    broken["in_context"] = dict(broken["in_context"], log_rate_period_1=jnp.full(1, jnp.nan))
    state = read(model, broken, ByteTokenizer(), TEXT[:30], limits=NO_LIMITS).state
    assert int(state.state.refused_B[0]) == 7
    assert not any(w.any() for w in jax.tree.leaves(state.state.weights))


def test_rows_of_unequal_length_stay_apart(reader):
    model, params = reader
    apart = params_apart(params)
    texts = [np.frombuffer(TEXT, np.uint8)[:n].astype(np.int32) for n in (13, 40, 22)]
    alone = [
        read_ids(model, params, apart, open_stream(model, params, 40), t[None], 256, MODE)[0]
        for t in texts
    ]
    state = open_stream(model, params, 40, fresh(model, params, 3))
    lengths_B = jnp.asarray([len(t) for t in texts])
    given_BN = np.zeros((3, 40), np.int32)
    for row, text in enumerate(texts):
        given_BN[row, : len(text)] = text
    keys_B = jax.random.split(jax.random.key(0), 3)
    steps = step_tokens(
        model,
        apart,
        layers_apart(model, state),
        given_BN,
        40,
        40,
        keys_B,
        mode=MODE,
        length_B=lengths_B,
    )
    together = layers_together(steps.stream)
    for row, one in enumerate(alone):
        np.testing.assert_allclose(
            together.logits_BW[row], one.logits_BW[0], rtol=1e-3, atol=1e-3
        )
        for a, b in zip(
            jax.tree.leaves(together.state.weights),
            jax.tree.leaves(one.state.weights),
            strict=True,
        ):
            np.testing.assert_allclose(a[:, row], b[:, 0], atol=1e-4)
        assert together.state.count_B[row] == one.state.count_B[0]


def test_settling_keeps_no_token(reader):
    model, params = reader
    state = read(model, params, ByteTokenizer(), TEXT[:6]).state.state
    settled = settle(model.config, params, state, LIMITS)
    assert not settled.ids_BC.any() and not settled.x_BCD.any()
    assert int(settled.count_B[0]) == 0
    gaps = jax.tree.map(lambda a, b: abs(a - b).max(), settled.weights, state.weights)
    assert max(jax.tree.leaves(gaps)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["self_modifying", "attention"])
def test_mixers_above_the_cut(mixer):
    mixers = {
        "self_modifying": SelfModifyingConfig(heads=2, chunk=4, rate_hidden=4),
        "attention": AttentionConfig(heads=2),
    }
    model, params = make(mixers[mixer], blocks=2)
    test_losses_are_those_of_training((model, params))
    state = read(model, params, ByteTokenizer(), TEXT[:3]).state
    roomy = open_stream(model, params, 0, state)
    assert int(settle(model.config, params, roomy.state, LIMITS).count_B[0]) == 0
