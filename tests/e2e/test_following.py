"""Who follows the logs of a job has each of its bytes once, whatever is killed meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .fleet import Fleet, tool, wait_for
from .workflow import start

LINES = 60
TALK = """
import sys, time
for number in range(int(sys.argv[1])):
    print(f"out {number}", flush=True)
    print(f"err {number}", file=sys.stderr, flush=True)
    time.sleep(0.15)
"""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """One orders, the other talks."""
    made = Fleet(("c", "a"))
    argv = json.dumps([sys.executable, "-c", TALK, str(LINES)])
    try:
        made.found(configure={"a": f'\n[[services]]\nname = "talk"\nkind = "SERVICE_KIND_PROCESS"\nargv = {argv}\n'})
        yield made
    finally:
        made.close()


def test_following_goes_on_behind_what_was_read_whoever_is_killed(fleet: Fleet) -> None:
    run = start(fleet, "c", {"name": "talks", "jobs": [{"name": "talk", "on": {"peer": "a"}, "service": "talk"}]})
    out, err = fleet.folder / "out", fleet.folder / "err"
    command = [tool("peerctl"), "--socket", str(fleet["c"].socket), "logs", "-f", str(run.id), "talk"]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        following = subprocess.Popen(command, stdout=stdout, stderr=stderr)
        try:
            for name, line in (("a", "out 3\n"), ("c", "out 15\n"), ("a", "out 30\n")):
                wait_for(lambda line=line: line in out.read_text(), 30, f"it has read {line}", pause=0.02)
                assert following.poll() is None, err.read_text()
                fleet[name].kill()
                fleet[name].start()
            assert following.wait(60) == 0, err.read_text()
        finally:
            following.kill()
            following.wait()
    assert out.read_text().splitlines() == [f"out {number}" for number in range(LINES)]
    assert err.read_text().splitlines() == [f"err {number}" for number in range(LINES)]
    assert run.wait() == "COMPLETED"
