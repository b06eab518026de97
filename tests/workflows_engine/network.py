"""A network that keeps nothing: calls whose requests and answers may be lost, doubled, late, or find nobody.

A message lies on the wire until somebody chooses what becomes of it. Who called waits until the answer, until it hears
that nobody is there, or until its deadline; an answer that comes after that finds nobody who waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerd.clock import Millis
from peerd.errors import PeerdError, Reason

START = Millis(1_000_000)
CALL_MS = 200

Answer = Callable[[object], None]
"""Takes what came back, a PeerdError included."""
Serve = Callable[[str, object], object]
"""(caller, request) -> answer; raises PeerdError."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One way of a call."""

    source: str
    target: str
    call: int
    body: object
    answer: bool
    expires: Millis


@dataclass(frozen=True, kw_only=True)
class _Call:
    caller: str
    answer: Answer
    expires: Millis


@dataclass(kw_only=True)
class Host:
    """A machine as the network sees it."""

    name: str
    serve: Serve
    down: bool = False
    # Its daemon is stopped (SIGSTOP): what is sent to it waits, and it does nothing.
    paused: bool = False


@dataclass
class Network:
    """All wires between all machines."""

    hosts: dict[str, Host] = field(default_factory=dict)
    now: Millis = START
    wire: list[Message] = field(default_factory=list)
    # (from, to): nothing gets through that way.
    cuts: set[tuple[str, str]] = field(default_factory=set)
    # Told of the machine to which a request comes after its caller has given up.
    late: Callable[[str], None] = lambda _: None
    _calls: dict[int, _Call] = field(default_factory=dict)
    _number: int = 0

    def call(self, caller: str, target: str, body: object, answer: Answer) -> None:
        """Send a request; ``answer`` is called once, unless the caller crashes."""
        self._number += 1
        expires = Millis(self.now + CALL_MS)
        self._calls[self._number] = _Call(caller=caller, answer=answer, expires=expires)
        self.wire.append(
            Message(source=caller, target=target, call=self._number, body=body, answer=False, expires=expires)
        )

    def deliver(self, index: int, *, keep: bool = False) -> None:
        """A message arrives, or finds a cut wire or nobody. ``keep``: and it will arrive again."""
        message = self.wire[index]
        if self.hosts[message.target].paused:
            return
        if not keep:
            del self.wire[index]
        if (message.source, message.target) in self.cuts:
            return
        host = self.hosts[message.target]
        if message.answer:
            self._answered(message.call, message.body)
        elif host.down:
            if (message.target, message.source) not in self.cuts:
                self._unreachable(message.call)
        else:
            if self.now > message.expires:
                self.late(host.name)
            self._serve(host, message)

    def _serve(self, host: Host, message: Message) -> None:
        try:
            answer = host.serve(message.source, message.body)
        except PeerdError as error:
            answer = error
        back = Message(
            source=host.name,
            target=message.source,
            call=message.call,
            body=answer,
            answer=True,
            expires=message.expires,
        )
        self.wire.append(back)

    def lose(self, index: int, *, noticed: bool) -> None:
        """A message is gone; ``noticed``: its connection broke, so its caller knows at once."""
        message = self.wire.pop(index)
        caller = message.target if message.answer else message.source
        if noticed and not self.hosts[caller].paused:
            self._unreachable(message.call)

    def expire(self, caller: str) -> None:
        """The calls of that machine whose time is up fail."""
        for number, call in list(self._calls.items()):
            if call.caller == caller and call.expires <= self.now:
                self._answered(number, PeerdError(Reason.DEADLINE_EXCEEDED, "no answer in time"))

    def forget(self, caller: str) -> None:
        """That machine crashes: it waits for nothing any more."""
        self._calls = {number: call for number, call in self._calls.items() if call.caller != caller}

    def _unreachable(self, number: int) -> None:
        self._answered(number, PeerdError(Reason.NOT_TRUSTED_OR_UNREACHABLE, "nobody is there"))

    def _answered(self, number: int, body: object) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            call.answer(body)
