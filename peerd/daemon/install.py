"""The systemd unit: what it says, and where it goes."""

from __future__ import annotations

import os
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
WatchdogSec=30
TimeoutStopSec=60
# Jobs outlive a restart of the daemon: their wrappers record how they end, and the next daemon takes them up.
KillMode=process
StateDirectory=peerd
StateDirectoryMode=0700
UMask=0077

NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities=
ProtectSystem=strict
ReadWritePaths={data_dir}
ProtectHome=read-only
PrivateTmp=yes
ProtectClock=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
# Not ProtectKernelTunables, ProtectKernelLogs, ProtectHostname, RestrictNamespaces: they cover parts of /proc, or deny
# namespaces, and bubblewrap could then isolate no job.
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount pivot_root
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
DevicePolicy=closed
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyACM rw
LimitNOFILE=16384
TasksMax=4096

[Install]
WantedBy=multi-user.target
"""


def unit_text(*, program: Path, data_dir: Path, user: str) -> str:
    """The unit. ``user`` is who it runs as; root when empty."""
    return _UNIT.format(
        program=program,
        data_dir=data_dir,
        user=f"User={user}\n" if user else "",
        # Root needs this one to map itself into the user namespaces of its jobs (Linux 5.12, user_namespaces(7)).
        capabilities="" if user else "CAP_SETFCAP",
    )


def install_unit(*, data_dir: Path, user: str, prefix: Path) -> tuple[Path, bool]:
    """Write the unit; returns where, and whether anything changed. Raises INVALID_PATH."""
    program = Path(sys.executable).parent / "peerd"
    text = unit_text(program=program, data_dir=data_dir, user=user)
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
