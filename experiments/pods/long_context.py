"""Long contexts with rows and heads as all that is split: do they fit, and what crosses chips?

    pip install -e ".[tpu]"
    python experiments/pods/long_context.py               # goes on where it stopped
    python experiments/pods/long_context.py --only-table  # from what has been compiled

The 1.3 B preset with 0.5 M tokens a step, in fewer and longer rows. A chip then has a part of
the heads of a row (`mesh.tensor`), never a part of its time. Reports go to
experiments/results/pods/long_context/POINT.json, the table to README.md beside them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from fits import compile_missing

from hope_jax.config import TrainConfig
from hope_jax.config.load import load_config

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "results" / "pods" / "long_context"
VARIANTS = {"hope": "HOPE", "transformer": "Transformer++"}
SLICES = ("v5e-64", "v5p-128")
CONTEXTS = (4_096, 16_384, 65_536, 131_072)
TOKENS = 1 << 19
GIB = 2**30


def config_of(variant: str, context: int) -> TrainConfig:
    """The 1.3 B preset with rows of this length, and as many as make 0.5 M tokens."""
    config = load_config(f"{HERE.parent / 'hope_1b'}.py:{variant}")
    data = dataclasses.replace(config.data, batch=TOKENS // context, length=context)
    return dataclasses.replace(config, data=data)


def write_page(out: Path) -> str:
    """README.md from all reports."""
    lines = [
        "| slice | context | rows | mesh (data x fsdp x tensor) | model | peak, GiB | of "
        "| received, GiB | fits |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    versions = set()
    for slice_name in SLICES:
        for context in CONTEXTS:
            for variant, label in VARIANTS.items():
                file = out / f"{variant}-{slice_name}-{context}.json"
                if not file.exists():
                    continue
                facts = json.loads(file.read_text())
                start = f"| {slice_name} | {context:,} | {TOKENS // context} "
                if "crash" in facts:
                    lines.append(f"{start}| | {label} | | | | compiler crashed |")
                    continue
                mesh = " x ".join(word for word in facts["mesh"].split() if word.isdigit())
                peak = "" if facts["peak"] is None else f"{facts['peak'] / GIB:.1f}"
                moved = f"{facts['moved'] / GIB:.1f}" if facts["moved"] else ""
                versions.add(", ".join(f"{k} {v}" for k, v in facts["versions"].items()))
                lines.append(
                    f"{start}| {mesh} | {label} | {peak} | {facts['usable'] / GIB:.1f} "
                    f"| {moved} | {'yes' if facts['fits'] else 'no'} |"
                )
    page = f"""# Long contexts

    python experiments/pods/long_context.py

The 1.3 B preset with 0.5 M tokens a step, compiled by the TPU compiler on a machine without a
TPU ({"; ".join(sorted(versions))}). Peak: bytes in use at most on one device, of those that a
program may use. Received: by a device in a step.

{chr(10).join(lines)}
"""
    notes = out / "notes.md"
    if notes.exists():
        page += "\n" + notes.read_text()
    (out / "README.md").write_text(page)
    return page


def main() -> None:
    """Compile what is not there yet, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only-table", action="store_true", help="compile nothing")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    args = parser.parse_args()
    if not args.only_table:
        compile_missing(
            (args.out / f"{v}-{s}-{c}.json", config_of(v, c), s)
            for c in CONTEXTS
            for s in SLICES
            for v in VARIANTS
        )
    print(write_page(args.out))


if __name__ == "__main__":
    main()
