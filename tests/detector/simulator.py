"""Meshes of any size in virtual time: the real :class:`Detector` of every peer, and a wire that loses messages.

``python -m tests.detector.simulator --peers 1000 --seconds 3600`` prints one JSON document; see docs/membership.md.
Nothing of the machine is replaced: what is faked is the wire, the clock and the signatures.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from peerd.detector.machine import Action, AskOther, Compare, Detector, Ping
from peerd.detector.model import Alive, State, Suspicion, Timing, Update
from peerd.identity.peer_id import PeerId

# Bytes on the wire, as test_wire.py measures them on real messages; headers are those of gRPC and HTTP/2 on a
# connection that is used again and again.
HEADERS = 90
PING, PONG, ASK, TOLD = 60, 80, 70, 10
ALIVE, SUSPICION = 255, 310
ENTRY, GROUPS = 64, 520


def size_of(updates: Sequence[Update]) -> int:
    return sum(ALIVE + SUSPICION * len(update.suspicions) for update in updates)


class PlainVoice:
    """Statements without signatures."""

    def __init__(self, peer_id: PeerId, instance: int) -> None:
        self.peer_id = peer_id
        self.instance = instance

    def alive(self, incarnation: int, *, left: bool) -> Alive:
        return Alive(self.peer_id, incarnation, self.instance, left)

    def suspicion(self, peer_id: PeerId, incarnation: int) -> Suspicion:
        return Suspicion(peer_id, incarnation, self.peer_id)


@dataclass
class Node:
    """One machine."""

    index: int
    peer_id: PeerId
    detector: Detector
    up: bool = True
    side: int = 0
    paused_until: float = 0.0
    next_at: float = -1.0


@dataclass
class Tally:
    """What was seen."""

    messages: int = 0
    octets: int = 0
    false_suspicions: int = 0
    false_deaths: int = 0
    detections: dict[int, list[float]] = field(default_factory=dict)


class Simulation:
    """Some peers that know each other from the start."""

    def __init__(
        self, peers: int, *, seed: int = 1, loss: float = 0.0, latency: float = 0.01, timing: Timing | None = None
    ) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.loss = loss
        self.latency = latency
        self.timing = timing or Timing()
        self.tally = Tally()
        self.died_at: dict[int, float] = {}
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        ids = [PeerId(f"peer{index:048d}") for index in range(peers)]
        self.nodes = [self._node(index, peer_id, 1) for index, peer_id in enumerate(ids)]
        self.by_id = {node.peer_id: node for node in self.nodes}
        hello = [Update(node.detector.own) for node in self.nodes]
        for node in self.nodes:
            node.detector.set_members(ids)
            node.detector.take_in(hello, 0.0)
            node.detector.take_transitions()
            # News of the start is old news.
            for _ in range(self.timing.transmissions(peers)):
                node.detector._known._news.take(peers, limit=1)
            self._plan(node, self.rng.uniform(0, self.timing.period))

    def _node(self, index: int, peer_id: PeerId, life: int) -> Node:
        voice = PlainVoice(peer_id, index * 1000 + life)
        rng = random.Random(self.rng.random())
        detector = Detector(peer_id, voice, self.timing, rng, incarnation=life * 1_000_000, now=self.now)
        return Node(index, peer_id, detector)

    # -- What befalls machines

    def kill(self, index: int) -> None:
        self.nodes[index].up = False
        self.died_at[index] = self.now
        self.tally.detections[index] = []

    def restart(self, index: int) -> None:
        old = self.nodes[index]
        life = old.detector.own.incarnation // 1_000_000 + 1
        node = self._node(index, old.peer_id, life)
        node.side = old.side
        self.nodes[index] = self.by_id[old.peer_id] = node
        self.died_at.pop(index, None)
        node.detector.set_members([other.peer_id for other in self.nodes])
        self._perform(node, node.detector.announce())
        self._plan(node, self.now)

    def pause(self, index: int, seconds: float) -> None:
        """As SIGSTOP does it."""
        self.nodes[index].paused_until = self.now + seconds

    def partition(self, sides: Sequence[Sequence[int]]) -> None:
        for side, members in enumerate(sides):
            for index in members:
                self.nodes[index].side = side

    def heal(self) -> None:
        for node in self.nodes:
            node.side = 0

    # -- What is to be seen

    def digests(self) -> set[int]:
        return {node.detector.view_digest for node in self.nodes if node.up}

    def states(self, observer: int, target: int) -> State:
        return self.nodes[observer].detector.state(self.nodes[target].peer_id)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Go on for so long, or until the condition holds; it is asked once a period."""
        end, ask_at = self.now + seconds, self.now
        while self._queue and self._queue[0][0] <= end:
            at, _, call, args = heapq.heappop(self._queue)
            if until is not None and at >= ask_at:
                if until():
                    return True
                ask_at = at + self.timing.period
            self.now = at
            call(*args)
        self.now = end
        return until is not None and until()

    # -- The wire

    def _at(self, at: float, call: Callable[..., None], *args: Any) -> None:
        self._order += 1
        heapq.heappush(self._queue, (at, self._order, call, args))

    def _plan(self, node: Node, at: float) -> None:
        if node.next_at > self.now and node.next_at <= at:
            return
        node.next_at = at
        self._at(at, self._poll, node, at)

    def _poll(self, node: Node, planned: float) -> None:
        if not node.up or self.nodes[node.index] is not node or planned != node.next_at:
            return
        if self.now < node.paused_until:
            node.next_at = -1.0
            self._plan(node, node.paused_until)
            return
        node.next_at = -1.0
        self._perform(node, node.detector.poll(self.now))
        self._after(node)

    def _after(self, node: Node) -> None:
        for change in node.detector.take_transitions():
            target = self.by_id[change.peer_id]
            if change.after is State.SUSPECT and self._healthy(node, target):
                self.tally.false_suspicions += 1
            if change.after is State.OFFLINE:
                if self._healthy(node, target):
                    self.tally.false_deaths += 1
                elif target.index in self.died_at:
                    self.tally.detections[target.index].append(self.now - self.died_at[target.index])
        self._plan(node, max(self.now, node.detector.next_due()))

    def _healthy(self, one: Node, other: Node) -> bool:
        return other.up and one.side == other.side and self.now >= other.paused_until

    def _passes(self, sender: Node, receiver: Node, octets: int) -> bool:
        self.tally.messages += 1
        self.tally.octets += HEADERS + octets
        there = receiver.up and sender.side == receiver.side and self.now >= receiver.paused_until
        return there and self.rng.random() >= self.loss

    def _delay(self) -> float:
        return self.latency * self.rng.uniform(0.5, 1.5)

    def _perform(self, node: Node, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Ping):
                self._send_ping(node, action)
            elif isinstance(action, AskOther):
                self._send_ask(node, action)
            elif isinstance(action, Compare):
                self._compare(node, action)

    def _send_ping(self, node: Node, ping: Ping) -> None:
        target = self.by_id[ping.target]
        if self._passes(node, target, PING + size_of(ping.updates)):
            self._at(self.now + self._delay(), self._ping_arrives, node, target, ping, self.now + ping.timeout)
        else:
            self._at(self.now + ping.timeout, self._unanswered, node, ping.number)

    def _ping_arrives(self, node: Node, target: Node, ping: Ping, deadline: float) -> None:
        if not target.up:
            self._at(deadline, self._unanswered, node, ping.number)
            return
        said = target.detector.pinged(node.peer_id, ping.known_incarnation, ping.updates, self.now)
        self._after(target)
        if self._passes(target, node, PONG + size_of(said)):
            digest = target.detector.view_digest
            self._at(self.now + self._delay(), self._answered, node, target, ping.number, said, digest)
        else:
            self._at(deadline, self._unanswered, node, ping.number)

    def _answered(self, node: Node, target: Node, number: int, said: Sequence[Update], digest: int) -> None:
        if not node.up:
            return
        self._perform(node, node.detector.answered(number, target.peer_id, said, digest, self.now))
        self._after(node)

    def _unanswered(self, node: Node, number: int) -> None:
        if node.up and self.now >= node.paused_until:
            self._perform(node, node.detector.unanswered(number))

    def _send_ask(self, node: Node, ask: AskOther) -> None:
        relay, target = self.by_id[ask.relay], self.by_id[ask.target]
        if not self._passes(node, relay, ASK + size_of(ask.updates)):
            return
        arrives = self.now + 2 * self._delay()
        if not self._passes(relay, target, PING + size_of(ask.updates)):
            self._at(self.now + 0.8 * ask.timeout, self._told, relay, node, ask.number, False, ())
            return
        self._at(arrives, self._relay_arrives, relay, target, node, ask)

    def _relay_arrives(self, relay: Node, target: Node, node: Node, ask: AskOther) -> None:
        said = target.detector.pinged(relay.peer_id, 0, ask.updates, self.now) if target.up else ()
        if target.up:
            self._after(target)
        if target.up and self._passes(target, relay, PONG + size_of(said)):
            self._at(self.now + self._delay(), self._told, relay, node, ask.number, True, said)
        else:
            self._at(self.now + 0.8 * ask.timeout, self._told, relay, node, ask.number, False, ())

    def _told(self, relay: Node, node: Node, number: int, reached: bool, said: Sequence[Update]) -> None:
        if node.up and self._passes(relay, node, TOLD + size_of(said)):
            node.detector.relayed(number, reached=reached, updates=said, now=self.now)
            self._after(node)

    def _compare(self, node: Node, action: Compare) -> None:
        other = self.by_id[action.target]
        if not self._passes(node, other, GROUPS):
            return
        differing, entries = other.detector.entries(node.detector.groups)
        if not self._passes(other, node, ENTRY * len(entries)):
            return
        give, want = node.detector.compared(differing, entries, self.now)
        if not (give or want) or not self._passes(node, other, 55 * len(want) + size_of(give)):
            return
        other.detector.take_in(give, self.now)
        told = other.detector.known(want)
        self._after(other)
        if self._passes(other, node, size_of(told)):
            node.detector.take_in(told, self.now)
            self._after(node)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(peers: int, seconds: float, *, loss: float, seed: int, deaths: int) -> dict[str, object]:
    """Run for so long with message loss, kill some machines on the way, and say what it cost and when it was seen."""
    started = time.perf_counter()
    simulation = Simulation(peers, seed=seed, loss=loss)
    pause = seconds / (deaths + 1)
    for number in range(deaths):
        simulation.run(pause)
        simulation.kill(number)
    simulation.run(seconds - pause * deaths)
    tally = simulation.tally
    survivors = peers - deaths
    seen = [value for values in tally.detections.values() for value in values]
    first = [min(values) for values in tally.detections.values() if values]
    return {
        "peers": peers,
        "virtual_seconds": seconds,
        "message_loss": loss,
        "seed": seed,
        "false_deaths": tally.false_deaths,
        "false_suspicions": tally.false_suspicions,
        "deaths": deaths,
        "detections_missing": sum(
            survivors + deaths - 1 - index - len(tally.detections[index]) for index in range(deaths)
        ),
        "first_detection_median_s": round(statistics.median(first), 2) if first else None,
        "detection_median_s": round(statistics.median(seen), 2) if seen else None,
        "detection_p99_s": round(percentile(seen, 0.99), 2) if seen else None,
        "messages_per_peer_per_second": round(tally.messages / peers / seconds, 2),
        "bytes_per_peer_per_second": round(tally.octets / peers / seconds),
        "real_seconds": round(time.perf_counter() - started, 1),
    }


def measure_heal(peers: int, *, seed: int, loss: float) -> dict[str, object]:
    """Cut the mesh in halves until each holds the other for away, heal, and count periods until all views are equal."""
    simulation = Simulation(peers, seed=seed, loss=loss)
    half = peers // 2
    simulation.run(10)
    simulation.partition([range(half), range(half, peers)])
    simulation.run(3 * simulation.timing.suspicion_seconds(peers, 0) + 60)
    apart = all(not simulation.states(0, index).present for index in range(half, peers))
    simulation.heal()
    healed_at = simulation.now
    all_there = all
    simulation.run(
        60,
        until=lambda: (
            len(simulation.digests()) == 1
            and all_there(simulation.states(0, index).present for index in range(1, peers))
        ),
    )
    return {
        "peers": peers,
        "halves_apart": apart,
        "views_after_heal": len(simulation.digests()),
        "periods_to_equal_views": round((simulation.now - healed_at) / simulation.timing.period, 1),
        "message_loss": loss,
    }


def main() -> None:
    """``scripts/simulate``."""
    parser = argparse.ArgumentParser(description="Simulate the failure detector; prints JSON.")
    parser.add_argument("--peers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--loss", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deaths", type=int, default=5)
    options = parser.parse_args()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and the machine's objects are many
    document = {
        "runs": [
            measure(peers, options.seconds, loss=options.loss, seed=options.seed, deaths=options.deaths)
            for peers in options.peers
        ],
        "heal": [measure_heal(peers, seed=options.seed, loss=0.0) for peers in options.peers],
    }
    json.dump(document, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
