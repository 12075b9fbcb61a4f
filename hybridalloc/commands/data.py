"""``hybridalloc data``: the public data sets, and a cluster of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from hybridalloc.commands.terminal import write


@dataclass(frozen=True)
class Data:
    """List, fetch or verify the public data sets; describe a cluster of your own: data describe nodes.csv jobs.csv."""

    action: tyro.conf.Positional[Literal["list", "fetch", "verify", "describe"]]
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Data sets, default all; to describe, the files of nodes and jobs."""

    def run(self) -> int:
        from hybridalloc.data import registry as data

        if self.action == "list":
            if self.names:
                raise ValueError(f"list takes no names; got {' '.join(self.names)}: verify looks at single data sets")
            write(data.list_table())
            return 0
        if self.action == "describe":
            from hybridalloc.problems.cluster.trace import describe, read_own

            if len(self.names) != 2:
                raise ValueError(f"describe takes two files, of nodes and of jobs; got {len(self.names)}")
            write(describe(read_own(*self.names)))
            return 0
        if self.action == "fetch":
            write(data.fetch_all(self.names))
            return 0
        text, ok = data.verify_all(self.names)
        write(text)
        return 0 if ok else 1
