"""Which preset fits which slice: every pair compiled by the TPU compiler, and one table.

    pip install -e ".[tpu]"
    python experiments/pods/fits.py                 # all pairs; goes on where it stopped
    python experiments/pods/fits.py --presets hope_1b --slices v5e-64 v6e-64
    python experiments/pods/fits.py --only-table    # from what has been compiled

Each pair is one run of `hope aot` with the preset's own batch, whose report goes to
experiments/results/pods/fits/PAIR.json; the table goes to README.md beside them, and a short
form of it to the README of the project. The mesh is chosen by one rule (`mesh_for`); where a
step does not fit, it is cut into micro-batches (`accumulate`) until it does or a device has
one row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.progress import track

from hope_jax.aot import CompilerCrash, CompilerKilled, Report, compile_for
from hope_jax.config import MeshConfig, TrainConfig
from hope_jax.config.load import load_config
from hope_jax.parallel.slices import find_slice

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "pods" / "fits"
README = HERE.parent.parent / "README.md"
MARKS = ("<!-- from experiments/pods/fits.py -->", "<!-- end of fits -->")
PRESETS = ("hope_340m", "hope_760m", "hope_1b", "hope_7b")
VARIANTS = ("hope", "transformer")
SLICES = (
    "v5e-16",
    "v5e-64",
    "v5e-256",
    "v5p-64",
    "v5p-256",
    "v5p-1024",
    "v6e-64",
    "v6e-256",
    "tpu7x-128",
)
PARTS = 32  # of the weights; more receive no fewer bytes and need the whole slice at once
COLUMNS = (
    "preset",
    "slice",
    "mesh (data x fsdp x tensor)",
    "micro-batches",
    "peak, GiB",
    "of",
    "floor, ms",
    "set by",
    "received, GiB",
    "of theory",
    "fits",
)


def mesh_for(config: TrainConfig, slice_name: str) -> MeshConfig:
    """Copies of at most `PARTS` parts; heads are split if there are more devices than rows."""
    devices, rows = find_slice(slice_name).devices, config.data.batch
    tensor = max(1, devices // rows)
    fsdp = min(PARTS, devices // tensor)
    return MeshConfig(data=devices // tensor // fsdp, fsdp=fsdp, tensor=tensor)


def compile_for_slice(config: TrainConfig, slice_name: str) -> dict:
    """The report of the first number of micro-batches that fits, with that number."""
    config = dataclasses.replace(config, mesh=mesh_for(config, slice_name))
    shares = config.mesh.data * config.mesh.fsdp
    accumulate, report = 1, None
    while config.data.batch // accumulate >= shares:
        try:
            report = compile_for(dataclasses.replace(config, accumulate=accumulate), slice_name)
        except CompilerCrash as error:
            return {"crash": str(error), "slice": slice_name, "accumulate": accumulate}
        if report.fits:
            break
        accumulate *= 2
    facts = json.loads(report.to_json())
    return facts | {"accumulate": min(accumulate, config.data.batch // shares)}


def compile_missing(points: Iterable[tuple[Path, TrainConfig, str]]) -> None:
    """Reports of configurations on slices into their files, but for those that are there.

    One whose compiler is killed has no report, and the next command tries it again.
    """
    for file, config, slice_name in track(list(points), "compiling"):
        if not file.exists():
            try:
                found = compile_for_slice(config, slice_name)
            except CompilerKilled as error:
                print(f"no {file.name}: {error}", file=sys.stderr)
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found, indent=2) + "\n")


def row(name: str, facts: dict) -> list[str]:
    """One line of the table."""
    if "crash" in facts:
        return [name, facts["slice"], *[""] * 8, "compiler crashed"]
    names = {field.name for field in dataclasses.fields(Report)}
    report = Report(**{k: v for k, v in facts.items() if k in names})
    seconds, limit = report.floor
    mesh = " x ".join(word for word in report.mesh.split() if word.isdigit())
    gib = lambda size: "" if size is None else f"{size / 2**30:.1f}"
    theory = f"{report.moved / report.fsdp_bytes:.2f}" if report.moved else ""
    return [
        name,
        report.slice,
        mesh,
        str(facts["accumulate"]),
        gib(report.peak),
        gib(report.usable),
        f"{1e3 * seconds:,.0f}",
        limit,
        gib(report.moved) if report.moved else "",
        theory,
        "yes" if report.fits else "no",
    ]


def write_table(out: Path) -> str:
    """README.md from all reports."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    versions = set()
    for preset in PRESETS:
        for variant in VARIANTS:
            for slice_name in SLICES:
                file = out / f"{preset}-{variant}-{slice_name}.json"
                if file.exists():
                    facts = json.loads(file.read_text())
                    name = preset if variant == "hope" else f"{preset}:{variant}"
                    lines.append(row(name, facts))
                    versions.add(
                        ", ".join(f"{k} {v}" for k, v in facts.get("versions", {}).items())
                    )
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    head = (__doc__ or "").strip().splitlines()[0]
    page = f"""# {head}

    python experiments/pods/fits.py

The real training step of each preset with its own batch, compiled by the TPU compiler on a
machine without a TPU ({"; ".join(sorted(v for v in versions if v))}).
Peak: bytes in use at most on one device, of those that a program may use. Floor: the time that
the operations need at the chips' peak, or the bytes at the memory's bandwidth, whichever is
longer; **no step time is predicted**. Received: bytes that a device receives in a step, counted
in the compiled program, and their ratio to what splitting the weights asks for.

{table}
"""
    (out / "README.md").write_text(page)
    return page


def short_form(out: Path) -> str:
    """A line per preset and model that was compiled, a column per slice: peak and floor."""
    lines = [["", *SLICES], ["---"] * (1 + len(SLICES))]
    for preset in PRESETS:
        for variant in VARIANTS:
            cells = [_cell(out / f"{preset}-{variant}-{name}.json") for name in SLICES]
            label = {"hope": "HOPE", "transformer": "Transformer++"}[variant]
            if any(cells):
                lines.append([f"{preset.removeprefix('hope_').upper()} {label}", *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(file: Path) -> str:
    if not file.exists():
        return ""
    facts = json.loads(file.read_text())
    if not facts.get("fits"):
        return "no"
    seconds = max(facts["compute_seconds"], facts["memory_seconds"])
    by = "c" if seconds == facts["compute_seconds"] else "m"
    return f"{facts['peak'] / 2**30:.1f}, {1e3 * seconds:,.0f} {by}"


def write_readme(table: str) -> None:
    """Put the short form between its marks."""
    text = README.read_text()
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    README.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")


def main() -> None:
    """Compile what is not there yet, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--slices", nargs="+", default=SLICES, metavar="SLICE")
    parser.add_argument("--only-table", action="store_true", help="compile nothing")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    args = parser.parse_args()
    pairs = [(p, v, s) for p in args.presets for s in args.slices for v in args.variants]
    if not args.only_table:
        compile_missing(
            (
                args.out / f"{preset}-{variant}-{find_slice(slice_name).name}.json",
                load_config(f"{HERE.parent / preset}.py:{variant}"),
                slice_name,
            )
            for preset, variant, slice_name in pairs
        )
    print(write_table(args.out))
    if args.out == OUT:
        write_readme(short_form(args.out))


if __name__ == "__main__":
    main()
