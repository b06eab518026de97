"""Three real daemons: job rate, time to start, transfer rate, cost of doing nothing, time of ``peerctl --help``.

``map --jobs N`` measures a map over N items instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.e2e.fleet import Daemon, Fleet, tool
from tests.e2e.workflow import FINAL, definition, job, short, start

TICK = os.sysconf("SC_CLK_TCK")


def noop(name: str, peer: str) -> dict[str, Any]:
    return {"name": name, "on": {"peer": peer}, "service": "noop"}


def job_rate(fleet: Fleet, count: int) -> float:
    """No-op jobs per second over two peers, from submission to the end of the execution."""
    jobs = [noop(f"j{number}", "ab"[number % 2]) for number in range(count)]
    begun = time.monotonic()
    run = start(fleet, "c", definition("rate", *jobs))
    assert run.wait(300) == "COMPLETED", run.explain()
    return count / (time.monotonic() - begun)


def start_times(fleet: Fleet, count: int) -> list[float]:
    """Milliseconds from RunWorkflow on the socket to the start of the job's process on another peer."""
    from peerd.client import Client

    async def one(number: int) -> float:
        async with Client(socket=fleet["c"].socket) as peerd:
            text = json.dumps(definition("start", job(f"s{number}", "a")))
            from peerd.v1.workflows_pb2 import DefinitionSource

            begun = time.time()
            execution = await peerd.run(DefinitionSource(text=text))
            final = await peerd.wait(execution.workflow_execution_id)
            return (final.jobs[0].started_at.ToDatetime().timestamp() - begun) * 1000

    import asyncio

    os.environ["TZ"] = "UTC"
    time.tzset()
    return [asyncio.run(one(number)) for number in range(count)]


def transfer_rate(fleet: Fleet, megabytes: int) -> dict[str, float]:
    """MB/s of one file from a's output to b's input, over mTLS, verified and synced; and cp of the same file."""
    run = start(
        fleet, "c", definition("big", job("made", "a", params={"write_mb": str(megabytes)}), job("used", "b", ["made"]))
    )
    assert run.wait(300) == "COMPLETED", run.explain()
    jobs = run.jobs()
    from datetime import datetime

    ended = datetime.fromisoformat(jobs["made"]["ended_at"].replace("Z", "+00:00"))
    begun = datetime.fromisoformat(jobs["used"]["started_at"].replace("Z", "+00:00"))
    source = run.directory("made") / "output" / "made.bin"
    copied = time.monotonic()
    subprocess.run(["cp", str(source), str(fleet.folder / "copy")], check=True)
    return {
        "peerd_mb_per_s": megabytes / (begun - ended).total_seconds(),
        "cp_mb_per_s": megabytes / (time.monotonic() - copied),
    }


def idle_cost(daemon: Daemon, seconds: float) -> dict[str, float]:
    """Resident MiB, and per cent of one core while nothing happens."""
    assert daemon.process is not None
    stat, status = Path(f"/proc/{daemon.process.pid}/stat"), Path(f"/proc/{daemon.process.pid}/status")

    def ticks() -> int:
        fields = stat.read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(seconds)
    used = (ticks() - before) / TICK
    resident = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return {"rss_mib": resident / 1024, "cpu_percent": 100 * used / seconds}


def help_time() -> float:
    """Median milliseconds of ``peerctl --help``."""
    times = []
    for _ in range(7):
        begun = time.monotonic()
        subprocess.run([tool("peerctl"), "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append((time.monotonic() - begun) * 1000)
    return median(times)


def mapped(fleet: Fleet, count: int, max_parallel: int) -> dict[str, Any]:
    """No-op jobs over a list that a job makes, on all three peers; the memory of each daemon before, at most, after."""
    lines = "".join(f"{number}\n" for number in range(count))
    made = job("list", "a", package=[{"path": "made", "text": lines}])
    work: dict[str, Any] = {"name": "work", "service": "noop", "map": {"from": "list.output/seen/package/made"}}
    if max_parallel:
        work["max_parallel"] = max_parallel
    before = {name: resident(daemon, "VmRSS") for name, daemon in fleet.daemons.items()}
    begun = time.monotonic()
    run = start(fleet, "c", definition("mapped", made, work))
    status, most = "", dict(before)
    while status not in FINAL:
        time.sleep(0.5)
        most = {name: max(most[name], resident(daemon, "VmRSS")) for name, daemon in fleet.daemons.items()}
        # The list has neither jobs nor edges: asking for ten thousand of them would be measured, too.
        listed = fleet["c"].json("executions", "list")["executions"]
        status = short(next(one["status"] for one in listed if int(one["workflow_execution_id"]) == run.id))
    seconds = time.monotonic() - begun
    view = run.view()
    statuses = Counter(short(one["status"]) for one in view["jobs"])
    places = Counter(one.get("executor_name", "") for one in view["jobs"])
    return {
        "jobs": count,
        "max_parallel": max_parallel,
        "status": status,
        "jobs_by_status": dict(statuses),
        "jobs_by_peer": {name: number for name, number in places.items() if name},
        "seconds": round(seconds, 1),
        "jobs_per_second": round(count / seconds, 1),
        "orchestrator_growth_mib": round(most["c"] - before["c"], 1),
        "rss_before_mib": {name: round(mib, 1) for name, mib in before.items()},
        "rss_most_mib": {name: round(mib, 1) for name, mib in most.items()},
    }


def resident(daemon: Daemon, field: str) -> float:
    """A figure of the daemon's process in MiB."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["all", "map"], default="all")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--max-parallel", type=int, default=0, help="of the map")
    parser.add_argument("--megabytes", type=int, default=512)
    options = parser.parse_args()
    fleet = Fleet(forked=False)
    noop_service = '\n[[services]]\nname = "noop"\nkind = "SERVICE_KIND_PROCESS"\nargv = ["/bin/true"]\n'
    try:
        fleet.found(configure=dict.fromkeys("cab", noop_service))
        if options.what == "map":
            print(json.dumps(mapped(fleet, options.jobs, options.max_parallel), indent=2))
            return
        idle = idle_cost(fleet["b"], 10)
        figures = {
            "jobs_per_second": job_rate(fleet, options.jobs),
            "submit_to_started_ms_median": median(start_times(fleet, 10)),
            "transfer": transfer_rate(fleet, options.megabytes),
            "idle": idle,
            "peerctl_help_ms": help_time(),
        }
        print(json.dumps(figures, indent=2))
    finally:
        fleet.close()


if __name__ == "__main__":
    main()
