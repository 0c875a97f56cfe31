"""How memory and traffic of a compiled step grow with the slice, from 4 to 1,024 chips.

    pip install -e ".[tpu]"
    python experiments/pods/scaling.py              # all points; goes on where it stopped
    python experiments/pods/scaling.py --only-plot  # from what has been compiled

Strong scaling keeps the preset's batch of 0.5 M tokens; weak scaling gives every chip one
sequence of 4,096 tokens. Mesh and micro-batches are chosen as in `fits.py`. Reports go to
experiments/results/pods/scaling/POINT.json, the plot and the table beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from fits import compile_missing
from matplotlib.figure import Figure

from hope_jax.config import TrainConfig
from hope_jax.config.load import load_config
from hope_jax.parallel.slices import find_slice

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "pods" / "scaling"
VARIANTS = {"hope": "HOPE", "transformer": "Transformer++"}
SLICES = tuple(f"v5p-{2 * chips}" for chips in (4, 16, 64, 256, 1024))
KINDS = {"strong": "0.5 M tokens a step", "weak": "4,096 tokens a chip and step"}
GIB = 2**30


def config_of(variant: str, kind: str, slice_name: str) -> TrainConfig:
    """The 1.3 B preset, with a batch of one sequence a chip for weak scaling."""
    config = load_config(f"{HERE.parent / 'hope_1b'}.py:{variant}")
    if kind == "weak":
        batch = find_slice(slice_name).devices
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch=batch))
    return config


def found_in(out: Path) -> dict[tuple[str, str, str], dict]:
    """Reports by kind, variant and slice."""
    points = {}
    for kind in KINDS:
        for variant in VARIANTS:
            for slice_name in SLICES:
                file = out / f"{kind}-{variant}-{slice_name}.json"
                if file.exists():
                    points[kind, variant, slice_name] = json.loads(file.read_text())
    return points


def plot(points: dict[tuple[str, str, str], dict], file: Path) -> None:
    """Peak memory and received bytes over chips: a row per quantity, a column per kind."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, len(KINDS), sharex=True, sharey="row")
    for column, (kind, words) in enumerate(KINDS.items()):
        memory, traffic = axes[:, column]
        for variant, label in VARIANTS.items():
            rows = [f for (k, v, _), f in points.items() if (k, v) == (kind, variant)]
            rows = [f for f in rows if f.get("peak")]
            chips = [f["chips"] for f in rows]
            memory.plot(chips, [f["peak"] / GIB for f in rows], marker="o", label=label)
            (line,) = traffic.plot(
                chips, [f["moved"] / GIB for f in rows], marker="o", label=label
            )
            theory = [f["fsdp_bytes"] / GIB for f in rows]
            traffic.plot(
                chips, theory, ls=":", color=line.get_color(), label=f"{label}, theory"
            )
        usable = [f["usable"] / GIB for f in points.values() if f.get("usable")][:1]
        for limit in usable:
            memory.axhline(limit, color="0.6", lw=1, label="a device has")
        memory.set_title(f"{kind} scaling: {words}")
        traffic.set_xlabel("chips (v5p)")
        for each in (memory, traffic):
            each.set_xscale("log", base=2)
            each.set_yscale("log")
            each.grid(alpha=0.3)
    axes[0, 0].set_ylabel("peak memory of a device, GiB")
    axes[1, 0].set_ylabel("received by a device and step, GiB")
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].legend(fontsize=8)
    figure.savefig(file, dpi=120)


def write_page(points: dict[tuple[str, str, str], dict], out: Path) -> str:
    """README.md with the plot and a table of the same numbers."""
    head = (__doc__ or "").strip().splitlines()[0]
    lines = [
        "| scaling | model | chips | mesh (data x fsdp x tensor) | micro-batches | peak, GiB "
        "| received, GiB | of theory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    versions = set()
    for (kind, variant, slice_name), facts in points.items():
        chips = find_slice(slice_name).chips
        if not facts.get("peak"):
            reason = "compiler crashed" if "crash" in facts else facts["error"][:60]
            lines.append(f"| {kind} | {VARIANTS[variant]} | {chips} | | | {reason} | | |")
            continue
        versions.add(", ".join(f"{k} {v}" for k, v in facts["versions"].items()))
        mesh = " x ".join(word for word in facts["mesh"].split() if word.isdigit())
        theory = facts["fsdp_bytes"]
        ratio = f"{facts['moved'] / theory:.2f}" if theory else ""
        lines.append(
            f"| {kind} | {VARIANTS[variant]} | {chips} | {mesh} | {facts['accumulate']} "
            f"| {facts['peak'] / GIB:.1f} | {facts['moved'] / GIB:.1f} | {ratio} |"
        )
    page = f"""# {head}

    python experiments/pods/scaling.py

The 1.3 B preset (`experiments/hope_1b.py`) compiled by the TPU compiler for v5p slices on a
machine without a TPU ({"; ".join(sorted(versions))}); memory and traffic are read from the
compiled program, and no time is predicted. Theory: what splitting the weights over the copy
asks for, once per micro-batch. Where there are more chips than sequences (strong scaling past
128), heads and hidden layers are split as well, which theory here leaves out.

![memory and traffic over chips](scaling.png)

{chr(10).join(lines)}
"""
    (out / "README.md").write_text(page)
    return page


def main() -> None:
    """Compile what is not there yet, then draw and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only-plot", action="store_true", help="compile nothing")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    args = parser.parse_args()
    if not args.only_plot:
        compile_missing(
            (args.out / f"{k}-{v}-{s}.json", config_of(v, k, s), s)
            for s in SLICES
            for k in KINDS
            for v in VARIANTS
        )
    points = found_in(args.out)
    plot(points, args.out / "scaling.png")
    print(write_page(points, args.out))


if __name__ == "__main__":
    main()
