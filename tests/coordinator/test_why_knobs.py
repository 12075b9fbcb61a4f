"""What would admit an agent, for any problem that says its knobs: a machine of two quantities, against closed forms."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from coordinator.coordinator import Admits
from games.congestion import CongestionBatch
from games.places import Places, classes
from hybridalloc.problems.contract import Card, Explains, Knob, Knobs
from hybridalloc.problems.knobs import FINE, Admitting, changed, ranks_above, words
from hybridalloc.problems.metrics import Metric, Ratio

ROWS = np.array([[-1], [0], [1]])  # opt out, the machine, its twin


@dataclass(frozen=True)
class State:
    """N jobs and two machines of ``speed`` units/s; a job holds work / (speed x deadline) of the one that it is on."""

    work: np.ndarray
    deadline_s: np.ndarray
    speed: np.ndarray
    priority: np.ndarray
    dear: float = 0.0  # what the twin costs

    def need(self, option):
        speed = self.speed[np.maximum(option, 1) - 1]
        return np.where(option > 0, self.work / (speed * self.deadline_s), 0.0)


class World:
    def __init__(self, state):
        self.state = state

    def game(self, prices):
        n = len(self.state.work)
        private = np.tile([10.0, 0.0, self.state.dear], (1, n, 1))
        return CongestionBatch(
            ROWS, np.zeros((1, n, 2)), np.ones((1, 2)), private, np.ones((1, n, 3), bool), np.ones((1, n), bool),
            np.zeros((1, 2)),
        )  # fmt: skip

    def settle(self, option, prices, proposal=None, trust=np.inf, seating=None):
        s = self.state
        if seating is not None:
            return SimpleNamespace(option=seating.option, served=seating.held)
        served, room = np.zeros(option.shape, bool), np.ones(3)
        for i in np.argsort(-s.priority, kind="stable"):
            o, need = option[0, i], s.need(option[0])[i]
            served[0, i] = o > 0 and need <= room[o] * (1 + 1e-12)
            room[o] -= need * served[0, i]
        return SimpleNamespace(option=option, served=served)


class Seating(World):
    def places(self, prices, game):
        s = self.state
        n = len(s.work)
        seconds = np.zeros((1, n, 3, 1))
        seconds[0, :, 1:, 0] = s.work[:, None] / s.speed
        acceptable = game.private_cost <= game.private_cost[..., :1]
        acceptable[..., 0] = False
        return Places(
            seconds, np.tile(s.deadline_s[:, None], (1, 1, 3)), np.full((1, n, 3), np.inf), acceptable,
            classes(s.priority[None]), np.zeros((1, n), bool), np.ones((1, n)),
        )  # fmt: skip


@dataclass(frozen=True)
class Machines(Admitting):
    """All that a domain writes: its words, its worlds, what may be turned."""

    world: type = Seating
    card = Card("machines", 3, 1, SimpleNamespace, (Metric("done", "done", "", "higher", Ratio("a")),), ("done",),
                agent_word="job")  # fmt: skip

    def world_at(self, state, memory=None):
        return self.world(state)

    def knobs(self, state, allocation, agent, prices):
        tau, used = state.deadline_s[agent], state.need(allocation.option)[allocation.served].sum()
        later = lambda value: replace(state, deadline_s=changed(state.deadline_s, agent, value))
        faster = lambda k: lambda factor: replace(state, speed=changed(state.speed, k, state.speed[k] * factor))
        higher = lambda value: replace(state, priority=changed(state.priority, agent, value))
        others = np.delete(state.priority, agent)
        return [
            *(
                Knob("speed", 1.0, faster(k), words("{} units/s, not {}", state.speed[k]), rivals="speed",
                     told=lambda factor, k=k: state.speed[k] * factor) for k in (0, 1)
            ),
            Knob("deadline_s", tau, later, words("{} s, not {}", tau),
                 guess=state.work[agent] / state.speed[0] / (1 - used)),
            Knob("priority", state.priority[agent], higher, words("priority {}, not {}", state.priority[agent]),
                 values=ranks_above(state.priority[agent], others, 0.0) if allocation.seated else ()),
        ]  # fmt: skip


def allocated(option, served, seated):
    option, served = np.array(option), np.array(served)
    return SimpleNamespace(
        option=option, served=served, held=served & seated, seated=seated, log_prior=np.zeros((len(option), 3)),
        trust=np.inf, anchor=None, origin=None,
    )  # fmt: skip


# three jobs that need .4 of a machine of 5; the twin is slow: alone it would take them 4 / .5 = 8 s
TOO_MANY = State(np.full(3, 4.0), np.full(3, 2.0), np.array([5.0, 0.5]), np.array([3.0, 2.0, 1.0]))


@pytest.mark.parametrize("seated", [True, False])
def test_a_domain_that_says_its_knobs_is_told_the_least_of_each_on_both_sides(seated):
    problem, state = Machines(Seating if seated else World), TOO_MANY
    assert isinstance(problem, Knobs) and isinstance(problem, Explains)
    assert isinstance(problem.world_at(state), Admits) == seated
    allocation = allocated([1, 1, 0] if seated else [1, 1, 1], [True, True, False], seated)
    rows = problem.admits(state, allocation, 2, None)
    faster, later = rows[:2]
    assert (faster["knob"], later["knob"]) == ("speed", "deadline_s")  # factors 1.2 and 2; the twin needs 4 x as fast
    assert faster["now"] == 5.0 and 6.0 <= faster["needed"] <= 6.0 + FINE * 1.1
    assert later["needed"] == pytest.approx(4.0, rel=1e-12) and later["factor"] == pytest.approx(2.0)
    assert later["text"] == "4 s, not 2" and faster["option"] == later["option"] == 1
    assert [row["knob"] for row in rows[2:]] == ["priority"] * seated
    if seated:  # above the second of three, whose place it takes
        assert rows[2]["needed"] == 2.5 and rows[2]["text"] == "priority 2.5, not 1, in place of job 1"
    for turned, row in ((replace(state, speed=np.array([faster["needed"], 0.5])), faster),
                        (replace(state, deadline_s=np.array([2, 2, later["needed"]])), later)):  # fmt: skip
        (as_it_is,) = problem.admits(turned, allocation, 2, None)
        assert as_it_is["knob"] == "again"
        short = row["needed"] - 2 * FINE * (row["needed"] - row["now"])
        less = {"speed": np.array([short, 0.5])} if row is faster else {"deadline_s": np.array([2, 2, short])}
        assert problem.admits(replace(state, **less), allocation, 2, None)[0]["knob"] != "again"


def test_what_takes_the_place_of_an_equal_comes_after_what_does_not():
    """Of equals who needs less is served: 2.1 s would do where the equal has 2, and the equal then has no place."""
    state = replace(TOO_MANY, priority=np.array([3.0, 1.0, 1.0]))
    rows = Machines().admits(state, allocated([1, 1, 0], [True, True, False], True), 2, None)
    kept = [(row["knob"], row["text"]) for row in rows]
    assert kept[:2] == [("speed", kept[0][1]), ("deadline_s", "4 s, not 2")]
    assert "in place of" not in kept[0][1] + kept[1][1]
    harmful = [row for row in rows[2:] if row["knob"] == "deadline_s"]
    assert all(row["factor"] < 2 and row["text"].endswith("in place of job 1") for row in harmful)

    class Rough(Machines):
        gentle = False

    rough = Rough().admits(state, allocated([1, 1, 0], [True, True, False], True), 2, None)
    assert len([row for row in rough if row["knob"] == "deadline_s"]) == 1
    assert len(harmful) == 1


@pytest.mark.parametrize(("seated", "text"), [(True, "even alone costs more than opting out"), (False, "to all")])
def test_options_that_would_serve_and_cost_too_much_are_told_last(seated, text):
    state = replace(TOO_MANY, speed=np.array([5.0, 3.0]), dear=20.0)
    problem = Machines(Seating if seated else World)
    rows = problem.admits(state, allocated([1, 1, 0] if seated else [1, 1, 1], [True, True, False], seated), 2, None)
    assert rows[-1]["knob"] == "option" and rows[-1]["needed"] == [2] and rows[-1]["text"].endswith(text)
    cheap = problem.admits(TOO_MANY, allocated([1, 1, 0], [True, True, False], seated), 2, None)
    assert all(row["knob"] != "option" for row in cheap)  # the twin serves nobody in 2 s


def test_where_there_are_no_options_to_go_to_the_knobs_are_told_all_the_same():
    """A game of levels alone, as a quadratic one: nothing is asked of options, nor of a log prior."""

    class Levels(World):
        def game(self, prices):
            return SimpleNamespace()

    allocation = allocated([1, 1, 1], [True, True, False], False)
    allocation.log_prior = None
    told = Machines(Levels).admits(TOO_MANY, allocation, 2, None)
    assert [row["knob"] for row in told] == ["speed", "deadline_s"]


def test_an_allocation_with_places_of_a_problem_that_states_none_is_refused():
    with pytest.raises(ValueError, match="machines states no places, and this allocation has some"):
        Machines(World).admits(TOO_MANY, allocated([1, 1, 0], [True, True, False], True), 2, None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"now": -1.0}, "knob 'speed': now = -1.0; it must be finite and > 0"),
        ({"now": 0.0}, "knob 'speed': now = 0.0; .* or 0 with a guess"),
        ({"now": np.inf}, "knob 'speed': now = inf"),
        ({"now": 1.0, "values": [3.0, 2.0]}, r"knob 'speed': values = \[3.0, 2.0\]; they must ascend"),
    ],
)
def test_a_knob_that_cannot_be_turned_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        Knob("speed", turned=lambda value: value, words=str, **more)
