"""Files that a daemon sends: whole, verified, inside the directory, or not at all."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from blake3 import blake3

from peerd.client.fetching import write_files
from peerd.errors import PeerdError, Reason
from peerd.v1 import workflows_pb2


def header(path: str, content: bytes, *, executable: bool = False) -> workflows_pb2.FileChunk:
    digest = blake3(content).digest()
    file = workflows_pb2.FileHeader(path=path, size=len(content), executable=executable, digest=digest)
    return workflows_pb2.FileChunk(file=file)


async def stream(chunks: Iterable[workflows_pb2.FileChunk]) -> AsyncIterator[workflows_pb2.FileChunk]:
    for chunk in chunks:
        yield chunk


def data(content: bytes) -> workflows_pb2.FileChunk:
    return workflows_pb2.FileChunk(data=content)


async def test_files_are_written_whole_and_replace_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    out.mkdir(parents=True)
    (out / "a").write_text("old")
    chunks = [
        header("a", b"12"),
        data(b"1"),
        data(b"2"),
        header("d/e/x", b"", executable=True),
        header("z", b"3"),
        data(b"3"),
    ]
    written = await write_files(out, stream(chunks))
    assert written == [out / "a", out / "d/e/x", out / "z"]
    assert (out / "a").read_text() == "12" and (out / "z").read_text() == "3"
    assert (out / "d/e/x").stat().st_mode & 0o111 and not (out / "a").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "chunks",
    [
        [header("a", b"12"), data(b"13")],
        [header("a", b"12"), data(b"1")],
        [header("a", b"12"), data(b"123")],
        [header("a", b"12"), data(b"1"), header("b", b"")],
    ],
)
async def test_what_is_not_what_was_announced_is_not_put_in_place(
    tmp_path: Path, chunks: list[workflows_pb2.FileChunk]
) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(PeerdError) as caught:
        await write_files(tmp_path, stream(chunks))
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a//b", "."])
async def test_no_path_leads_out(tmp_path: Path, path: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(PeerdError) as caught:
        await write_files(out, stream([header(path, b"1"), data(b"1")]))
    assert caught.value.reason is Reason.INVALID_PATH
    assert os.listdir(tmp_path) == ["out"] and not os.listdir(out)


async def test_a_link_on_the_way_is_not_followed_and_one_in_the_place_is_replaced(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (out / "link").symlink_to(outside)
    (out / "file").symlink_to(outside / "kept")
    with pytest.raises(PeerdError) as caught:
        await write_files(out, stream([header("link/kept", b"1"), data(b"1")]))
    assert caught.value.reason is Reason.NOT_A_REGULAR_FILE
    await write_files(out, stream([header("file", b"1"), data(b"1")]))
    assert (outside / "kept").read_text() == "kept" and (out / "file").read_text() == "1"


async def test_data_before_any_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerdError, match="data of no file"):
        await write_files(tmp_path, stream([data(b"1")]))
