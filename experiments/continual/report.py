"""Table and plots over all seeds that were measured."""

from __future__ import annotations

import json
from pathlib import Path

from hope_jax.sweeps.report import spread


def report(folder: Path) -> str:
    """Write README.md and the plots; returns the page."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seeds = [json.loads(file.read_text()) for file in sorted(folder.glob("seed_*.json"))]
    if not seeds:
        raise SystemExit(f"nothing was measured yet: there is no seed_*.json in {folder}")
    origin = seeds[0]["device"] | seeds[0]["versions"]
    lines = [
        "# Does it remember?",
        "",
        "Written by `python experiments/continual_memory.py report`; what the arms are and how "
        "they are trained stands there. Mean over seeds, and the range. Recall is exact: every "
        "token of a value.",
        "",
        *_findings(folder),
        f"- seeds: {', '.join(str(s['seed']) for s in seeds)}; streams per point: "
        f"{seeds[0]['rows']}; questions per stream: 8 at most",
        f"- steps: {_of_arms(seeds, 'steps')}; parameters: {_of_arms(seeds, 'parameters')}",
        "- " + ", ".join(f"{k} {v}" for k, v in origin.items()),
        "",
    ]
    for key, title, label in (
        ("by_count", "Recall by number of facts", "facts"),
        ("by_distance", "Recall of 16 facts by distance", "tokens read after the facts"),
    ):
        points = list(seeds[0][key])
        arms = list(dict.fromkeys(arm for s in seeds for p in points for arm in s[key][p]))
        lines += [f"## {title}", "", f"![{title}]({key}.png)", ""]
        lines += [f"| {label} | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
        for point in points:
            cells = []
            for arm in arms:
                values = [s[key][point][arm] for s in seeds if arm in s[key][point]]
                cells.append(spread(values) if values else "")
            lines.append(f"| {point} | " + " | ".join(cells) + " |")
        lines.append("")
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for arm in arms:
            values = {p: [s[key][p][arm] for s in seeds if arm in s[key][p]] for p in points}
            have = [p for p in points if values[p]]
            middle = [sum(values[p]) / len(values[p]) for p in have]
            axes.plot([int(p) for p in have], middle, marker="o", label=arm)
        axes.set_xscale("symlog" if key == "by_distance" else "log", base=2)
        axes.set_xlabel(label)
        axes.set_ylabel("exact recall")
        axes.set_ylim(-0.02, 1.02)
        axes.legend(fontsize=7)
        figure.tight_layout()
        figure.savefig(folder / f"{key}.png", dpi=120)
        pyplot.close(figure)
    sleepers = [one for s in seeds for one in s["after_sleep"]]
    if sleepers:
        lines += [
            "## After sleep, all fast state dropped",
            "",
            f"{len(sleepers)} streams of 16 facts.",
        ]
        lines += ["", "| | |", "|---|---|"]
        lines += [f"| {name} | {spread([o[name] for o in sleepers])} |" for name in sleepers[0]]
        lines.append("")
    lines += [
        "## Ordinary text",
        "",
        "Held-out plays, nats per token.",
        "",
        "| | |",
        "|---|---|",
    ]
    lines += [
        f"| {arm} | {spread([s['ordinary'][arm] for s in seeds if arm in s['ordinary']])} |"
        for arm in dict.fromkeys(arm for s in seeds for arm in s["ordinary"])
    ]
    lines += hostile(folder)
    page = "\n".join(lines) + "\n"
    (folder / "README.md").write_text(page)
    return page


def _of_arms(seeds, key: str) -> str:
    """What arms have, in words."""
    values = {arm: value for seed in seeds for arm, value in seed[key].items()}
    return ", ".join(f"{arm} {value:,}" for arm, value in values.items())


def _findings(folder: Path) -> list[str]:
    """What a person made of the figures, from `findings.md`."""
    file = folder / "findings.md"
    return [file.read_text()] if file.exists() else []


def hostile(folder: Path) -> list[str]:
    """What hostile texts did, a row for each choice of limits."""
    runs = [json.loads(file.read_text()) for file in sorted(folder.glob("hostile_*.json"))]
    if not runs:
        return []
    names = [
        name
        for name, value in runs[0][0].items()
        if isinstance(value, dict) and "after" in value
    ]
    lines = [
        "",
        "## Hostile text",
        "",
        "Change of the loss on ordinary text after 200,000 hostile tokens, context forgotten, "
        "by the limits of the stream (`hope_jax.streams.Limits`). Mean over seeds, and the "
        "range.",
        "",
        "| limits | recall of 16 facts | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for rows in zip(*runs, strict=True):
        cells = [spread([row["recall of 16 facts"] for row in rows])]
        cells += [spread([100 * row[name]["change"] for row in rows]) + " %" for name in names]
        lines.append(f"| {rows[0]['name']} | " + " | ".join(cells) + " |")
    return lines
