"""E networks of ``mec`` stepped together: what the coordinator, the recommenders and the trainer read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from coordinator.congestion import Congestion
from coordinator.continuous import for_option
from coordinator.game import Choice, options_of
from coordinator.improve import Start, Task
from coordinator.shortlisted import Short
from games.admission import Seating
from games.congestion import Bool, CongestionBatch, Float, Int
from games.errors import InvalidStateError
from games.places import Places, classes
from hybridalloc.problems.contract import Facts
from hybridalloc.problems.mec import arrays, build, execution, law, settling
from hybridalloc.problems.mec.arrays import Outcome, Plan, Prices, Reports, Seen, World
from hybridalloc.problems.mec.audit import Believed
from hybridalloc.problems.mec.belief import (
    Belief,
    History,
    Memory,
    copy_history,
    new_history,
    notice,
    remember_plan,
)
from hybridalloc.problems.mec.clairvoyant import clairvoyant
from hybridalloc.problems.mec.climb import climb, expected, no_wish
from hybridalloc.problems.mec.heuristics import at_random, greedy, local, nearest, selfish
from hybridalloc.problems.mec.law import Counts, Stream, streams
from hybridalloc.problems.mec.listing import listed
from hybridalloc.problems.mec.plans import empty_outcome, empty_plan, parts_of, plan_of, worst_excess
from hybridalloc.problems.mec.score import above_median, score
from hybridalloc.problems.mec.setting import BASELINES, BOUND, MecSetting, option_rows
from hybridalloc.problems.mec.sites import draw_sites, reuse_groups
from hybridalloc.problems.mec.standing import empty_world, looked_at, made_out, state_of
from hybridalloc.problems.mec.state import MecState
from hybridalloc.problems.mec.views import drawn, observation, outlook, with_day, with_shedding
from hybridalloc.problems.slots import SlotWorld, named
from hybridalloc.problems.stores import Storing
from rl.proposal import Observation, Proposal
from rl.proposal import named as named_levels
from rl.value import Stored, Worth

ORIGIN = streams([0])
OF_A_DAY = ("worth", "harvest_log_j", "cloudy", "panel", "orientation_h")  # a network's, where hours differ


class MecWorld(Storing, SlotWorld):
    """E networks stepped together. The trainer's view of the problem, and the allocator's with E = 1.

    ``world`` holds them as plain arrays, ``stream`` (E, 2) is the whole state of the random numbers (see
    :mod:`hybridalloc.problems.mec.law`), ``history`` what a belief remembers.
    """

    def __init__(
        self, problem: MecSetting, world: World | None, options: Int, stream: Stream, at: MecState | None = None
    ) -> None:
        self.problem, self.options, self.stream = problem, options, stream
        self.physics, self.law = problem.physics, problem.law
        super().__init__(1 if world is None else len(world.active), problem.scenario.episode)
        self.belief: Belief | None = None
        self.responses: dict[str, Float] = {}
        self._blocked_then: Float | None = None
        self._at, self._world = at, world
        self._seen: Seen | None = None
        self._slim: Seen | None = None  # what settling reads, on the links that were listed
        self._priority: Float | None = None
        self._classes: Int | None = None
        if world is not None:
            self._take_reports(np.ones(len(world.active), bool))

    @property
    def world(self) -> World:
        """The networks, with all that is true of them. One that stands at a state is made out when it is asked for:
        to decide takes :attr:`seen` alone."""
        if self._world is None:
            assert self._at is not None
            self._world, self._seen, self._slim = made_out(self._at, self.problem.scenario.day), None, None
            self._priority = self._classes = None
            self._take_reports(np.ones(1, bool))
        return self._world

    @world.setter
    def world(self, world: World) -> None:
        self._world, self._seen, self._slim = world, None, None
        self._priority = self._classes = None

    @property
    def seen(self) -> Seen:
        """What a decision reads of them: the world's own arrays, once there is one."""
        if self._seen is None and self._world is None and self._at is not None:
            self._seen = looked_at(self.physics, self._at)
        elif self._seen is None:
            w = self.world
            self._seen = Seen(*[getattr(w, name) for name in Seen._fields])
        return self._seen

    def _own(self, name: str) -> NDArray[Any]:
        """A field of the world, without making one out."""
        if self._world is None and self._at is not None:
            return np.asarray(getattr(self._at, name)[None])
        return np.asarray(getattr(self.world, name))

    def choices(self) -> int:
        """Options a device."""
        return len(self.options)

    def shortlisted(self, prices: Prices, width: int) -> Short | None:
        """The network on short lists; None where a belief, a value of batteries, a day or shedding has a say, and for
        anything but one network at a state."""
        s, at = self.problem.scenario, self._at
        plain = self.belief is None and self.value is None and not s.day and not s.sheds
        if at is None or self._world is not None or not plain or not len(at.server_hz):
            return None
        short, self._slim = listed(self.physics, at, prices, self.classes()[0], width)
        return short

    @property
    def blocked_then(self) -> Float:
        """The Bayesian oracle's note; at first the network's own array."""
        return self.world.attenuation if self._blocked_then is None else self._blocked_then

    @blocked_then.setter
    def blocked_then(self, blocked: Float) -> None:
        self._blocked_then = blocked

    def _take_reports(self, which: Bool) -> None:
        w = self.world
        build.believe(self.physics, Reports(*[getattr(w, name) for name in Reports._fields]), which)

    @cached_property
    def history(self) -> History:
        """What a belief remembers; nothing until one looks."""
        e, n, b = self.seen.rate.shape
        return new_history(e, n, b, self.seen.server_hz.shape[1])

    @property
    def active(self) -> Bool:
        """(E, N) who has a task."""
        return self._own("active")

    def attach(self, belief: Belief | None) -> Self:
        """Believe ``belief`` from now on, instead of the reports at their face value; returns this world."""
        self.belief = belief
        values = 1 if belief is None else belief.quantiles
        self.world = self.world._replace(rates=np.zeros((*self.world.rate.shape, values)))
        self._believe(np.ones(self.size, bool))
        return self

    def resume(self, memory: Memory) -> Self:
        """Go on with a belief and what it remembers; the memory is left as it was."""
        self.history = copy_history(memory.history)
        if memory.blocked_then is not None:
            self.blocked_then = memory.blocked_then
        return self.attach(memory.belief)

    def _believe(self, which: Bool) -> None:
        """New reports of the networks ``which`` are in."""
        self.moved_on()
        self._take_reports(which)
        if self.belief is not None:
            notice(self.physics, self.world, self.history, which)
            self.belief.look(self, which)

    @classmethod
    def fresh(cls, problem: MecSetting, seeds: Sequence[int]) -> Self:
        e, n, k, per = len(seeds), problem.agents, problem.servers, problem.bands
        world = cls(problem, empty_world(e, n, k, k * per, problem.scenario.day), problem.options(), streams(seeds))
        world.restart(np.ones(e, bool))
        return world

    @classmethod
    def of_state(cls, problem: MecSetting, state: MecState) -> Self:
        k, bands = len(state.server_hz), state.reported_gain_db.shape[1]
        if (logged := state.harvest_log_j.shape[1]) not in (0, problem.scenario.day):
            raise InvalidStateError(
                f"harvest_log_j has {logged} slots a device; a day of this problem has {problem.scenario.day}"
            )
        return cls(problem, None, option_rows(k, bands, problem.scenario.sheds), ORIGIN.copy(), state)

    def state(self, e: int) -> MecState:
        """Network ``e`` as a state with its truth."""
        return state_of(self.world, e)

    # --- what the coordinator and the recommenders read

    def observe(self) -> Observation:
        """Features of every network; see :mod:`.views`. Where there is a day, each device sees its task's worth and
        :meth:`outlook`, where tasks may be shed, what each option draws."""
        s, found = self.problem.scenario, observation(self.physics, self.seen)
        if s.day:
            found = with_day(found, s, self.seen, self.outlook())
        return with_shedding(found, self.physics, self.drawn()) if s.sheds else found

    def outlook(self) -> Float:
        """What an operator knows of a device's days to come, see :func:`.views.outlook`."""
        return outlook(self.physics, self.world, self.problem.scenario.day)

    def stored(self) -> Stored:
        """Every device's battery, with what is known of its days to come."""
        w = self.world
        capacity = np.full(w.battery_j.shape, self.physics.battery_j)
        return Stored(w.battery_j.copy(), capacity, self.outlook(), self.drawn())

    def refill(self, level: Float) -> None:
        """Set every battery, in J."""
        self.world.battery_j[:] = level
        self.moved_on()

    def drawn(self) -> Float:
        """(E, N, O) J that each option is believed to draw from a device's battery, see :func:`.views.drawn`."""
        return drawn(self.physics, self.world, len(self.options))

    def game(self, prices: Prices) -> CongestionBatch:
        """The congestion game of each network under ``prices``; agents without a task are not live. Where what is left
        in a battery has a value, that is charged instead of the price of energy."""
        w, worth = self.seen, self.worth()
        prices = prices if worth is None else prices._replace(energy=0.0)
        e, n, b = w.rate.shape
        r = b + w.server_hz.shape[1]
        weight = np.zeros((e, n, r))
        capacity = np.ones((e, r))
        private = np.zeros((e, n, len(self.options)))
        allowed = np.zeros((e, n, len(self.options)), bool)
        allowed[..., 0] = True
        build.fill_game(self.physics, w, prices, weight, capacity, private, allowed)
        if worth is not None:
            private += self.store_costs(worth)
        return CongestionBatch(self.options, weight, capacity, private, allowed, w.active, np.full((e, r), prices.toll))

    def places(self, prices: Prices, game: CongestionBatch) -> Places | None:
        """What serving each device on each option takes, see :func:`.build.fill_places`. None in a scenario without
        floors, or where a task may be shed by choice: nothing is reserved there. Nobody is moved to make room: being
        served is a matter of chance here, and a move to a worse link costs more than one more place with little to
        spare brings."""
        if not self.physics.floors or self.problem.scenario.sheds:
            return None
        w = self.seen
        shape = game.private_cost.shape
        p = Places(
            np.zeros((*shape, 2)), np.zeros(shape), np.full(shape, np.inf), np.zeros(shape, bool), self.classes(),
            np.zeros(shape[:2], bool), np.full(shape[:2], np.nan), effort=0,
        )  # fmt: skip
        build.fill_places(self.physics, w, prices, game, p.seconds, p.slack, p.acceptable, p.home)
        return p

    def classes(self) -> Int:
        """(E, N) class of each device, 0 the highest: by service class, or by priority within the scenario's gap."""
        if self._classes is not None:
            return self._classes
        gap = self.problem.scenario.priority_gap
        found = classes(self._own("sla")) if gap is None else classes(self.priority(), gap)
        if self._world is None:  # at a state nothing changes
            self._classes = found
        return found

    def settle(
        self, choice: Choice | Int, prices: Prices, proposal: Proposal | None = None, trust: float = np.inf,
        seating: Seating | None = None,
    ) -> Plan:  # fmt: skip
        """Shares, power and fractions for a joint choice (E, N), after the safety filter: what is executed.

        A choice of a server out of reach, or of a device without a task, becomes option 0; one of shedding the task
        stays, and gets nothing. ``proposal`` gives levels:
        "power" in W and "fraction", either or both, (E, N, D) or, for whichever option is taken, (E, N, O, D); every
        device's best response is pulled towards its mean by its spread, the less the larger ``trust`` is.
        ``responses`` then holds those best responses, nan where there was none to pull.
        ``seating`` is stable admission's answer for ``choice``: its floors are kept, and who holds a place is served.
        """
        option = np.ascontiguousarray(options_of(choice), np.int64)
        w = self._settled_by(option)
        e, n, b = w.rate.shape
        k = w.server_hz.shape[1]
        shed = None
        if self.problem.scenario.sheds:
            shed = w.active & self.sheds(option)
            option = np.where(self.sheds(option), 0, option)
        if not k:
            option = np.zeros((e, n), np.int64)
        plan = empty_plan(e, n, b, k)
        held, floor = (plan.held, np.zeros((e, n, 2))) if seating is None else (seating.held, seating.floor)
        asked = no_wish(e, n)
        self.responses = {"power": asked.power_response, "fraction": asked.fraction_response}
        if proposal is not None and np.isfinite(trust):
            if unknown := set(proposal.levels) - {"power", "fraction"}:
                raise ValueError(f"a proposal's level is {min(unknown)!r}; mec decides power and fraction")
            levels = named_levels(proposal) or {}
            asked = asked._replace(**{name: for_option(value, self._taken(option)) for name, value in levels.items()})
        at_work = w if shed is None or not shed.any() else w._replace(active=w.active & ~shed)
        settling.settle(
            self.physics, at_work, prices, self.priority(), self.classes(), asked, float(trust), option,
            seating is not None, held, floor, self.energy(prices), plan,
        )  # fmt: skip
        if shed is not None:
            plan.option[shed], plan.served[shed] = len(self.options) - 1, False
        return plan

    def _settled_by(self, option: Int) -> Seen:
        """What settling these options reads: what was listed where that has them all."""
        if self._slim is None:
            return self.seen
        sent = np.flatnonzero(option[0] > 0)
        return self._slim if (self._slim.rate[0, sent, option[0, sent] - 1] > 0.0).all() else self.seen

    def _taken(self, option: Int) -> Int:
        """(E, N) options as they are settled: 0 for who has no task or cannot reach the server."""
        w = self._settled_by(option)
        e, n, b = w.rate.shape
        server = np.maximum(option - 1, 0) // max(b // max(w.server_hz.shape[1], 1), 1)
        able = w.active & w.reachable[np.arange(e)[:, None], np.arange(n), server] if server.size and b else False
        return np.where(able, option, 0)

    def energy(self, prices: Prices) -> Float:
        """(E, N) what a tenth of a joule is worth to each device: its battery's own slope, or the price."""
        worth = self.worth()
        if worth is None:
            return np.full(self.active.shape, prices.energy)
        return arrays.ENERGY_UNIT * worth.price(self._own("battery_j"))

    def left(self, prices: Prices) -> Worth:
        """What is left in every battery is worth after the slot. Where no value says, the price of a joule does, if
        the reward itself charges none; nothing otherwise."""
        worth, p = self.worth(), self.physics
        if worth is not None:
            return worth
        capacity = np.full(self.active.shape, p.battery_j)
        joule = prices.energy / arrays.ENERGY_UNIT if p.batteries and not p.reward_energy else 0.0
        knot = np.ones(1 if joule > 0.0 else 0)
        return Worth(np.full((*capacity.shape, len(knot)), joule * p.battery_j), knot, capacity)

    def expected(self, plan: Plan, prices: Prices, against: Plan | None = None) -> Float:
        """(E,) what the slot is worth under a settled plan, as believed; see :mod:`.expected`."""
        return expected(self, plan, prices, against)

    def climb(self, start: Start, game: Congestion, task: Task) -> Start:
        """Single changes of option that raise what the slot is expected to be worth, prior included."""
        return climb(self, start, game, task)

    def sheds(self, option: Int) -> Bool:
        """Whose task is dropped by choice, of options of any shape."""
        return (option == len(self.options) - 1) & self.problem.scenario.sheds

    def _at_work(self, shed: Bool) -> World:
        """The networks as if those (E, N) had no task."""
        return self.world._replace(active=self.world.active & ~shed) if shed.any() else self.world

    def believed(self) -> Believed | None:
        """What a belief says of network 0 and a value of its batteries, as data for the certificate; None where the
        reports are believed and nothing is valued."""
        worth = self.worth()
        if self.belief is None and worth is None:
            return None
        w = self.seen
        return Believed(w.rates[0], w.cpu_wait_s[0], w.air_wait_s[0], None if worth is None else worth.one(0))

    def priority(self) -> Float:
        """(E, N) the seed's score of each task by the scenario's weights, see :func:`.score.score`."""
        if self._priority is not None:
            return self._priority
        found = score(self.problem.scenario, self.problem.scenario.priority, self._own)
        if self._world is None:  # at a state nothing changes
            self._priority = found
        return found

    def baseline(self, name: str, rng: np.random.Generator) -> Int:
        """(E, N) joint choice of a heuristic of :data:`.setting.BASELINES`."""
        w = self.seen
        if name == "local":
            option = local(w)
        elif name == "random":
            option = at_random(w, rng)
        elif name == "nearest":
            option = nearest(w, rng)
        elif name == "greedy":
            option = greedy(w, self._own("queue_s"), self._own("air_queue_s"))
        elif name == "selfish":
            option = selfish(self.physics, w, self._own("queue_s"), self._own("air_queue_s"))
        elif name == BOUND:
            option = clairvoyant(self, Prices()).option
        else:
            self.unknown_baseline(name, BASELINES)
        return np.where(w.active, option, 0).astype(np.int64)

    def rule(self, name: str, prices: Prices, rng: np.random.Generator) -> tuple[Int, Plan]:
        """Choice and plan of a heuristic. The clairvoyant settles by what is true, too; who is said to be served is so
        as believed, and nobody is promised a place."""
        if name == BOUND:
            plan = clairvoyant(self, prices)
            for part in (plan.held, plan.air_floor, plan.cpu_floor):
                part[:] = 0
            settling.judge(self.physics, self.seen, prices.caution, plan)
            return plan.option, plan
        option = self.baseline(name, rng)
        return option, self.settle(option, prices)

    def excess(self, plan: Plan) -> Float:
        """(E,) worst relative excess over any capacity or power limit, by the certificate's own code."""
        bands, servers = self.world.rate.shape[2], self.world.server_hz.shape[1]
        return worst_excess(self.physics, plan, self.sheds(plan.option), bands, servers)

    def requested(self, option: Int, prices: Prices) -> Float:
        """(E,) share of used resources that a raw choice, executed as requested, would overload."""
        out = np.empty(self.size)
        asked = np.where(self.sheds(option), 0, option).astype(np.int64)
        execution.overload(self.physics, self.world, prices, asked, out)
        return out

    # --- what the world does

    def execute(self, plan: Plan) -> Facts:
        """Run one slot; batteries, queues and ages move on, reports and tasks do not (see :meth:`drift`)."""
        s, active = self.problem.scenario, self.world.active.copy()
        high = above_median(score(s, s.watched, self._own), active) if any(s.watched) else None
        out = self.run(plan)
        e, n = self.world.active.shape
        by_device = ("generated_by", "done_by")
        counts = Counts(**{name: np.zeros((e, n) if name in by_device else e) for name in Counts._fields})
        law.count(self.world, out, counts)
        told = counts._asdict()
        if high is not None:
            for name, half in (("high", high), ("low", active & ~high)):
                told[f"generated_{name}"], told[f"done_{name}"] = half.sum(axis=1), (out.done & half).sum(axis=1)
        return Facts(out.reward, out.lost, out.carried, np.full(e, self.physics.slot_s), told)

    def run(self, plan: Plan) -> Outcome:
        """As :meth:`execute`, with all that happened to each device."""
        w = self.world
        e, n, b = w.rate.shape
        out = empty_outcome(e, n, b)
        queue, air_queue = w.backlog_s.copy(), w.air_backlog_s.copy()
        self.moved_on()
        execution.execute(self.physics, self._at_work(w.active & self.sheds(plan.option)), plan, out)
        stale = self.problem.scenario.dynamics.staleness
        w.queue_s[:] = queue if stale else w.backlog_s
        w.air_queue_s[:] = air_queue if stale else w.air_backlog_s
        w.noise_rise[:] = out.rise
        if stale:
            w.reported_gain[:] = w.true_gain
        if self.belief is not None:
            self.belief.reveal(self)
            remember_plan(self.physics, w, self.history, plan)
        return out

    def drift(self) -> Bool:
        """The next slot: tasks, fading, blockages, harvest. Draws the same numbers whatever was executed.

        Returns:
            (E,) whether the episode's length is reached.
        """
        w = self.world
        law.drift(self.law, w, self.stream)
        self.epoch += 1
        if not self.problem.scenario.dynamics.staleness:
            w.reported_gain[:] = w.true_gain
        self._believe(np.ones(self.size, bool))
        return self.ended()

    def restart(self, which: Bool) -> None:
        """New networks where ``which`` (E,) is set, from each one's own stream."""
        if not which.any():
            return
        for e in np.flatnonzero(which):
            self._restart_one(int(e))
        self.epoch[which] = 0
        self.history.seen[which] = 0
        self._believe(which)

    def _restart_one(self, e: int) -> None:
        w = self.world
        p = self.problem
        site, position = draw_sites(p.sites, p.agents, p.servers, law.renew(self.stream, e))
        w.site[e], w.position[e] = site, position
        w.reuse_group[e] = reuse_groups(site, p.scenario.reuse)
        law.restart(self.law, w, self.stream, e)

    def plan_of(self, allocation: Any) -> Plan:
        """An allocation of one network as a plan that :meth:`execute` runs."""
        return plan_of(allocation)

    def parts(self, plan: Plan, e: int = 0) -> dict[str, Any]:
        """Network ``e`` of a plan as the fields of an allocation."""
        return parts_of(plan, e)

    # --- its whole state

    def arrays(self) -> dict[str, Any]:
        """All that the future depends on: the networks, their random streams, what was remembered of them."""
        own = {"epoch": self.epoch, "stream": self.stream, "blocked_then": self.blocked_then}
        return own | named("world", self.world) | named("history", self.history)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.blocked_then = self.blocked_then.copy()  # at first it is the network's own array
        if not self.problem.scenario.day:  # files written before there were days lack what a network without one has
            w = self.world
            state = {f"world/{name}": getattr(w, name) for name in OF_A_DAY} | dict(state)
        super().load_state_dict(state)
        self.moved_on()

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from fresh streams from now on."""
        self.stream = streams(seeds)
