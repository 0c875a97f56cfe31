"""Parameters, optimizer states and batches are split, and nothing large is replicated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hope_jax.config import (
    RULE_CONFIGS,
    AttentionConfig,
    CMSConfig,
    MeshConfig,
    ModelConfig,
    OptimConfig,
    SelfModifyingConfig,
    TrainConfig,
)
from hope_jax.models import abstract_params, param_shapes
from hope_jax.nested.paths import flatten
from hope_jax.optim import make
from hope_jax.parallel import (
    bytes_per_device,
    check_batch,
    local_rows,
    make_mesh,
    param_shardings,
    place_batch,
    state_shardings,
)

MIXER = SelfModifyingConfig(heads=4, chunk=4, rate_hidden=8)
MODEL = ModelConfig(vocab_size=64, dim=64, depth=2, mixer=MIXER, cms=CMSConfig((1, 4)))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))


def test_every_matrix_is_split_by_its_axes(mesh):
    places = flatten(param_shardings(param_shapes(MODEL), mesh))
    for path, param in param_shapes(MODEL).items():
        part = np.prod(places[path].shard_shape(param.shape)) / param.size
        if param.size >= 4096:
            assert part == 1 / 8, path


@pytest.mark.parametrize("rule", sorted(RULE_CONFIGS))
def test_what_is_kept_beside_a_parameter_lies_where_it_does(mesh, rule):
    config = TrainConfig(model=MODEL, optim=OptimConfig(rule=RULE_CONFIGS[rule]()))
    params = abstract_params(MODEL)
    state = jax.eval_shape(make(config, params).init, params)
    places = param_shardings(param_shapes(MODEL), mesh)
    beside = state_shardings(state, params, places, mesh)
    parts = bytes_per_device(state, beside) / sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(state)
    )
    # the memories of deep momentum are split over fsdp only
    assert parts < (0.26 if rule == "deep_momentum" else 0.131)
    own = flatten(places)
    for path, place in flatten(beside).items():
        if path.startswith("levels/period_4/grad_sum/"):
            assert place == own[path.removeprefix("levels/period_4/grad_sum/")]


def test_what_the_mesh_does_not_divide_is_named():
    narrow = param_shapes(ModelConfig(dim=64, mixer=AttentionConfig(heads=4)))
    said = "mixer/w_.* 4 along 'heads' cannot be split in 8; choose a mesh.tensor"
    with pytest.raises(ValueError, match=said):
        param_shardings(narrow, make_mesh(MeshConfig(data=1, fsdp=1, tensor=8)))


def test_an_axis_of_a_head_stays_whole_where_it_is_too_narrow():
    mixer = SelfModifyingConfig(heads=16, chunk=4, rate_hidden=8)
    shapes = param_shapes(ModelConfig(dim=64, mixer=mixer))  # heads of four
    places = flatten(param_shardings(shapes, make_mesh(MeshConfig(data=1, fsdp=8))))
    assert places["blocks/mixer/memory_in"].is_fully_replicated
    assert not places["blocks/mixer/w_q"].is_fully_replicated


def test_a_batch_goes_to_the_devices_that_share_it(mesh):
    rows = local_rows(8, mesh)
    assert rows == tuple(range(8))
    batch = {"tokens": np.arange(24, dtype=np.int32).reshape(8, 3)}
    placed = place_batch(batch, rows, 8, mesh)["tokens"]
    assert {s.data.shape for s in placed.addressable_shards} == {(2, 3)}
    np.testing.assert_array_equal(placed, batch["tokens"])
    assert jnp.issubdtype(placed.dtype, jnp.int32)


def test_a_batch_that_cannot_be_shared_is_refused(mesh):
    check_batch(8, "data.batch 8", mesh)
    with pytest.raises(ValueError, match="data.batch 6 is 6 rows.*fsdp 4 = 4 parts.*multiple"):
        check_batch(6, "data.batch 6", mesh)
