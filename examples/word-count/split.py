"""The job ``split``: deal the texts under input/ into mounts/left and mounts/right, about equally heavy."""

from __future__ import annotations

import shutil
from pathlib import Path


def main() -> None:
    source = Path("input")
    texts = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: -path.stat().st_size)
    weight = {"left": 0, "right": 0}
    for text in texts:
        side = min(weight, key=lambda name: weight[name])
        weight[side] += text.stat().st_size
        target = Path("mounts") / side / text.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(text, target)
    print(f"{len(texts)} texts: {weight['left']} bytes left, {weight['right']} bytes right")


if __name__ == "__main__":
    main()
