"""Members of a crew as actors on the machines of a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from threadpoolctl import threadpool_limits

from hybridalloc.errors import WorkError
from hybridalloc.machines import TRIES, Place, connected, first_line, losses
from hybridalloc.training.crew import Done, Hires, Member, Order, Part

ROOM_S = 600.0  # that a member waits for a free core; a cluster that grows needs minutes


class Actor:
    """A member on the machine that it came to."""

    def __init__(self, place: Place, part: Part) -> None:
        self.place, self.part = place, part
        self.member: Member | None = None

    def collect(self, order: Order) -> Done:
        if self.member is None:  # not before: an actor that cannot be made says less of why than one that answers
            self.place.enter()
            threadpool_limits(1, "blas")
            self.member = Member(self.part)
        return self.member.collect(order)


class Elsewhere:
    """A member as an actor; one that is lost is made again, and stands where the last answer left it."""

    def __init__(self, ray: Any, part: Part, say: Callable[[str], None]) -> None:
        self.ray, self.part, self.say, self.place = ray, part, say, Place.here()
        self.stands: dict[str, Any] | None = None
        self._order, self._answer = Order({}, ()), None
        self._hire()

    def begin(self, order: Order) -> None:
        self._order = order
        self._answer = self.actor.collect.remote(order)

    def wait(self) -> Done:
        """What was begun.

        Raises:
            WorkError: it failed of itself, was lost ``TRIES`` times, or finds no free core.
        """
        for attempt in range(1, TRIES + 1):
            try:
                done: Done = self.ray.get(self._answer, timeout=ROOM_S)
            except losses(self.ray) as error:
                if attempt == TRIES:
                    raise WorkError(f"{self._name} was lost {attempt} times ({first_line(error)})") from None
                self.say(f"{self._name} was lost ({first_line(error)}); it is made again and goes on from where it was")
                self.close()
                self._hire()
                order = self._order if self._order.state is not None else self._order._replace(state=self.stands)
                self._answer = self.actor.collect.remote(order)
            except self.ray.exceptions.GetTimeoutError:
                raise WorkError(
                    f"{self._name} gave no answer in {ROOM_S:.0f} s: the cluster has no free core for it, or a rollout "
                    "takes longer; give fewer --actors, or more machines"
                ) from None
            except Exception as error:  # what it raised itself: the same would come of another try
                cause = getattr(error, "cause", error)
                raise WorkError(f"{self._name} failed ({type(cause).__name__}: {first_line(cause)})") from None
            else:
                self.stands = done.state
                return done
        raise AssertionError

    def close(self) -> None:
        with suppress(Exception):
            self.ray.kill(self.actor)

    @property
    def _name(self) -> str:
        return f"the actor of networks {self.part.first} to {self.part.last - 1}"

    def _hire(self) -> None:
        kind = self.ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Actor)
        self.actor = kind.remote(self.place, self.part)


@contextmanager
def hiring(engine: str, address: str = "", quiet: bool = False) -> Iterator[Hires | None]:
    """What makes the members of a crew in the block, by a name in :data:`hybridalloc.machines.ENGINES`; None is the
    crew's own way, in this process."""
    if engine != "ray":
        yield None
        return
    hired: list[Elsewhere] = []

    def hire(part: Part) -> Elsewhere:
        hired.append(Elsewhere(ray, part, (lambda text: None) if quiet else _say))
        return hired[-1]

    with connected(address) as ray:
        try:
            yield hire
        finally:
            for hand in hired:
                hand.close()


def _say(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
