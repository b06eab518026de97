"""The same from asyncio: one job for each number, and one that takes all of them. Prints Markdown for a notebook.

python examples/squares.py OUT
"""

from __future__ import annotations

import asyncio
import sys

from peerd.client import Client, Workflow


def squares(numbers: range) -> Workflow:
    """A fan-in: each input lies in a directory named after its job."""
    wf = Workflow("squares")
    jobs = [
        wf.job(f"square-{number}", run=["sh", "-c", f"echo $(({number} * {number})) > output/square.txt"])
        for number in numbers
    ]
    total = wf.job(
        "total",
        run=["sh", "-c", "cat input/*/square.txt | paste -sd+ > output/sum.txt"],
        inputs=jobs,
    )
    wf.deliver(total.output / "sum.txt")
    return wf


async def main(out: str) -> None:
    """Run it, wait, fetch, and show it as a notebook would."""
    async with Client() as peerd:
        run = await peerd.run(squares(range(1, 5)))
        await run.result(timeout=120)
        (path,) = await run.fetch(out)
        print(path.read_text().strip())
        print(run._repr_markdown_())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
