"""The systemd unit: what it says, and where it goes."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

from peerd.errors import PeerdError, Reason

UNIT_NAME = "peerd.service"
DEFAULT_PREFIX = Path("/etc/systemd/system")

_UNIT = """\
[Unit]
Description=peerd: this machine in its mesh
Documentation=man:systemd.service(5)
After=network-online.target time-sync.target
Wants=network-online.target

[Service]
Type=notify
ExecStart={program} --data-dir {data_dir} run
{user}Restart=always
RestartSec=2
# It ends with 75 to be started again with a store that was restored.
SuccessExitStatus=75
# It ends with 65 when its store is damaged, or of a later peerd: starting it again would not mend that.
RestartPreventExitStatus=65
WatchdogSec=30
# A large store is checked, and may be migrated, before the daemon is ready.
TimeoutStartSec=300
TimeoutStopSec=60
# Jobs outlive a restart of the daemon: their wrappers record how they end, and the next daemon takes them up.
KillMode=process
# A job that takes too much memory is killed alone.
OOMPolicy=continue
StateDirectory=peerd
StateDirectoryMode=0700
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities=
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=read-only
PrivateTmp=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectKernelModules=yes
{groups}{isolation}LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service{calls}
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
DevicePolicy=closed
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyACM rw
# What nvidia-smi asks, by which GPUs are found.
DeviceAllow=char-nvidia* rw
LimitNOFILE=16384
TasksMax=4096

[Install]
WantedBy=multi-user.target
"""

_DELEGATED = """\
# Jobs get control groups of their own beside the daemon's.
Delegate=cpu memory pids
DelegateSubgroup=peerd-main
"""
_NOT_DELEGATED = """\
ProtectControlGroups=yes
"""
_DELEGATES_SUBGROUP = 254
"""The version of systemd that puts a service into a group below its own. Before that one, a service could not be
started again while groups of its jobs are there."""

_WITH_ISOLATION = """\
# Not ProtectKernelTunables, ProtectKernelLogs, ProcSubset: they cover parts of /proc. Not RestrictNamespaces,
# ProtectHostname: they deny namespaces and their names. Bubblewrap could then isolate no job.
"""
_WITHOUT_ISOLATION = """\
RestrictNamespaces=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectHostname=yes
"""


def unit_text(*, program: Path, data_dir: Path, user: str = "", isolation: bool = True, delegate: bool = False) -> str:
    """The unit. ``user`` is who it runs as, root when empty; without ``isolation`` bubblewrap cannot run in it;
    with ``delegate`` jobs get control groups, which takes systemd 254.

    Raises INVALID_PATH for a path that a unit cannot hold.
    """
    return _UNIT.format(
        program=_word(program, command=True),
        data_dir=_word(data_dir, command=True),
        writable=_word(data_dir),
        user=f"User={user}\n" if user else "",
        # Root needs this one to map itself into the user namespaces of its jobs (Linux 5.12, user_namespaces(7)).
        capabilities="CAP_SETFCAP" if isolation and not user else "",
        groups=_DELEGATED if delegate else _NOT_DELEGATED,
        isolation=_WITH_ISOLATION if isolation else _WITHOUT_ISOLATION,
        calls=" @mount pivot_root" if isolation else "",
    )


def _systemd_version() -> int:
    """Of this machine's systemd; 0 when it has none."""
    try:
        done = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False, timeout=10)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.match(r"systemd (\d+)", done.stdout)
    return int(found[1]) if found else 0


def _word(path: Path, *, command: bool = False) -> str:
    """A path as one word of a unit, by systemd.syntax(7) and, in a command, systemd.service(5)."""
    text = str(path)
    if not text.isprintable():
        raise PeerdError(Reason.INVALID_PATH, f"{text!r} has characters that a unit cannot hold")
    escaped = text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    if command:
        escaped = escaped.replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[\s\\\"';]", text) else escaped


def install_unit(*, data_dir: Path, user: str, prefix: Path, isolation: bool = True) -> tuple[Path, bool]:
    """Write the unit; returns where, and whether anything changed. Raises INVALID_PATH, or NOT_FOUND for the user."""
    if user:
        _check_user(user, data_dir)
    delegate = isolation and _systemd_version() >= _DELEGATES_SUBGROUP
    text = unit_text(program=_program(), data_dir=data_dir, user=user, isolation=isolation, delegate=delegate)
    target = prefix / UNIT_NAME
    try:
        if target.exists() and target.read_text(encoding="utf-8") == text:
            return target, False
        prefix.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise PeerdError(
            Reason.INVALID_PATH,
            f"cannot write {target}: {error.strerror}",
            next_action="run it as root, or give a --prefix that you may write to",
        ) from error
    return target, True


def _check_user(user: str, data_dir: Path) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError as error:
        raise PeerdError(
            Reason.NOT_FOUND,
            f"there is no user {user!r} on this machine",
            next_action=f"useradd --system --home-dir {data_dir} --shell /usr/sbin/nologin {user}",
        ) from error


def _program() -> Path:
    """The ``peerd`` that runs now: beside its interpreter, or where it was called."""
    for candidate in (Path(sys.executable).parent / "peerd", Path(sys.argv[0]).absolute()):
        if candidate.name == "peerd" and os.access(candidate, os.X_OK):
            return candidate
    raise PeerdError(
        Reason.INVALID_PATH,
        f"there is no program 'peerd' beside {sys.executable}",
        next_action="install peerd into a virtual environment and call it from there",
    )
