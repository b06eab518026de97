"""An inventory over a real store that is closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from .book import Book


@pytest_asyncio.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    made = await Book.open(tmp_path / "peerd.db")
    yield made
    await made.store.close()
