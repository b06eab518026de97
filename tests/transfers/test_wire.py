"""What a receiver asks for is said in few words, and a sender believes none that makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.transfers.manifest import FileEntry
from peerd.transfers.wire import missing_from_proto, missing_to_proto
from peerd.v1.transfers_pb2 import MissingFile, OfferResponse


def files_of(sizes: list[int]) -> list[FileEntry]:
    return [
        FileEntry(path=f"f{index:07}", size=size, executable=False, digest=b"\0" * 32, block_digests=())
        for index, size in enumerate(sizes)
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), max_size=40))
def test_what_is_missing_is_understood_as_it_was_meant(files: list[tuple[int, bool, int]]) -> None:
    entries = files_of([size for size, _, _ in files])
    missing = [
        (index, min(offset, size - 1))
        for index, (size, is_missing, offset) in enumerate(files)
        if is_missing and size > 0
    ]
    assert missing_from_proto(list(missing_to_proto(missing, entries)), entries) == missing


def test_a_million_missing_files_fit_an_answer() -> None:
    """Regression: one entry for each was more than a message may have, from about 700,000 files on."""
    entries = files_of([index % 3 for index in range(1_000_000)])
    missing = [(index, 0) for index, entry in enumerate(entries) if entry.size]
    answer = OfferResponse(missing=missing_to_proto(missing, entries))
    assert answer.ByteSize() < 100
    assert missing_from_proto(answer.missing, entries) == missing


@pytest.mark.parametrize(
    "parts",
    [
        [MissingFile(file_index=3)],
        [MissingFile(file_index=0, following=3)],
        [MissingFile(file_index=1, following=2**32 - 1)],
        [MissingFile(file_index=1, offset=6)],
        [MissingFile(file_index=1), MissingFile(file_index=0)],
        [MissingFile(file_index=0, following=1), MissingFile(file_index=1)],
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(parts: list[MissingFile]) -> None:
    with pytest.raises(PeerdError) as caught:
        missing_from_proto(parts, files_of([5, 5, 5]))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
