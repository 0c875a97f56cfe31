"""Root-mean-square normalisation."""

import jax.numpy as jnp
import numpy as np

from hope_jax.layers.norm import rms_norm


def test_has_unit_mean_square_times_the_scale():
    x = jnp.array([[3.0, -4.0], [0.3, 0.4]])
    y = rms_norm(x, jnp.array([1.0, 2.0]), 0.0)
    np.testing.assert_allclose(np.square(y / jnp.array([[1.0, 2.0]])).mean(-1), 1, rtol=1e-6)


def test_large_bfloat16_inputs_do_not_overflow():
    y = rms_norm(jnp.full((1, 4), 3e19, jnp.bfloat16), jnp.ones(4), 1e-6)
    assert y.dtype == jnp.bfloat16
    assert np.isfinite(y.astype(jnp.float32)).all()
