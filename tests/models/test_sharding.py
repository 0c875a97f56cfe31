"""The model split over a mesh by its logical axes computes what one device computes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hope_jax.config import (
    AttentionConfig,
    CMSConfig,
    CombaConfig,
    LinearAttentionConfig,
    LSTMConfig,
    MambaConfig,
    MemoraConfig,
    ModelConfig,
    RetNetConfig,
    RWKV7Config,
    SambaConfig,
    SlidingWindowConfig,
    SRWMConfig,
    TitansConfig,
    TitansMACConfig,
    TitansMAGConfig,
    TitansMALConfig,
    TTTLinearConfig,
    TTTMLPConfig,
)
from hope_jax.models import LanguageModel, abstract_params, init_params, next_token_loss

RULES = [
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
]


MIXERS = (
    AttentionConfig(heads=2, block=4),
    RetNetConfig(heads=2, chunk=4),
    pytest.param(LinearAttentionConfig(heads=2, chunk=4), marks=pytest.mark.slow),
    pytest.param(CombaConfig(heads=2, chunk=4), marks=pytest.mark.slow),
    pytest.param(MambaConfig(chunk=4), marks=pytest.mark.slow),
    pytest.param(MemoraConfig(heads=2, chunk=4), marks=pytest.mark.slow),
    pytest.param(SambaConfig(heads=2, window=3, block=4, chunk=4), marks=pytest.mark.slow),
    pytest.param(LSTMConfig(heads=2), marks=pytest.mark.slow),
    pytest.param(RWKV7Config(heads=2, chunk=4), marks=pytest.mark.slow),
    SlidingWindowConfig(heads=2, window=3, block=4),
    pytest.param(TitansConfig(heads=2, chunk=4), marks=pytest.mark.slow),
    pytest.param(TitansMACConfig(heads=2, chunk=4), marks=pytest.mark.slow),
    pytest.param(TitansMAGConfig(heads=2, chunk=4, window=3), marks=pytest.mark.slow),
    pytest.param(TitansMALConfig(heads=2, chunk=4, window=3), marks=pytest.mark.slow),
    pytest.param(SRWMConfig(heads=2, chunk=4), marks=pytest.mark.slow),
    TTTLinearConfig(heads=2, chunk=4),
    TTTMLPConfig(heads=2, chunk=4, backbone="transformer"),
)


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.type)
def test_a_mesh_of_eight_equals_one_device(mixer):
    config = ModelConfig(vocab_size=64, dim=16, depth=2, mixer=mixer, cms=CMSConfig((1, 2)))
    model, params = LanguageModel(config), init_params(config, jax.random.key(0))
    tokens_BT = jax.random.randint(jax.random.key(1), (4, 8), 0, 64)
    reset_BT = jnp.zeros((4, 8), bool).at[2, 5].set(True)

    def loss(params, tokens_BT, reset_BT):
        logits_BTW = model.apply({"params": params}, tokens_BT, None, reset_BT).logits_BTW
        return next_token_loss(logits_BTW[:, :-1], tokens_BT[:, 1:])

    expected, expected_grads = jax.jit(jax.value_and_grad(loss))(params, tokens_BT, reset_BT)

    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        names = nn.get_partition_spec(abstract_params(config))
        shardings = nn.logical_to_mesh_sharding(names, mesh, RULES)
        rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
        args = jax.device_put((params, tokens_BT, reset_BT), (shardings, rows, rows))
        assert not args[0]["embed"]["table"].sharding.is_fully_replicated
        step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))
        value, grads = step(*args)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # normalised reads of next to nothing make roundings in gradients larger, and so do more
    # layers; rounding the weights of Memora changes the embedding's gradient by up to 8e-5
    larger = {"memora": 2e-4} | dict.fromkeys(
        ("comba", "samba", "titans_mac", "titans_mag"), 3e-5
    )
    atol = larger.get(mixer.type, 1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol),
        jax.device_get(grads),
        jax.device_get(expected_grads),
    )
