"""Every document is found from the front page."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_names_every_document() -> None:
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if f"(docs/{path.name})" not in front]
    assert missing == []
