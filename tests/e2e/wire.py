"""Hosts on one bridge, each in a network namespace of its own, that can be made deaf to each other or lossy.

Needs root, iproute2 and nftables. All rules are on the way in, so a cut between two directions is two cuts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Iterable

import pytest

needs_namespaces = pytest.mark.skipif(
    os.environ.get("PEERD_REQUIRE_ALL") != "1"
    and (os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nft") is None),
    reason="needs root, iproute2 and nftables for network namespaces",
)


class Wire:
    """The bridge and its hosts, numbered from 1; host 3 has the address 10.77.0.3."""

    def __init__(self) -> None:
        self.tag = f"pd{os.getpid() % 100000}"
        self.switch = f"{self.tag}sw"
        self._deaf: dict[str, set[str]] = {}
        self._loss: dict[str, int] = {}
        run("ip", "netns", "add", self.switch)
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")
        self.hosts: list[str] = []

    def host(self, number: int) -> str:
        """A new host; returns the name of its namespace."""
        name = f"{self.tag}h{number}"
        run("ip", "netns", "add", name)
        self.hosts.append(name)
        inside, port = f"v{number}", f"p{number}"
        run("ip", "link", "add", inside, "netns", name, "type", "veth", "peer", "name", port, "netns", self.switch)
        run("ip", "-n", self.switch, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", name, "addr", "add", f"{self.address(name)}/24", "dev", inside)
        run("ip", "-n", name, "link", "set", inside, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def address(self, host: str) -> str:
        """Its IPv4 address."""
        return f"10.77.0.{host.rpartition('h')[2]}"

    def deafen(self, host: str, to: Iterable[str]) -> None:
        """Nothing of those arrives at it any more, and nobody is told: a firewall, or a cut behind a switch."""
        self._deaf.setdefault(host, set()).update(other for other in to if other != host)
        self._apply(host)

    def split(self, side: Collection[str]) -> None:
        """These and the others do not hear each other."""
        for host in self.hosts:
            self.deafen(host, [other for other in self.hosts if (other in side) != (host in side)])

    def isolate(self, host: str) -> None:
        """It hears nobody, and nobody hears it."""
        self.split([host])

    def lose(self, percent: int) -> None:
        """So many of a hundred packets are lost on the way in, everywhere; 0 for none."""
        for host in self.hosts:
            self._loss[host] = percent
            self._apply(host)

    def heal(self) -> None:
        """All hear all, and nothing is lost."""
        self._deaf.clear()
        self._loss.clear()
        for host in self.hosts:
            self._apply(host)

    def bytes_sent(self) -> int:
        """By all hosts onto the wire, since the beginning."""
        total = 0
        for host in self.hosts:
            path = f"/sys/class/net/v{host.rpartition('h')[2]}/statistics/tx_bytes"
            said = subprocess.run(
                ["ip", "netns", "exec", host, "cat", path], capture_output=True, text=True, check=True
            ).stdout
            total += int(said)
        return total

    def close(self) -> None:
        """Take all of it away."""
        for name in (*self.hosts, self.switch):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _apply(self, host: str) -> None:
        rules = []
        if deaf := sorted(map(self.address, self._deaf.get(host, ()))):
            rules.append(f"ip saddr {{ {', '.join(deaf)} }} drop")
        if loss := self._loss.get(host, 0):
            rules.append(f"iif != lo numgen random mod 100 < {loss} drop")
        body = "\n  ".join(["type filter hook input priority 0; policy accept;", *rules])
        text = f"table inet cut\ndelete table inet cut\ntable inet cut {{\n chain in {{\n  {body}\n }}\n}}\n"
        subprocess.run(
            ["nsenter", f"--net=/var/run/netns/{host}", "nft", "-f", "-"],
            input=text,
            text=True,
            check=True,
            capture_output=True,
        )


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
