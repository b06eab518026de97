"""The job ``merge``: add up every input/*/counts.tsv, into output/words.tsv and, for people, output/top.txt.

merge.py TOP
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path


def main() -> None:
    top = int(sys.argv[1])
    counts: Counter[str] = Counter()
    parts = sorted(Path("input").glob("*/counts.tsv"))
    for part in parts:
        for line in part.read_text(encoding="utf-8").splitlines():
            word, count = line.split("\t")
            counts[word] += int(count)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    Path("output/words.tsv").write_text("".join(f"{word}\t{count}\n" for word, count in ranked), encoding="utf-8")
    lines = [f"{counts.total()} words, {len(counts)} different ones, from {len(parts)} counters", ""]
    lines += [f"{count:>9}  {word}" for word, count in ranked[:top]]
    Path("output/top.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(lines[0])


if __name__ == "__main__":
    main()
