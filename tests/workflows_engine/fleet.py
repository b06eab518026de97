"""Three machines, each executor and orchestrator in one daemon, their network and one time: all that peerd is, small.

Every choice comes from outside, so that Hypothesis can make and shrink it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from peerd.clock import Millis
from peerd.errors import PeerdError
from peerd.jobs.model import Job
from peerd.transfers.model import TransferKey
from peerd.workflows import events as e
from peerd.workflows.model import ExecutionSpec

from .machine import Executor
from .model import Model
from .network import Host, Network
from .orchestration import Cancel, Orchestration, Orchestrator, Start, Sync, Tell
from .parcels import Manifest, Offer, Push, Receiver
from .rows import Create

NAMES = ("p", "q", "r")
TICK_MS = 50


@dataclass(kw_only=True)
class Machine:
    """One daemon."""

    fleet: Fleet
    host: Host
    executor: Executor = field(init=False)
    orchestrator: Orchestrator = field(init=False)
    receiver: Receiver = field(init=False)
    telling: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        network, name = self.fleet.network, self.host.name
        self.executor = Executor(name=name, network=network, witness=self.fleet.model)
        others = [other for other in NAMES if other != name]
        self.orchestrator = Orchestrator(
            name=name, network=network, peers=[*others, name], believes=self.fleet.believed_up
        )
        self.receiver = Receiver(expect=self._expect, publish=self._publish)
        self.executor.forget_received = self.receiver.forget

    @property
    def awake(self) -> bool:
        return not self.host.down and not self.host.paused

    def serve(self, caller: str, body: object) -> object:
        """Any call."""
        match body:
            case Create():
                return self.executor.create(body)
            case Start():
                return self.executor.start(body.key, body.request)
            case Cancel():
                return self.executor.cancel(body.key)
            case Sync():
                return self.executor.sync(body.keys)
            case Tell():
                return self.orchestrator.tell(caller, body)
            case Offer() | Push():
                return self.receiver.serve(body)
        raise TypeError(body)

    def _expect(self, key: TransferKey) -> None:
        if key.destination_job_execution_id:
            self.executor.expect(key)
        else:
            self.orchestrator.executions[key.workflow_execution_id].expect(key)

    def _publish(self, key: TransferKey, manifest: Manifest) -> None:
        receiver = (self.host.name, key.destination_job_execution_id)
        self.fleet.model.arrives(key.orchestrator, key.edge_id, *receiver, manifest)
        if key.destination_job_execution_id:
            self.executor.received(key, manifest)
        else:
            self.orchestrator.executions[key.workflow_execution_id].received(key, manifest)

    def steps(self) -> list[Callable[[], None]]:
        """What its daemon could do by itself."""
        if not self.awake:
            return []
        outbox = self.executor.unacknowledged()
        tells = [lambda peer=peer: self._tell(peer) for peer in outbox if peer not in self.telling]
        return [*self.executor.steps(), *tells]

    def _tell(self, peer: str) -> None:
        reports = self.executor.unacknowledged().get(peer, [])
        self.telling.add(peer)

        def answered(answer: object) -> None:
            self.telling.discard(peer)
            if isinstance(answer, dict):
                for key, revision in answer.items():
                    self.executor.acknowledge(key, revision)
            else:
                assert isinstance(answer, PeerdError)

        self.fleet.network.call(self.host.name, peer, Tell(reports=tuple(reports)), answered)

    def crash(self, *, reboot: bool) -> None:
        if not self.host.down:
            self.host.down, self.host.paused = True, False
            self.fleet.model.excuse(self.host.name)
            self.fleet.network.forget(self.host.name)
            self.telling.clear()
            self.receiver.crash()
        self.executor.crash(reboot=reboot)

    def restart(self) -> None:
        if self.host.down:
            self.host.down = False
            self.executor.recover()
            self.orchestrator.start()

    def pause(self) -> None:
        if not self.host.down:
            self.host.paused = True
            self.fleet.model.excuse(self.host.name)

    def tick(self) -> None:
        """Time has passed."""
        if self.awake:
            self.fleet.network.expire(self.host.name)
            self.executor.expire()
            self.orchestrator.look()


class Fleet:
    """Everything."""

    def __init__(self) -> None:
        self.network = Network()
        self.model = Model()
        self.network.late = self.model.renewed_late
        self.machines: dict[str, Machine] = {}
        for name in NAMES:
            host = Host(name=name, serve=lambda caller, body, name=name: self.machines[name].serve(caller, body))  # type: ignore[misc]
            self.network.hosts[name] = host
            self.machines[name] = Machine(fleet=self, host=host)

    @property
    def executions(self) -> list[Orchestration]:
        return [*self.model.executions.values()]

    def believed_up(self, name: str) -> bool:
        """What the detector of failures says: it sees who is down, not who is cut off from one."""
        return not self.network.hosts[name].down and not self.network.hosts[name].paused

    def request(self, home: str, spec: ExecutionSpec, pins: dict[str, str], *, stop_policy: bool, items: int) -> None:
        orchestrator = self.machines[home].orchestrator
        execution = Orchestration(
            spec=spec,
            home=orchestrator,
            pins=pins,
            stop_policy=stop_policy,
            items=items,
            watch=self.model.written,
            check=self.model.check,
        )
        orchestrator.executions[spec.execution_id] = self.model.executions[home] = execution
        execution.happens(e.ExecutionRequested(at=self.network.now))

    def running(self) -> list[tuple[Executor, int]]:
        """Processes, also of machines whose daemon is away."""
        machines = self.machines.values()
        return [(m.executor, a) for m in machines for a, how in m.executor.processes.items() if how == "running"]

    def steps(self) -> list[Callable[[], None]]:
        return [step for machine in self.machines.values() for step in machine.steps()]

    def deliver(self, index: int, *, keep: bool = False) -> None:
        self.network.deliver(index, keep=keep)

    def pass_time(self, millis: int) -> None:
        for _ in range(0, millis, TICK_MS):
            self.network.now = Millis(self.network.now + TICK_MS)
            for machine in self.machines.values():
                machine.tick()

    def flow(self) -> None:
        """Everything that is on the wire arrives, and everybody does what could be done."""
        for _ in range(len(self.network.wire)):
            waiting = [i for i, m in enumerate(self.network.wire) if not self.network.hosts[m.target].paused]
            if not waiting:
                break
            self.deliver(waiting[0])
        for step in self.steps():
            step()

    def heal(self) -> None:
        self.network.cuts.clear()
        for machine in self.machines.values():
            machine.restart()
            machine.host.paused = False
            machine.executor.refuses = None

    def open_jobs(self) -> list[Job]:
        return [job for m in self.machines.values() for job in m.executor.jobs.values() if not job.status.final]

    def settle(self) -> None:
        """The faults stop, time passes, and everything ends."""
        self.heal()
        for _ in range(1500):
            if all(execution.state.settled for execution in self.executions) and not self.open_jobs():
                return
            self.flow()
            for executor, attempt_id in self.running():
                executor.exits(attempt_id, "ok")
            self.pass_time(TICK_MS)
        raise AssertionError(f"it does not end: {[self._waiting(x) for x in self.executions]} {self.open_jobs()}")

    @staticmethod
    def _waiting(execution: Orchestration) -> object:
        return (
            execution.state.status,
            execution.state.stopping,
            [job for job in execution.state.jobs.values() if not job.final],
        )
