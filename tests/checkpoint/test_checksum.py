"""Checksums of arrays: nothing changes unseen, and the place does not matter."""

import jax
import jax.numpy as jnp
import numpy as np

from hope_jax.checkpoint.checksum import checksums, on_device, on_host


def test_places_may_be_beyond_what_an_int32_holds():
    shape = jax.ShapeDtypeStruct((2, 40_000, 65_536), jnp.float32)
    assert jax.eval_shape(on_device, shape).dtype == jnp.uint32


def test_checksum_sees_every_change_and_is_the_same_on_host_and_device():
    x = jax.random.normal(jax.random.key(0), (5, 7))
    whole = checksums({"x": x})["x"]
    assert int(on_device(x)) == int(on_host(np.asarray(x))) == whole
    swapped = np.array(x)
    swapped[0, 0], swapped[0, 1] = swapped[0, 1], swapped[0, 0]
    changed = np.array(x)
    changed.view(np.uint32)[3, 3] ^= 1 << 31
    assert whole not in checksums({"a": swapped, "b": changed}).values()
    for dtype in (jnp.bfloat16, jnp.int32, jnp.bool_):
        y = (x * 10).astype(dtype)
        assert int(on_device(y)) == int(on_host(np.asarray(y)))
