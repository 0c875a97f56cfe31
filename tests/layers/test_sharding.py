"""The model split over a mesh by its logical axes computes what one device computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixer_cases import CASES

from hope_jax.config import CMSConfig, MeshConfig, ModelConfig
from hope_jax.models import LanguageModel, init_params, next_token_loss, param_shapes
from hope_jax.parallel import batch_sharding, make_mesh, param_shardings, use_mesh

# The others cost minutes of compilation; CI runs them.
QUICK = ("attention", "self_modifying")
EVERY_MIXER = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES]


@pytest.mark.parametrize("name", EVERY_MIXER)
def test_a_mesh_of_eight_equals_one_device(name):
    mixer, cms = CASES[name].config, CMSConfig((1, 2))
    config = ModelConfig(vocab_size=64, dim=16, depth=2, mixer=mixer, cms=cms)
    model, params = LanguageModel(config), init_params(config, jax.random.key(0))
    tokens_BT = jax.random.randint(jax.random.key(1), (4, 8), 0, 64)
    reset_BT = jnp.zeros((4, 8), bool).at[2, 5].set(True)

    def loss(params, tokens_BT, reset_BT):
        logits_BTW = model.apply({"params": params}, tokens_BT, None, reset_BT).logits_BTW
        return next_token_loss(logits_BTW[:, :-1], tokens_BT[:, 1:])

    expected, expected_grads = jax.jit(jax.value_and_grad(loss))(params, tokens_BT, reset_BT)

    with use_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))) as mesh:
        shardings, rows = param_shardings(param_shapes(config), mesh), batch_sharding(mesh)
        args = jax.device_put((params, tokens_BT, reset_BT), (shardings, rows, rows))
        assert not args[0]["embed"]["table"].sharding.is_fully_replicated
        step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))
        value, grads = step(*args)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=CASES[name].rounding),
        jax.device_get(grads),
        jax.device_get(expected_grads),
    )
