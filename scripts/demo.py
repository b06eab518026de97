"""The demo: three daemons, one mesh, one workflow over all of them, the result at home.

Everything it does is a command that it shows, so that you can do it by hand. It ends by itself and leaves only the
result; with ``--keep`` the daemons run on.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "examples" / "word-count"
DEFINITION = "examples/word-count.yaml"
BIN = Path(sys.executable).parent
NAMES = ("alpha", "beta", "gamma")
START_SECONDS = 90
RUN_SECONDS = 240
# Jobs get the interpreter itself: a virtual environment's link leads to places that a sandbox need not show.
PYTHON = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


class DemoError(Exception):
    """Something did not work; the message says what."""


class Peer:
    """One daemon with its own data directory."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.data / "run" / "peerd.sock"

    def peerd(self, *arguments: str) -> str:
        """An offline command on its data directory."""
        return run([BIN / "peerd", "--data-dir", self.data, *arguments])

    def peerctl(self, *arguments: str | Path) -> str:
        return run([BIN / "peerctl", "--socket", self.socket, *arguments])

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.peerctl(*arguments, "-o", "json"))

    def start(self) -> None:
        """Start the daemon in a session of its own: Ctrl-C is for the demo, which then stops it in order."""
        with (self.data / "peerd.toml").open("a") as config:
            # The demo moves some megabytes; it need not keep a gigabyte free as a fleet should.
            config.write("\n[transfers]\nmin_free_bytes = 50000000\nmin_free_fraction = 0.0\n")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "peerd", "--data-dir", self.data, "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )
        wait_until(self.answers, f"{self.name} to answer")

    def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise DemoError(f"{self.name} ended at once")
        if not self.socket.exists():
            return False
        done = subprocess.run(
            [BIN / "peerctl", "--socket", self.socket, "status"], env=environment(), capture_output=True, check=False
        )
        return done.returncode == 0

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def environment() -> dict[str, str]:
    """Ours without the caller's own peerd settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PEERD_")}
    return {**kept, "PEERD_HTTP_LISTEN": "127.0.0.1:0"}


def run(command: list[str | Path]) -> str:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise DemoError(f"{shlex.join(map(str, command))} failed:\n{done.stderr.strip()}")
    return done.stdout.strip()


def wait_until(holds: Any, what: str) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not holds():
        if time.monotonic() > give_up_at:
            raise DemoError(f"waited {START_SECONDS} s for {what}")
        time.sleep(0.1)


def say(text: str = "") -> None:
    print(text, flush=True)


def collect_texts(target: Path, megabytes: float) -> tuple[int, int]:
    """Copy sources of the Python standard library, up to that many megabytes; return files and bytes."""
    library = Path(sysconfig.get_path("stdlib"))
    files = size = 0
    for source in sorted(library.rglob("*.py")):
        inside = source.relative_to(library)
        if {"site-packages", "dist-packages", "test", "tests", "__pycache__"} & set(inside.parts):
            continue
        if source.is_symlink() or size + source.stat().st_size > megabytes * 1_000_000:
            continue
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / inside)
        files, size = files + 1, size + source.stat().st_size
    if not files:
        raise DemoError(f"found no texts in {library}")
    return files, size


def declarations(texts: Path) -> dict[str, list[dict[str, Any]]]:
    """Which peer offers what. Programs have a fixed argv, so they run where nothing can isolate, too."""
    readable = [str(PROGRAMS)]
    if not PYTHON.startswith("/usr/"):
        readable.append(str(Path(sys.base_prefix).resolve()))

    def program(name: str, file: str, description: str, **more: Any) -> dict[str, Any]:
        argv = [PYTHON, "-I", str(PROGRAMS / file), *more.pop("arguments", [])]
        return {
            "name": name,
            "kind": "SERVICE_KIND_PROCESS",
            "description": description,
            "argv": argv,
            "read_only_paths": readable,
            **more,
        }

    mounts = [
        {"kind": "INTERFACE_KIND_MOUNT", "path": side, "mount_function": "MOUNT_FUNCTION_OUTPUT"}
        for side in ("left", "right")
    ]
    split = program(
        "split-texts",
        "split.py",
        "Deals texts into two halves",
        interfaces=[{"kind": "INTERFACE_KIND_INPUT"}, *mounts, {"kind": "INTERFACE_KIND_STDOUT"}],
    )
    count = program("count-words", "count.py", "Counts the words of texts")
    merge = program(
        "merge-counts",
        "merge.py",
        "Adds up counts of words",
        arguments=["${top}"],
        params=[{"name": "top", "description": "how many words to show", "default_value": "20", "pattern": "[0-9]+"}],
    )
    data = {
        "name": "texts",
        "kind": "SERVICE_KIND_DATA",
        "description": "Sources of the Python standard library",
        "path": str(texts),
    }
    return {"alpha": [data, split], "beta": [count, merge], "gamma": [count, merge]}


def publish(peer: Peer, services: list[dict[str, Any]], folder: Path) -> None:
    files = []
    for service in services:
        file = folder / f"{peer.name}-{service['name']}.json"
        file.write_text(json.dumps(service, indent=2))
        files.append(file)
    peer.peerctl("services", "add", *files)


def form_mesh(peers: list[Peer]) -> None:
    alpha = peers[0]
    say("$ peerd init --name alpha; peerd run")
    alpha.peerd("init", "--name", "alpha", "--listen", "127.0.0.1:0")
    alpha.start()
    for peer in peers[1:]:
        say(f"$ peerctl invite --role worker --grants observe,execute,operate; peerd join TOKEN --name {peer.name}")
        token = alpha.peerctl("invite", "--role", "worker", "--grants", "observe,execute,operate")
        peer.peerd("join", token, "--name", peer.name, "--listen", "127.0.0.1:0")
        peer.start()

    def all_see_all() -> bool:
        return all(
            sum(other["status"] == "PEER_STATUS_ONLINE" for other in peer.json("peers", "list")["peers"]) == len(peers)
            for peer in peers
        )

    wait_until(all_see_all, "the peers to see each other")
    say("$ peerctl peers")
    say(alpha.peerctl("peers", "list"))


def run_workflow(alpha: Peer) -> int:
    """Run it with the live view on our own terminal; return the execution's id."""
    say(f"\n$ peerctl workflows run {DEFINITION} --watch")
    command = [BIN / "peerctl", "--socket", alpha.socket, "--timeout", f"{RUN_SECONDS}s"]
    done = subprocess.run(
        [*command, "workflows", "run", DEFINITION, "--watch"], cwd=ROOT, env=environment(), check=False
    )
    executions = alpha.json("executions", "list", "--limit", "1")["executions"]
    if not executions:
        raise DemoError("the workflow did not start")
    execution_id = int(executions[0]["workflow_execution_id"])
    say(f"\n$ peerctl executions show {execution_id}")
    say(alpha.peerctl("executions", "show", str(execution_id)))
    if done.returncode != 0:
        raise DemoError(f"the execution did not complete (peerctl ended with {done.returncode})")
    return execution_id


def show_result(directory: Path) -> None:
    say(f"\nThe result, delivered home to {directory}")
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            say(f"  {path.relative_to(directory)}  {path.stat().st_size} bytes")
    top = directory / "top.txt"
    say()
    for line in top.read_text().splitlines()[:10]:
        say(f"  {line}")


def say_what_next(alpha: Peer, execution_id: int, directory: Path, *, keep: bool) -> None:
    peerctl = f"{BIN / 'peerctl'} --socket {alpha.socket}"
    say("\nTry next" + ("" if keep else ", after 'scripts/demo --keep' (it prints them with its own socket)") + ":")
    say(f"  {peerctl} services search words")
    say(f"  {peerctl} logs {execution_id} merge")
    say(f"  {peerctl} --peer beta jobs list")
    if not keep:
        say(f"The result stays where it is: less {directory / 'words.tsv'}")


def cancel_everything(alpha: Peer) -> None:
    """Before daemons stop: their jobs would otherwise finish without them, as they should on a real machine."""
    try:
        for execution in alpha.json("executions", "list", "--status", "pending,running")["executions"]:
            number = execution["workflow_execution_id"]
            alpha.peerctl("executions", "cancel", number, "--wait", "--timeout", "5s")
    except (DemoError, subprocess.SubprocessError, ValueError):
        pass  # it did not even start, or is stuck; stopping the daemons is all that is left


def remove_all_but(folder: Path, kept: Path | None) -> None:
    """Delete the folder, but for the result's directory."""
    for path in folder.iterdir():
        if kept is not None and kept == path:
            continue
        if kept is not None and kept.is_relative_to(path):
            remove_all_but(path, kept)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def perform(folder: Path, peers: list[Peer], *, megabytes: float, keep: bool) -> Path:
    texts = folder / "texts"
    files, size = collect_texts(texts, megabytes)
    say(f"{files} texts, {size / 1e6:.1f} MB, from the Python standard library\n")
    form_mesh(peers)
    offers = declarations(texts)
    for peer in peers:
        publish(peer, offers[peer.name], folder)
    say("\n$ peerctl services search")
    say(peers[0].peerctl("services", "search"))
    execution_id = run_workflow(peers[0])
    directory = Path(peers[0].json("executions", "show", str(execution_id))["delivery_directory"])
    show_result(directory)
    say_what_next(peers[0], execution_id, directory, keep=keep)
    return directory


def terminated(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="Three peers on this machine run a workflow together.")
    parser.add_argument("--keep", action="store_true", help="leave the daemons running and keep their data")
    parser.add_argument("--megabytes", type=float, default=12, help="how much text to count (default: 12)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, terminated)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="peerd-demo-"))
    peers = [Peer(name, folder) for name in NAMES]
    result: Path | None = None
    failure = ""
    try:
        result = perform(folder, peers, megabytes=options.megabytes, keep=options.keep)
    except KeyboardInterrupt:
        failure = "interrupted"
    except DemoError as exc:
        failure = str(exc)
    except Exception as exc:  # whatever it was, the daemons must not outlive us
        failure = f"{type(exc).__name__}: {exc}"
    if result is not None and options.keep:
        pids = " ".join(str(peer.process.pid) for peer in peers if peer.process is not None)
        say(f"\nThe three daemons run on. To end them: kill {pids}; rm -r {folder}")
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # cleaning up takes a second or two; let it
    if failure:
        print(f"\nerror: {failure}", file=sys.stderr)
        cancel_everything(peers[0])
    for peer in peers:
        peer.stop()
    if failure and failure != "interrupted":
        for peer in peers:
            if peer.log.exists():
                print(f"--- {peer.name}\n{peer.log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
    remove_all_but(folder, result)
    if result is None:
        folder.rmdir()
        return 130 if failure == "interrupted" else 1
    say(f"Done in {time.monotonic() - started:.0f} s; nothing runs any more.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
