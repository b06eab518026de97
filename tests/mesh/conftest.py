from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peerd.mesh import gossip
from tests.mesh.nodes import Fleet


@pytest.fixture(autouse=True)
def patient_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers here compare nothing later on, so that a push which a busy machine holds up must not be given up."""
    monkeypatch.setattr(gossip, "_PUSH_SECONDS", 60.0)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    await made.close()
