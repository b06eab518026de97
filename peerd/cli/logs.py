"""``peerctl logs``: what a job wrote, from wherever it runs.

The job's stdout goes to stdout and its stderr to stderr, byte for byte; one of them alone goes to stdout.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from peerd.cli.app import Verb
from peerd.cli.output import print_json, print_json_line
from peerd.cli.settings import Settings, call, pass_settings

if TYPE_CHECKING:
    from peerd.client import Client


@click.command(cls=Verb)
@click.argument("execution_id", type=int, metavar="EXECUTION")
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--stdout", "only", flag_value="stdout", help="Only what it wrote to stdout.")
@click.option("--stderr", "only", flag_value="stderr", help="Only what it wrote to stderr, on stdout.")
@pass_settings
def logs(settings: Settings, execution_id: int, job: str, follow: bool, only: str | None) -> None:
    """What JOB of EXECUTION wrote. With -o json one document, with -f one line per piece."""
    from peerd.v1 import jobs_pb2

    stream = jobs_pb2.LogStream.Value(f"LOG_STREAM_{(only or 'unspecified').upper()}")
    collected = {"stdout": bytearray(), "stderr": bytearray()}

    async def read(peerd: Client) -> None:
        pieces = peerd.logs(execution_id, job, stream=stream, follow=follow, timeout=settings.timeout)
        async for piece in pieces:
            name = "stderr" if piece.stream == jobs_pb2.LOG_STREAM_STDERR else "stdout"
            if not settings.as_json:
                target = sys.stderr if name == "stderr" and only is None else sys.stdout
                target.buffer.write(piece.data)
                target.flush()
            elif follow:
                print_json_line({"stream": name, "data": piece.data.decode(errors="replace")})
            else:
                collected[name] += piece.data

    call(settings, read)
    if settings.as_json and not follow:
        print_json({name: bytes(data).decode(errors="replace") for name, data in collected.items()})
