"""Which protocols the answers of a host speak for, how surely, and why. Pure.

Every signature whose value is as expected is evidence with its weight, combined as of independent witnesses:
confidence = 1 - (1 - w1)(1 - w2)..., so that more evidence never lowers it and none ever reaches certainty. A protocol
is found from :data:`MIN_CONFIDENCE` on, which no weak word - a version, a height, a banner - reaches alone.

Evidence from a server that answers anything is void. Each port is asked for a path, and each JSON-RPC path for a
method, that cannot exist: what a server says to those as well, it does not say because it is something.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peerd.nodes.messages import Recognition
from peerd.nodes.probing.answers import Answer, Verdict
from peerd.nodes.protocols import Protocol, QueryKind
from peerd.nodes.protocols.values import Expectation, Json, shown

MIN_CONFIDENCE = 0.6
WORD_WEIGHT = 0.2
"""Of each of a protocol's words that metrics begin with."""
MAX_WORDS_WEIGHT = 0.4
_WEAK = 0.3
"""Up to this weight a sign names no service."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One value that speaks for a protocol."""

    signature: str
    weight: float
    address: str
    port: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Answers:
    """All that a host answered, and what it answered to questions that have no answer."""

    asked: tuple[Answer, ...]
    controls: tuple[Answer, ...] = ()

    def to(self, protocol: Protocol, probe: str) -> list[Answer]:
        """The answers to a probe that are not void."""
        query = protocol.probes[probe].query
        return [answer for answer in self.asked if answer.query == query and not self._answers_any_call(answer)]

    def control_of(self, answer: Answer) -> Answer | None:
        """What the port of an HTTP answer said to a path that cannot exist."""
        return next(
            (
                control
                for control in self.controls
                if control.query.kind is QueryKind.HTTP and _place(control) == _place(answer)
            ),
            None,
        )

    def _answers_any_call(self, answer: Answer) -> bool:
        return answer.query.kind is QueryKind.JSON_RPC and any(
            control.query.kind is QueryKind.JSON_RPC
            and control.verdict is Verdict.ANSWERED
            and _place(control) == _place(answer)
            and control.query.path == answer.query.path
            for control in self.controls
        )


def recognise(protocols: Iterable[Protocol], answers: Answers) -> tuple[Recognition, ...]:
    """The protocols that were found, the surest first; a fallback only where no other was."""
    found: list[Recognition] = []
    fallbacks: list[Recognition] = []
    for protocol in protocols:
        recognition = _recognition(protocol, answers)
        if recognition is not None and recognition.confidence >= MIN_CONFIDENCE:
            (fallbacks if protocol.fallback else found).append(recognition)
    return tuple(sorted(found or fallbacks, key=lambda one: (-one.confidence, one.protocol)))


def confidence(evidence: Sequence[Evidence]) -> float:
    """How surely the evidence says that it is so: 0 to 1."""
    doubt = 1.0
    for one in evidence:
        doubt *= 1 - one.weight
    return round(1 - doubt, 4)


def evidence_for(protocol: Protocol, answers: Answers) -> list[Evidence]:
    """What speaks for a protocol; each signature at most once, however many ports show it."""
    found = []
    for signature in protocol.signatures:
        seen = first_value(protocol, signature.probe, signature.expect, answers)
        if seen is not None:
            answer, value = seen
            found.append(_evidence(signature.name, signature.weight, answer, shown(value)))
    words = _words(protocol, answers)
    return [*found, words] if words is not None else found


def version_of(protocol: Protocol, answers: Answers) -> str:
    """The version, from the first source that has one; empty if none has."""
    for source in protocol.versions:
        seen = first_value(protocol, source.probe, source.expect, answers)
        if seen is not None:
            return f"{source.prefix}{source.expect.extract(seen[1])}"
    return ""


def said_at(protocol: Protocol, answers: Answers, address: str, port: int) -> tuple[list[str], str]:
    """The names of the signatures that one port shows, and its version; a weak sign such as a header is none."""
    here = Answers(
        asked=tuple(answer for answer in answers.asked if _place(answer) == (address, port)), controls=answers.controls
    )
    names = [one.signature for one in evidence_for(protocol, here) if one.weight > _WEAK]
    return names, version_of(protocol, here) if names else ""


def first_value(protocol: Protocol, probe: str, expect: Expectation, answers: Answers) -> tuple[Answer, Json] | None:
    """The first value that is as expected, and the answer it stands in."""
    for answer in answers.to(protocol, probe):
        accepted = [value for value in answer.values(expect) if expect.accepts(value)]
        if accepted and not _said_anyway(expect, answer, answers):
            return answer, accepted[0]
    return None


def _said_anyway(expect: Expectation, answer: Answer, answers: Answers) -> bool:
    """Whether the server says as much to a path that cannot exist. A header is the server's own whatever is asked."""
    if answer.query.kind is not QueryKind.HTTP or expect.header:
        return False
    control = answers.control_of(answer)
    return control is not None and any(expect.accepts(value) for value in control.values(expect))


def _recognition(protocol: Protocol, answers: Answers) -> Recognition | None:
    evidence = evidence_for(protocol, answers)
    if not evidence:
        return None
    best = max(evidence, key=lambda one: one.weight)
    return Recognition(
        protocol=protocol.name,
        confidence=confidence(evidence),
        version=version_of(protocol, answers),
        address=best.address,
        port=best.port,
        evidence=tuple(one.sentence for one in evidence),
    )


def _words(protocol: Protocol, answers: Answers) -> Evidence | None:
    """How many of the protocol's words begin names on a page of metrics; the page with the most counts."""
    best: tuple[Answer, list[str]] | None = None
    for probe in protocol.probes.values():
        if probe.query.kind is not QueryKind.METRICS:
            continue
        for answer in answers.to(protocol, probe.name):
            words = [word for word in protocol.metrics_words if any(name.startswith(word) for name in answer.metrics)]
            if words and (best is None or len(words) > len(best[1])):
                best = (answer, words)
    if best is None:
        return None
    answer, words = best
    return _evidence("metrics-words", min(MAX_WORDS_WEIGHT, WORD_WEIGHT * len(words)), answer, ", ".join(words))


def _evidence(name: str, weight: float, answer: Answer, value: str) -> Evidence:
    query = answer.query
    asked = {
        QueryKind.JSON_RPC: query.method,
        QueryKind.HTTP: f"GET {query.path}",
        QueryKind.METRICS: f"metrics at {query.path}",
        QueryKind.BANNER: "banner",
    }[query.kind]
    sentence = f"{name}: {asked} on port {answer.port}{' (TLS)' if answer.tls else ''} says {value!r}"
    return Evidence(signature=name, weight=weight, address=answer.address, port=answer.port, sentence=sentence)


def _place(answer: Answer) -> tuple[str, int]:
    return answer.address, answer.port
