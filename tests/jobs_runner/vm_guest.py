"""What scripts/vm-limits runs in its virtual machine: the tests of isolation and limits under version 2 alone.

Prints how many passed, and each that did not: here nothing may be skipped. What ``peerd doctor`` says to each of the
users is printed as well.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOUNT = Path("/sys/fs/cgroup")
SERVICE = MOUNT / "peerd.service"
USER = 1000
HOME = Path("/tmp/home")
RESULTS = Path("/tmp/results.xml")
WANTED = "+cpu +memory +pids"
LIMITS = ("tests/jobs_runner/test_limits.py", "tests/jobs_runner/test_groups.py")
HOSTILE = ("tests/e2e/test_escape.py",)
DEMANDS = ("tests/e2e/test_demands.py", "tests/e2e/test_isolation.py")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some tests, and who runs them."""

    tests: tuple[str, ...]
    user: int = 0
    group: Path = MOUNT
    groups: bool = True
    """Whether this user can make control groups there."""


DELEGATED: dict[str, Any] = {"user": USER, "group": SERVICE / "peerd-main"}
PARTS = {
    "limits": Part(tests=LIMITS),
    "hostile": Part(tests=HOSTILE),
    "demands": Part(tests=DEMANDS),
    "containers": Part(tests=("tests/containers",)),
    "delegated-limits": Part(tests=LIMITS, **DELEGATED),
    "delegated-hostile": Part(tests=HOSTILE, **DELEGATED),
    "delegated-demands": Part(tests=DEMANDS, **DELEGATED),
    "undelegated-demands": Part(tests=DEMANDS, user=USER, group=MOUNT / "shell", groups=False),
}


def say(text: str) -> None:
    """How far it is, for people."""
    print(f"{time.monotonic():8.1f} {text}", file=sys.stderr, flush=True)


def prepare() -> None:
    """What systemd does for a service with ``Delegate=`` and ``DelegateSubgroup=``, and a user to run it."""
    (MOUNT / "cgroup.subtree_control").write_text(WANTED)
    for folder in (SERVICE, SERVICE / "peerd-main", MOUNT / "shell"):
        folder.mkdir()
    for folder in (SERVICE, SERVICE / "peerd-main"):
        for path in (folder, *(folder / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
            os.chown(path, USER, USER)
    HOME.mkdir()
    os.chown(HOME, USER, USER)
    for folder in Path(sys.executable).resolve().parents:  # of this machine only: its files are its own
        folder.chmod(folder.stat().st_mode | 0o011)


def run(part: Part, *command: str, output: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as the user of a part and in its group."""
    enter = ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(part.group / "cgroup.procs")]
    if part.user:
        enter += ["setpriv", f"--reuid={part.user}", f"--regid={part.user}", "--clear-groups"]
    home = {"HOME": str(HOME)} if part.user else {}
    environ = {**os.environ, **home, "PEERD_REQUIRE_ALL": "1" if part.groups else ""}
    return subprocess.run([*enter, *command], text=True, stdout=output, env=environ, check=False)


def doctor(part: Part) -> dict[str, str]:
    """What ``peerd doctor`` says there of isolation and limits."""
    folder = f"/tmp/doctor-{part.group.name}"
    peerd = [str(Path(sys.executable).parent / "peerd"), "--data-dir", folder]
    run(
        part, *peerd, "init", "--name", "vm", "--listen", "127.0.0.1:7373", output=subprocess.DEVNULL
    ).check_returncode()
    found = json.loads(run(part, *peerd, "doctor", "-o", "json", output=subprocess.PIPE).stdout)["findings"]
    return {
        entry["name"]: entry["message"] for entry in found if entry["name"] in ("isolation", "limits", "containers")
    }


def results() -> Iterator[tuple[str, str, str]]:
    """(test, what became of it, why) of the last run."""
    for case in ET.parse(RESULTS).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        marks = {child.tag: child.get("message", "") for child in case}
        what = next((tag for tag in ("failure", "error", "skipped") if tag in marks), "passed")
        yield name, what, marks.get(what, "")


def judge(part: Part, tests: Sequence[str]) -> dict[str, Any]:
    """Run tests of a part."""
    RESULTS.unlink(missing_ok=True)
    began = time.monotonic()
    pytest = [sys.executable, "-m", "pytest", "-n0", "-v", "-p", "no:cacheprovider", "--tb=short"]
    done = run(part, *pytest, f"--junitxml={RESULTS}", *tests, output=sys.stderr.fileno())
    became = list(results()) if RESULTS.exists() else []
    bad = [f"{name}: {why}" for name, what, why in became if what != "passed"]
    return {
        "passed": sum(what == "passed" for _, what, _ in became),
        "not_passed": bad or [f"pytest ended with {done.returncode}"] * (done.returncode != 0),
        "seconds": round(time.monotonic() - began),
    }


def version(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def main() -> int:
    prepare()
    told: dict[str, Any] = {
        "kernel": platform.release(),
        "slowed": int(os.environ["PEERD_VM_SLOWED"]),
        "mounted": [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line],
        "programs": [version(name, "--version") for name in ("bwrap", "podman", "runc")],
    }
    wanted: dict[str, list[str]] = {}
    for word in sys.argv[1:] or PARTS:
        name, _, test = word.partition("=")
        wanted[name] = [*wanted.get(name, ()), *([test] if test else PARTS[name].tests)]
    for name, tests in wanted.items():
        say(name)
        told[name] = judge(PARTS[name], tests)
        print(json.dumps({name: told[name]}), file=sys.stderr, flush=True)
    say("doctors")
    told["doctor"] = {
        part.group.name: doctor(part) for part in {PARTS[name].group: PARTS[name] for name in wanted}.values()
    }
    say("that is all")
    print(json.dumps(told, indent=2))
    return int(any(told[name]["not_passed"] for name in wanted))


if __name__ == "__main__":
    sys.exit(main())
