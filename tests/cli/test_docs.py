"""docs/cli.md lists every command, and README.md every page: what merges lose is found here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from peerd.cli.app import peerctl

ROOT = Path(__file__).parents[2]


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def test_every_command_is_listed() -> None:
    rows: dict[str, str] = {}
    for line in (ROOT / "docs/cli.md").read_text().splitlines():
        if (found := re.match(r"\| ((?:`[a-z-]+`(?:, )?)+) \|(.*)\|$", line)) is not None:
            rows |= dict.fromkeys(re.findall(r"`([a-z-]+)`", found[1]), found[2])
    every = list(commands(peerctl))
    assert {path[0] for path in every} == rows.keys()
    missing = [
        " ".join(path)
        for path in every
        # 'peerctl invite' alone is 'invite create'.
        if len(path) > 1 and path != ("invite", "create") and not re.search(rf"`{path[1]}(?![a-z-])", rows[path[0]])
    ]
    assert not missing


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    linked = set(re.findall(r"\]\((docs/[a-z-]+\.md)\)", text))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    gone = [
        f"{page.name}: {link}"
        for page in (ROOT / "docs").glob("*.md")
        for link in re.findall(r"\]\(([^)#:]+\.md)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not gone
