"""The pages on launching: tables are the code's, commands run dry, files are valid."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from hope_jax.parallel import slices
from hope_jax.parallel.slices import find_slice

ROOT = Path(__file__).parents[2]
README = ROOT / "launch/README.md"
PAGES = sorted(ROOT.glob("launch/*.md"))


def test_the_tables_are_what_the_program_prints():
    text = README.read_text()
    (command, table) = re.search(
        r"<!-- python3 (.*) -->\n\n(.*?)\n\n<!-- end", text, re.S
    ).groups()
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert table + "\n" == done.stdout
    assert Path(slices.__file__).samefile(ROOT / command.split()[0])


def commands():
    """Commands of our scripts on the pages and in the help of the scripts."""
    for page in [*PAGES, *sorted(ROOT.glob("launch/*.sh"))]:
        text = page.read_text()
        if page.suffix == ".sh":
            head = text.split("\nset -euo")[0]
            text = "\n".join(line.removeprefix("#").strip() for line in head.splitlines())
            text = text.partition("examples:")[2]
        for line in re.findall(r"^\s*(launch/\w+\.sh (?:.*\\\n)*.*)$", text, re.M):
            yield pytest.param(line, id=f"{page.name}: {' '.join(line.split()[:3])}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_of_the_pages_run_dry(scripts, line):
    script, action, *words = shlex.split(line.replace("\\\n", " "), comments=True)
    settings = {"HOPE_ZONE": "z", "HOPE_PROJECT": "p", "HOPE_IMAGE": "registry/hope:1"}
    words = [action, "--dry-run", *words]
    if script == "launch/sweep.sh" and action in ("gke", "slurm"):
        words[1:1] = ["--points=3"]
    done = scripts.run(Path(script).name, *words, **settings)
    assert done.stdout and scripts.calls() == []


def test_there_are_commands_to_try():
    assert len(list(commands())) > 20


@pytest.mark.parametrize("page", [p for p in PAGES if "node-pools create" in p.read_text()])
def test_node_pools_on_the_page_are_slices_of_the_table(page):
    text = page.read_text().replace("\\\n", " ")
    pools = re.findall(r"node-pools create (\S+) .*", text)
    assert pools
    for line in re.findall(r"node-pools create .*", text):
        words = shlex.split(line)
        options = dict(
            word.split("=", 1) for word in words if word.startswith("--") and "=" in word
        )
        found = find_slice(words[2])
        assert options["--machine-type"] == found.machine
        assert options["--tpu-topology"] == found.grid
        assert int(options["--num-nodes"]) == found.hosts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_on_the_pages_is_shell(page):
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_loss_curve_of_the_page_is_drawn(tmp_path):
    text = (ROOT / "launch/first_pod_run.md").read_text()
    (code,) = re.findall(r"<<'END'\n(.*?)^END$", text, re.M | re.S)
    lines = [
        '{"step": 1, "loss": 5.0}',
        '{"step": 1, "eval/loss": 5.0}',
        '{"step": 2, "loss": 4.0}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_the_claim_is_valid_and_is_what_the_scripts_mount():
    documents = list(yaml.safe_load_all((ROOT / "launch/work_claim.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, "1.33", strict=True)
    storage, claim = documents
    assert claim["spec"]["storageClassName"] == storage["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert (
        f"--claim {claim['metadata']['name']}" in (ROOT / "launch/first_pod_run.md").read_text()
    )


def test_every_file_of_the_folder_is_on_the_page_or_used():
    text = README.read_text()
    for path in sorted((ROOT / "launch").iterdir()):
        if path.is_file() and path.name not in ("README.md", "render.py"):
            assert path.name in text, path.name
    assert os.access(ROOT / "launch/jobset.sh", os.X_OK)
