"""What each finding costs, and what is left of 100. All constants of the score stand in one table here.

Of the two scorings that the systems before peerd had, this is the later, which has thresholds for the risk and never
goes below 0: Docker 40 (25 with TLS), SSH 15, a web port 5, an expired certificate 25, a self-signed one 10, a hole 30,
every port above five 3. Ports that belong to the protocol cost nothing. From the earlier one comes the 10 for each port
that is dangerous to have open. Peerd's own are a certificate for another name and TLS before 1.2, 10 each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from peerd.nodes.messages import Finding, Risk, Severity

FREE_PORTS = 5
"""Open ports besides the protocol's that cost nothing by their number."""


@dataclass(frozen=True, kw_only=True, eq=False)  # by identity: two rules with one cost must stay two rules
class _Cost:
    severity: Severity
    points: int
    title: str
    remediation: str


class Rule(Enum):
    """Finding -> severity, points, what it is, what to do."""

    DOCKER_API_PLAIN = _Cost(
        severity=Severity.CRITICAL,
        points=40,
        title="The Docker API answers anybody, without TLS",
        remediation="close the port, or let Docker listen on its unix socket only",
    )
    DOCKER_API_TLS = _Cost(
        severity=Severity.HIGH,
        points=25,
        title="The Docker API is reachable, with TLS",
        remediation="close the port to all but the machines that use it, and demand client certificates",
    )
    EXPOSED_METHOD = _Cost(
        severity=Severity.HIGH,
        points=30,
        title="A call that strangers must not make is answered",
        remediation="bind it to loopback, or demand a token",
    )
    CERTIFICATE_EXPIRED = _Cost(
        severity=Severity.HIGH,
        points=25,
        title="The certificate has expired, or is not valid yet",
        remediation="renew the certificate, and let it renew itself",
    )
    CERTIFICATE_SELF_SIGNED = _Cost(
        severity=Severity.MEDIUM,
        points=10,
        title="The certificate is self-signed",
        remediation="use a certificate of an authority that clients know",
    )
    CERTIFICATE_WRONG_NAME = _Cost(
        severity=Severity.MEDIUM,
        points=10,
        title="The certificate is for another name",
        remediation="use a certificate that has this host among its names",
    )
    TLS_OLD = _Cost(
        severity=Severity.MEDIUM,
        points=10,
        title="TLS older than 1.2 is spoken",
        remediation="allow TLS 1.2 and 1.3 only",
    )
    SSH_OPEN = _Cost(
        severity=Severity.MEDIUM,
        points=15,
        title="SSH is reachable",
        remediation="let only known networks reach it, and use keys instead of passwords",
    )
    DANGEROUS_PORT = _Cost(
        severity=Severity.MEDIUM,
        points=10,
        title="A port is open that should not be reachable from outside",
        remediation="close it, or let only the machines that use it reach it",
    )
    WEB_PORT = _Cost(
        severity=Severity.LOW,
        points=5,
        title="A web server answers at a port that the protocol does not need",
        remediation="close it, or let only the machines that use it reach it",
    )
    MANY_PORTS = _Cost(
        severity=Severity.LOW,
        points=3,
        title=f"More than {FREE_PORTS} ports are open that the protocol does not need",
        remediation="close what is not used",
    )
    UNHEALTHY = _Cost(
        severity=Severity.MEDIUM,
        points=0,
        title="The node is not well",
        remediation="look after the node",
    )

    @property
    def id(self) -> str:
        """The stable spelling, such as ``docker-api-plain``."""
        return self.name.lower().replace("_", "-")

    @property
    def points(self) -> int:
        """What it takes from the score, each time."""
        return self.value.points

    def finding(
        self,
        *,
        port: int = 0,
        detail: str = "",
        times: int = 1,
        id: str = "",  # noqa: A002 - the field of the message
        title: str = "",
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this rule; what is not given is the rule's own."""
        return Finding(
            id=id or self.id,
            severity=severity or self.value.severity,
            title=title or self.value.title,
            detail=detail,
            remediation=self.value.remediation,
            port=port,
            points=self.value.points * times,
        )


def score_of(findings: Sequence[Finding]) -> int:
    """What is left of 100, at least 0."""
    return max(0, 100 - sum(finding.points for finding in findings))


def risk_of(score: int) -> Risk:
    """What a score means."""
    if score >= 80:
        return Risk.LOW
    if score >= 60:
        return Risk.MEDIUM
    return Risk.HIGH if score >= 40 else Risk.CRITICAL
