"""A job for tests: says in an effect log outside peerd what it did, and passes files on.

step.py LOG NAME [--seconds S] [--fail-first N] [--ignore-term] [--hide] [--write-mb N]
        [--then-seconds S] [--into DIR] [--until LINE]

The log gets one line per event, appended and synced: "start NAME", "done NAME", "fail NAME". It is the judge of
"lost" and "doubled", so peerd never writes to it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def say(log: Path, line: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (line + "\n").encode())
    os.fsync(descriptor)
    os.close(descriptor)


def hide(log: Path, name: str, seconds: float) -> None:
    """Fork twice and leave the session, as a job that wants to outlive its cancel does."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(log, f"hidden {name}")
    time.sleep(seconds)
    say(log, f"escaped {name}")
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--fail-first", type=int, default=0)
    parser.add_argument("--ignore-term", default="no")
    parser.add_argument("--hide", default="no")
    parser.add_argument("--write-mb", type=int, default=0)
    parser.add_argument("--then-seconds", type=float, default=0)
    parser.add_argument("--into", default="output")
    parser.add_argument("--until", default="")
    options = parser.parse_args()
    tries = options.log.read_text().count(f"start {options.name}\n") if options.log.exists() else 0
    if options.ignore_term == "yes":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.hide == "yes":
        hide(options.log, options.name, 60)
    say(options.log, f"start {options.name}")
    time.sleep(options.seconds)
    while options.until and options.until not in options.log.read_text().splitlines():
        time.sleep(0.05)
    if tries < options.fail_first:
        say(options.log, f"fail {options.name}")
        print(f"{options.name}: failing on purpose", file=sys.stderr)
        return 3
    target = Path(options.into)
    target.mkdir(parents=True, exist_ok=True)
    for place in ("input", "package", "mounts"):
        for path in sorted(Path(place).rglob("*")):
            if path.is_file() and target not in path.parents:
                to = target / "seen" / place / path.relative_to(place)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
    (target / f"{options.name}.txt").write_text(f"made by {options.name}\n")
    if options.write_mb:
        with (target / f"{options.name}.bin").open("wb") as out:
            block = bytes(range(256)) * 4096
            for number in range(options.write_mb):
                out.write(number.to_bytes(8, "big") + block[8:])
    if not sys.stdin.isatty():
        data = sys.stdin.buffer.read()
        if data:
            (target / f"{options.name}.stdin").write_bytes(data)
    print(f"{options.name} was here", flush=True)
    time.sleep(options.then_seconds)
    say(options.log, f"done {options.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
