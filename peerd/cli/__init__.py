"""peerctl: parse, one call of the public client, print.

One file per noun, imported when that noun is used. ``peerctl --help`` imports click and nothing heavier: grpc,
protobuf and rich are imported inside the commands that need them, which a test holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """The console script: run the command and leave with its exit code."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed to stderr."""
    import click

    from peerd.cli.app import peerctl
    from peerd.cli.failures import ExitCode, WorkFailed, report, report_interrupt
    from peerd.cli.settings import Settings
    from peerd.errors import PeerdError

    settings = Settings()
    try:
        with peerctl.make_context("peerctl", list(argv), obj=settings) as context:
            peerctl.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.UsageError as exc:
        exc.show()
        return ExitCode.USAGE
    except click.ClickException as exc:
        exc.show()
        return ExitCode.FAILED
    except WorkFailed as exc:
        return exc.exit_code
    except PeerdError as exc:
        return report(exc, as_json=settings.as_json)
    except (KeyboardInterrupt, click.Abort, EOFError):
        return report_interrupt()
    except BrokenPipeError:
        # The reader of our output went away ('| head'): nothing to complain about, and nothing left to flush to.
        sys.stdout = None
        return ExitCode.FAILED
    return ExitCode.OK
