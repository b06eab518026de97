"""Pages of lists: how large, and where the next one starts."""

from __future__ import annotations

from peerd.errors import PeerdError, Reason

MAX_PAGE_SIZE = 1000


def page_size(asked: int, *, default: int) -> int:
    """What is asked for, within bounds; the default for 0."""
    return min(max(asked, 0) or default, MAX_PAGE_SIZE)


def page_start(token: str) -> int:
    """The number in a page token; 0 for the first page. Raises INVALID_PAGE_TOKEN."""
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise PeerdError(Reason.INVALID_PAGE_TOKEN, "that page token is not one of ours")
    return int(token)
