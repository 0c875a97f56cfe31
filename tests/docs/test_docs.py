"""What the documents say is true: snippets run, links lead somewhere, commands parse."""

import argparse
import doctest
import importlib
import re
import shlex
from pathlib import Path

import jax
import pytest

import hope_jax
from hope_jax.cli.main import COMMANDS, cut
from hope_jax.layers import registry

ROOT = Path(__file__).parents[2]
PACKAGE = Path(hope_jax.__file__).parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("launch/*.md")])
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)
FLAGS = doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    with jax.numpy_rank_promotion("allow"):  # as a user has it
        result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_on_pages(page, monkeypatch):
    monkeypatch.setattr(registry, "MIXERS", registry.MIXERS.copy())  # one page adds to it
    text = re.sub(r"^```.*$", "", page.read_text(), flags=re.M)
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    with jax.numpy_rank_promotion("allow"):
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        assert runner.run(test).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    paths = re.findall(r"`((?:hope_jax|experiments|tests|launch|docs)/[\w./]+)`", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_equations_are_where_the_table_says():
    rows = re.findall(r"^\| Eqs?\. .*$", (ROOT / "ARCHITECTURE.md").read_text(), re.M)
    assert len(rows) > 8
    for row in rows:
        first, *last = map(int, re.match(r"\| Eqs?\. ([\d-]+)", row).group(1).split("-"))
        wanted = set(range(first, (last or [first])[0] + 1))
        for path in re.findall(r"`(hope_jax/[\w/]+\.py)`", row):
            assert wanted & _equations((ROOT / path).read_text()), (row, path)


def _equations(text: str) -> set[int]:
    """Numbers of all equations that a text names, such as in "Eqs. 89, 92-93"."""
    found = set()
    for group in re.findall(r"Eqs?\. ([\d, -]*\d)", text):
        for part in group.split(","):
            first, *last = (int(n) for n in part.split("-"))
            found |= set(range(first, (last or [first])[0] + 1))
    return found


def _commands():
    for page in PAGES:
        for line in re.findall(r"^\s*(hope (?:.*\\\n)*.*)$", page.read_text(), flags=re.M):
            yield pytest.param(line.replace("\\\n", " "), id=f"{page.name}: {line[:40]}")


@pytest.mark.parametrize("line", list(_commands()))
def test_commands_parse(line):
    _, command, *options = shlex.split(line, comments=True)
    assert command in COMMANDS
    module = importlib.import_module(f"hope_jax.cli.{command}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    args = parser.parse_args(cut(module, options)[0])
    if getattr(args, "config", None):
        assert (ROOT / args.config.partition(":")[0]).is_file()  # FILE:VARIANT


def test_ci_runs_the_test_command_of_the_readme():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    command = re.search(r"python -m pytest (.*)$", readme, flags=re.M).group(1)
    assert f'tests "tests" {command}' in ci
