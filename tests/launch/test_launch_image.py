"""The image: what the Dockerfile copies is there, and in its context."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "launch/Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()


def copied():
    for words in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M):
        *sources, _ = words.split()
        yield from sources


@pytest.mark.parametrize("source", list(copied()))
def test_what_is_copied_exists_and_is_not_ignored(source):
    assert (ROOT / source).exists()
    assert f"!{source}" in IGNORE.splitlines()


def test_the_context_holds_what_the_package_is_built_from_and_no_more():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert {"pyproject.toml", "setup.cfg", "hope_jax"} < set(copied())
    assert config["metadata"]["long_description"].removeprefix("file: ") in set(copied())
    assert set(config["metadata"]["license_files"].split()) < set(copied())
    kept = {line[1:] for line in IGNORE.splitlines() if line.startswith("!")}
    assert kept == set(copied()) and "*" in IGNORE.splitlines()


def test_extras_and_python_are_those_of_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    for extra in re.findall(r"EXTRA=(\w+)", DOCKERFILE):
        assert extra in extras
    assert "tensorboard" in extras
    image = re.search(r"^FROM python:3\.(\d+)", DOCKERFILE, re.M)
    floor = re.search(r">=3\.(\d+)", config["options"]["python_requires"])
    assert int(image[1]) >= int(floor[1])


def test_signals_reach_the_program():
    """Lists, not strings: a string would put a shell in front, which keeps signals."""
    entry = re.search(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.M)[1]
    assert entry == '["tini", "--", "/hope/launch/env.sh"]'
    assert re.search(r"^CMD \[", DOCKERFILE, re.M)
    assert 'exec "$@"' in (ROOT / "launch/env.sh").read_text()
    assert (
        re.search(r"^WORKDIR /hope$", DOCKERFILE, re.M) and "COPY launch launch" in DOCKERFILE
    )
