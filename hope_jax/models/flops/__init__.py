"""Floating-point operations from a configuration: one file per family of mixers."""

from hope_jax.models.flops.count import Flops, flops_of_next_token, flops_per_token

__all__ = ["Flops", "flops_of_next_token", "flops_per_token"]
