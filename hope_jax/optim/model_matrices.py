"""Which parameters of the language model are matrices."""

from __future__ import annotations

import re
from typing import Any

import jax
from optax.contrib import MuonDimensionNumbers

from hope_jax.nested.paths import flatten

_LAST_TWO = MuonDimensionNumbers(-2, -1)
# Axes are counted from the end, so that a stack of layers in front makes no difference.
# Heads are columns of one matrix where the model's width is summed over, and batch axes
# where each has a memory of its own.
_MATRICES = (
    (
        r"mixer/(attention/)?w_(q|k|v|r|query|key|value|query_key|gate)",
        MuonDimensionNumbers(-3, (-2, -1)),
    ),
    (r"mixer/w_(decay|rate|gate)_in", _LAST_TWO),
    (r"mixer/w_(decay|rate|gate)_out", MuonDimensionNumbers(-3, (-2, -1))),
    (r"mixer/w_input", MuonDimensionNumbers(-4, (-3, -2, -1))),
    (r"mixer/w_recurrent", MuonDimensionNumbers(-3, (-2, -1))),
    (r"mixer/(attention/)?w_(memory_)?out", MuonDimensionNumbers((-3, -2), -1)),
    (r"mixer/(mamba/)?w_(expand|expand_gate|contract|select|step)", _LAST_TWO),
    (r"mixer/mlp/w_(in|gate|out)", _LAST_TWO),
    (r"mixer/memory_(in|value|out|y|q|k|\d+)", _LAST_TWO),
    (r"cms/period_\d+/w_(in|gate|out)", _LAST_TWO),
)


def model_matrices(params: Any) -> Any:
    """`dims` of the language model's parameters, by name; None for what is no matrix.

    Not matrices, whatever their rank: the embedding (a row per token, of which most have no
    gradient), norms, biases, convolutions, and the projections and memories that give a
    number per head.

    >>> leaf = jax.ShapeDtypeStruct((4, 128, 224), "float32")
    >>> level = {"w_in": leaf, "norm_scale": leaf}
    >>> dims = model_matrices({"blocks": {"cms": {"period_1": level}}})["blocks"]["cms"]
    >>> dims["period_1"]["w_in"], dims["period_1"]["norm_scale"]
    (MuonDimensionNumbers(reduction_axis=-2, output_axis=-1), None)
    """

    def of(path: str) -> MuonDimensionNumbers | None:
        return next((dims for name, dims in _MATRICES if re.search(rf"{name}$", path)), None)

    return jax.tree.unflatten(jax.tree.structure(params), [of(p) for p in flatten(params)])
