"""What the seed documents report, as figures to set ours beside; their own contradictions are said with them.

A document a module. Figures are as printed there; each table has what is run for it: comparisons with their problem,
size and methods, and where it pays stored allocators on another problem.
"""

from hybridalloc.experiments.seeds import seed000, seed001, seed002, seed003
from hybridalloc.experiments.seeds.table import Table

TABLES: dict[str, Table] = seed000.TABLES | seed001.TABLES | seed002.TABLES | seed003.TABLES
