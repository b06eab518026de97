"""``scripts/faulty-disk``: a store whose disk is full, or fails, at the N-th call, for N = 1, 2, 3 and so on.

A real writer runs under strace, which makes the N-th to (N+K)-th call of one kind on the store's files fail, until a
run passes untouched. After each the file is judged: all that was acknowledged is stored, nothing twice, SQLite finds it
whole, and a writer on a sound disk goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from peerd.store import migrate as module
from peerd.store.migrate import migrate

APPENDER = Path(__file__).parent / "programs" / "appender.py"
ROWS = 15
LONGEST = 2000
"""Calls; no run makes so many."""
EX_IOERR = 74
FULL = ("ENOSPC", "EDQUOT")
WRITES = ("pwrite64", "ftruncate", "openat")
SYNCS = ("fdatasync", "fsync")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One kind of failure, in one phase of a store's life."""

    phase: str  # creating, migrating, running
    call: str
    error: str
    length: int = 1
    step: int = 1


@dataclass(kw_only=True)
class Outcome:
    """What came of a series."""

    runs: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    stored: int = 0
    faults: list[str] = field(default_factory=list)


ALL_SERIES = [
    Series(phase=phase, call=call, error=error, length=length)
    for phase in ("running", "migrating", "creating")
    for error, length in (("ENOSPC", 1), ("ENOSPC", 6), ("EDQUOT", 6), ("EIO", 1))
    for call in (*WRITES, *SYNCS)
    if (error != "EDQUOT" or call == "pwrite64") and (phase != "migrating" or call != "openat")
]
"""All of them."""


def why_not() -> str:
    """What strace cannot do here, if anything."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    done = subprocess.run(
        [strace, "-f", "-qq", "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=1..2", sys.executable, "-c", ""],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else f"strace cannot trace here: {done.stderr.strip()[:200]}"


def templates(folder: Path) -> dict[str, Path | None]:
    """A store of each phase."""
    found: dict[str, Path | None] = {"creating": None}
    real = module._migrations
    for phase, migrations in (("migrating", real()[:-1]), ("running", real())):
        found[phase] = path = folder / f"{phase}.db"
        module._migrations = partial(list, migrations)
        try:
            migrate(path, backup_dir=None)
        finally:
            module._migrations = real
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO meta VALUES (?, ?)", [(f"old{n}", "x" * 500) for n in range(20)])
    return found


def run(series: Series, folder: Path, template: Path | None) -> Outcome:
    """For each N, until a run passes untouched."""
    outcome = Outcome()
    for number in range(1, LONGEST, series.step):
        place = folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        if template is not None:
            shutil.copyfile(template, place / "s.db")
        if not _one(series, number, place, outcome):
            return outcome
    outcome.faults.append("no run passed untouched")
    return outcome


def _one(series: Series, number: int, place: Path, outcome: Outcome) -> bool:
    """One run, judged; False if nothing was made to fail in it."""
    log = place.parent / "trace"
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", f"trace={series.call},write"]
    command += ["-e", f"inject={series.call}:error={series.error}:when={number}..{number + series.length - 1}"]
    if series.error == "EDQUOT":
        command += ["-e", "inject=write:error=EDQUOT"]  # a quota is met by a file beside the store, too
    elif series.phase != "migrating":  # the copy has no known name
        command += [word for name in ("s.db", "s.db-wal", "s.db-shm") for word in ("-P", str(place / name))]
    first = _append([*command, sys.executable, str(APPENDER)], place)
    injected = sum(series.call in line and "(INJECTED)" in line for line in log.read_text(errors="replace").split("\n"))
    outcome.runs += 1
    outcome.ended[str(first.returncode)] += 1
    said = first.stdout.split("\n")
    outcome.refused.update(line.removeprefix("refused ") for line in said if line.startswith("refused "))
    acknowledged = {line.removeprefix("stored ") for line in said if line.startswith("stored ")}
    outcome.acknowledged += len(acknowledged)

    def fault(what: str) -> None:
        outcome.faults.append(f"{series} at {number}: {what}")

    for what in _wrong_end(series, first, injected):
        fault(what)
    for what in _wrong_file(place / "s.db", acknowledged, outcome):
        fault(what)
    second = _append([sys.executable, str(APPENDER)], place)
    if second.returncode != 0:
        fault(f"the next start ends with {second.returncode}: {second.stderr[-500:]}")
    for what in _wrong_file(place / "s.db", {f"row{n}" for n in range(ROWS)}, outcome):
        fault(f"after the next start {what}")
    strays = [path.name for path in place.rglob("*") if ".tmp" in path.name]
    if strays:
        fault(f"left behind: {strays}")
    return injected > 0


def _append(command: Sequence[str], place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, str(place), str(ROWS)], capture_output=True, text=True, check=False, timeout=60)


def _wrong_end(series: Series, done: subprocess.CompletedProcess[str], injected: int) -> Iterator[str]:
    """A full disk is waited for; a failing one ends the process in order, or refuses to open."""
    if "Traceback" in done.stderr:
        yield f"raised:\n{done.stderr[-1500:]}"
    if not injected and done.returncode != 0:
        yield f"ended with {done.returncode} though nothing failed: {done.stderr[-500:]}"
    if done.returncode not in (0, 3, EX_IOERR):
        yield f"ended with {done.returncode}: {done.stderr[-500:]}"
    refused = {line for line in done.stdout.split("\n") if line.startswith("refused ")}
    if not refused <= {"refused disk_low", "refused disk_failed"}:
        yield f"refused for another reason: {refused}"
    if series.error in FULL and series.call in WRITES and done.returncode == EX_IOERR:
        yield f"a full disk ended it: {done.stderr[-300:]}"


def _wrong_file(path: Path, acknowledged: set[str], outcome: Outcome) -> Iterator[str]:
    if not path.exists():
        if acknowledged:
            yield "there is no store"
        return
    try:
        with closing(sqlite3.connect(path)) as connection:
            verdict = connection.execute("PRAGMA integrity_check").fetchall()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'").fetchone()
            rows = connection.execute("SELECT key FROM meta").fetchall() if tables else []
    except sqlite3.Error as error:
        yield f"SQLite cannot read it: {error}"
        return
    if verdict != [("ok",)]:
        yield f"integrity_check says {verdict}"
    keys = [row[0] for row in rows]
    outcome.stored += sum(key.startswith("row") for key in keys)
    if lost := acknowledged - set(keys):
        yield f"acknowledged and lost: {sorted(lost)}"
    if len(keys) != len(set(keys)):
        yield "a row is there twice"


def run_all(chosen: Sequence[Series], folder: Path) -> list[dict[str, Any]]:
    """One report for each series."""
    made = templates(folder)
    reports = []
    for series in chosen:
        outcome = run(series, folder, made[series.phase])
        reports.append({**vars(series), **vars(outcome)})
        print(json.dumps(reports[-1]), file=sys.stderr, flush=True)
    return reports


def main() -> None:
    """Print JSON; exit 1 if anything was lost, doubled or ended as it must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phase", choices=["running", "migrating", "creating"], action="append")
    parser.add_argument("--step", type=int, default=1, help="N = 1, 1 + STEP, ...; 1 leaves nothing out")
    parser.add_argument(
        "--tmp", type=Path, default=None, help="where the stores lie; default: memory, if there is some"
    )
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    phases = options.phase or ["running", "migrating", "creating"]
    chosen = [Series(**{**vars(one), "step": options.step}) for one in ALL_SERIES if one.phase in phases]
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=options.tmp or (memory if os.access(memory, os.W_OK) else None)) as folder:
        reports = run_all(chosen, Path(folder))
    faults = [fault for report in reports for fault in report["faults"]]
    runs = sum(report["runs"] for report in reports)
    print(json.dumps({"series": reports, "runs": runs, "faults": len(faults)}, indent=2))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
