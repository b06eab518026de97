"""The Python client on real daemons: the examples, a run watched and fetched, files that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peerd.client import Client, SyncClient, Workflow
from peerd.errors import PeerdError, Reason
from peerd.v1 import workflows_pb2

from .fleet import Fleet
from .workflow import allow_commands, need_bubblewrap, tree

pytestmark = pytest.mark.timeout(300)

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Two machines that run ad-hoc commands."""
    made = Fleet(("c", "a"))
    try:
        made.found()
        allow_commands(made)
        yield made
    finally:
        made.close()


def run_example(fleet: Fleet, name: str, out: Path) -> str:
    environ = {**os.environ, "PEERD_SOCKET": str(fleet["c"].socket)}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), str(out)],
        capture_output=True,
        text=True,
        env=environ,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{fleet['c'].tail()}"
    return done.stdout


def test_the_example_without_await(fleet: Fleet, tmp_path: Path) -> None:
    need_bubblewrap()
    said = run_example(fleet, "letters.py", tmp_path / "out")
    assert said.strip().endswith("4 words begin with a vowel") and "3 jobs have ended" in said
    assert tree(tmp_path / "out") == {
        "counts/vowels/count.txt": "4\n",
        "counts/others/count.txt": "1\n",
        "words/vowels.txt": "apple\nelm\noak\numbrella pine\n",
        "words/others.txt": "beech\n",
    }


def test_the_example_with_asyncio(fleet: Fleet, tmp_path: Path) -> None:
    need_bubblewrap()
    said = run_example(fleet, "squares.py", tmp_path / "out")
    assert tree(tmp_path / "out") == {"sum.txt": "1+4+9+16\n"}
    assert "1+4+9+16" in said and "```mermaid" in said and "of squares&#58; completed**" in said
    assert said.count("| completed |") == 5


def steps(name: str, *, write_mb: int = 0, fail: bool = False) -> Workflow:
    wf = Workflow(name, params={"who": "nobody"})
    params = {"name": "made", "write_mb": write_mb, "fail_first": 9 if fail else 0}
    make = wf.job("make", service="step", on={"peer": "a"}, params=params, description="${params.who}")
    wf.deliver(make, to="all")
    wf.deliver(make.stdout, to="log", rename="said.txt")
    return wf


async def test_a_run_is_watched_waited_for_and_fetched(fleet: Fleet, tmp_path: Path) -> None:
    async with Client(socket=fleet["c"].socket) as peerd:
        run = await peerd.run(steps("fetched", write_mb=40))
        assert run.id and run.last.workflow_name == "fetched"
        seen = [execution.status async for execution in run.watch(timeout=60)]
        assert seen[-1] == workflows_pb2.EXECUTION_STATUS_COMPLETED
        execution = await run.result()
        home = Path(execution.delivery_directory)
        written = await run.fetch(tmp_path / "out")
        assert sorted(written) == sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
        for path in written:
            assert path.read_bytes() == (home / path.relative_to(tmp_path / "out")).read_bytes()
        assert max(path.stat().st_size for path in written) >= 40 * 1024**2
        assert await run.logs("make") == "made was here\n"
        only = await run.fetch(tmp_path / "some", files=["log/*"])
        assert [str(path.relative_to(tmp_path / "some")) for path in only] == ["log/said.txt"]
        with pytest.raises(PeerdError) as nothing:
            await run.fetch(tmp_path / "none", files=["*.png"])
        assert nothing.value.reason is Reason.NO_FILES_MATCH and "'log/said.txt'" in nothing.value.message
        assert "| make | a | completed |" in run._repr_markdown_()
        assert (await run.why("make")).job.node_id == "make"
        again = await peerd.handle(run.id)
        assert again.last == run.last or again.last.status == run.last.status
        for bad in (["../*"], [""]):
            with pytest.raises(PeerdError) as refused:
                await peerd.fetch(run.id, tmp_path / "bad", files=bad)
            assert refused.value.reason is Reason.INVALID_ARGUMENT and refused.value.violations[0].field == "files[0]"
        with pytest.raises(PeerdError) as unknown:
            await peerd.fetch(4711, tmp_path / "bad")
        assert unknown.value.reason is Reason.NOT_FOUND


def test_peerctl_fetches_too_and_a_changed_file_is_noticed(fleet: Fleet, tmp_path: Path) -> None:
    with SyncClient(socket=fleet["c"].socket) as peerd:
        run = peerd.run(steps("cli"))
        home = Path(run.result(timeout=60).delivery_directory)
    said = fleet["c"].peerctl("executions", "fetch", str(run.id), str(tmp_path / "out"), "--files", "log/*").stdout
    assert said == f"{tmp_path}/out/log/said.txt\n"
    (home / "log" / "more.txt").symlink_to("/etc/passwd")
    refused = fleet["c"].peerctl("executions", "fetch", str(run.id), str(tmp_path / "out"), code=1).stderr
    assert "not_a_regular_file" in refused


def test_a_failed_run_raises_and_says_what_a_daemon_says(fleet: Fleet, tmp_path: Path) -> None:
    with SyncClient(socket=fleet["c"].socket) as peerd:
        run = peerd.run(steps("fails", fail=True))
        with pytest.raises(PeerdError) as caught:
            run.result(timeout=60)
        assert caught.value.reason is Reason.EXECUTION_FAILED and "make" in caught.value.message
        assert run.last.status == workflows_pb2.EXECUTION_STATUS_FAILED
        assert "failed" in run._repr_html_() and repr(run).endswith("of fails, failed>")
        assert run.fetch(tmp_path / "out") == []
        assert run.why("make").events
        assert peerd.handle(run.id).last.error


async def test_the_daemon_refuses_as_the_workflow_itself_does(fleet: Fleet) -> None:
    wf = steps("bad")
    wf.job("late", service="step", inputs=["nobody", {"from": "make", "files": ["/x"]}], timeout="soon")
    with pytest.raises(PeerdError) as here:
        wf.check()
    async with Client(socket=fleet["c"].socket) as peerd:
        with pytest.raises(PeerdError) as there:
            await peerd.run(wf)
    assert there.value.reason is here.value.reason is Reason.INVALID_DEFINITION
    assert there.value.violations == here.value.violations
    assert {violation.field for violation in there.value.violations} >= {
        "jobs[1].inputs[0].from", "jobs[1].inputs[1].files[0]", "jobs[1].timeout",
    }  # fmt: skip


def test_a_run_is_cancelled_and_an_asynchronous_call_is_made_without_await(fleet: Fleet) -> None:
    with SyncClient(socket=fleet["c"].socket) as peerd:
        wf = Workflow("long")
        wf.job("sleep", service="step", on={"peer": "a"}, params={"name": "s", "seconds": 600})
        run = peerd.run(wf)
        run.cancel(reason="enough")
        with pytest.raises(PeerdError, match="cancelled"):
            run.result(timeout=60)
        assert len(peerd.do(lambda client: client.peers())) == 2
        assert run.refresh().cancel_reason == "enough"
    peerd.close()
