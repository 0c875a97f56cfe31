"""Cross entropy of the next token."""

import jax.numpy as jnp
import numpy as np

from hope_jax.models import next_token_loss, next_token_losses


def test_uniform_scores_cost_the_logarithm_of_the_vocabulary():
    losses_BT = next_token_losses(jnp.zeros((2, 3, 10)), jnp.zeros((2, 3), int))
    np.testing.assert_allclose(losses_BT, np.full((2, 3), np.log(10)), rtol=1e-6)


def test_the_target_is_the_token_that_is_named():
    logits_BTW = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    losses_BT = next_token_losses(logits_BTW, jnp.array([[0, 2]]))
    np.testing.assert_allclose(losses_BT, -np.log([[0.5, 0.8]]), rtol=1e-6)
    np.testing.assert_allclose(
        next_token_loss(logits_BTW, jnp.array([[0, 2]])), losses_BT.mean(), rtol=1e-6
    )


def test_bfloat16_scores_are_summed_in_float32():
    losses_BT = next_token_losses(
        jnp.zeros((1, 1, 50_000), jnp.bfloat16), jnp.zeros((1, 1), int)
    )
    assert losses_BT.dtype == jnp.float32
    np.testing.assert_allclose(losses_BT, np.log(50_000), rtol=1e-6)
