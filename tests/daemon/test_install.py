"""The systemd unit, looked at by systemd's own tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from peerd.daemon.install import install_unit, unit_text
from peerd.errors import PeerdError, Reason
from tests.e2e.fleet import tool

DOCS = Path(__file__).parents[2] / "docs" / "bootstrap.md"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def exposure(unit: Path) -> float:
    """What 'systemd-analyze security' gives it, from 0 to 10."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


@needs_systemd
@pytest.mark.parametrize("folder", ["data", "da ta", "100%", "$HOME", 'it\'s; \\ "odd"'])
@pytest.mark.parametrize("user", ["", "daemon"])
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, user: str, folder: str) -> None:
    data_dir = tmp_path / folder
    path, changed = install_unit(data_dir=data_dir, user=user, prefix=tmp_path / "units")
    assert changed
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert install_unit(data_dir=data_dir, user=user, prefix=tmp_path / "units") == (path, False)
    assert not list(path.parent.glob("*.tmp"))


@needs_systemd
@pytest.mark.parametrize(
    ("user", "isolation", "name"),
    [
        ("daemon", True, "with a user of its own"),
        ("", True, "as root"),
        ("daemon", False, "with a user of its own, `--no-isolation`"),
        ("", False, "as root, `--no-isolation`"),
    ],
)
def test_the_unit_is_as_tight_as_the_documentation_says(tmp_path: Path, user: str, isolation: bool, name: str) -> None:
    path, _ = install_unit(data_dir=tmp_path, user=user, prefix=tmp_path, isolation=isolation)
    found = exposure(path)
    assert f"| {name} | {found} |" in DOCS.read_text()
    assert isolation or found <= 2.5


@needs_systemd
def test_the_documentation_says_what_each_relaxation_costs(tmp_path: Path) -> None:
    path, _ = install_unit(data_dir=tmp_path, user="daemon", prefix=tmp_path)
    plain, text = exposure(path), path.read_text()
    rows = re.findall(r"^\| `([A-Z]\w+=[^`]*)` \| ([\d.]+) \|", DOCS.read_text(), re.MULTILINE)
    assert len(rows) >= 5
    for setting, cost in rows:
        path.write_text(text.replace("[Install]", f"{setting}\n[Install]"))
        assert round(plain - exposure(path), 1) == pytest.approx(float(cost), abs=0.11), setting


def test_words_of_a_unit_mean_the_path_that_was_meant() -> None:
    text = unit_text(program=Path("/opt/a b/peerd"), data_dir=Path("/srv/50% $x"))
    assert 'ExecStart="/opt/a b/peerd" --data-dir "/srv/50%% $$x" run\n' in text
    assert 'ReadWritePaths="/srv/50%% $x"\n' in text
    assert "ReadWritePaths=/srv/plain\n" in unit_text(program=Path("/p"), data_dir=Path("/srv/plain"))
    with pytest.raises(PeerdError) as caught:
        unit_text(program=Path("/p"), data_dir=Path("/srv/x\nExecStartPre=/bin/sh"))
    assert caught.value.reason is Reason.INVALID_PATH


def test_a_user_that_is_not_there_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerdError) as caught:
        install_unit(data_dir=tmp_path, user="no-such\nUser=root", prefix=tmp_path / "units")
    assert caught.value.reason is Reason.NOT_FOUND and "useradd" in caught.value.next_action
    assert not (tmp_path / "units").exists()
    (tmp_path / "file").touch()
    with pytest.raises(PeerdError) as caught:
        install_unit(data_dir=tmp_path, user="", prefix=tmp_path / "file")
    assert caught.value.reason is Reason.INVALID_PATH


def test_the_command_says_what_to_do_next_and_the_second_time_that_nothing_changed(tmp_path: Path) -> None:
    options = ["install", "--prefix", str(tmp_path / "units"), "--no-isolation"]
    command = [str(tool("peerd")), "--data-dir", str(tmp_path / "d"), *options]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "systemctl enable --now peerd" in first.stdout
    assert "RestrictNamespaces=yes" in (tmp_path / "units" / "peerd.service").read_text()
    assert "(unchanged)" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("bwrap", "setpriv", "unshare")) or os.geteuid() != 0,
    reason="needs root, bwrap",
)
@pytest.mark.parametrize("user", ["+setfcap", "none"])
def test_jobs_can_be_isolated_with_the_rights_that_the_unit_leaves(user: str) -> None:
    sandbox = (
        "bwrap --unshare-all --unshare-user --disable-userns --cap-drop ALL --hostname x --ro-bind / / --proc /proc"
    )
    rights = "setpriv --inh-caps=-all --no-new-privs " + (
        f"--bounding-set=-all,{user}" if user != "none" else "--bounding-set=-all --reuid=1 --regid=1 --clear-groups"
    )
    # ProtectProc=invisible is a /proc mounted like this.
    inside = f"mount -t proc -o hidepid=invisible proc /proc && exec {rights} {sandbox} true"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", inside], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
