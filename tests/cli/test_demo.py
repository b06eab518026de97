"""The demo, as a newcomer runs it: without a terminal, to its end, leaving only the result."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import wait_for

ROOT = Path(__file__).parents[2]
INSTALLED = all((Path(sys.executable).parent / name).exists() for name in ("peerd", "peerctl"))


def step(name: str, folder: Path, *arguments: str) -> str:
    program = ROOT / "examples" / "word-count" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-I", program, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_programs_of_the_example_count_every_word_once(tmp_path: Path) -> None:
    texts = {"a.txt": "one two two", "deep/b.txt": "three one\nthree three", "c.txt": ""}
    jobs = {name: tmp_path / name for name in ("split", "left", "right", "merge")}
    for folder in jobs.values():
        for part in ("input", "output", "mounts"):
            (folder / part).mkdir(parents=True)
    for name, content in texts.items():
        (jobs["split"] / "input" / name).parent.mkdir(exist_ok=True)
        (jobs["split"] / "input" / name).write_text(content)
    step("split", jobs["split"])
    for side in ("left", "right"):
        (jobs[side] / "input").rmdir()
        (jobs["split"] / "mounts" / side).rename(jobs[side] / "input")
        step("count", jobs[side])
        (jobs["merge"] / "input" / f"count-{side}").mkdir()
        (jobs[side] / "output" / "counts.tsv").rename(jobs["merge"] / "input" / f"count-{side}" / "counts.tsv")
    step("merge", jobs["merge"], "2")
    words = (jobs["merge"] / "output" / "words.tsv").read_text()
    assert words == "three\t3\none\t2\ntwo\t2\n"
    assert (jobs["merge"] / "output" / "top.txt").read_text().splitlines()[0].startswith("7 words, 3 different")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A place for daemons: pytest's own folders are too deep for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="pd-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not INSTALLED, reason="peerd is not installed beside this Python (pip install -e .)")
def test_the_demo_ends_by_itself_and_leaves_its_result_and_nothing_else(short_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py", "--megabytes", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**os.environ, "TMPDIR": str(short_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    place = re.search(r"^The result, delivered home to (.+)$", done.stdout, re.MULTILINE)
    assert place is not None
    result = Path(place[1])
    counts = Counter(
        {word: int(count) for word, count in map(str.split, (result / "words.tsv").read_text().splitlines())}
    )
    assert counts["self"] > 100
    # The executors differ: the halves were counted on the two other peers.
    assert re.search(r"count-left  beta  completed", done.stdout)
    assert re.search(r"count-right  gamma  completed", done.stdout)
    left_over = {path for path in short_path.rglob("*") if path.is_file()}
    assert left_over == {path for path in result.rglob("*") if path.is_file()}
    wait_for(lambda: not [line for line in _processes() if str(short_path) in line], 30, "no process is left")


def _processes() -> list[str]:
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended while we looked
    return lines


def test_the_example_names_only_services_that_the_demo_declares(tmp_path: Path) -> None:
    import importlib.util

    import yaml

    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    declared = {peer: {service["name"] for service in offered} for peer, offered in demo.declarations(tmp_path).items()}
    definition = yaml.load((ROOT / "examples" / "word-count.yaml").read_text(), yaml.BaseLoader)
    for job in definition["jobs"]:
        peers = [job["on"]["peer"]] if "peer" in job["on"] else ["beta", "gamma"]
        assert all(job["service"] in declared[peer] for peer in peers), job["name"]
    assert json.dumps(demo.declarations(tmp_path))  # they are JSON as they stand
