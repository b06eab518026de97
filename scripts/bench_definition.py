"""How long a definition of 10,000 jobs takes to parse and validate, as YAML and as JSON. Prints one JSON object.

usage: scripts/bench definition [JOBS [ROUNDS]]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from google.protobuf.json_format import MessageToDict

from peerd.v1 import workflows_pb2
from peerd.workflows.definition import read_definition
from peerd.workflows.edges import edges_of


def yaml_text(jobs: int) -> str:
    """A tree of jobs, each fed by the one half its number, with a parameter, a retry and a time-out."""
    parts = ["name: bench\nparams:\n  word: x\njobs:\n"]
    for n in range(jobs):
        parts.append(
            f"  - name: job-{n}\n    on:\n      role: worker\n      labels: [fast]\n    service: count\n"
            f"    params:\n      word: ${{params.word}}\n      shard: {n}\n    timeout: 10m\n"
            "    retry:\n      attempts: 3\n      backoff: 1s\n"
        )
        if n:
            parts.append(f"    inputs:\n      - from: job-{n // 2}.output\n        into: input\n        to: previous\n")
    return "".join([*parts, f"deliver:\n  - from: job-{jobs - 1}\n"])


def best(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the quickest round: the one that others disturbed least."""
    return round(min(timed(work) for _ in range(rounds)), 3)


def timed(work: Callable[[], Any]) -> float:
    started = time.process_time()  # others may be busy
    work()
    return time.process_time() - started


def main() -> None:
    jobs, rounds = (int(word) for word in (*sys.argv[1:], *("10000", "3")[len(sys.argv) - 1 :]))
    text = yaml_text(jobs)
    reading = read_definition(workflows_pb2.DefinitionSource(text=text))
    definition = reading.definition
    if definition is None:
        raise SystemExit(f"the definition was not understood: {reading.problems[:3]}")
    sources = {
        "yaml": workflows_pb2.DefinitionSource(text=text),
        "json": workflows_pb2.DefinitionSource(text=json.dumps(MessageToDict(definition))),
        "message": workflows_pb2.DefinitionSource(definition=definition),
    }
    if {read_definition(source).digest for source in sources.values()} != {reading.digest}:
        raise SystemExit("YAML, JSON and message do not mean the same")
    figures = {f"{kind}_seconds": best(partial(read_definition, source), rounds) for kind, source in sources.items()}
    figures["edges_seconds"] = best(partial(edges_of, definition), rounds)
    print(json.dumps({"jobs": jobs, "yaml_bytes": len(text), **figures}))


if __name__ == "__main__":
    main()
