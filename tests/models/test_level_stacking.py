"""Ad-hoc level stacking: the MLP of every block is a level within a text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hope_jax.config import AttentionConfig, CMSConfig, InContextConfig, ModelConfig, override
from hope_jax.models import LanguageModel, init_params, next_token_losses
from hope_jax.models.in_context import in_context_losses
from hope_jax.ops.own_gradient import plain_gradients

HOW = InContextConfig(
    chunks=(4, 8), blocks=3, lr=(1.0, 0.5), clip=0.1, stack="interleaved", learn_lr=False
)
MODEL = ModelConfig(
    vocab_size=16,
    dim=8,
    depth=4,
    mixer=AttentionConfig(heads=4, kv_heads=2),
    cms=CMSConfig(hidden=8, in_context=HOW),
)
OWNERS = {  # tokens per update of the last three blocks
    "interleaved": (4, 8, 4),
    "contiguous": (8, 4, 4),
}


@pytest.fixture(scope="module")
def text():
    return jax.random.randint(jax.random.key(3), (19,), 0, 16)


@pytest.fixture(scope="module")
def params():
    params = init_params(MODEL, jax.random.key(0))
    return jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, params)


def plain(params, tokens_T, owners, rates):
    """Chunk by chunk and block by block, with weights written over."""
    model, first = LanguageModel(MODEL), MODEL.depth - len(owners)
    slow = params["blocks"]["cms"]["period_1"]
    names = ("w_in", "w_gate", "w_out")
    moved = [{k: jnp.zeros_like(slow[k][0]) for k in names} for _ in owners]
    sums, state, losses = moved, None, []
    for start in range(0, len(tokens_T) - 1, 4):
        end = min(start + 4, len(tokens_T) - 1)

        def loss(moved, state=state, start=start, end=end):
            level = dict(slow)
            for i, added in enumerate(moved):
                for k in names:
                    level[k] = level[k].at[first + i].add(added[k])
            blocks = {**params["blocks"], "cms": {"period_1": level}}
            out = model.apply(
                {"params": params | {"blocks": blocks}}, tokens_T[None, start:end], state
            )
            found = next_token_losses(out.logits_BTW, tokens_T[None, start + 1 : end + 1])
            return found.mean(), (found[0], out.state)

        with plain_gradients():
            grads, (found, state) = jax.grad(loss, has_aux=True)(moved)
        losses.append(found)
        if end - start < 4:
            break
        sums = jax.tree.map(jnp.add, sums, grads)
        for tokens, rate in rates.items():
            mine = [i for i, own in enumerate(owners) if own == tokens]
            if end % tokens:
                continue
            mean = [jax.tree.map(lambda g, n=tokens: g / (n // 4), sums[i]) for i in mine]
            step = rate * jnp.minimum(1.0, 0.1 / optax.tree.norm(mean))
            for i, g in zip(mine, mean, strict=True):
                moved[i] = jax.tree.map(lambda w, g, s=step: w - s * g, moved[i], g)
                sums[i] = jax.tree.map(jnp.zeros_like, sums[i])
    return jnp.concatenate(losses)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["interleaved", "contiguous"])
def test_equals_a_plain_loop_in_value_and_gradient(stack, params, text):
    config = override(MODEL, {"cms.in_context.stack": stack})
    weights_T = jnp.cos(jnp.arange(18))

    def ours(params):
        losses_BT = in_context_losses(config, params, text[None, :-1], text[None, 1:]).losses_BT
        return losses_BT[0] @ weights_T, losses_BT[0]

    def theirs(params):
        losses_T = plain(params, text, OWNERS[stack], {4: 1.0, 8: 0.5})
        return losses_T @ weights_T, losses_T

    found, wanted = (
        jax.jit(jax.value_and_grad(f, has_aux=True))(params) for f in (ours, theirs)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=5e-3), found, wanted
    )


def test_a_stack_of_one_level_is_the_plain_level(params, text):
    stacked = override(MODEL, {"cms.in_context.chunks": (4,), "cms.in_context.lr": 1.0})
    plain = override(stacked, {"cms.in_context.stack": "none"})
    losses = [
        jax.jit(lambda p, c=c: in_context_losses(c, p, text[None, :-1], text[None, 1:]))(params)
        for c in (stacked, plain)
    ]
    np.testing.assert_allclose(losses[0].losses_BT, losses[1].losses_BT, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chunks": (4, 0), "lr": 0.1}, "the levels of a stack all change"),
        ({"chunks": (4, 4)}, "no two at the same chunks"),
        ({"lr": (0.1,)}, "name one rate, or one for each level"),
        ({"lr": (0.1, -1.0)}, "use 0 or more"),
        ({"blocks": 1}, "a stack of 2 levels, and 1 blocks adapt"),
        ({"stack": "mixed"}, "stack is 'mixed'"),
    ],
)
def test_mistakes_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        override(MODEL, {f"cms.in_context.{name}": value for name, value in changes.items()})


def test_a_stack_has_one_period():
    cms = dataclasses.replace(MODEL.cms, in_context=InContextConfig())
    with pytest.raises(ValueError, match="in a stack every block is one level"):
        dataclasses.replace(cms, periods=(1, 2), in_context=HOW)
