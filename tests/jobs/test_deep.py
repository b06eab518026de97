"""A job that nests directories deeper than paths and calls may go is measured, listed, sent again and removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd import trees
from peerd.jobs.files import empty_outputs, made_files
from peerd.jobs.paths import JobPlace
from peerd.jobs.reuse import link_files
from peerd.jobs.runner.bounds import occupied

from .harness import EXECUTOR, ORCHESTRATOR

BLOCK = b"x" * 100_000


def nest(folder: Path, levels: int) -> None:
    """A file at the bottom of so many directories; made by descriptors, as no path leads there."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        down = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = down
    file = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(file, BLOCK)
    os.close(file)
    os.chmod(here, 0o000)
    os.close(here)


@pytest.fixture(params=[1200, 5000])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobPlace]:
    made = JobPlace(
        data_dir=tmp_path, orchestrator=ORCHESTRATOR, workflow_execution_id=1, executor=EXECUTOR, job_execution_id=1
    )
    made.output.mkdir(parents=True)
    made.mounts.mkdir()
    made.logs.mkdir()
    nest(made.output, request.param)
    (made.output / "a.txt").write_text("a")
    yield made
    if made.directory.exists():
        trees.remove(made.directory, up_to=tmp_path)


def test_it_counts_and_is_removed(place: JobPlace) -> None:
    assert trees.measure(place.directory, opening=True) > len(BLOCK)
    trees.remove(place.directory, up_to=place.data_dir)
    assert not list(place.data_dir.iterdir())


def test_its_disk_limit_sees_it_while_it_runs(place: JobPlace) -> None:
    trees.open_all(place.directory)
    before = set(os.listdir("/proc/self/fd"))
    assert occupied([str(place.output)]) > len(BLOCK)
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_can_be_sent_is_listed_and_an_attempt_begins_with_nothing(place: JobPlace) -> None:
    listed = [file.path for file in made_files(place, ())]
    assert "output/a.txt" in listed
    assert all(len(path) < 4096 for path in listed)
    empty_outputs(place, (), ())
    assert list(place.output.iterdir()) == []


def test_it_is_sent_again(place: JobPlace) -> None:
    trees.open_all(place.directory)
    again = JobPlace(
        data_dir=place.data_dir,
        orchestrator=ORCHESTRATOR,
        workflow_execution_id=2,
        executor=EXECUTOR,
        job_execution_id=2,
    )
    assert "output/a.txt" in [file.path for file in link_files(place, again)]
    trees.remove(again.directory, up_to=place.data_dir)


def test_what_is_passed_over_is_not_counted_wherever_it_lies(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (inside / "f").write_bytes(BLOCK)
    (tmp_path / "link").symlink_to(inside)
    assert trees.measure(tmp_path) > len(BLOCK) > trees.measure(tmp_path, without=inside)
    assert trees.measure(tmp_path, without=tmp_path / "gone") > len(BLOCK)
    trees.remove(tmp_path / "a", up_to=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    with pytest.raises(NotADirectoryError):
        trees.clear(tmp_path / "link")
