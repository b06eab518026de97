"""A workflow built, run and fetched from Python. It uses ad-hoc commands, as commands.yaml does.

python examples/letters.py OUT        # the daemon is found by PEERD_SOCKET, or where 'peerd run' puts it
"""

from __future__ import annotations

import sys

from peerd.client import SyncClient, Workflow

WORDS = "apple\nbeech\nelm\noak\numbrella pine\n"


def letters() -> Workflow:
    """Split words by their first letter on one machine; count each part on any; bring all of it home."""
    wf = Workflow("letters", description="How many words begin with a vowel", params={"vowels": "[aeiou]"})
    split = wf.job(
        "split",
        on={"role": "worker"},
        package={"words.txt": WORDS},
        run=["sh", "-c", 'grep "^$1" $2 > output/vowels.txt; grep -v "^$1" $2 > output/others.txt', "split",
             "${params.vowels}", "package/words.txt"],
        timeout="30s",
    )  # fmt: skip
    for part in ("vowels", "others"):
        count = wf.job(
            f"count-{part}",
            run=["wc", "-l"],
            inputs=[(split.output / f"{part}.txt").into("stdin")],
        )
        wf.deliver(count.stdout, to=f"counts/{part}", rename="count.txt")
    wf.deliver(split, to="words", files=["*.txt"])
    return wf


def main(out: str) -> None:
    """Run it, say how it goes, and fetch what it made."""
    wf = letters()
    wf.check()
    with SyncClient() as peerd:
        run = peerd.run(wf)
        for execution in run.watch(timeout=120):
            print(f"execution {run.id}: {sum(job.HasField('ended_at') for job in execution.jobs)} jobs have ended")
        run.result()
        for path in run.fetch(out):
            print(path)
        print(run.logs("count-vowels").strip(), "words begin with a vowel")


if __name__ == "__main__":
    main(sys.argv[1])
