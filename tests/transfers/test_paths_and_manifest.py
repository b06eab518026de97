"""What may be named and sent at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.transfers.manifest import BLOCK_BYTES, FileEntry, check_manifest, scan
from peerd.transfers.model import Source
from peerd.transfers.paths import open_directory, open_file, parse_relative_path


@pytest.mark.parametrize("good", ["a", "a/b", "ä/ö.txt", "a b/c,d", ".hidden", "a" * 255, "/".join("d" * 32)])
def test_ordinary_paths_are_taken(good: str) -> None:
    assert "/".join(parse_relative_path(good)) == good


@pytest.mark.parametrize(
    "bad",
    [
        "", "/", "/etc/passwd", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b", "a\nb", "-rf", "a/-rf", "a\u202eb",
        "a" * 256, "/".join("d" * 33), "a\u0308", "\udc80",
    ],
)  # fmt: skip
def test_paths_that_lead_elsewhere_or_cannot_be_shown_are_refused(bad: str) -> None:
    with pytest.raises(PeerdError) as caught:
        parse_relative_path(bad)
    assert caught.value.reason is Reason.INVALID_PATH


@given(st.text(max_size=40))
def test_whatever_is_accepted_stays_below_the_root(text: str) -> None:
    try:
        components = parse_relative_path(text)
    except PeerdError:
        return
    path = os.path.normpath(os.path.join("/root/of/it", *components))
    assert path.startswith("/root/of/it/")
    assert "/".join(components) == text


def test_links_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "file").symlink_to(tmp_path / "outside" / "secret")
    for components in (("link", "secret"), ("file",)):
        with pytest.raises(PeerdError) as caught:
            open_file(root, components)
        assert caught.value.reason is Reason.NOT_A_REGULAR_FILE
    with pytest.raises(PeerdError), open_directory(root, ("link", "new"), create=True):
        pass
    assert not (tmp_path / "outside" / "new").exists()


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "dangling"])
def test_special_files_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "ok").write_text("x")
    odd = tmp_path / "odd"
    if kind == "link":
        odd.symlink_to(tmp_path / "ok")
    elif kind == "dangling":
        odd.symlink_to("/nowhere")
    elif kind == "fifo":
        os.mkfifo(odd)
    else:
        os.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("odd")
    with pytest.raises(PeerdError) as caught:
        scan(Source(root=tmp_path))
    assert caught.value.reason is Reason.NOT_A_REGULAR_FILE
    assert "odd" in caught.value.message


SIZES = {
    "empty": 0,
    "one byte": 1,
    "just below a block": BLOCK_BYTES - 1,
    "a block, which has no list of blocks": BLOCK_BYTES,
    "the first size with a list": BLOCK_BYTES + 1,
    "several blocks and a rest": 2 * BLOCK_BYTES + 12345,
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_a_manifest_describes_every_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(os.urandom(size))
    (entry,) = scan(Source(root=tmp_path)).manifest.files
    assert entry.size == size
    assert len(entry.block_digests) == (0 if size <= BLOCK_BYTES else -(-size // BLOCK_BYTES))


def test_the_digest_depends_on_everything(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    seen = {scan(Source(root=tmp_path)).manifest.digest()}
    os.chmod(tmp_path / "a", 0o755)
    seen.add(scan(Source(root=tmp_path)).manifest.digest())
    (tmp_path / "a").write_text("y")
    seen.add(scan(Source(root=tmp_path)).manifest.digest())
    (tmp_path / "a").rename(tmp_path / "b")
    seen.add(scan(Source(root=tmp_path)).manifest.digest())
    (tmp_path / "empty").mkdir()
    seen.add(scan(Source(root=tmp_path)).manifest.digest())
    assert len(seen) == 4, "four different contents; an empty directory adds nothing"


def entry(path: str, size: int = 0) -> FileEntry:
    return FileEntry(path=path, size=size, executable=False, digest=bytes(32), block_digests=())


@pytest.mark.parametrize(
    "files",
    [
        [entry("b"), entry("a")],
        [entry("a"), entry("a")],
        [entry("A"), entry("a")],
        [entry("a"), entry("a/b")],
        [entry("../a")],
        [entry("a", BLOCK_BYTES + 1)],
    ],
    ids=["unsorted", "twice", "case", "file and directory", "path", "missing blocks"],
)
def test_a_manifest_that_makes_no_sense_is_refused(files: list[FileEntry]) -> None:
    with pytest.raises(PeerdError):
        check_manifest(files)
