"""Two producers of one edge: what the one that is out was just publishing goes with it."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from peerd.transfers import staging
from peerd.transfers.manifest import Manifest, scan
from peerd.transfers.model import Expectation, Source
from peerd.transfers.staging import FOLDER, Staging


def filled(folder: Path, job: Path, **files: bytes) -> tuple[Staging, Manifest]:
    """A staging directory in which everything has come."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    manifest = scan(Source(root=folder)).manifest
    made = Staging(Expectation(directory=job / "input", root=job), 7, manifest, manifest.digest())
    made.prepare()
    for index, entry in enumerate(manifest.files):
        made.write(index, 0, (folder / entry.path).read_bytes())
    return made, manifest


def test_a_producer_that_is_out_leaves_nothing_though_it_publishes_at_this_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = filled(tmp_path / "old", tmp_path / "job", one=b"old", stray=b"old")
    at_it, go_on = threading.Event(), threading.Event()

    def failpoint(name: str) -> None:
        if name == "transfer.publish.before_rename":
            at_it.set()
            assert go_on.wait(60)

    def remove(path: Path, *, ignore_errors: bool) -> None:
        go_on.set()
        publishing.exception(60)
        rmtree(path, ignore_errors=ignore_errors)

    rmtree = shutil.rmtree
    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(staging, "failpoint", failpoint)
        publishing = pool.submit(old.publish)
        assert at_it.wait(60)
        patched.setattr(shutil, "rmtree", remove)
        new, _ = filled(tmp_path / "new", tmp_path / "job", one=b"new")
    assert isinstance(publishing.exception(), FileNotFoundError)
    new.publish()
    new.remove()
    assert {path.name: path.read_bytes() for path in (tmp_path / "job" / "input").iterdir()} == {"one": b"new"}
    assert not (tmp_path / "job" / FOLDER).exists()
