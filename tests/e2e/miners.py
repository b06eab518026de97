"""Simulated miners for tests: processes of ``peerd simulate miner``."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from .fleet import tool


class Sim:
    """One device, plugged in at a daemon's directory of simulators."""

    def __init__(self, folder: Path, name: str, *options: str, speed: float = 20) -> None:
        command = [tool("peerd"), "simulate", "miner", "--dir", str(folder), "--name", name]
        command += ["--every", "1", "--boot-on-open", "--speed", str(speed), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert self.process.stdout is not None
        self.path = self.process.stdout.readline().strip()

    def order(self, line: str) -> None:
        """Such as ``unplug``; after ``plug`` it has another path."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        if line == "plug":
            self.path = self.process.stdout.readline().strip()

    def pull(self) -> None:
        """Its process is killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
