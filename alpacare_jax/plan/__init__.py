"""Planning a run before devices are rented: what its step needs, what fits, which sensible way is fastest."""

from alpacare_jax.hardware.topology import Topology, parse_topology
from alpacare_jax.plan.compare import Way, choose, compare
from alpacare_jax.plan.compiler import Compiler, plan_cache
from alpacare_jax.plan.estimate import Estimate, estimate
from alpacare_jax.plan.programs import Compiled, Outcome, Program, TooLarge
from alpacare_jax.plan.search import Search, search_rows

__all__ = [
    "Compiled",
    "Compiler",
    "Estimate",
    "Outcome",
    "Program",
    "Search",
    "TooLarge",
    "Topology",
    "Way",
    "choose",
    "compare",
    "estimate",
    "parse_topology",
    "plan_cache",
    "search_rows",
]
