"""Sweep loopback nodes over three probing daemons, kill one of them midway, and print JSON with what came of it.

    scripts/bench sweep --nodes 500 --at-once 9

Every node is a small JSON-RPC server on an address of its own; it counts how often it was asked, so that a node scanned
twice is seen from outside. The daemon that is killed comes back after a while, unless --for-good is given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.fleet import Fleet, wait_for
from tests.e2e.test_nodes import Sites, document


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=12, help="the organization's max_concurrent is one more")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--for-good", action="store_true", help="the killed daemon does not come back")
    options = parser.parse_args()
    hosts = [f"127.60.{1 + number // 250}.{1 + number % 250}" for number in range(options.nodes)]
    sites, fleet = Sites(hosts), Fleet(("c", "a", "b", "d"), forked=False)
    probing = (
        '\n[nodes]\nprober = true\nallowed_networks = ["127.0.0.0/8"]\nallow_special = ["loopback"]\n'
        f"max_running = {-(-options.at_once // 3)}\n"
    )
    try:
        fleet.found(configure=dict.fromkeys("abd", probing))
        print(json.dumps(run(fleet, sites, hosts, options), indent=2))
    finally:
        fleet.close()
        sites.close()


def run(fleet: Fleet, sites: Sites, hosts: list[str], options: argparse.Namespace) -> dict[str, object]:
    """The sweep, and what was seen of it."""
    c = fleet["c"]
    policy = ("--network", "127.0.0.0/8", "--special", "loopback", "--max-concurrent", str(options.at_once + 1))
    document(c, "orgs", "add", "bench", *policy)
    from peerd.client import SyncClient

    with SyncClient(socket=c.socket) as peerd:
        for host in hosts:
            peerd.do(lambda client, host=host: client.scan_node(host, org="bench"))
        began = time.monotonic()
        answer = peerd.do(lambda client: client.sweep_nodes(org="bench", level=options.level))
        sweep_id = answer.sweep.sweep_id

        def ended() -> int:
            found = peerd.do(lambda client: client.sweep(sweep_id, org="bench"))
            return int(found.scanned + found.failed)

        wait_for(lambda: ended() >= options.nodes // 2, 3600, "half of them are over", pause=0.2)
        fleet["b"].kill()
        killed_at = time.monotonic() - began
        if not options.for_good:
            wait_for(lambda: ended() >= options.nodes * 3 // 5, 3600, "some more are over", pause=0.2)
            fleet["b"].start()
        wait_for(lambda: ended() == options.nodes, 3600, "all are over", pause=0.5)
        took = time.monotonic() - began
        over = peerd.do(lambda client: client.sweep(sweep_id, org="bench"))
        reports = [peerd.do(lambda client, host=host: client.node(host, org="bench")) for host in hosts]
        statuses = {str(item.node.status) for item in reports}
        seconds = []
        for host in hosts[:: max(1, len(hosts) // 50)]:
            last = peerd.do(lambda client, host=host: client.node_runs(host, org="bench"))[0]
            if last.risk:
                report = peerd.do(lambda client, host=host: client.node_report(host, org="bench"))
                seconds.append(json.loads(report.json)["seconds"])
    return {
        "nodes": options.nodes,
        "scanned": over.scanned,
        "failed": over.failed,
        "reasons": dict(over.reasons),
        "peers": dict(over.peers),
        "seconds": round(took, 1),
        "killed_after": round(killed_at, 1),
        "nodes_per_second": round(options.nodes / took, 2),
        "median_seconds_of_probing": round(statistics.median(seconds), 2) if seconds else None,
        "asked_more_than_once": sum(1 for host in hosts if sites.asked[host] > 1),
        "statuses": sorted(statuses),
    }


if __name__ == "__main__":
    main()
