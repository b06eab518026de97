"""Globs against glob.glob on real directories, renames against a second reading of them, and what is refused."""

from __future__ import annotations

import glob
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.transfers.manifest import scan
from peerd.transfers.model import Source
from peerd.transfers.paths import parse_relative_path
from peerd.transfers.selection import Rename, Selection, matches, pattern_flaw, rename_flaw

COMPONENTS = st.text("acB.", min_size=1, max_size=3).filter(lambda text: text not in (".", ".."))
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
PARTS = st.sampled_from(["**", "*", "a*", "*b", "?", ".*", "[ab]", "[!a]*", "B", "a", "[a"]) | COMPONENTS
PATTERNS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def lay(root: Path, paths: set[str]) -> list[str]:
    """Make the files that can be made beside each other."""
    made = []
    for path in sorted(paths):
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if (root / path).is_dir():
                continue
            (root / path).write_text(path)
            made.append(path)
        except (FileExistsError, NotADirectoryError):
            continue
    return made


@settings(max_examples=400, deadline=None)
@given(st.sets(PATHS, max_size=8), PATTERNS)
def test_a_pattern_takes_what_glob_takes(paths: set[str], pattern: str) -> None:
    with TemporaryDirectory() as folder:
        made = lay(Path(folder), paths)
        found = glob.glob(pattern, root_dir=folder, recursive=True, include_hidden=True)
        expected = sorted({path for path in found if os.path.isfile(os.path.join(folder, path))})
        assert sorted(path for path in made if matches(pattern, path)) == expected
        scanned = scan(Source(root=Path(folder), selection=Selection(files=(pattern,), optional=True)))
        assert sorted(scanned.paths) == expected


@settings(max_examples=300, deadline=None)
@given(PATHS, PATTERNS, st.sampled_from(["", "a", "a/b"]))
def test_a_directory_is_entered_whenever_something_in_it_is_taken(path: str, pattern: str, below: str) -> None:
    selection = Selection(path=below, files=(pattern,))
    if selection.takes(path):
        parts = path.split("/")
        assert all(selection.enters(parts[:length]) for length in range(1, len(parts)))


@given(
    st.text("a*?[]!-\\^b", min_size=1, max_size=8).filter(lambda text: "**" not in text), st.text("ab*[-", max_size=6)
)
def test_one_component_is_fnmatch(pattern: str, name: str) -> None:
    assume(name)
    assert matches(pattern, name) == fnmatchcase(name, pattern)


def test_a_pattern_that_would_take_ages_does_not() -> None:
    assert not matches("/".join(["**", "*a*a*a*a*b"] * 16), "/".join(["a" * 200] * 31))


# Renames


@settings(max_examples=400, deadline=None)
@given(
    st.sets(PATHS, max_size=6),
    st.lists(st.tuples(st.text("aB.*/", max_size=5), st.text("aB.*/", min_size=1, max_size=5)), max_size=3),
)
def test_renamed_files_are_apart_and_safe_or_refused_by_name(paths: set[str], texts: list[tuple[str, str]]) -> None:
    rules = tuple(Rename(origin=origin, to=to) for origin, to in texts)
    assume(not any(map(rename_flaw, rules)) and (len(rules) < 2 or all(rule.origin for rule in rules)))

    def oracle(path: str) -> str:
        for rule in rules:
            head, star, tail = rule.origin.partition("*")
            if not rule.origin:
                return rule.to
            if star and len(path) >= len(head) + len(tail) and path.startswith(head) and path.endswith(tail):
                middle = path[len(head) : len(path) - len(tail)]
                if "/" not in middle:
                    return rule.to.replace("*", middle)
            elif not star and path == rule.origin:
                return rule.to
        return path

    names = {path: oracle(path) for path in paths}
    folded = [name.casefold() for name in names.values()]
    nested = any(other.startswith(f"{name}/") for name in folded for other in folded)
    try:
        named = Selection(rename=rules).named(paths)
    except PeerdError as error:
        assert error.reason is Reason.COLLIDING_NAMES
        assert len(set(folded)) < len(folded) or nested
        assert sum(repr(path) in error.message for path in paths) >= 2
        return
    assert dict(named) == names
    assert len(set(folded)) == len(folded) and not nested
    assert [name for _, name in named] == sorted(names.values(), key=str.encode)


@given(
    st.builds(
        Selection,
        path=PATHS | st.just(""),
        files=st.lists(st.text(max_size=9), max_size=3).map(tuple),
        rename=st.lists(st.builds(Rename, origin=st.text(max_size=4), to=st.text(max_size=4)), max_size=2).map(tuple),
        optional=st.booleans(),
    )
)
def test_a_stored_selection_comes_back(selection: Selection) -> None:
    assert Selection.decode(selection.encode()) == selection


@pytest.mark.parametrize("pattern", ["*", "**", "a/**/b*", "[a-z]?", "[", "ä*"])
def test_sound_patterns(pattern: str) -> None:
    assert pattern_flaw(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    ["", "/a", "../*", "a/../*", "a//b", "a**", "**.csv", "a/***", "./a", "-*", "a\n", "a\u0308*", "x" * 1025],
)
def test_patterns_that_lead_out_or_mean_nothing_are_refused(pattern: str) -> None:
    assert pattern_flaw(pattern)


@pytest.mark.parametrize(
    ("origin", "to"), [("", "*"), ("a", "b*"), ("*a*", "b"), ("*", "**"), ("*", "../*"), ("/a", "b"), ("a", "")]
)
def test_renames_that_lead_out_or_mean_nothing_are_refused(origin: str, to: str) -> None:
    assert rename_flaw(Rename(origin=origin, to=to))


# On a real directory


def refused(root: Path, selection: Selection) -> PeerdError:
    with pytest.raises(PeerdError) as caught:
        scan(Source(root=root, selection=selection))
    return caught.value


def test_what_is_there_is_said_when_nothing_matches(tmp_path: Path) -> None:
    lay(tmp_path, {"a.txt", "sub/b.txt", *(f"many/{number}" for number in range(9))})
    error = refused(tmp_path, Selection(files=("*.csv", "x/**")))
    assert error.reason is Reason.NO_FILES_MATCH
    assert "'*.csv', 'x/**'" in error.message and "there are 11 files: 'a.txt'" in error.message
    assert "below 'sub'" in refused(tmp_path, Selection(path="sub", files=("*.csv",))).message
    assert refused(tmp_path, Selection(path="gone")).reason is Reason.NO_FILES_MATCH
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path, Selection(path="empty")).reason is Reason.NO_FILES_MATCH
    assert "the output is empty" in refused(tmp_path / "empty", Selection(rename=(Rename(to="x"),))).message
    assert scan(Source(root=tmp_path, selection=Selection(files=("*.csv",), optional=True))).manifest.files == ()


def test_a_directory_and_a_file_of_an_output(tmp_path: Path) -> None:
    lay(tmp_path, {"sub/dir/x", "sub/dir/in/y", "sub/z", "subdir/q"})

    def names(selection: Selection) -> list[str]:
        return [entry.path for entry in scan(Source(root=tmp_path, selection=selection)).manifest.files]

    assert names(Selection(path="sub/dir")) == ["in/y", "x"]
    assert names(Selection(path="sub")) == ["dir/in/y", "dir/x", "z"]
    assert names(Selection(path="sub/z")) == ["z"]
    assert names(Selection(path="sub/z", rename=(Rename(to="deep/w"),))) == ["deep/w"]
    assert names(Selection(path="sub", files=("*/x",))) == ["dir/x"]


def test_two_files_for_one_name_are_both_named(tmp_path: Path) -> None:
    lay(tmp_path, {"a/x", "b/x", "c"})
    error = refused(
        tmp_path, Selection(files=("*/x",), rename=(Rename(origin="a/*", to="*"), Rename(origin="b/*", to="*")))
    )
    assert error.reason is Reason.COLLIDING_NAMES
    assert "'a/x'" in error.message and "'b/x'" in error.message and "'x'" in error.message
    inside = refused(tmp_path, Selection(rename=(Rename(origin="c", to="a"),)))
    assert inside.reason is Reason.COLLIDING_NAMES and "'c'" in inside.message


def test_links_and_odd_names_are_refused_only_where_they_are_taken(tmp_path: Path) -> None:
    lay(tmp_path, {"ok.txt", "sub/ok.txt"})
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    (tmp_path / "away").symlink_to("/etc")
    (tmp_path / "-odd").mkdir()
    (tmp_path / "-odd" / "x.txt").write_text("x")
    (tmp_path / "decomposed-a\u0308").write_text("x")
    taken = scan(Source(root=tmp_path, selection=Selection(files=("ok.*", "sub/*"))))
    assert [entry.path for entry in taken.manifest.files] == ["ok.txt", "sub/ok.txt"]
    assert refused(tmp_path, Selection(files=("*.txt",))).reason is Reason.NOT_A_REGULAR_FILE
    assert refused(tmp_path, Selection(files=("**/x.txt",))).reason is Reason.INVALID_PATH
    assert refused(tmp_path, Selection(files=("away/passwd",))).reason is Reason.NO_FILES_MATCH
    assert refused(tmp_path, Selection(path="away")).reason is Reason.NOT_A_REGULAR_FILE
    assert refused(tmp_path, Selection(files=("decomposed*",))).reason is Reason.INVALID_PATH


def test_a_rename_cannot_make_an_unsafe_name(tmp_path: Path) -> None:
    lay(tmp_path, {"x-y"})
    assert (
        refused(tmp_path, Selection(files=("x*",), rename=(Rename(origin="x*", to="*"),))).reason is Reason.INVALID_PATH
    )
    lay(tmp_path, {"dot."})
    assert (
        refused(tmp_path, Selection(files=("dot*",), rename=(Rename(origin="dot*", to=".*/q"),))).reason
        is Reason.INVALID_PATH
    )


@given(st.text(max_size=30), st.text(max_size=10))
def test_what_passes_leads_nowhere_else(to: str, star: str) -> None:
    rule = Rename(origin="*", to=to)
    assume(rename_flaw(rule) is None and "/" not in star)
    name = rule.apply(star)
    assert name is not None
    try:
        parts = parse_relative_path(name)
    except PeerdError:
        return
    assert not {"", ".", ".."} & set(parts) and re.fullmatch(r"[^\x00-\x1f]*", name)
