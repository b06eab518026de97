"""A good caller, in a process of its own: asks a peer again and again, and tells how long the answers took.

It prints its peer id, begins when it is told a line, ends at the next, and prints what it found as JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from types import TracebackType

import grpc

from peerd.clock import SystemClock
from peerd.identity.certificates import anchor_pem, issue_leaf
from peerd.identity.key import Identity
from peerd.identity.peer_id import PeerId
from peerd.rpc import limits
from peerd.v1 import daemon_pb2, daemon_pb2_grpc
from tests.e2e.load import busier
from tests.hostile.target import Target

P99_MS = 250.0


def longest_p99_ms() -> float:
    """What the slowest hundredth of good calls may take: on a machine where others wait for a core, that many more."""
    return P99_MS * busier()


_PAUSE_SECONDS = 0.01
_TIMEOUT_SECONDS = 30.0
_LEAST_SECONDS, _LEAST_CALLS = 3.0, 60
"""Fewer calls would tell nothing of the slowest hundredth."""


class GoodCaller:
    """The process, from outside. What it found is there after the block."""

    def __init__(self, target: Target) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.caller", target.daemon.peer_id, str(target.daemon.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        target.daemon.peerctl("peers", "admit", self._hear(), "--grants", "observe")
        self._say()
        self._hear()
        self.calls = 0
        self.failed = 0
        self.p99_ms = 0.0
        self.longest_ms = 0.0

    def __enter__(self) -> GoodCaller:
        self._say()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._say()
        found = json.loads(self._hear())
        self.calls, self.failed = found["calls"], found["failed"]
        self.p99_ms, self.longest_ms = found["p99_ms"], found["longest_ms"]
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def _say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def main(callee: str, port: str) -> None:
    """What runs in the process."""
    identity = Identity.generate()
    print(identity.peer_id, flush=True)
    sys.stdin.readline()
    leaf = issue_leaf(identity, SystemClock())
    credentials = grpc.ssl_channel_credentials(anchor_pem(PeerId(callee)), leaf.private_key_pem, leaf.certificate_pem)
    options = [*limits.CLIENT, ("grpc.default_authority", callee)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        stub = daemon_pb2_grpc.DaemonServiceStub(channel)
        stub.GetStatus(daemon_pb2.GetStatusRequest(), timeout=_TIMEOUT_SECONDS, wait_for_ready=True)
        print("ready", flush=True)
        sys.stdin.readline()
        over = threading.Event()

        def listen() -> None:
            sys.stdin.readline()
            over.set()

        threading.Thread(target=listen, daemon=True).start()
        took: list[float] = []
        failed = 0
        least = time.monotonic() + _LEAST_SECONDS
        while not over.is_set() or time.monotonic() < least or len(took) < _LEAST_CALLS:
            begun = time.perf_counter()
            try:
                stub.GetStatus(daemon_pb2.GetStatusRequest(), timeout=_TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                failed += 1
                if failed <= 3:
                    print(error, file=sys.stderr, flush=True)
            took.append((time.perf_counter() - begun) * 1000)
            time.sleep(_PAUSE_SECONDS)
    p99 = statistics.quantiles(took, n=100)[98] if len(took) > 1 else took[0]
    found = {"calls": len(took), "failed": failed, "p99_ms": round(p99, 1), "longest_ms": round(max(took), 1)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
