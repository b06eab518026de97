"""Protocol files: the ones that come along, those of users, and what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerd.errors import PeerdError, Reason
from peerd.nodes.protocols import load_protocols
from peerd.nodes.protocols.reading import read_protocol
from peerd.patterns import pattern_flaw

GOOD = """
name = "mine"
display_name = "My network"
ports = [7000]

[[probes]]
name = "status"
kind = "http"
path = "/status"
ports = [7000]

[[probes]]
name = "call"
kind = "json_rpc"
method = "my_version"
params = [{deep = [1, "two"]}]
ports = [7000]

[[probes]]
name = "metrics"
kind = "metrics"
ports = [7001]

[[probes]]
name = "hello"
kind = "banner"
ports = [7002]

[[signatures]]
name = "network"
probe = "status"
field = "chain.0.name"
pattern = "mine-[a-z]+"
weight = 0.7

[[signatures]]
name = "server"
probe = "status"
header = "Server"
pattern = "mine/.*"
weight = 0.1

[[signatures]]
name = "blocks"
probe = "metrics"
metric = "mine_blocks"
minimum = 1
weight = 0.3

[[signatures]]
name = "greeting"
probe = "hello"
pattern = "MINE .*"
weight = 0.3

[[versions]]
probe = "call"
pattern = 'v(?P<value>\\d+\\.\\d+)'
"""


def test_the_protocols_of_the_source_come_along_and_one_more() -> None:
    assert load_protocols().names() == (
        *("arweave", "ethereum", "filecoin", "generic", "helium", "render", "solana", "sui", "walrus"),
    )


def test_every_built_in_protocol_has_all_that_a_user_needs() -> None:
    for protocol in load_protocols():
        assert protocol.display_name and protocol.description and protocol.category, protocol.name
        assert protocol.ports and protocol.signatures and protocol.versions, protocol.name
        for expect in [*(one.expect for one in protocol.signatures), *(one.expect for one in protocol.versions)]:
            assert not expect.pattern or pattern_flaw(expect.pattern) is None


def test_a_good_file_is_read() -> None:
    protocol = read_protocol(GOOD, "mine.toml")
    assert protocol.name == "mine"
    assert [probe.name for probe in protocol.discovery_probes] == ["status", "call", "metrics", "hello"]
    assert protocol.probes["call"].query.params == '[{"deep":[1,"two"]}]'
    assert protocol.signatures[1].expect.header == "server"


BAD: list[tuple[str, str, str, str]] = [
    ('name = "mine"', 'name = "Mine!"', "name", "lower-case letters"),
    ('name = "mine"\n', "", "name", "missing"),
    ("ports = [7000]\n\n[[probes]]", "ports = [70000]\n\n[[probes]]", "ports", "70000"),
    ("ports = [7000]\n\n[[probes]]", 'ports = ["7000"]\n\n[[probes]]', "ports", "'7000'"),
    ("ports = [7000]\n\n[[probes]]", "ports = [true]\n\n[[probes]]", "ports", "True"),
    ('kind = "http"', 'kind = "https"', "probes[0].kind", "none of json_rpc, http, metrics, banner"),
    ('path = "/status"', 'path = "status"', "probes[0].path", "from / on"),
    ('path = "/status"', 'path = "/a b"', "probes[0].path", "from / on"),
    ('path = "/status"', 'path = "/a\\r\\nHost: x"', "probes[0].path", "from / on"),
    ('method = "my_version"\n', "", "probes[1].method", "missing"),
    ('params = [{deep = [1, "two"]}]', "params = 5", "probes[1].params", "list or a table"),
    ('params = [{deep = [1, "two"]}]', "params = [1979-05-27]", "probes[1].params", "JSON values"),
    ('name = "call"', 'name = "status"', "probes", "same name"),
    ('probe = "status"\nfield', 'probe = "state"\nfield', "signatures[0].probe", "'state' is none of status, call"),
    ("weight = 0.7", "weight = 1", "signatures[0].weight", "above 0 and below 1"),
    ("weight = 0.7", "weight = true", "signatures[0].weight", "above 0 and below 1"),
    ("weight = 0.7", "wieght = 0.7", "signatures[0].weight", "above 0"),
    ("weight = 0.7", 'weight = 0.7\npatern = "x"', "signatures[0].patern", "did you mean 'pattern'"),
    ('pattern = "mine-[a-z]+"', 'pattern = "mine-("', "signatures[0].pattern", "not an RE2 expression"),
    ('pattern = "mine-[a-z]+"', 'pattern = "(?=mine)"', "signatures[0].pattern", "not an RE2 expression"),
    ('pattern = "mine-[a-z]+"\n', "", "signatures[0].pattern", "any text at all says nothing"),
    ('pattern = "mine-[a-z]+"', 'type = "text"', "signatures[0].type", "must be one of string"),
    ('pattern = "mine-[a-z]+"', 'type = "integer"\nminimum = "1"', "signatures[0].minimum", "must be a number"),
    ('pattern = "mine-[a-z]+"', 'type = "array"\nmin_length = -1', "signatures[0].min_length", "from 0 on"),
    ('field = "chain.0.name"', 'metric = "x"', "signatures[0].metric", "kind http has none"),
    ('header = "Server"', 'header = "Server"\nfield = "a"', "signatures[1].header", "not both"),
    ('metric = "mine_blocks"\n', "", "signatures[2].metric", "missing"),
    ('pattern = "MINE .*"', 'field = "a"\npattern = "M"', "signatures[3].field", "kind banner has none"),
    (
        '[[versions]]\nprobe = "call"\npattern',
        '[[versions]]\nprobe = "status"\nfield = "v"\npattern',
        "probes",
        "uses 'call'",
    ),
    ('display_name = "My network"', 'display_name = "My network"\nmetrics_words = ["me"]', "metrics_words", "four"),
    ('display_name = "My network"', 'display_name = "My network"\nfallback = 1', "fallback", "true or false"),
    ('display_name = "My network"', 'display_name = "My network"\nlabel = "x"', "label", "not a known key"),
    ('display_name = "My network"', 'display_name = "a\\u001b[31mb"', "display_name", "printable"),
    ("[[probes]]", "[probes]", "probes", "[[probes]]"),
    ('name = "mine"', 'name = "mine', "", "not TOML"),
]


@pytest.mark.parametrize(("old", "new", "key", "reason"), BAD)
def test_what_is_wrong_is_said_with_file_key_and_reason(old: str, new: str, key: str, reason: str) -> None:
    assert old in GOOD
    bad = GOOD.replace(old, new, 1) if new != "[probes]" else GOOD.replace(old, new)

    with pytest.raises(PeerdError) as refused:
        read_protocol(bad if new != "[probes]" else 'name = "x"\n[probes]\nname = "a"\n', "mine.toml")

    assert refused.value.reason is Reason.INVALID_CONFIG
    assert refused.value.message.startswith(f"protocol file mine.toml: {key}")
    assert reason in refused.value.message
    assert "docs/protocols.md" in refused.value.next_action


def test_a_file_without_signatures_or_too_large_is_refused() -> None:
    with pytest.raises(PeerdError, match="at least one"):
        read_protocol(
            'name = "x"\ndisplay_name = "X"\nports = []\n[[probes]]\nname = "a"\nkind = "banner"\nports = []', "f"
        )
    with pytest.raises(PeerdError, match="larger than"):
        read_protocol("#" * 70_000, "f")


def test_a_directory_adds_protocols(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    (tmp_path / "README").write_text("no protocol")
    protocols = load_protocols(tmp_path)
    assert len(protocols) == 10
    mine = protocols.find("MINE")
    assert mine is not None
    assert mine.source == str(tmp_path / "mine.toml")
    assert protocols.added == {str(tmp_path / "mine.toml"): GOOD}


@pytest.mark.parametrize("name", ["sui", "mine"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text(GOOD.replace('name = "mine"', f'name = "{name}"', 1))
    with pytest.raises(PeerdError, match=rf"b\.toml: name: '{name}' is taken"):
        load_protocols(tmp_path)


def test_a_directory_that_is_none_and_a_file_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerdError, match="not a directory"):
        load_protocols(tmp_path / "nowhere")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PeerdError, match="protocol files in"):
        load_protocols(tmp_path)
