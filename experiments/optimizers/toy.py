"""Momentum against delta momentum on the toy problem of Eq. 53.

    python experiments/optimizers/toy.py

    psi(r, theta) = r^2 + k (r - theta + alpha sin(omega r))^2,   from (r, theta) = (-3.5, 2)

A curved valley whose floor leads to the one minimum, psi = 0 at the origin. The paper says
that delta momentum reaches it sooner (Figure 4) and gives neither k, alpha, omega nor step
sizes. So both rules are run over a grid of step sizes, each is taken at its best, and that
for 15 pairs of k and omega (alpha = 1). What counts is the number of steps until psi stays
below 1e-3, of at most --steps. There are two contests:

- decay 0.9 for both, only the step size is chosen;
- the decay of the momentum is chosen too, from the same values for all, and in the last
  column also how much delta momentum forgets, which is one number more to choose.

Wide steps cross the hills, and one in thousands lands at the minimum by luck. So a setting is
run from nine starts, the paper's and eight at a distance of 0.1, and its median counts.

What `g g^T` is depends on how two numbers are a matrix. As a column, `[2, 1]`, it is 2 x 2:
the momentum lets go along the gradient only. As a row, `[1, 2]`, or as two scalars it is a
number: with the step relative to the gradient's norm, delta momentum is then the plain
momentum with decay 0.9 - 0.5. The paper's own form has no step size on that term ("literal").

Writes toy.json, toy.png and toy.md; the reading at the end of toy.md is written by hand and
is kept. About a minute on one core; --plot only draws and tabulates again.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from hope_jax.optim import scale_by_delta_momentum
from hope_jax.training.identity import device, versions

RESULTS = Path(__file__).parents[1] / "results" / "optimizers"
START, GOAL, ALPHA = (-3.5, 2.0), 1e-3, 1.0
KS, OMEGAS = (1.0, 3.0, 10.0, 30.0, 100.0), (1.0, 2.0, 4.0)
SHOWN = (10.0, 1.0)
COLOURS = {"momentum": "C0", "delta, column": "C3", "delta, proximal": "C2"}
DECAYS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
DELTAS = (0.1, 0.25, 0.5, 1.0)
READING = "## Reading"


def psi(point: jax.Array, k: Any, omega: Any) -> jax.Array:
    """The function of Eq. 53, of two numbers of any shape."""
    r, theta = point.ravel()
    return r**2 + k * (r - theta + ALPHA * jnp.sin(omega * r)) ** 2


def momentum(decay: Any, delta: Any) -> optax.GradientTransformation:
    """Heavy ball; `delta` is of the other rules."""
    del delta
    return optax.trace(decay)


def delta_momentum(step: str, decay: Any, delta: Any) -> optax.GradientTransformation:
    """Delta momentum by one of its steps."""
    return scale_by_delta_momentum(decay, step, delta)


# Name: rule, shape of the point, usual delta.
RULES = {
    "momentum": (momentum, (2, 1), 0.0),
    "delta, column": (functools.partial(delta_momentum, "normalized"), (2, 1), 0.5),
    "delta, row": (functools.partial(delta_momentum, "normalized"), (1, 2), 0.5),
    "delta, proximal": (functools.partial(delta_momentum, "proximal"), (2, 1), 1.0),
    "delta, literal": (functools.partial(delta_momentum, "literal"), (2, 1), 1.0),
}


def stepper(name: str, rate: Any, decay: Any, delta: Any, k: Any, omega: Any) -> Any:
    """The function that is minimised, and the rule's initial state and step."""
    rule, shape, _ = RULES[name]
    tx = optax.chain(rule(decay, delta), optax.scale_by_learning_rate(rate))
    value = functools.partial(psi, k=k, omega=omega)

    def begin(start):
        point = jnp.asarray(start).reshape(shape)
        return point, tx.init(point)

    def step(carry):
        point, state = carry
        update, state = tx.update(jax.grad(value)(point), state, point)
        return optax.apply_updates(point, update), state

    return value, begin, step


def path(name: str, steps: int, *numbers: Any) -> tuple[np.ndarray, np.ndarray]:
    """psi and the point at every step from the paper's start, the start first."""
    value, begin, step = stepper(name, *numbers)
    one = lambda carry, _: (step(carry), (value(carry[0]), carry[0].ravel()))
    _, found = jax.lax.scan(one, begin(START), length=steps + 1)
    return tuple(map(np.asarray, found))


def steps_needed(name: str, steps: int, start: Any, *numbers: Any) -> jax.Array:
    """Steps until psi is below the goal for good; infinite if never."""
    value, begin, step = stepper(name, *numbers)

    def one(i, carry):
        state, last_above = carry
        state = step(state)
        # Not "above": what is not a number has not arrived either.
        return state, jnp.where(value(state[0]) < GOAL, last_above, i + 1)

    _, last_above = jax.lax.fori_loop(0, steps, one, (begin(start), 0))
    return jnp.where(last_above == steps, jnp.inf, last_above + 1)


def starts() -> np.ndarray:
    """The paper's start, then eight around it."""
    angles = np.arange(8) * np.pi / 4
    around = 0.1 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.array(START) + np.concatenate([np.zeros((1, 2)), around])


def sweep(
    name: str, steps: int, rates: np.ndarray, decays: tuple[float, ...], deltas: Any = None
) -> list[dict[str, Any]]:
    """Steps that a rule needs at its best, for all constants."""
    deltas = (RULES[name][2],) if deltas is None else deltas
    grid = np.array(np.meshgrid(rates, decays, deltas, KS, OMEGAS, indexing="ij"))
    one = functools.partial(steps_needed, name, steps)
    every = jax.vmap(jax.vmap(one, (0, *[None] * 5)), (None, *[0] * 5))
    numbers = (jnp.asarray(g.ravel(), jnp.float32) for g in grid)
    found = np.asarray(jax.jit(every)(jnp.asarray(starts(), jnp.float32), *numbers))
    found = found.reshape(*grid.shape[1:], -1)
    rows = []
    for i, k in enumerate(KS):
        for j, omega in enumerate(OMEGAS):
            here = found[..., i, j, :]
            middle = np.median(here, axis=-1)
            best = np.unravel_index(np.argmin(middle), middle.shape)
            arrives = np.isfinite(middle[best])
            number = lambda x: float(x) if np.isfinite(x) else None
            rows.append(
                {
                    "k": k,
                    "omega": omega,
                    "steps": number(middle[best]),
                    "steps_by_start": [number(x) for x in here[best]],
                    "rate": float(rates[best[0]]) if arrives else None,
                    "decay": decays[best[1]] if arrives else None,
                    "delta": deltas[best[2]] if arrives else None,
                    "rate_at_edge": bool(arrives and best[0] in (0, len(rates) - 1)),
                    # The one best run of all: what picking by a single run would have shown.
                    "luckiest": number(here[..., 0].min()),
                }
            )
    return rows


def at(rows: list[dict[str, Any]], k: float, omega: float) -> dict[str, Any]:
    """The row with these constants."""
    return next(r for r in rows if (r["k"], r["omega"]) == (k, omega))


def contest(found: dict[str, Any]) -> str:
    """One table: steps for all constants, and how often a rule beats momentum."""
    names = list(found)
    lines = [
        f"| k | omega | {' | '.join(names)} |",
        "|" + " --- |" * (2 + len(names)),
    ]
    for row in found["momentum"]:
        cells = []
        for name in names:
            r = at(found[name], row["k"], row["omega"])
            if r["steps"] is None:
                cells.append("never")
            else:
                chosen = [f"{r['rate']:.2g}", f"{r['decay']:g}"]
                chosen += [f"{r['delta']:g}"] * ("any" in name)
                cells.append(f"{r['steps']:.0f} ({', '.join(chosen)})")
        lines.append(f"| {row['k']:g} | {row['omega']:g} | {' | '.join(cells)} |")
    wins = []
    for name in names[1:]:
        pairs = [
            (r["steps"] or np.inf, m["steps"] or np.inf)
            for r, m in zip(found[name], found["momentum"], strict=True)
        ]
        won, lost = sum(d < m for d, m in pairs), sum(d > m for d, m in pairs)
        ratios = [d / m for d, m in pairs if np.isfinite(d) and np.isfinite(m)]
        middle = f", median of the ratio {np.median(ratios):.2f}" if ratios else ""
        wins.append(f"- {name}: sooner in {won} of {len(pairs)}, later in {lost}{middle}.")
    return "\n".join([*lines, "", "Against momentum:\n", *wins, ""])


def plot(found: dict[str, Any], steps: int, folder: Path) -> None:
    """The paths on the contour, psi over steps, and delta momentum's steps over momentum's."""
    k, omega = SHOWN
    figure = Figure(figsize=(17, 5.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    r, theta = np.meshgrid(np.linspace(-5, 6, 300), np.linspace(-9, 6, 300))
    z = r**2 + k * (r - theta + ALPHA * np.sin(omega * r)) ** 2
    left.contourf(r, theta, np.log10(z + 1e-2), 16, cmap="Greys", alpha=0.5)
    for name, colour in COLOURS.items():
        for contest, style in (("fixed", "-"), ("tuned", "--")):
            best = at(found[contest][name], k, omega)
            if best["steps"] is None:
                continue
            numbers = (best["rate"], best["decay"], best["delta"], k, omega)
            values, points = path(name, min(steps, 260), *numbers)
            label = f"{name}: rate {best['rate']:.2g}, decay {best['decay']:g}"
            middle.plot(values, style, color=colour, label=label, linewidth=1.2)
            if contest == "fixed":
                left.plot(*points.T, ".-", color=colour, linewidth=1, markersize=4, label=name)
    left.plot(*START, "ks", label="start")
    left.plot(0, 0, "*", color="gold", markeredgecolor="black", markersize=14, label="minimum")
    left.set(xlabel="r", ylabel="theta", xlim=(-5, 6), ylim=(-9, 6))
    left.set_title(f"psi for k = {k:g}, omega = {omega:g}, and paths at decay 0.9")
    left.legend(loc="lower right", fontsize=9)
    middle.axhline(GOAL, color="black", linestyle=":")
    middle.set(yscale="log", ylim=(1e-6, 1e3), xlabel="step", ylabel="psi")
    middle.set_title("the same; dashed: best decay too")
    middle.legend(fontsize=8, loc="upper right")

    labels = [f"{row['k']:g}, {row['omega']:g}" for row in found["fixed"]["momentum"]]
    never = 8.0
    for contest, name, style in (
        ("fixed", "delta, column", "C3o"),
        ("fixed", "delta, proximal", "C2o"),
        ("tuned", "delta, column", "C3D"),
        ("tuned", "delta, proximal", "C2D"),
        ("tuned", "delta, column, any delta", "C1D"),
    ):
        ratios = []
        for ours, plain in zip(found[contest][name], found[contest]["momentum"], strict=True):
            if ours["steps"] and plain["steps"]:
                ratios.append(ours["steps"] / plain["steps"])
            elif ours["steps"] or plain["steps"]:
                ratios.append(1 / never if ours["steps"] else never)
            else:
                ratios.append(np.nan)
        filled = "none" if contest == "fixed" else None
        right.plot(ratios, style, fillstyle=filled, label=f"{name}, {contest}", alpha=0.8)
    right.axhline(1, color="black", linestyle=":")
    right.set_xticks(range(len(labels)), labels, rotation=60)
    ticks = (1 / never, 0.25, 0.5, 1, 2, 4, never)
    right.set_yscale("log", base=2)
    right.set_yticks(ticks, ["momentum\nnever", "1/4", "1/2", "1", "2", "4", "delta\nnever"])
    right.set(xlabel="k, omega", ylim=(0.1, 30))
    right.set_title("steps over momentum's (below 1: delta momentum is sooner)")
    right.legend(fontsize=8, loc="upper left", ncols=2)
    for axes in (middle, right):
        axes.grid(alpha=0.3)
    figure.savefig(folder / "toy.png", dpi=85)


def write(found: dict[str, Any], folder: Path) -> None:
    """Plot and tables, with the hand-written reading that was there."""
    args, file = found["arguments"], folder / "toy.md"
    changed = " ".join(f"--{name} {value}" for name, value in args.items())
    plot(found, args["steps"], folder)
    old = file.read_text() if file.exists() else ""
    kept = old[old.index(READING) :] if READING in old else f"{READING}\n"
    ran_on = ", ".join(f"{k} {v}" for p in ("device", "versions") for k, v in found[p].items())
    file.write_text(f"""# The toy of Eq. 53: momentum against delta momentum

Written by `python experiments/optimizers/toy.py {changed}`,
which says what is done; all figures are in toy.json. Constants are ours, the paper gives none:
alpha = {ALPHA:g}, k and omega as below, {args["rates"]} step sizes from
{found["rates"][0]:g} to {found["rates"][-1]:g}. In the tables: steps until psi
stays below {GOAL:g} (of at most {args["steps"]}), median over nine starts, and in brackets what
was best: step size, decay (and delta, where it was chosen). Nothing is random.

## Decay 0.9, step size chosen

{contest(found["fixed"])}
## Step size, decay and delta chosen

{contest(found["tuned"])}
![paths, psi over steps, steps over k](toy.png)

{ran_on}.

{kept}""")


def main() -> None:
    """Sweep and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rates", type=int, default=41, help="step sizes in the grid")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--plot", action="store_true", help="only from what is there")
    args = parser.parse_args()
    if args.plot:
        return write(json.loads((args.out / "toy.json").read_text()), args.out)
    rates = np.geomspace(1e-5, 1.0, args.rates)
    found: dict[str, Any] = {
        "arguments": {"steps": args.steps, "rates": args.rates},
        "seeds": [],
        "starts": starts().tolist(),
        "goal": GOAL,
        "alpha": ALPHA,
        "rates": rates.tolist(),
        "device": device(),
        "versions": versions(),
        "fixed": {name: sweep(name, args.steps, rates, (0.9,)) for name in RULES},
        "tuned": {
            "momentum": sweep("momentum", args.steps, rates, DECAYS),
            "delta, column": sweep("delta, column", args.steps, rates, DECAYS),
            "delta, proximal": sweep("delta, proximal", args.steps, rates, DECAYS),
            "delta, column, any delta": sweep(
                "delta, column", args.steps, rates, DECAYS, DELTAS
            ),
        },
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "toy.json").write_text(json.dumps(found, indent=1) + "\n")
    write(found, args.out)
    print((args.out / "toy.md").read_text())


if __name__ == "__main__":
    main()
