"""The jobs ``count-left`` and ``count-right``: count the words under input/, into output/counts.tsv."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

WORD = re.compile(r"[a-z]{2,}")


def main() -> None:
    counts: Counter[str] = Counter()
    texts = sorted(path for path in Path("input").rglob("*") if path.is_file())
    for text in texts:
        counts.update(WORD.findall(text.read_text(encoding="utf-8", errors="replace").lower()))
    lines = "".join(f"{word}\t{count}\n" for word, count in sorted(counts.items()))
    Path("output/counts.tsv").write_text(lines, encoding="utf-8")
    print(f"{len(texts)} texts, {counts.total()} words, {len(counts)} different ones")


if __name__ == "__main__":
    main()
