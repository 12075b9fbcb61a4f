"""What a seed document's table is here: its runs, its rows and columns with the document's figures, its claims."""

from __future__ import annotations

from typing import Any, NamedTuple

from hybridalloc.experiments.seeds.figures import Read, metric
from hybridalloc.experiments.suite import Row


class Column(NamedTuple):
    """A figure of every row. ``read`` finds its matrix (training seeds, reporting seeds) in a comparison."""

    key: str
    label: str
    better: str = "higher"  # or "lower"
    digits: int = 2
    read: Read = metric


class Cell(NamedTuple):
    """A row of a table: the run and the method in it that stand for it, and the document's figures by column."""

    label: str
    row: str
    method: str
    theirs: dict[str, float] = {}  # noqa: RUF012 - read alone


class Claim(NamedTuple):
    """What the document says without a figure for each side: a method is above others of its run in a column.

    ``others`` are methods of ``row``, or of ``against`` where that is another run on the same seeds.
    """

    text: str
    row: str
    column: Column
    method: str
    others: tuple[str, ...]
    against: str = ""


class Part(NamedTuple):
    """Rows that have their columns in common, under a heading of their own where a table has several."""

    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...] = ()
    heading: str = ""
    about: tuple[str, ...] = ()  # what was run, and how what the document leaves open was defined


class Again(NamedTuple):
    """A run without training: the stored allocators of the run ``of``, on another problem than they were trained on.

    Attributes:
        row: the problem. methods: of that run. shift: a law of the problem's own ``scenarios()``, by name; "" for none.
        most_seeds: of the reporting seeds, where one costs much; 0 for all.
    """

    of: str
    row: Row
    methods: tuple[str, ...]
    shift: str = ""
    most_seeds: int = 0


class Table(NamedTuple):
    """A table: its title, what is run for it, what is shown, and what contradicts what in the document.

    Attributes:
        runs: comparisons by name, each with its methods. again: more runs that begin where one of those ended.
        why: reasons, known from how the problem is made, for what is not as in the document.
        home: the table whose runs these are, where two tables read the same; "" for its own.
    """

    title: str
    runs: dict[str, tuple[Row, tuple[str, ...]]]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    why: tuple[str, ...] = ()
    again: dict[str, Again] = {}  # noqa: RUF012 - read alone
    home: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Its runs by name, in the order in which they are done."""
        return (*self.runs, *self.again)


def changed(row: Row, **settings: Any) -> Row:
    """A run with more settings of its problem."""
    return row._replace(settings=tuple((dict(row.settings) | settings).items()))
