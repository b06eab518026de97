"""Meshes in virtual time. The long runs are ``scripts/simulate``; these are their short forms."""

from __future__ import annotations

import pytest

from peerd.detector.model import State
from tests.detector.simulator import Simulation, measure, measure_heal


@pytest.mark.parametrize(("peers", "within"), [(3, 10.0), (10, 10.0), (60, 20.0)])
def test_a_death_is_seen_by_all_and_nobody_else_is_thought_dead(peers: int, within: float) -> None:
    simulation = Simulation(peers, seed=peers, loss=0.05)
    simulation.run(30)
    simulation.kill(1)
    simulation.run(within)
    seen = simulation.tally.detections[1]
    assert len(seen) == peers - 1
    assert max(seen) < within
    assert simulation.tally.false_deaths == 0


def test_with_message_loss_nobody_is_thought_dead_who_is_not() -> None:
    result = measure(50, 900, loss=0.05, seed=7, deaths=3)
    assert (result["false_deaths"], result["detections_missing"]) == (0, 0)


def test_without_faults_nobody_is_even_suspected() -> None:
    simulation = Simulation(30, seed=3)
    simulation.run(300)
    assert (simulation.tally.false_suspicions, simulation.tally.false_deaths) == (0, 0)
    assert len(simulation.digests()) == 1


def test_the_cost_of_a_peer_does_not_grow_with_the_mesh() -> None:
    def cost(peers: int) -> tuple[float, float]:
        simulation = Simulation(peers, seed=5)
        simulation.run(120)
        return simulation.tally.messages / peers / 120, simulation.tally.octets / peers / 120

    small, large = cost(10), cost(150)
    assert large[0] == pytest.approx(small[0], rel=0.1)
    assert large[1] == pytest.approx(small[1], rel=0.1)


@pytest.mark.parametrize(("peers", "loss"), [(4, 0.0), (20, 0.0), (80, 0.0), (80, 0.05)])
def test_halves_that_meet_again_agree_within_ten_periods(peers: int, loss: float) -> None:
    result = measure_heal(peers, seed=peers, loss=loss)
    assert result["halves_apart"] is True
    assert float(str(result["periods_to_equal_views"])) <= 10


def test_a_peer_that_returns_is_there_for_all_at_once() -> None:
    simulation = Simulation(20, seed=2)
    simulation.run(10)
    simulation.kill(4)
    simulation.run(30)
    assert all(simulation.states(index, 4) is State.OFFLINE for index in range(20) if index != 4)
    simulation.restart(4)
    simulation.run(5)
    assert all(simulation.states(index, 4) is State.ALIVE for index in range(20) if index != 4)
    assert all(simulation.states(4, index) is State.ALIVE for index in range(20) if index != 4), "it knows everybody"


def test_one_who_was_stopped_blames_itself_and_not_the_others() -> None:
    simulation = Simulation(8, seed=11)
    simulation.run(20)
    simulation.pause(0, 30)
    simulation.run(25)
    assert all(simulation.states(index, 0) is State.OFFLINE for index in range(1, 8))
    before = simulation.tally.false_suspicions
    simulation.run(5.5)
    assert simulation.nodes[0].detector.health > 0
    simulation.run(60)
    assert simulation.tally.false_suspicions == before
    assert simulation.tally.false_deaths == 0
    assert all(simulation.states(index, 0) is State.ALIVE for index in range(1, 8))
    assert simulation.nodes[0].detector.health == 0, "it has recovered"


def test_a_starved_peer_suspects_itself_and_is_not_thought_dead_while_it_answers_in_between() -> None:
    simulation = Simulation(6, seed=4)
    simulation.run(10)
    worst = 0
    for _ in range(20):
        simulation.pause(2, 1.5)
        for _ in range(5):
            simulation.run(0.5)
            worst = max(worst, simulation.nodes[2].detector.health)
    assert worst >= 2
    assert simulation.tally.false_deaths == 0
    assert all(simulation.states(2, index).present for index in range(6) if index != 2)


def test_one_who_says_that_it_goes_is_never_suspected() -> None:
    simulation = Simulation(12, seed=9)
    simulation.run(5)
    leaver = simulation.nodes[3]
    simulation._perform(leaver, leaver.detector.leave())
    simulation.run(1)
    leaver.up = False
    simulation.run(60)
    assert all(simulation.states(index, 3) is State.LEFT for index in range(12) if index != 3)
    assert simulation.tally.false_suspicions == 0


def test_newcomers_learn_everybody_from_anybody() -> None:
    simulation = Simulation(15, seed=6)
    simulation.run(5)
    simulation.kill(7)
    simulation.run(40)
    simulation.kill(0)
    simulation.restart(0)
    simulation.run(5)
    newcomer = simulation.nodes[0].detector
    known = {member.peer_id for member in newcomer.members.values() if member.state is State.ALIVE}
    assert len(known) == 13
    assert simulation.states(0, 7) is State.OFFLINE, "and was never told that the dead are alive"
    assert not any(change.peer_id == simulation.nodes[7].peer_id for change in newcomer.take_transitions())
