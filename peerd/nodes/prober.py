"""The program that a job runs to discover or scan a host, or a batch of them; :mod:`peerd.nodes.messages` says what
goes in and out.

It needs no daemon, no store and no gRPC. It ends with 0 whenever it wrote a result, and with 2 when it could not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from peerd.clock import SystemClock
from peerd.nodes.batches import answer_of, probe_all
from peerd.nodes.examining import Outside, probe
from peerd.nodes.message_json import owner_from_json, request_from_json, to_json
from peerd.nodes.messages import REPORT, RESULT, RESULTS, BatchRequest, FailureReason, Kind, Outcome, ProbeResult

_MAX_REQUEST_BYTES = 256 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the request, do it, write the result. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m peerd.nodes.prober", description="Discover or scan one host.")
    parser.add_argument("request", metavar="REQUEST", help="a file with the request, or the request: JSON")
    parser.add_argument("output", metavar="OUTPUT_DIR", type=Path, help="where result.json and report.md are written")
    parser.add_argument("--owner", default="{}", help="what this machine's owner allows: JSON; nothing when left out")
    options = parser.parse_args(arguments)
    files = list(_answer(options.request, options.owner))
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        for name, text in files:
            _write(options.output / name, text)
    except OSError as error:
        print(f"peerd-prober: {error}", file=sys.stderr)
        return 2
    return 0


def _answer(asked: str, owned: str) -> Iterator[tuple[str, str]]:
    """The files to write. A request that cannot be read is a result, too, and stands for all of a batch."""
    kind = Kind.DISCOVER
    try:
        request = request_from_json(_text_of(asked))
        kind = request.kind
        owner = owner_from_json(owned)
    except (ValueError, OSError) as error:
        yield (
            RESULT,
            to_json(
                ProbeResult(
                    kind=kind,
                    outcome=Outcome.FAILED,
                    reason=FailureReason.INVALID_REQUEST,
                    message=str(error)[:500],
                )
            ),
        )
        return
    outside = Outside(clock=SystemClock())
    if isinstance(request, BatchRequest):
        lines = asyncio.run(probe_all(request, owner, outside))
        yield RESULTS, "".join(f"{to_json(line)}\n" for line in lines)
        return
    answer = answer_of(request, asyncio.run(probe(request, owner, outside)))
    if answer.report:
        yield REPORT, answer.report
    yield RESULT, answer.result


def _text_of(argument: str) -> str:
    """The request itself, or that of the file it names."""
    if argument.lstrip().startswith("{"):
        return argument
    with open(argument, encoding="utf-8") as file:
        text = file.read(_MAX_REQUEST_BYTES + 1)
    if len(text) > _MAX_REQUEST_BYTES:
        raise ValueError(f"the request is larger than {_MAX_REQUEST_BYTES} characters")
    return text


def _write(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


if __name__ == "__main__":
    sys.exit(main())
