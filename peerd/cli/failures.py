"""What went wrong, for people and for scripts: three lines on stderr and an exit code."""

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from peerd.errors import PeerdError


class ExitCode(IntEnum):
    """Documented in docs/cli.md; scripts depend on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_REACHABLE = 3
    DENIED = 4
    NOT_FOUND = 5
    TIME_OUT = 124
    INTERRUPTED = 130


_OF_GRPC_CODE = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "UNAVAILABLE": ExitCode.NOT_REACHABLE,
    "PERMISSION_DENIED": ExitCode.DENIED,
    "UNAUTHENTICATED": ExitCode.DENIED,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "DEADLINE_EXCEEDED": ExitCode.TIME_OUT,
}


class WorkFailed(Exception):  # noqa: N818  # not an error of peerctl's: the answer says what failed
    """All was printed; only the exit code says that the work ended badly."""

    def __init__(self, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def exit_code_of(error: PeerdError) -> ExitCode:
    """The exit code of a refusal. A faulty definition is failed work, not a misspelt command."""
    if error.reason.text == "invalid_definition":
        return ExitCode.FAILED
    return _OF_GRPC_CODE.get(error.reason.code, ExitCode.FAILED)


def report(error: PeerdError, *, as_json: bool) -> int:
    """Print the error and return the exit code."""
    # A reason this version does not know keeps the name the daemon gave it.
    reason = error.metadata.get("reason", error.reason.text).lower()
    click.echo(f"error: {error.message}", err=True)
    for violation in error.violations:
        click.echo(f"  {violation.field}: {violation.message}", err=True)
    click.echo(f"reason: {reason}", err=True)
    click.echo(f"next: {error.next_action}", err=True)
    code = exit_code_of(error)
    if as_json:
        document = {
            "error": {
                "message": error.message,
                "reason": reason,
                "code": error.reason.code,
                "retryable": error.retryable,
                "next_action": error.next_action,
                "violations": [{"field": v.field, "message": v.message} for v in error.violations],
                "exit_code": int(code),
            }
        }
        click.echo(json.dumps(document), err=True)
    return code


def report_interrupt() -> int:
    """Ctrl-C: say so on a line of its own."""
    click.echo("\ninterrupted", err=True)
    return ExitCode.INTERRUPTED
