"""Counting collectives in programs whose answer is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hope_jax.aot import find_collectives
from hope_jax.config import MeshConfig
from hope_jax.parallel import make_mesh

NESTED = """\
%body.2 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %r = f32[4]{0} all-reduce(%x), channel_id=3, replica_groups=[2,4]<=[8], to_apply=%add
}

%condition.2 (p: (s32[], f32[4])) -> pred[] {
  %bound = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%body.1 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %inner = (s32[], f32[4]) while(%p), condition=%condition.2, body=%body.2
  %start = f32[8,4]{1,0} fusion(%x), kind=kCustom, calls=%async_collective_fusion.1
  %done = f32[8,4]{1,0} fusion(%start), kind=kCustom, calls=%async_collective_fusion.2
}

%async_collective_fusion.1 (a: bf16[1,4]) -> bf16[8,4] {
  %g.1 = bf16[8,4]{1,0} all-gather(%a), channel_id=7, replica_groups=mesh['a'=2,'b'=8] {'b'}, M
}

%async_collective_fusion.2 (a: bf16[1,4]) -> bf16[8,4] {
  %g.2 = bf16[8,4]{1,0} all-gather(%a), channel_id=7, replica_groups=mesh['a'=2,'b'=8] {'b'}
}

%all-reduce-scatter.1 (a: f32[16]) -> f32[4] {
  %r.2 = f32[16]{0} all-reduce(%a), channel_id=9, replica_groups={{0,1,2,3},{4,5,6,7}}
  ROOT %part = f32[4]{0} dynamic-slice(%r.2, %at)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %loop = (s32[], f32[4]) while(%t), condition=%c, body=%body.1, TURNS
  %scattered = f32[4] fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
  %permuted = (f32[2], f32[2], u32[], u32[]) collective-permute-start(%z), channel_id=11
  %again = f32[4]{0} all-reduce(%q), channel_id=3, replica_groups=[1,8]<=[8], to_apply=%add
}

%unused (p: f32[4]) -> f32[4] {
  %r.9 = f32[4]{0} all-reduce(%p), channel_id=99, replica_groups=[1,8]<=[8]
}
"""
NESTED = NESTED.replace("TURNS", 'backend_config={"known_trip_count":{"n":"3"}}')
NESTED = NESTED.replace("{'b'}, M", "{'b'}, metadata={op_name=\"jit(step)/embed\"}")


def test_loops_channels_and_fusions():
    everything = find_collectives(NESTED)
    assert len(everything) == 5  # the last shares a channel with another, and is its own
    found = {one.kind: one for one in reversed(everything)}
    assert set(found) == {"all-reduce", "all-gather", "reduce-scatter", "collective-permute"}
    reduce = found["all-reduce"]
    assert (reduce.times, reduce.group, reduce.size) == (15, 4, 16)
    assert reduce.moved == 15 * 2 * 16 * 3 / 4
    gather = found["all-gather"]
    assert (gather.times, gather.group, gather.size) == (3, 8, 64)
    assert gather.where == "jit(step)/embed" and gather.moved == 3 * 64 * 7 / 8
    scatter = found["reduce-scatter"]
    assert (scatter.group, scatter.moved) == (4, 64 * 3 / 4)
    assert found["collective-permute"].moved == 8


def test_a_program_without_any():
    assert find_collectives(jax.jit(jnp.sin).lower(1.0).compile().as_text()) == []


@pytest.mark.parametrize("turns", [1, 6])
def test_a_real_program(turns):
    """Weights in eight parts, gathered in every turn of a loop, on eight devices."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=8))
    split, whole = (NamedSharding(mesh, PartitionSpec(*p)) for p in (("fsdp",), ()))
    w = jax.ShapeDtypeStruct(
        (turns, 64, 32), "float32", sharding=NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    )
    x = jax.ShapeDtypeStruct((8, 64), "float32", sharding=split)

    def read(w, x):
        def body(x, w):
            return jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole) @ w.T), None

        return jax.lax.scan(body, x, w)[0]

    compiled = jax.jit(read, out_shardings=split).lower(w, x).compile()
    gathers = [c for c in find_collectives(compiled.as_text()) if c.kind == "all-gather"]
    assert sum(c.moved for c in gathers) >= turns * 64 * 32 * 4 * 7 / 8
    assert {c.times for c in gathers} == {turns}
