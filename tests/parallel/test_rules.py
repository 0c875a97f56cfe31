"""The table from logical axes to the mesh."""

import pytest
from jax.sharding import PartitionSpec

from hope_jax.parallel import AXES, RULES, spec


def test_every_rule_names_axes_of_the_mesh_once():
    names = [name for name, _ in RULES]
    assert len(set(names)) == len(names)
    for _, place in RULES:
        places = (place,) if isinstance(place, str) else place or ()
        assert set(places) <= set(AXES)


def test_names_become_places():
    assert spec(("batch", "time", None)) == PartitionSpec(("data", "fsdp"), None, None)
    assert spec(("layers", "mlp", "embed")) == PartitionSpec(None, "tensor", "fsdp")
    assert spec(()) == PartitionSpec()


@pytest.mark.parametrize(
    "names, said",
    [
        (("embed", "embd"), "w_q has the logical axis 'embd'.*use one of batch, time"),
        (("heads", "mlp"), "w_q has axes 'heads' and 'mlp', and both .* over 'tensor'"),
        (("batch", "embed"), "w_q has axes 'batch' and 'embed', and both .* over 'fsdp'"),
    ],
)
def test_what_has_no_meaning_is_refused(names, said):
    with pytest.raises(ValueError, match=said):
        spec(names, "w_q")
