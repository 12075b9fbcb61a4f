"""``hybridalloc route`` and ``slurm``: allocators in front of real servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hybridalloc.commands.terminal import say


@dataclass(frozen=True)
class Route:
    """Route requests to OpenAI-compatible servers: a proxy that picks each one's replica and streams its answer on."""

    replica: tuple[str, ...]
    """Addresses with what is known of each: http://10.0.0.1:8000,capacity=4,kv=160000 http://10.0.0.2:8000."""
    host: str = "127.0.0.1"
    """Where the proxy listens; 0.0.0.0 lets everyone in."""
    port: int = 8080
    dispatchers: int = 1
    """Proxies like this one in front of the same replicas."""
    belief: Literal["blend", "learned", "corrected", "own", "report"] = "blend"
    """What is made of reports between two scrapes."""
    price: tuple[str, ...] = ()
    """Prices of the game that are not at their defaults; requests=3 exponent=1 minds the last token, not the first."""
    report_s: float = 1.0
    """Between two scrapes of a replica's /metrics."""
    retries: int = 2
    """Other replicas that a request is sent to where one fails before it answers."""
    wait_s: float = 10.0
    """That a request waits while no replica is up."""
    drain_s: float = 30.0
    """That open requests are given when the proxy is ended."""

    def run(self) -> int:
        try:
            from hybridalloc.serving.proxy import Limits, parse_prices, serve
        except ModuleNotFoundError as error:
            raise ImportError(f"{error.name} is missing; pip install 'hybridalloc[route]'") from None
        if not self.replica:
            raise ValueError("--replica names no server; give one or more, such as --replica http://127.0.0.1:8000")
        limits = Limits(report_s=self.report_s, retries=self.retries, wait_s=self.wait_s, drain_s=self.drain_s)
        picker = {"dispatchers": self.dispatchers, "belief": self.belief, "prices": parse_prices(self.price)}
        serve(self.replica, self.host, self.port, picker, limits)
        return 0


@dataclass(frozen=True)
class Slurm:
    """Place jobs that are held in Slurm: name their nodes and release them; nothing else is touched."""

    partition: tuple[str, ...] = ()
    """Held jobs of these partitions are placed."""
    account: tuple[str, ...] = ()
    """Held jobs of these accounts are placed; beside --partition: of both."""
    held: bool = False
    """All jobs that their users hold are placed."""
    dry_run: bool = False
    """Say what would be done and why, and do nothing."""
    once: bool = False
    """One round; otherwise one every --every-s, until it is stopped."""
    every_s: float = 30.0
    patience_s: float = 600.0
    """A job that has waited so long and fits nowhere holds back those that came later, until it fits."""

    def run(self) -> int:
        from hybridalloc.serving.slurm import Bridge, Given

        bridge = Bridge(Given(self.partition, self.account, self.held), self.dry_run, self.patience_s, say=say)
        if self.once:
            bridge.round()
        else:
            bridge.run(self.every_s)
        return 0
