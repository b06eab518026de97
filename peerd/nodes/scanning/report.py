"""A scan as Markdown for people. What servers said is quoted so that it cannot be anything but text. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from peerd.nodes.messages import ProbeRequest, ProbeResult, ScanReport

_MARKUP = {letter: f"\\{letter}" for letter in "\\`*_{}[]()#+!|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def markdown_report(request: ProbeRequest, result: ProbeResult, scan: ScanReport) -> str:
    """The report of a scan."""
    return "\n".join(_lines(request, result, scan)) + "\n"


def quoted(text: str) -> str:
    """A text of others, on one line and without markup."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(_MARKUP.get(letter, letter) for letter in clean)


def _lines(request: ProbeRequest, result: ProbeResult, scan: ScanReport) -> Iterator[str]:
    target = request.target
    where = f"{target.host} port {target.port}" if target.port else target.host
    yield f"# Scan of {quoted(where)}"
    yield ""
    yield f"**Score {scan.score} of 100, risk {scan.risk.value}.**"
    yield ""
    yield f"- Protocol: {quoted(scan.protocol)} {quoted(scan.version) or '(version unknown)'}"
    yield f"- Level: {scan.level}"
    yield f"- Addresses: {', '.join(quoted(address) for address in result.addresses)}"
    if request.node_id:
        yield f"- Node: {quoted(request.node_id)}"
    if request.org_id:
        yield f"- Organization: {quoted(request.org_id)}"
    if request.permission is not None and scan.level >= 3:
        permission = request.permission
        yield f"- Permission for level 3: {quoted(permission.by)}, {quoted(permission.reference)}"
    yield f"- Scanner: {quoted(scan.scanner)}, {result.seconds:.1f} s, {len(result.connects)} connections"
    yield ""
    yield "## Findings"
    yield ""
    if not scan.findings:
        yield "None."
    for finding in scan.findings:
        at = f" (port {finding.port})" if finding.port else ""
        cost = f", -{finding.points}" if finding.points else ""
        yield f"- **{finding.severity.value.upper()}{cost}** {quoted(finding.title)}{at} `{finding.id}`"
        if finding.detail:
            yield f"  - Seen: {quoted(finding.detail)}"
        if finding.remediation:
            yield f"  - To do: {quoted(finding.remediation)}"
    yield ""
    yield "## Open ports"
    yield ""
    if scan.ports:
        yield "| Port | Service | Product | Version | TLS |"
        yield "|---|---|---|---|---|"
    else:
        yield "None."
    for port in scan.ports:
        cells = (port.service, port.product, port.version, "yes" if port.tls else "no")
        yield f"| {port.number}/{port.transport} | {' | '.join(quoted(cell) for cell in cells)} |"
    if scan.health:
        yield ""
        yield "## Health"
        yield ""
        for name, value in scan.health.items():
            yield f"- {quoted(name)}: {quoted(value)}"
    if result.notes:
        yield ""
        yield "## Notes"
        yield ""
        for note in result.notes:
            yield f"- {quoted(note)}"
