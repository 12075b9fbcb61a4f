"""The balancer's simulator once more, slow and plain: objects, lists and one queue of events, counted anew each time.

Written from the definitions, it shares no code with the compiled core: what a dispatcher has in flight is counted from
its requests, a cache is an ordered dictionary, running requests make their tokens one by one.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque

BLOCK, FULL = 512, 0.97


class Request:
    def __init__(self, number, at, prompt, output, owner, blocks):
        self.number, self.at, self.prompt, self.output, self.owner, self.blocks = (
            number,
            at,
            prompt,
            output,
            owner,
            blocks,
        )
        self.replica = None
        self.hit = 0.0  # thought to be cached when it was sent
        self.made = 0
        self.left = None  # of the prompt; None: not admitted
        self.first = self.last = None
        self.waits_for_first = False


class Replica:
    def __init__(self, number, fleet):
        self.number = number
        for name in ("prefill", "base_s", "request_s", "token_s", "attention", "kv", "seats", "chunk", "blocks"):
            setattr(self, name, float(getattr(fleet, name)[number]))
        self.up = self.known = True
        self.slow = 1.0
        self.mean_s = self.base_s
        self.fail()

    def fail(self):
        self.queue, self.running, self.joining = deque(), [], []
        self.cache = OrderedDict()
        self.held = 0.0
        self.end = None
        self.version = getattr(self, "version", 0) + 1

    def found(self, request):
        known = 0
        for block in request.blocks:
            if block not in self.cache:
                break
            known += 1
        return min(known * BLOCK, request.prompt - 1)

    def begin(self, now):
        """The iteration's end, None where there is nothing to do."""
        room, tokens, work = self.chunk - len(self.running), 0.0, 0.0
        self.joining = []
        while room > 0 and self.queue and len(self.joining) < 64:
            if len(self.running) + len(self.joining) >= self.seats:
                break
            head = self.queue[0]
            need = head.prompt + head.made
            if head.left is None:
                if self.held + need > FULL * self.kv and (self.running or self.joining):
                    break
                head.left = need - self.found(head)
                self.held += need
            part = min(room, head.left)
            context = need - head.left + part / 2
            head.left -= part
            room, tokens, work = room - part, tokens + part, work + part * context
            if head.left > 0:
                break
            self.joining.append(self.queue.popleft())
        if not self.running and not tokens:
            self.end = None
            return None
        took = (tokens + work * self.attention) / self.prefill + self.base_s
        took += self.request_s * len(self.running) + self.token_s * self.held
        self.begun, self.end, self.prompts = now, now + self.slow * took, tokens > 0
        return self.end

    def finish(self, now):
        """What an iteration did becomes visible; who is done."""
        if not self.prompts:
            self.mean_s += 0.1 * (now - self.begun - self.mean_s)
        done = []
        for request in self.running:
            request.made += 1
        self.held += len(self.running)
        old = list(self.running)
        for request in self.joining:
            request.made += 1
            self.held += 1
            for block in request.blocks:
                self.cache[block] = True
                self.cache.move_to_end(block)
                if len(self.cache) > self.blocks:
                    self.cache.popitem(last=False)
            if request.first is None:
                request.first = now
            request.waits_for_first = False
        for request in [*self.joining, *old]:
            if request.made >= request.output:
                self.held -= request.prompt + request.output
                request.last = now
                done.append(request)
        self.running = [q for q in [*old, *self.joining] if q.last is None]
        self.joining = []
        back = 0
        while self.held > self.kv and len(self.running) > 1:
            newest = self.running.pop()
            self.held -= newest.prompt + newest.made
            begun = bool(self.queue) and self.queue[0].left is not None
            newest.left = None
            self.queue.insert(1 if begun else 0, newest)
            back += 1
        return done, back

    def report(self):
        waiting = sum(q.prompt + q.made if q.left is None else q.left for q in self.queue)
        return len(self.queue), len(self.running) + len(self.joining), self.held, waiting, self.mean_s


class Reference:
    """The same world as a :class:`hybridalloc.problems.balancer.sim.Sim`, made from it before it begins."""

    ENDS, SCRAPE, CHANGE, NEWS, WAITS, ARRIVES = range(6)

    def __init__(self, sim):
        self.law, trace = sim.law, sim.trace
        self.replicas = [Replica(r, sim.fleet) for r in range(len(sim.fleet.prefill))]
        self.requests = [
            Request(
                i, float(trace.arrival[i]), float(trace.prompt[i]), int(trace.output[i]), int(trace.dispatcher[i]),
                [int(b) for b in trace.block[trace.first[i] : trace.first[i + 1]]],
            )
            for i in range(len(trace.arrival))
        ]  # fmt: skip
        self.phase = sim.reports.phase.copy()
        self.events, self.reports, self.preempted, self.retried = [], [], 0, 0
        self.sent = {}  # (dispatcher, replica): blocks in the order sent, for an index of one's own
        for q in self.requests:
            self.push(q.at, self.ARRIVES, q.number)
        for at, r, value in sim.changes.tolist():
            self.push(float(at), self.CHANGE, (int(r), float(value)))
        if self.law.scrape_s > 0:
            self.push(0.0, self.SCRAPE, 0)

    def push(self, at, kind, what):
        what = what if isinstance(what, tuple) else (what,)
        if kind == self.WAITS:  # of those due at one time dispatcher by dispatcher
            what = (self.requests[what[0]].owner, *what)
        heapq.heappush(self.events, (at, kind, what))

    def next_decision(self):
        """The request that is to be decided, None where all are done."""
        while self.events:
            self.now, kind, what = heapq.heappop(self.events)
            if kind == self.ENDS:
                r, version = self.replicas[what[0]], what[1]
                if version == r.version and r.end == self.now:
                    _, back = r.finish(self.now)
                    self.preempted += back
                    self._begin(r)
            elif kind == self.SCRAPE:
                told = [
                    r.report() if r.up or not self.reports else self.reports[-1][1][r.number] for r in self.replicas
                ]
                self.reports.append((self.now, told, {key: self.own(*key) for key in self._pairs()}))
                if any(e[1] in (self.WAITS, self.ARRIVES) for e in self.events):
                    self.push(len(self.reports) * self.law.scrape_s / 4, self.SCRAPE, 0)
            elif kind == self.CHANGE:
                self._change(*what)
            elif kind == self.NEWS:
                self.replicas[what[0]].known = self.replicas[what[0]].up
            elif kind == self.ARRIVES and (due := self._due(what[0])) > self.now:
                self.push(due, self.WAITS, what[0])
            else:
                return self.requests[what[-1]]
        return None

    def _due(self, i):
        """When dispatchers decide who came as request i did."""
        gather = self.law.gather_s
        return math.ceil(self.now / gather) * gather if gather else self.now

    def _pairs(self):
        return [(d, r.number) for d in range(self.law.dispatchers) for r in self.replicas]

    def _begin(self, r):
        end = r.begin(self.now)
        if end is not None:
            self.push(end, self.ENDS, (r.number, r.version))

    def _change(self, number, value):
        r = self.replicas[number]
        if value > 0:
            r.slow = value
            return
        r.up = value < 0
        self.push(self.now + self.law.detect_s, self.NEWS, number)
        if not r.up:
            for q in [*r.running, *r.joining, *r.queue]:
                q.replica, q.made, q.left, q.hit, q.waits_for_first = None, 0, None, 0.0, False
                self.retried += 1
                self.push(self.now + self.law.detect_s, self.WAITS, q.number)
            mean, version = r.mean_s, r.version
            r.fail()
            r.mean_s, r.version = mean, version + 1

    def own(self, d, number):
        mine = [q for q in self.requests if q.owner == d and q.replica == number and q.last is None]
        waiting = [q for q in mine if q.waits_for_first]
        running = [q for q in mine if not q.waits_for_first]
        return (
            len(mine), sum(q.prompt - q.hit for q in waiting), sum(q.prompt for q in running), len(waiting),
        )  # fmt: skip

    def hit(self, q, number):
        if not q.blocks:
            return 0.0
        if self.law.exact_index:
            return self.replicas[number].found(q)
        room = int(self.replicas[number].blocks) // self.law.dispatchers
        recent = self.sent.get((q.owner, number), [])
        recent = set(recent[-room - 1 :])
        known = 0
        for block in q.blocks:
            if block not in recent:
                break
            known += 1
        return min(known * BLOCK, q.prompt - 1)

    def seen(self, q):
        """(age, report, own then, own now, hit, up) of each replica, as the dispatcher of q sees it."""
        out = []
        for r in self.replicas:
            own = self.own(q.owner, r.number)
            if self.law.scrape_s <= 0:
                age, told, then = 0.0, r.report(), own
            else:
                mine = [
                    report
                    for k, report in enumerate(self.reports)
                    if k % 4 == self.phase[q.owner, r.number] and report[0] <= self.now - self.law.late_s + 1e-12
                ]
                if mine:
                    age, told, then = self.now - mine[-1][0], mine[-1][1][r.number], mine[-1][2][q.owner, r.number]
                else:
                    age, told, then = self.now, (0, own[0], own[2], own[1], r.base_s), own
            out.append((age, told, then, own, self.hit(q, r.number), r.known))
        return out

    def send(self, q, number):
        r = self.replicas[number]
        if not r.up:
            self.push(self.now + self.law.detect_s, self.WAITS, q.number)
            return
        q.hit = self.hit(q, number)
        q.replica = number
        q.waits_for_first = q.first is None
        self.sent.setdefault((q.owner, number), []).extend(q.blocks)
        r.queue.append(q)
        if r.end is None:
            self._begin(r)

    def hold(self, q):
        self.push(self.now + self.law.hold_s, self.WAITS, q.number)


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
