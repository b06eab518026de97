"""Secrets in what a job writes: masked however the stream is cut, and nothing else is."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peerd.jobs.runner.masking import MASK, Masker, masked_parts

# Few letters, so that secrets occur, overlap and almost occur.
SECRETS = st.lists(st.text("ab\n", min_size=4, max_size=9).map(str.encode), min_size=1, max_size=3)
PIECES = st.lists(st.text("abc\n", max_size=7).map(str.encode), max_size=12)


def plainly(text: bytes, secrets: list[bytes]) -> bytes:
    """What must come out, said byte by byte on the whole text."""
    parts = set().union(*map(masked_parts, secrets))
    hidden = [False] * len(text)
    for part in parts:
        for at in range(len(text) - len(part) + 1):
            if text[at : at + len(part)] == part:
                hidden[at : at + len(part)] = [True] * len(part)
    out = bytearray()
    for at, byte in enumerate(text):
        if not hidden[at]:
            out.append(byte)
        elif not at or not hidden[at - 1]:
            out += MASK
    return bytes(out)


def streamed(pieces: list[bytes], secrets: list[bytes]) -> bytes:
    masker = Masker(secrets)
    return b"".join([*map(masker.feed, pieces), masker.finish()])


@settings(max_examples=1000, deadline=None)
@given(PIECES, SECRETS)
@example([b"ab", b"abab", b"a"], [b"ababa"])
@example([b"aaaa", b"aaaa", b"a"], [b"aaaa"])
@example([b"abba", b"ab"], [b"abbaab", b"bbaa"])
def test_any_cut_gives_the_same(pieces: list[bytes], secrets: list[bytes]) -> None:
    masked = streamed(pieces, secrets)
    assert masked == plainly(b"".join(pieces), secrets)
    assert not any(part in masked for secret in secrets for part in masked_parts(secret))


@given(st.binary(max_size=200), st.lists(st.binary(min_size=4, max_size=8), max_size=3), st.integers(1, 9))
def test_any_bytes_at_all(text: bytes, secrets: list[bytes], step: int) -> None:
    text += b"".join(secrets) + text
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    assert streamed(pieces, secrets) == plainly(text, secrets or [b""])


def test_only_what_may_become_a_secret_is_held_back() -> None:
    masker = Masker([b"hunter22"])
    assert masker.feed(b"the password is hunt") == b"the password is "
    assert masker.feed(b"er22, well\n") == b"***, well\n"
    assert masker.feed(b"a hunt") == b"a "
    assert masker.feed(b" begins") == b"hunt begins"
    assert masker.finish() == b""


def test_each_long_line_is_masked_alone_and_short_ones_stay() -> None:
    secret = b"-----BEGIN-----\r\nabcdefgh\n}\n   indented\n"
    assert masked_parts(secret) == {secret.strip(), b"-----BEGIN-----", b"abcdefgh", b"indented"}
    assert streamed([b"<abcdefgh> } indented"], [secret]) == b"<***> } ***"


def test_without_secrets_nothing_is_touched() -> None:
    assert streamed([b"abc", b""], []) == b"abc"


@pytest.mark.parametrize("secret", [b"correct horse battery staple", b"\n".join(b"%063d" % n for n in range(1000))])
def test_masking_keeps_up_with_a_log(secret: bytes) -> None:
    masker = Masker([secret])
    block = b"an ordinary line of a log, of which there are many\n" * 1285
    begun = time.thread_time()
    for _ in range(16):
        masker.feed(block)
    assert time.thread_time() - begun < 10  # 1 MiB
