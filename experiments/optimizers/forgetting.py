"""What does an optimizer do to task A while it trains on task B, if B has nothing to do with A?

    python experiments/optimizers/forgetting.py

A layer `y = x W` has gradients `X^T delta`: they lie in the span of its inputs. Inputs of A
lie in a random subspace, those of B in its orthogonal complement, so no gradient of B has
any part that A's outputs depend on. Gradient descent on B leaves A's loss where it was, to
rounding. Whatever A loses is the optimizer's doing: momentum from A that is left over at the
switch, element-wise scaling that turns a gradient out of its subspace, weight decay.
That is the setting of Eq. 45 of the paper. Problems:

- wide: a 32 x 32 matrix, both subspaces of 16 dimensions;
- narrow: a 32 x 8 matrix, so that the gradient of B fills all columns;
- mlp: 32 x 64 x 16 with tanh. Only the first layer's gradients are orthogonal; the second
  layer is shared, so here gradient descent forgets too. "Through the first layer" is A's
  loss with the first layer after B and the second one before B.

Both tasks are regressions on a random teacher with noisy targets, in batches, at a constant
learning rate; A's share of the noise-free loss before training is 1. Rates come from a grid
with factor two, the one with the lowest sum of A's loss after A and B's loss after B, on
other seeds than those reported: forgetting is not looked at, and who does not learn B does
not win. Forgetting at twice that rate is told too, because the best rate is just large
enough to finish A. The second run of B, "fresh", begins with a new optimizer state: it
tells what was left over at the switch from what the rule itself does.

Results are kept in forgetting.json as they come; the same command goes on from there. The
reading at the end of forgetting.md is written by hand and is kept. About three minutes on
one core, if OPENBLAS_NUM_THREADS=1 keeps the small Cholesky factors of DGD from waiting for
threads; --plot only draws and tabulates again.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from optax.contrib import scale_by_muon

from hope_jax.optim import (
    dgd,
    match_rms,
    scale_by_deep_momentum,
    scale_by_delta_momentum,
    scale_by_m3,
    two_dimensional,
)
from hope_jax.training.identity import device, versions

RESULTS = Path(__file__).parents[1] / "results" / "optimizers"
K, D = 32, 16  # inputs, dimensions of each task's subspace
BATCH, HELD_OUT = 16, 256
NOISE = 0.5  # of the targets, whose own square is 2 per example
READING = "## Reading"


class Problem(NamedTuple):
    """Shape of what is trained, one matrix without hidden units, and its grid of rates."""

    outputs: int
    hidden: int = 0
    rates: int = 5
    centre: float = 1.0  # times that of the rule


PROBLEMS = {
    "wide": Problem(32),
    "narrow": Problem(8),
    # Small rates have a minimum of their own, where only the linear part is learnt.
    "mlp": Problem(16, hidden=64, rates=7, centre=4.0),
}


class Tasks(NamedTuple):
    """Tasks A and B, stacked along the first axis.

    Attributes:
      basis: `[2, K, D]`, orthonormal, of the subspaces.
      teacher: parameters like those that are trained.
      scale: of the targets.
      x: noise-free inputs to measure the loss on; t: their targets.
    """

    basis: jax.Array
    teacher: Any
    scale: jax.Array
    x: jax.Array
    t: jax.Array


class Rule(NamedTuple):
    """An optimizer: from a learning rate to a transformation, and where its grid is centred."""

    make: Callable[[Any], optax.GradientTransformation]
    centre: float
    loss_scale: float = 1.0


def _rated(scale: Callable[[], optax.GradientTransformation], centre: float) -> Rule:
    return Rule(
        lambda rate: optax.chain(scale(), optax.scale_by_learning_rate(rate)), centre=centre
    )


RULES = {
    "SGD": _rated(optax.identity, 2**-6),
    "SGD, weight decay 0.01": _rated(lambda: optax.add_decayed_weights(0.01), 2**-6),
    "momentum 0.9": _rated(lambda: optax.trace(0.9), 2**-9),
    "momentum 0.99": _rated(lambda: optax.trace(0.99), 2**-13),
    "delta momentum": _rated(lambda: scale_by_delta_momentum(0.9), 2**-8),
    "Adam": _rated(optax.scale_by_adam, 2**-9),
    "Muon": _rated(lambda: scale_by_muon(weight_dimension_numbers=two_dimensional), 2**-8),
    "M3, second_moment=none": _rated(lambda: scale_by_m3(second_moment="none"), 2**-8),
    "M3": _rated(lambda: optax.chain(scale_by_m3(), match_rms(0.2)), 2**-6),
    "deep momentum": _rated(scale_by_deep_momentum, 2**-9),
    "DGD": Rule(dgd, 2**-6),
    # The rule rests where the gradient cancels its decay; ten times the loss, ten times less.
    "DGD, loss x 10": Rule(dgd, 2**-9, loss_scale=10.0),
}


def forward(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """Outputs, and what every layer was given."""
    if "w_out" not in params:
        return x @ params["w"], {"w": x}
    hidden = jnp.tanh(x @ params["w"])
    return hidden @ params["w_out"], {"w": x, "w_out": hidden}


def loss_of(params: Any, x: jax.Array, t: jax.Array) -> tuple[jax.Array, Any]:
    """Half the squared error per example, and the inputs of the layers."""
    y, inputs = forward(params, x)
    return 0.5 * jnp.mean(jnp.sum(jnp.square(y - t), axis=-1)), inputs


def initial(problem: Problem, key: jax.Array) -> Any:
    """Parameters to begin with; a matrix begins at zero."""
    if not problem.hidden:
        return {"w": jnp.zeros((K, problem.outputs))}
    one, two = jax.random.split(key)
    shape = (problem.hidden, problem.outputs)
    return {
        "w": jax.random.normal(one, (K, problem.hidden)) / K**0.5,
        "w_out": jax.random.normal(two, shape) * (0.1 / problem.hidden**0.5),
    }


def draw_inputs(basis: jax.Array, key: jax.Array, n: int) -> jax.Array:
    """Examples of a task: normal, with axes of unequal length inside its subspace."""
    lengths = jnp.geomspace(1.0, 0.3, D)
    return (jax.random.normal(key, (n, D)) * lengths[None]) @ basis.T


def make_tasks(problem: Problem, key: jax.Array) -> Tasks:
    """Two tasks in random, orthogonal subspaces of the inputs."""
    turn, teach, held = jax.random.split(key, 3)
    q, _ = jnp.linalg.qr(jax.random.normal(turn, (K, K)))
    basis = jnp.stack([q[:, :D], q[:, D:]])

    def teacher(key):
        if not problem.hidden:
            return {"w": jax.random.normal(key, (K, problem.outputs))}
        one, two = jax.random.split(key)
        # A quarter of the hidden units each: both tasks fit into the network together.
        return {
            "w": jax.random.normal(one, (K, problem.hidden // 4)) * 0.5,
            "w_out": jax.random.normal(two, (problem.hidden // 4, problem.outputs)),
        }

    teachers = jax.vmap(teacher)(jax.random.split(teach, 2))
    x = jax.vmap(lambda b, k: draw_inputs(b, k, HELD_OUT))(basis, jax.random.split(held, 2))
    t = jax.vmap(forward)(teachers, x)[0]
    scale = jnp.sqrt(2 / jnp.mean(jnp.sum(t**2, -1), -1))
    return Tasks(basis, teachers, scale, x, t * scale[:, None, None])


def draw_batches(tasks: Tasks, which: int, key: jax.Array, n: int) -> dict[str, jax.Array]:
    """`n` batches of a task, with noisy targets."""
    one, two = jax.random.split(key)
    x = draw_inputs(tasks.basis[which], one, n * BATCH).reshape(n, BATCH, K)
    t = forward(jax.tree.map(lambda w: w[which], tasks.teacher), x)[0] * tasks.scale[which]
    t = t + jax.random.normal(two, t.shape) * (NOISE / t.shape[-1]) ** 0.5
    return {"x": x, "t": t}


def draw(problem: Problem, steps: int, seed: jax.Array) -> tuple[Tasks, Any, list[Any]]:
    """All that is random: the tasks, the parameters to begin with, the batches of A and B."""
    key = jax.random.fold_in(jax.random.key(0), seed)
    task_key, init_key, *batch_keys = jax.random.split(key, 4)
    tasks = make_tasks(problem, task_key)
    batches = [draw_batches(tasks, i, key, steps) for i, key in enumerate(batch_keys)]
    return tasks, initial(problem, init_key), batches


def train(
    rule: Rule, every: int, rate: Any, tasks: Tasks, params: Any, state: Any, batches: Any
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Train on batches; every `every` steps, both tasks' losses and the update's part in A."""
    tx = optax.with_extra_args_support(rule.make(rate))

    def step(carry, batch):
        params, state = carry
        grads, inputs = jax.grad(loss_of, has_aux=True)(params, batch["x"], batch["t"])
        grads = jax.tree.map(lambda g: rule.loss_scale * g, grads)
        updates, state = tx.update(grads, state, params, inputs=inputs)
        change = updates["w"]
        parts = jnp.sum((tasks.basis[0].T @ change) ** 2), jnp.sum(change**2)
        return (optax.apply_updates(params, updates), state), jnp.stack(parts)

    def several(carry, batches):
        carry, parts = jax.lax.scan(step, carry, batches)
        a, b = (loss_of(carry[0], tasks.x[i], tasks.t[i])[0] for i in (0, 1))
        return carry, {"a": a, "b": b, "parts": parts.mean(0)}

    batches = jax.tree.map(lambda x: x.reshape(-1, every, *x.shape[1:]), batches)
    (params, state), record = jax.lax.scan(several, (params, state), batches)
    return params, state, record


def trainer(rule: Rule, every: int) -> Callable[..., Any]:
    """`train` for many seeds at once, compiled."""
    one = functools.partial(train, rule, every)
    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0, 0)))


def share(parts: jax.Array) -> jax.Array:
    """Length in A's subspace over the whole length, from their squares."""
    return jnp.sqrt(parts[..., 0] / jnp.maximum(parts[..., 1], 1e-38))


def lengths_in_a(tasks: Tasks, weights: jax.Array) -> jax.Array:
    """Length of each seed's part of the weights in A's subspace."""
    return jnp.linalg.norm(tasks.basis[:, 0].mT @ weights, axis=(1, 2))


def final(record: dict[str, jax.Array], task: str) -> jax.Array:
    """A task's loss at the end of a phase, by seed."""
    return record[task][:, -1]


def experiment(
    rule: Rule, run: Callable[..., Any], rate: float, drawn: Any
) -> dict[str, jax.Array]:
    """A, then B, and B once more with a new optimizer state; figures by seed."""
    tasks, start, (batches_a, batches_b) = drawn
    fresh = jax.vmap(rule.make(rate).init)(start)
    before, state, in_a = run(rate, tasks, start, fresh, batches_a)
    after, _, in_b = run(rate, tasks, before, state, batches_b)
    _, _, in_fresh = run(rate, tasks, before, fresh, batches_b)
    loss_a = jax.vmap(lambda p, t: loss_of(p, t.x[0], t.t[0])[0])
    moved = lengths_in_a(tasks, after["w"] - before["w"])
    return {
        "a_initial": loss_a(start, tasks),
        "a_three_quarters": in_a["a"][:, in_a["a"].shape[1] * 3 // 4 - 1],
        "a_before": final(in_a, "a"),
        "a_after": final(in_b, "a"),
        "b_after": final(in_b, "b"),
        "a_after_fresh": final(in_fresh, "a"),
        "b_after_fresh": final(in_fresh, "b"),
        "a_after_first_layer": loss_a({**before, "w": after["w"]}, tasks),
        "share": share(in_b["parts"].sum(1)),
        "share_fresh": share(in_fresh["parts"].sum(1)),
        "share_last": share(in_b["parts"][:, -1]),
        "moved": moved / lengths_in_a(tasks, before["w"]),
        "curve_a": jnp.concatenate([in_a["a"], in_b["a"]], axis=1),
        "curve_a_fresh": in_fresh["a"],
        "curve_b": in_b["b"],
        "curve_share": share(in_b["parts"]),
    }


def total_loss(rule: Rule, run: Callable[..., Any], rate: float, drawn: Any) -> float:
    """A's loss after A plus B's loss after B, mean over seeds; infinite if it diverged."""
    tasks, start, (batches_a, batches_b) = drawn
    fresh = jax.vmap(rule.make(rate).init)(start)
    params, state, in_a = run(rate, tasks, start, fresh, batches_a)
    in_b = run(rate, tasks, params, state, batches_b)[2]
    value = float(jnp.mean(final(in_a, "a") + final(in_b, "b")))
    return value if math.isfinite(value) else math.inf


def measure(
    rule: Rule, tuning: Any, reported: Any, every: int, centre: float, rates: int, most: int
) -> dict[str, Any]:
    """The rate from the grid, then all figures at that rate, by seed."""
    run = trainer(rule, every)
    half = rates // 2
    row = [centre * 2.0**i for i in range(-half, rates - half)]
    grid = {rate: total_loss(rule, run, rate, tuning) for rate in row}
    while len(grid) < most:
        best, low, high = min(grid, key=grid.get), min(grid), max(grid)
        if best not in (low, high) or not math.isfinite(grid[best]):
            break
        rate = best / 2 if best == low else best * 2
        grid[rate] = total_loss(rule, run, rate, tuning)
    best = min(grid, key=grid.get)
    found = jax.tree.map(np.asarray, experiment(rule, run, best, reported))
    twice = experiment(rule, run, 2 * best, reported)
    digits = lambda a: [float(f"{x:.4g}") for x in a]
    return {
        "rate": best,
        "at_edge": best in (min(grid), max(grid)),
        "grid": [(r, v if math.isfinite(v) else None) for r, v in sorted(grid.items())],
        "seeds": {k: digits(v) for k, v in found.items() if not k.startswith("curve")},
        "twice_the_rate": {k: digits(twice[k]) for k in ("a_before", "a_after", "b_after")},
        "mean_curves": {
            k: digits(v.mean(0)) for k, v in found.items() if k.startswith("curve")
        },
    }


def forgetting(
    entry: dict[str, Any], after: str = "a_after", where: str = "seeds"
) -> np.ndarray:
    """A's loss after B minus before, by seed."""
    seeds = entry[where]
    return np.array(seeds[after]) - np.array(seeds["a_before"])


def spread(values: np.ndarray) -> str:
    """Mean, and the range."""
    if not np.isfinite(values).all():
        return "diverged"
    # What is left of a difference of two float32 losses says nothing.
    show = lambda v: "0" if abs(v) < 2e-7 else f"{v:.2g}"
    return f"{show(values.mean())} ({show(values.min())} to {show(values.max())})"


def table(name: str, rules: dict[str, Any]) -> str:
    """One problem, least forgetting first."""
    mlp = name == "mlp"
    head = ["optimizer", "rate", "A after A", "B after B", "forgetting of A (range)"]
    head += ["at twice the rate", "fresh state at the switch"] + [
        "through the first layer"
    ] * mlp
    head += ["update's part in A", "... last steps", "net move in A"]
    lines = [f"### {name}\n", f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for rule, entry in sorted(rules.items(), key=lambda item: forgetting(item[1]).mean()):
        mean = {k: float(np.mean(v)) for k, v in entry["seeds"].items()}
        cells = [
            rule,
            f"{entry['rate']:.2g}" + " (edge)" * entry["at_edge"],
            f"{mean['a_before']:.4f}",
            f"{mean['b_after']:.4f}",
            spread(forgetting(entry)),
            spread(forgetting(entry, where="twice_the_rate")).split(" ")[0],
            spread(forgetting(entry, "a_after_fresh")).split(" ")[0],
        ]
        if mlp:
            cells.append(spread(forgetting(entry, "a_after_first_layer")).split(" ")[0])
        parts = (mean["share"], mean["share_last"], mean["moved"])
        cells += [f"{v:.1%}" if v > 5e-4 else f"{v:.0e}" for v in parts]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, Any], folder: Path) -> None:
    """A's loss over the switch, the update's part in A, and forgetting, per problem."""
    problems, args = found["problems"], found["arguments"]
    figure = Figure(figsize=(17, 4.6 * len(problems)), layout="constrained")
    grid = figure.subplots(len(problems), 3, squeeze=False)
    colours = {rule: f"C{i}" if i < 10 else "black" for i, rule in enumerate(RULES)}
    for (name, rules), (left, middle, right) in zip(problems.items(), grid, strict=True):
        for rule, entry in rules.items():
            curve = entry["mean_curves"]["curve_a"]
            steps = args["every"] * (np.arange(len(curve)) + 1) - args["steps"]
            style = {"color": colours[rule], "label": rule, "linewidth": 1.3}
            left.plot(steps, curve, **style)
            part = np.maximum(entry["mean_curves"]["curve_share"], 1e-8)
            middle.plot(args["every"] * (np.arange(len(part)) + 0.5), part, **style)
        left.axvline(0, color="grey", linestyle=":")
        left.set(yscale="log", xlabel="steps since the switch to B", title=f"{name}: A's loss")
        left.set_xlim(-0.5 * args["steps"], args["steps"])
        middle.set(
            yscale="log",
            xlabel="steps since the switch to B",
            title=f"{name}: part of the update that lies in A's subspace",
        )
        order = sorted(rules, key=lambda rule: forgetting(rules[rule]).mean())
        values = [forgetting(rules[rule]) for rule in order]
        fresh = [forgetting(rules[rule], "a_after_fresh").mean() for rule in order]
        rows = np.arange(len(order))
        means = np.array([v.mean() for v in values])
        ends = np.array([[v.mean() - v.min(), v.max() - v.mean()] for v in values]).T
        right.barh(rows, means, xerr=ends, color=[colours[r] for r in order], capsize=3)
        right.plot(fresh, rows, "D", color="white", markeredgecolor="black", markersize=5,
                   label="with a fresh state at the switch")  # fmt: skip
        if name == "mlp":
            first = [forgetting(rules[rule], "a_after_first_layer").mean() for rule in order]
            right.plot(first, rows, "ks", markersize=6, label="through the first layer")
        right.set_yticks(rows, order)
        right.set_xlim(-5e-4, 3)
        right.set_ylim(bottom=-2)
        right.set_xscale("symlog", linthresh=1e-3)
        right.set(xlabel="A's loss after B minus before (bar: range over seeds)",
                  title=f"{name}: forgetting")  # fmt: skip
        right.legend(loc="lower right", fontsize=8)
        for axes in (left, middle, right):
            axes.grid(alpha=0.3)
    grid[0][0].legend(fontsize=8, ncols=2)
    figure.savefig(folder / "forgetting.png", dpi=85)


def write(found: dict[str, Any], folder: Path) -> None:
    """The plot, and the tables with the hand-written reading that was there."""
    plot(found, folder)
    args, path = found["arguments"], folder / "forgetting.md"
    old = path.read_text() if path.exists() else ""
    kept = old[old.index(READING) :] if READING in old else f"{READING}\n"
    ran_on = ", ".join(f"{k} {v}" for p in ("device", "versions") for k, v in found[p].items())
    tables = "\n".join(table(name, rules) for name, rules in found["problems"].items())
    changed = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in args.items())
    text = f"""# Forgetting of a task by training on an orthogonal one

Written by `python experiments/optimizers/forgetting.py {changed}`,
which says what is done; all figures are in forgetting.json.
Losses are noise-free, about 1 before training. Means of {args["seeds"]} seeds. Each rate was
chosen by A's loss after A plus B's loss after B, on other seeds. "Update's part in A" is
|P u| / |u|, P the projection on A's inputs, over all steps of B and over the last
{args["every"]}; "net move in A" is relative to the length of the weights there.

{tables}
![losses, parts and forgetting](forgetting.png)

{ran_on}.

"""
    path.write_text(text + kept)


def main() -> None:
    """Measure what is not there yet, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000, help="of each task")
    parser.add_argument("--every", type=int, default=5, help="steps per measurement")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rates", type=int, help="of the grid at first, if not as usual")
    parser.add_argument("--most", type=int, default=12, help="rates that the grid may grow to")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--plot", action="store_true", help="only from what is there")
    args = parser.parse_args()
    if args.steps % args.every:
        parser.error("--steps is no multiple of --every")

    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "forgetting.json"
    numbers = {k: v for k, v in vars(args).items() if isinstance(v, int) and k != "plot"}
    found = {"arguments": numbers, "seeds": {"reported": list(range(args.seeds))}}
    found["seeds"]["rates"] = [1000 + s for s in range(args.seeds)]
    found |= {"device": device(), "versions": versions(), "problems": {}}
    if path.exists():
        old = json.loads(path.read_text())
        if args.plot or old["arguments"] == numbers:
            found = old
    for name in [] if args.plot else args.problems:
        done = found["problems"].setdefault(name, {})
        missing = [rule for rule in args.rules if rule not in done]
        if missing:
            one = functools.partial(draw, PROBLEMS[name], args.steps)
            tuning, reported = (
                jax.jit(jax.vmap(one))(jnp.asarray(found["seeds"][k]))
                for k in ("rates", "reported")
            )
        for rule in missing:
            done[rule] = measure(
                RULES[rule],
                tuning,
                reported,
                args.every,
                RULES[rule].centre * PROBLEMS[name].centre,
                args.rates or PROBLEMS[name].rates,
                args.most,
            )
            path.write_text(json.dumps(found) + "\n")
            print(f"{name}, {rule}: forgetting {spread(forgetting(done[rule]))}", flush=True)
    write(found, args.out)


if __name__ == "__main__":
    main()
