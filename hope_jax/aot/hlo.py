"""Collectives in a compiled program: their kind, their bytes, how often they run.

The text of a program lists a loop's body once, and an asynchronous collective several times,
in every computation that it is woven into. Here a body counts as often as its loop turns, and
what is woven counts once: such copies share a channel.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict

_BYTES = {"pred": 1, "s4": 1, "u4": 1, "bf16": 2, "f16": 2, "f64": 8, "c64": 8, "c128": 16}
_BYTES |= {f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)}
_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-]*)\(")
_CALLS = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ASYNC = 'custom_call_target="AsyncCollective'
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective.

    Attributes:
      kind: e.g. "all-gather".
      shapes: dtype and dimensions of what it gives.
      group: devices that take part in each.
      times: how often it runs in one step.
      where: the operation of the model that it belongs to, as far as the compiler knows.
    """

    kind: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    group: int
    times: int
    where: str

    @property
    def size(self) -> int:
        """Bytes of what it gives."""
        return sum(_BYTES.get(kind, 4) * math.prod(dims) for kind, dims in self.shapes)

    @property
    def moved(self) -> float:
        """Bytes that every device receives in one step, at the least that the kind takes."""
        share = (self.group - 1) / self.group if self.group else 1.0
        factor = {
            "all-reduce": 2 * share,
            "reduce-scatter": self.group * share,
            "collective-permute": 1.0,
        }.get(self.kind, share)
        return self.times * factor * self.size


def find_collectives(text: str) -> list[Collective]:
    """Collectives of a program in the text form of `compiled.as_text()`.

    >>> program = '''ENTRY %main (p: f32[2]) -> f32[8] {
    ...   %g = f32[8] all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}
    ... }'''
    >>> find_collectives(program)[0].moved
    24.0
    """
    bodies, entry = _computations(text)
    times = _multiplicities(bodies, entry)
    found: dict[tuple[str, str], Collective] = {}
    for name, lines in bodies.items():
        if not times[name]:
            continue
        woven = name.startswith("async_collective") or any(_ASYNC in line for line in lines)
        for line in lines:
            match = _INSTRUCTION.match(line)
            if not match:
                continue
            kind = match.group(3).removesuffix("-start")
            if kind not in _KINDS:
                continue
            one = _collective(kind, match.group(2), line, times[name], name)
            channel = re.search(r"channel_id=(\d+)", line)
            key = (kind, channel.group(1) if woven and channel else f"{name}/{match.group(1)}")
            # woven into a loop, it is one that takes as many turns to finish
            if key not in found or one.times < found[key].times:
                found[key] = one
    return list(found.values())


def _collective(kind: str, result: str, line: str, times: int, computation: str) -> Collective:
    shapes = [
        (dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(result)
    ]
    if line.split(result, 1)[1].lstrip().startswith(f"{kind}-start") and len(shapes) > 1:
        # operands, then results, then what the wait needs
        shapes = [s for s in shapes if s != ("u32", ())]
        shapes = shapes[len(shapes) // 2 :]
    group = _group(line)
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # a fusion that keeps one part
        shapes = [(t, (*d[:-1], d[-1] / group)) if d else (t, d) for t, d in shapes]
    where = re.search(r'op_name="([^"]*)"', line)
    return Collective(kind, tuple(shapes), group, times, where.group(1) if where else "")


def _group(line: str) -> int:
    """Devices per group; 0 if the text does not say."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh.group(2)))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(iota.group(2))
    if listed := re.search(r"replica_groups=\{\{([^}]*)\}", line):
        return len(listed.group(1).split(","))
    return 0


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines by computation, and the name of the entry."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = match.group(2)
            bodies[current] = []
            entry = current if match.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            bodies[current].append(line)
    return bodies, entry


def _multiplicities(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """How often each computation runs; of several callers, their sum."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    callers: dict[str, int] = defaultdict(int)
    for name, lines in bodies.items():
        for line in lines:
            callees = _CALLS.findall(line)
            for listed in _BRANCHES.findall(line):
                callees += [part.strip().lstrip("%") for part in listed.split(",")]
            turns = _turns(line, bodies) if " while(" in line else 1
            for callee in callees:
                if callee in bodies:
                    calls[name].append((callee, turns))
                    callers[callee] += 1
    times: dict[str, int] = defaultdict(int)
    times[entry] = 1
    ready = [entry] + [name for name in bodies if not callers[name] and name != entry]
    while ready:  # callers before callees
        name = ready.pop()
        for callee, turns in calls[name]:
            times[callee] += times[name] * turns
            callers[callee] -= 1
            if not callers[callee]:
                ready.append(callee)
    return times


def _turns(line: str, bodies: dict[str, list[str]]) -> int:
    """How often a loop turns: as the compiler says, or by the bound that it compares with."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(known.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = bodies.get(condition.group(1), []) if condition else []
    bounds = re.findall(r"s32\[\][^=]* constant\((\d+)\)", "\n".join(lines))
    return max(map(int, bounds), default=1)
