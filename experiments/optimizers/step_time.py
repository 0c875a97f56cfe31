"""What an update rule adds to a training step, and where it goes.

    python experiments/optimizers/step_time.py --out experiments/results/optimizers

Times the gradient of a Transformer and the update of each rule, apart, in CPU seconds;
rules take turns, so that a noisy machine treats them alike. Beside the times stands what
the update has to do: floating-point operations of the Newton-Schulz iterations, and the
bytes of the optimizer's state, each of which is read and written once at least. `share` is
the update's part of a step with this many tokens; `at 0.5M tokens` is what it would be
with a batch of that size, as a pod has it, the gradient's cost being proportional.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp

from hope_jax.benchmark.measure import spend
from hope_jax.config import (
    RULE_CONFIGS,
    AttentionConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from hope_jax.models import LanguageModel, abstract_params, flops_per_token, init_params
from hope_jax.nested.paths import flatten
from hope_jax.optim import make
from hope_jax.optim.matrices import by_path, matrix_view
from hope_jax.optim.model_matrices import model_matrices
from hope_jax.training.identity import device, versions
from hope_jax.training.objective import token_losses

POD_TOKENS = 2**19


def newton_schulz_flops(params, steps: int) -> int:
    """Operations of one orthogonalisation of every matrix.

    A step of k x z, k <= z, is X X^T, its square and (b A + c A A) X: 2 k (2 k z + k^2).
    """
    total = 0
    for path, dims in by_path(model_matrices, params).items():
        if dims is not None:
            shape = flatten(params)[path].shape
            view, _ = matrix_view("count", path, shape, dims)
            *batch, k, z = jax.eval_shape(view, jax.ShapeDtypeStruct(shape, "float32")).shape
            k, z = min(k, z), max(k, z)
            total += math.prod(batch) * steps * 2 * k * (2 * k * z + k * k)
    return total


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096, help="per step")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=8, help="M3's slow step is one in 8")
    parser.add_argument("--rules", nargs="+", default=list(RULE_CONFIGS))
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()

    model = ModelConfig(
        dim=args.width, depth=args.depth, mixer=AttentionConfig(heads=args.width // 64)
    )
    data = DataConfig(batch=args.tokens // args.length, length=args.length)
    key = jax.random.key(0)
    params = init_params(model, key)
    shapes = abstract_params(model)
    tokens_BT = jax.random.randint(key, (data.batch, data.length + 1), 0, 256)
    batch = {"tokens": tokens_BT, "reset": jnp.zeros((data.batch, data.length), bool)}
    losses = functools.partial(token_losses, LanguageModel(model))
    gradient = jax.jit(jax.grad(lambda params, batch: losses(params, batch)[0].mean()))
    grads = jax.block_until_ready(gradient(params, batch))

    updates, states, seconds = {}, {}, {"gradient": []}
    for rule in args.rules:
        optim = OptimConfig(rule=RULE_CONFIGS[rule](), warmup=0)
        levels = make(TrainConfig(model=model, data=data, optim=optim), shapes)
        state = levels.init(params)
        updates[rule] = jax.jit(levels.step, donate_argnums=1)
        states[rule] = updates[rule](params, state, grads)[1]  # compiles
        seconds[rule] = []
    for _ in range(args.rounds):
        seconds["gradient"].append(spend(lambda: gradient(params, batch))[1].cpu)
        for rule in args.rules:
            (_, states[rule], _), spent = spend(
                lambda rule=rule: updates[rule](params, states[rule], grads)
            )
            seconds[rule].append(spent.cpu)

    # Means, because not every update of M3 costs the same.
    mean = {name: sum(times) / len(times) for name, times in seconds.items()}
    per_token = flops_per_token(model, data.length).training
    rows = []
    for rule in args.rules:
        steps = getattr(RULE_CONFIGS[rule](), "steps", 0)
        flops = newton_schulz_flops(params, steps)
        pod = mean["gradient"] * POD_TOKENS / args.tokens
        rows.append(
            {
                "rule": rule,
                "update_seconds": mean[rule],
                "spread": [min(seconds[rule]), max(seconds[rule])],
                "share": mean[rule] / (mean["gradient"] + mean[rule]),
                "share_at_pod": mean[rule] / (pod + mean[rule]),
                "newton_schulz_flops": flops,
                "state_bytes": sum(x.nbytes for x in jax.tree.leaves(states[rule])),
            }
        )
    found = {
        "arguments": {k: str(v) if k == "out" else v for k, v in vars(args).items()},
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "gradient_seconds": mean["gradient"],
        "gradient_spread": [min(seconds["gradient"]), max(seconds["gradient"])],
        "gradient_flops": per_token * args.tokens,
        "rows": rows,
        "device": device(),
        "versions": versions(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "step_time.json").write_text(json.dumps(found, indent=1) + "\n")
    text = render(found)
    (args.out / "step_time.md").write_text(text)
    print(text)


def render(found: dict) -> str:
    """The table."""
    a = found["arguments"]
    low, high = found["gradient_spread"]
    rate = found["gradient_flops"] / found["gradient_seconds"] / 1e9
    lines = [
        f"Written by `python experiments/optimizers/step_time.py --width {a['width']} --depth "
        f"{a['depth']} --tokens {a['tokens']} --rounds {a['rounds']}`. Transformer of "
        f"{found['parameters']:,} parameters, {a['tokens']:,} tokens per step. The gradient "
        f"takes {low:.2f} to {high:.2f} CPU s ({rate:.0f} GFLOP/s).\n",
        "| rule | update, CPU s (range) | share of the step | at 0.5M tokens | Newton-Schulz "
        "GFLOP (per CPU s) | state, bytes per parameter |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        low, high = row["spread"]
        gflop = row["newton_schulz_flops"] / 1e9
        work = f"{gflop:.0f} ({gflop / row['update_seconds']:.0f})" if gflop else "none"
        lines.append(
            f"| {row['rule']} | {row['update_seconds']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{row['share']:.0%} | {row['share_at_pod']:.1%} | {work} | "
            f"{row['state_bytes'] / found['parameters']:.1f} |"
        )
    ran_on = ", ".join(
        f"{k} {v}" for part in (found["device"], found["versions"]) for k, v in part.items()
    )
    return "\n".join([*lines, "", f"{ran_on}.", ""])


if __name__ == "__main__":
    main()
