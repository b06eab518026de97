from __future__ import annotations

from pathlib import Path

import pytest

from peerd.config_reading import load_config, show_config
from peerd.errors import PeerdError, Reason


def write(folder: Path, text: str) -> Path:
    (folder / "peerd.toml").write_text(text)
    return folder


def test_defaults_need_no_file(tmp_path: Path) -> None:
    config = load_config(data_dir=tmp_path, environ={})
    assert config.peer.listen == "0.0.0.0:7373"
    assert config.socket == tmp_path / "run" / "peerd.sock"
    assert config.peer_name


def test_flags_win_over_environment_and_environment_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, '[peer]\nname = "file"\ngroups = ["file"]\nlabels = ["a"]\n[jobs]\nmax_running = 3\n')
    environ = {"PEERD_PEER_NAME": "env", "PEERD_PEER_GROUPS": "env", "PEERD_PEER_LABELS": "x, y"}
    config = load_config(data_dir=tmp_path, environ=environ, flags={"peer.name": "flag"})
    assert (config.peer.name, config.peer.groups, config.peer.labels) == ("flag", ("env",), ("x", "y"))
    assert config.jobs.max_running == 3
    origins = {key: origin for key, _, origin in show_config(config)}
    assert origins["peer.name"] == "command line"
    assert origins["peer.groups"] == "environment variable PEERD_PEER_GROUPS"
    assert origins["jobs.max_running"].endswith("peerd.toml")
    assert origins["jobs.sandbox"] == "default"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[peer]\nnmae = 'x'\n", "did you mean 'peer.name'"),
        ("[pear]\nname = 'x'\n", "did you mean 'peer'"),
        ("[jobs]\nmax_running = 'many'\n", "jobs.max_running must be a int"),
        ("[jobs]\nmax_running = true\n", "jobs.max_running must be a int"),
        ("[peer]\nlabels = 'a'\nname = 3\n", "peer.name must be a str"),
        ("[peer\n", "is not TOML"),
        ("services = 3\n", "[[services]]"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PeerdError) as caught:
        load_config(data_dir=write(tmp_path, text), environ={})
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert says in caught.value.message


def test_services_come_as_they_are_written(tmp_path: Path) -> None:
    config = load_config(data_dir=write(tmp_path, '[[services]]\nname = "s"\nkind = "process"\n'), environ={})
    assert config.services == ({"name": "s", "kind": "process"},)
