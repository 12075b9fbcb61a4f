r"""What ``mec``'s operator believes of what it is not told: rates now, queues now.

Reports are a slot old, others' signals are not announced, links get blocked. A belief replaces the reports' face
value by Q equally likely rates of every (device, band) pair and by expected queues; the game then charges expected
costs, the risk of missing a deadline included, and shares, power and fractions count on a rate that is exceeded
with a chosen chance.

* :class:`LearnedBelief` is told nothing: it regresses what was true a slot ago, once it is revealed, on what had been
  reported then. Channel and interference: y = log SINR at nominal power, by quantiles. Queues: their work, by mean.
* :class:`BayesianBelief` is the oracle of the base law: it knows each device's fading correlation, the blockages'
  chain and state, and the queues as they are; interference it takes as last measured.

Both read the :class:`History` that a batch keeps of its own reports and plans.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit
from scipy.special import ndtri

from games.congestion import Bool, Float, Int
from games.lean import KEPT
from hybridalloc.problems.mec.arrays import LEAST_RATE, Physics, World
from rl.belief import Predictor

PAIR_INPUTS, QUEUE_INPUTS = 14, 12
UNBLOCK, BLOCK, BLOCKED = 0.12, 0.04, 10**-1.5  # chances a slot of a link's blockage, and its attenuation


class History(NamedTuple):
    """What an operator remembers of E networks; logarithms are natural."""

    seen: Int  # (E,) reports since the network began
    deviation: Float  # (E, N, B) log of the reported over the mean gain
    deviation_before: Float
    deviation_mean: Float  # running, .2
    change: Float  # (E, N) mean absolute change of its deviations
    change_mean: Float  # running, .05
    rise: Float  # (E, B) log(1 + noise rise)
    rise_mean: Float  # running, .2
    near: Float  # (E, B) tasks whose best mean gain is this band's server
    near_before: Float
    queue_s: Float  # (E, K) as reported
    queue_before_s: Float
    air_queue_s: Float  # (E, B)
    air_queue_before_s: Float
    sent_s: Float  # (E, K) work that the last plan sent
    air_sent_s: Float  # (E, B) time on air that it gave


def new_history(e: int, n: int, b: int, k: int) -> History:
    shapes: dict[str, tuple[int, ...]] = {
        "change": (n,), "change_mean": (n,), "queue_s": (k,), "queue_before_s": (k,), "sent_s": (k,),
    } | dict.fromkeys(("deviation", "deviation_before", "deviation_mean"), (n, b))  # fmt: skip
    arrays: dict[str, Any] = {name: np.zeros((e, *shapes.get(name, (b,)))) for name in History._fields}
    return History(**arrays | {"seen": np.zeros(e, np.int64)})


def copy_history(history: History) -> History:
    arrays: dict[str, Any] = {name: value.copy() for name, value in history._asdict().items()}
    return History(**arrays)


class Memory(NamedTuple):
    """A belief and what it remembers of one network before a slot's reports come in."""

    belief: Any
    history: History
    blocked_then: Float | None = None  # for the oracle


class Belief(Protocol):
    """Fills a batch's believed rates and queues, and learns from what a slot reveals."""

    name: str
    quantiles: int
    learns: bool  # whether there is anything to learn
    learning: bool

    def look(self, batch: Any, which: Bool) -> None: ...

    def reveal(self, batch: Any) -> None: ...


class LearnedBelief:
    """Quantiles of log SINR and expected queues, learned online.

    Args:
        quantiles: Q. plans: the operator reads its own last plan, so it knows what it sent where; without, it must
            infer admissions from reports and demand.
        every: slots between two learnings of ``steps`` descents on ``batch`` examples.
        sample: pairs kept of a slot, over all networks.
        learning: False freezes it; for measurements only.
    """

    name, label, learns = "learned", "learned beliefs", True
    default_trust = 20.0  # best of a sweep on the tuning seeds

    def __init__(
        self,
        quantiles: int = 7,
        plans: bool = True,
        seed: int = 0,
        *,
        every: int = 16,
        steps: int = 20,
        batch: int = 2048,
        sample: int = 2048,
        learning: bool = True,
    ) -> None:
        self.plans, self.every, self.steps, self.batch, self.sample = plans, every, steps, batch, sample
        self.quantiles, self.seed, self.learning = quantiles, seed, learning
        self.channel = Predictor(PAIR_INPUTS, quantiles, seed=seed)
        self.queues = Predictor(QUEUE_INPUTS, 2, "huber", low=0.0, high=3.0, memory=1 << 14, seed=seed + 1)
        self.rng = np.random.default_rng([seed, 63])
        self.slots = 0

    def look(self, batch: Any, which: Bool) -> None:
        """Fill what is believed of the networks ``which`` (E,), from their latest reports."""
        p, w, h = batch.physics, batch.world, batch.history
        networks, bands = len(w.active), w.rate.shape[2]
        e, i = np.nonzero(w.active & which[:, None])
        if len(e):
            pairs = np.repeat(e, bands), np.repeat(i, bands), np.tile(np.arange(bands), len(e))
            x, base = self._pairs(p, w, h, *pairs)
            guess = self.channel.predict(x, base).reshape(len(e), bands, -1)
            fill_rates(p, w, e, i, guess)
        if p.queues and bands:
            x, base = self._queues(p, w, h)
            slots = p.slot_s * self.queues.predict(x, base).reshape(networks, bands, 2)
            servers = w.server_hz.shape[1]
            w.cpu_wait_s[which] = slots[..., 0].reshape(networks, servers, -1).mean(axis=2)[which]
            w.air_wait_s[which] = slots[..., 1][which]

    def reveal(self, batch: Any) -> None:
        """Learn from the slot just executed: its channels, noise and queues are now reported."""
        if not self.learning:
            return
        p, w, h = batch.physics, batch.world, batch.history
        networks, n, bands = w.rate.shape
        if not networks * n * bands:
            return
        size = networks * n * bands
        rows = self.rng.integers(0, size, min(self.sample, size))
        e, i, b = np.unravel_index(rows, (networks, n, bands))
        x, base = self._pairs(p, w, h, e, i, b)
        stale = batch.problem.scenario.dynamics.staleness
        truth = log_deviation(w, e, i, b) if stale else h.deviation[e, i, b]
        y = truth - np.log1p(w.noise_rise[e, b])
        self.channel.remember(x, base, y.astype(np.float32)[:, None])
        if p.queues:
            x, base = self._queues(p, w, h)
            per = bands // w.server_hz.shape[1]
            queue, air = (w.queue_s, w.air_queue_s) if stale else (h.queue_s, h.air_queue_s)
            y = np.stack([np.repeat(queue, per, axis=1), air], axis=-1) / p.slot_s
            self.queues.remember(x, base, y.reshape(-1, 2).astype(np.float32))
        self.slots += 1
        if self.slots % self.every == 0:
            # a lone network reveals little at a time: learning keeps pace with what is new
            self.channel.learn(-(-self.steps * min(self.channel.new, 4 * self.batch) // (4 * self.batch)), self.batch)
            self.queues.learn(-(-self.steps * min(self.queues.new, self.batch) // self.batch), self.batch)

    def _pairs(self, p: Physics, w: World, h: History, e: Int, i: Int, b: Int) -> tuple[Any, Any]:
        x, base = np.empty((len(e), PAIR_INPUTS), np.float32), np.empty((len(e), 1), np.float32)
        pair_inputs(p, w, h, e, i, b, x, base)
        return x, base

    def _queues(self, p: Physics, w: World, h: History) -> tuple[Any, Any]:
        rows = h.rise.size
        x, base = np.empty((rows, QUEUE_INPUTS), np.float32), np.empty((rows, 2), np.float32)
        queue_inputs(p, w, h, self.plans, x, base)
        return x, base

    def figures(self) -> dict[str, float]:
        """Running, for the tracker: loss against the reports' own, and how far coverage is from nominal."""
        return {
            "belief_pinball": float(self.channel.score[0]), "reports_pinball": float(self.channel.score[1]),
            "belief_miscoverage": self.channel.miscoverage, "belief_queue": float(self.queues.score[0]),
            "reports_queue": float(self.queues.score[1]),
        }  # fmt: skip

    def copy(self, learning: bool = True) -> LearnedBelief:
        """One that knows the same and goes its own way."""
        other = LearnedBelief(
            self.quantiles, self.plans, self.seed, every=self.every, steps=self.steps, batch=self.batch,
            sample=self.sample, learning=learning,
        )  # fmt: skip
        other.load_state_dict(self.state_dict())
        return other

    def settings(self) -> dict[str, Any]:
        """Arguments that make it again."""
        return {
            "quantiles": self.quantiles, "plans": self.plans, "seed": self.seed, "every": self.every,
            "steps": self.steps, "batch": self.batch, "sample": self.sample,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        import json

        own = {"slots": np.array(self.slots), "rng": np.array(json.dumps(self.rng.bit_generator.state))}
        channel = {f"channel/{k}": v for k, v in self.channel.state_dict().items()}
        return own | channel | {f"queues/{k}": v for k, v in self.queues.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        import json

        part = lambda head: {k.removeprefix(head): v for k, v in state.items() if k.startswith(head)}
        self.channel.load_state_dict(part("channel/"))
        self.queues.load_state_dict(part("queues/"))
        self.slots = int(state["slots"])
        self.rng.bit_generator.state = json.loads(str(state["rng"]))


class BayesianBelief:
    """The posterior under the base law, by 64 equally likely nodes of the fading, in both states of the blockage."""

    name, label = "bayesian", "Bayesian with the true law"
    default_trust = 20.0
    learns = learning = False
    base_law = False  # believe every correlation .7, no link blocked, no interference, whatever holds

    def __init__(self, quantiles: int = 15, seed: int = 0) -> None:
        self.quantiles, self.seed = quantiles, seed
        steps = np.outer(np.arange(1, 65), [0.7548776662466927, 0.5698402909980532])  # the R2 sequence (Roberts 2018)
        self.nodes = ndtri((steps + 0.5) % 1)

    def look(self, batch: Any, which: Bool) -> None:
        p, w, d = batch.physics, batch.world, batch.problem.scenario.dynamics
        e, i = np.nonzero(w.active & which[:, None])
        if d.staleness and len(e):
            guess = np.empty((len(e), w.rate.shape[2], self.quantiles), np.float32)
            fresh = batch.history.seen <= 1
            then = w.attenuation if fresh.all() else np.where(fresh[:, None, None], w.attenuation, batch.blocked_then)
            rho = w.correlation
            if self.base_law:
                then, rho = np.ones_like(w.attenuation), np.full_like(w.correlation, 0.7)
            posterior(w, rho, then, e, i, d.blockage and not self.base_law, self.nodes, guess)
            if not self.base_law:
                guess -= np.log1p(w.noise_rise[e])[:, :, None].astype(np.float32)
            fill_rates(p, w, e, i, guess)
        w.cpu_wait_s[which] = w.backlog_s[which]
        w.air_wait_s[which] = w.air_backlog_s[which]

    def reveal(self, batch: Any) -> None:
        """It has nothing to learn, but notes which links were blocked when the next reports' gains were true."""
        batch.blocked_then = batch.world.attenuation.copy()

    def copy(self, learning: bool = True) -> BayesianBelief:
        return self

    def figures(self) -> dict[str, float]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {"quantiles": self.quantiles, "seed": self.seed}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """It knows what it knows."""


class BaseLawBelief(BayesianBelief):
    """The posterior under the base law where another may hold: how much an oracle loses when its law is wrong."""

    name, label = "base_law", "Bayesian with the base law"
    base_law = True


BELIEFS = {"learned": LearnedBelief, "bayesian": BayesianBelief, "base_law": BaseLawBelief}


def log_deviation(w: World, e: Int, i: Int, b: Int) -> Float:
    """Log of the reported over the mean gain of pairs (e, i, b)."""
    per = w.rate.shape[2] // w.server_hz.shape[1]
    return np.asarray(np.log(np.maximum(w.reported_gain[e, i, b], 1e-30) / w.mean_gain[e, i, b // per]))


@njit(**KEPT, error_model="numpy")
def notice(p, w, h, which):
    """Take the new reports of the networks ``which`` (E,) into the history; ``h.seen`` 0 begins it."""
    networks, n, bands = w.rate.shape
    servers = w.server_hz.shape[1]
    per = bands // max(servers, 1)
    for e in range(networks):
        if not which[e]:
            continue
        first = h.seen[e] == 0
        h.seen[e] += 1
        for b in range(bands):
            h.near_before[e, b] = h.near[e, b]
            h.near[e, b] = 0.0
            h.air_queue_before_s[e, b] = w.air_queue_s[e, b] if first else h.air_queue_s[e, b]
            h.air_queue_s[e, b] = w.air_queue_s[e, b]
            h.rise[e, b] = np.log1p(w.noise_rise[e, b])
            h.rise_mean[e, b] = h.rise[e, b] if first else 0.8 * h.rise_mean[e, b] + 0.2 * h.rise[e, b]
            if first:
                h.air_sent_s[e, b] = 0.0
        for k in range(servers):
            h.queue_before_s[e, k] = w.queue_s[e, k] if first else h.queue_s[e, k]
            h.queue_s[e, k] = w.queue_s[e, k]
            if first:
                h.sent_s[e, k] = 0.0
        for i in range(n):
            best = -1
            change = 0.0
            for b in range(bands):
                k = b // per
                if w.reachable[e, i, k] and (best < 0 or w.mean_gain[e, i, k] > w.mean_gain[e, i, best // per]):
                    best = b
                now = np.log(max(w.reported_gain[e, i, b], 1e-30) / w.mean_gain[e, i, k])
                before = now if first else h.deviation[e, i, b]
                h.deviation_before[e, i, b] = before
                h.deviation[e, i, b] = now
                h.deviation_mean[e, i, b] = now if first else 0.8 * h.deviation_mean[e, i, b] + 0.2 * now
                change += abs(now - before) / bands
            h.change[e, i] = change
            h.change_mean[e, i] = 0.8 if first else 0.95 * h.change_mean[e, i] + 0.05 * change
            if w.active[e, i] and best >= 0:
                for b in range(best, best + per):
                    h.near[e, b] += 1.0 / per


@njit(**KEPT, error_model="numpy")
def remember_plan(p, w, h, plan):
    """Note the work and the time on air that a plan (E, N) sends to each server and band, as believed."""
    networks, n, bands = w.rate.shape
    per = bands // max(w.server_hz.shape[1], 1)
    for e in range(networks):
        h.sent_s[e] = 0.0
        h.air_sent_s[e] = 0.0
        for i in range(n):
            if w.active[e, i] and plan.option[e, i] > 0 and plan.fraction[e, i] > 0.0:
                b = plan.option[e, i] - 1
                k = b // per
                rho = plan.fraction[e, i]
                air_s = rho * w.task_bits[e, i] / w.rate[e, i, b]
                h.sent_s[e, k] += rho * w.task_cycles[e, i] / w.server_hz[e, k]
                h.air_sent_s[e, b] += min(air_s, plan.air[e, i] * w.deadline_s[e, i])


@njit(**KEPT, error_model="numpy")
def pair_inputs(p, w, h, e_of, i_of, b_of, x, base):
    """(M, F) features, each of order one, and (M, 1) base, the reports' own log SINR less the mean SNR."""
    servers = w.server_hz.shape[1]
    networks, bands = h.rise.shape
    per = bands // servers
    others, others_before = np.zeros((networks, bands)), np.zeros((networks, bands))
    for e in range(networks):
        for b in range(bands):
            k = b // per
            for q in range(servers):  # whose devices' signals this band hears
                if q != k and w.reuse_group[e, q] == w.reuse_group[e, k]:
                    others[e, b] += h.near[e, q * per + b % per]
                    others_before[e, b] += h.near_before[e, q * per + b % per]
    for m in range(len(e_of)):
        e, i, b = e_of[m], i_of[m], b_of[m]
        k = b // per
        now = h.deviation[e, i, b]
        base[m, 0] = now - h.rise[e, b]
        r = x[m]
        r[0] = 0.5 * now
        r[1] = 0.5 * h.deviation_before[e, i, b]
        r[2] = 0.5 * min(now + 1.0, 0.0)
        r[3] = 0.25 * np.log(w.mean_gain[e, i, k] * p.nominal_w / p.noise_w) - 1.0
        r[4] = 0.5 * h.deviation_mean[e, i, b]
        r[5] = 2.0 * h.change_mean[e, i] - 1.5
        r[6] = h.change[e, i] - 0.8
        r[7] = 0.5 * h.rise[e, b]
        r[8] = 0.5 * h.rise_mean[e, b]
        r[9] = 0.1 * others[e, b]
        r[10] = 0.1 * others_before[e, b]
        r[11] = 0.1 * h.near[e, b]
        r[12] = 0.1 * h.near_before[e, b]
        r[13] = min(h.seen[e], 20) / 20.0


@njit(**KEPT, error_model="numpy")
def queue_inputs(p, w, h, plans, x, base):
    """(E B, F) features of each band and its server, and (E B, 2) base: queues of CPU and air, in slots.

    With ``plans`` the base is the queue a slot ago, plus what the operator sent, less a slot of service.
    """
    networks, _, bands = w.rate.shape
    per = bands // w.server_hz.shape[1]
    for e in range(networks):
        for b in range(bands):
            k = b // per
            r = x[e * bands + b]
            r[0] = h.queue_s[e, k] / p.slot_s
            r[1] = h.queue_before_s[e, k] / p.slot_s
            r[2] = h.air_queue_s[e, b] / p.slot_s
            r[3] = h.air_queue_before_s[e, b] / p.slot_s
            r[4] = 0.1 * h.near[e, b]
            r[5] = 0.1 * h.near_before[e, b]
            r[6] = h.sent_s[e, k] / p.slot_s - 1.0 if plans else 0.0
            r[7] = h.air_sent_s[e, b] / p.slot_s - 1.0 if plans else 0.0
            r[8] = w.server_hz[e, k] / 1e10 - 1.0
            r[9] = 0.5 * h.rise[e, b]
            r[10] = max(r[0] + r[6], 0.0) if plans else 0.0
            r[11] = max(r[2] + r[7], 0.0) if plans else 0.0
            base[e * bands + b, 0] = r[10] if plans else r[0]
            base[e * bands + b, 1] = r[11] if plans else r[2]


@njit(**KEPT, error_model="numpy")
def fill_rates(p, w, e_of, i_of, guess):
    """Rates of devices (e, i) from log SINR less log mean SNR at nominal power, ``guess`` (M, B, Q) ascending."""
    bands, values = guess.shape[1], guess.shape[2]
    per = bands // w.server_hz.shape[1]
    for m in range(len(e_of)):
        e, i = e_of[m], i_of[m]
        for b in range(bands):
            mean = w.mean_gain[e, i, b // per] * p.nominal_w / p.noise_w
            for q in range(values):
                w.rates[e, i, b, q] = p.band_hz * np.log2(1.0 + mean * np.exp(guess[m, b, q])) + LEAST_RATE
            w.rate[e, i, b] = 0.5 * (w.rates[e, i, b, (values - 1) // 2] + w.rates[e, i, b, values // 2])


@njit(**KEPT, error_model="numpy")
def posterior(w, correlation, then, e_of, i_of, blockage, nodes, guess):
    """Quantiles (M, B, Q) of log gain over mean gain, given the last slot's gain, its attenuation and the law."""
    bands, values = guess.shape[1], guess.shape[2]
    per = bands // w.server_hz.shape[1]
    count = len(nodes)
    power = np.empty(count)
    for m in range(len(e_of)):
        e, i = e_of[m], i_of[m]
        rho = correlation[e, i]
        spread = np.sqrt((1.0 - rho * rho) / 2.0)
        for b in range(bands):
            k = b // per
            attenuation = then[e, i, k]
            blocked = attenuation < 1.0
            centre = rho * np.sqrt(w.reported_gain[e, i, b] / (w.mean_gain[e, i, k] * attenuation))
            turn = (UNBLOCK if blocked else BLOCK) if blockage else 0.0
            other = 1.0 if blocked else BLOCKED
            for a in range(count):
                power[a] = (centre + spread * nodes[a, 0]) ** 2 + (spread * nodes[a, 1]) ** 2
            power.sort()
            stayed, turned = 0, 0  # how many nodes of either state lie below
            below = 0.0
            q = 0
            while q < values:
                left = power[stayed] * attenuation if stayed < count else np.inf
                right = power[turned] * other if turned < count else np.inf
                value = min(left, right)
                if left <= right:
                    stayed += 1
                    below += (1.0 - turn) / count
                else:
                    turned += 1
                    below += turn / count
                while q < values and ((q + 0.5) / values <= below or stayed + turned == 2 * count):
                    guess[m, b, q] = np.log(max(value, 1e-9))
                    q += 1
