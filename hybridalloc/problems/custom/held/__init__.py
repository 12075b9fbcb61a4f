"""``custom`` with what is held whole: jobs with several demands on servers with several capacities."""

from hybridalloc.problems.custom.held.problem import Held as Held
from hybridalloc.problems.custom.held.problem import make_held as make_held
from hybridalloc.problems.custom.held.state import HeldState as HeldState
