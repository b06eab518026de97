"""A fake daemon and a peerctl that talks to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from peerd.cli import run
from tests.cli.fake_daemon import FakeDaemon


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of peerctl left behind."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as one document."""
        return json.loads(self.out)


Peerctl = Callable[..., Outcome]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """Listening, and refusing everything until told otherwise."""
    fake = FakeDaemon(tmp_path / "d.sock")
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def peerctl(
    daemon: FakeDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run peerctl in this process against the fake daemon."""
    monkeypatch.setenv("PEERD_SOCKET", str(daemon.socket))

    def execute(*arguments: object) -> Outcome:
        exit_code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(exit_code=exit_code, out=out, err=err)

    return execute
