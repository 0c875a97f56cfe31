"""Fill in a template of this folder.

    python3 launch/render.py launch/jobset.yaml NAME=run HOSTS:=16 ... -- hope train ...

In a template, `$NAME` stands for a value, written as JSON, which is YAML too: `NAME=text`
gives text and `NAME:=16` a number. A line that ends in `# if NAME` is there only if NAME is not
empty.
`$COMMAND` is the list of words after `--`, and `$ENV` the list of the container's variables.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any


def render(template: str, values: dict[str, Any]) -> str:
    """The template with its values.

    Raises:
      ValueError: a value is missing, or not used.

    >>> print(render("name: $NAME\\nqueue: $QUEUE  # if QUEUE\\n", {"NAME": "a", "QUEUE": ""}))
    name: "a"
    <BLANKLINE>
    """
    lines, used = [], set()
    for line in template.splitlines():
        if line.startswith("#"):
            continue
        body, _, condition = line.partition("# if ")
        if condition:
            used.add(condition)
            if not values.get(condition):
                continue
            line = body.rstrip()
        names = re.findall(r"\$([A-Z_]+)", line)
        if missing := [name for name in names if name not in values]:
            raise ValueError(f"no value for {missing[0]} in {line.strip()!r}")
        used.update(names)
        lines.append(re.sub(r"\$([A-Z_]+)", lambda m: json.dumps(values[m[1]]), line))
    if left := sorted(set(values) - used):
        raise ValueError(f"the template does not use {', '.join(left)}")
    return "\n".join(lines) + "\n"


def variables(plain: list[str], secrets: list[str]) -> list[dict[str, Any]]:
    """Environment of a container; secrets by the names of their Secret and of its key."""
    found: list[dict[str, Any]] = []
    for entry in plain:
        name, _, value = entry.partition("=")
        found.append({"name": name, "value": value})
    for entry in secrets:
        name, _, place = entry.partition("=")
        secret, _, key = place.partition("/")
        reference = {"name": secret, "key": key or name}
        found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return found


def main(words: list[str]) -> str:
    """The rendered template that the command line asks for."""
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("template", type=Path)
    parser.add_argument("values", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--secret", action="append", default=[], metavar="NAME=SECRET/KEY")
    args = parser.parse_intermixed_args(words[:cut])
    values: dict[str, Any] = {}
    for entry in args.values:
        name, _, value = entry.partition("=")
        values[name.removesuffix(":")] = json.loads(value) if name.endswith(":") else value
    values |= {"COMMAND": words[cut + 1 :], "ENV": variables(args.env, args.secret)}
    return render(args.template.read_text(), values)


if __name__ == "__main__":
    print(main(sys.argv[1:]), end="")
