"""Strict settings for every test: silent broadcasting and warnings are errors."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes most of the time of tests on tiny shapes; unoptimised code compiles in
# about half of it. XLA_FLAGS= in the environment tests optimised code.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
