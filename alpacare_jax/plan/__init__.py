"""Planning a run before devices are rented: what its step needs, what fits, which sensible way is fastest."""

from alpacare_jax.hardware.topology import Topology, parse_topology
from alpacare_jax.plan.compiler import Compiler, plan_cache
from alpacare_jax.plan.estimate import Estimate, Stretch, estimate
from alpacare_jax.plan.formulas import Modelled
from alpacare_jax.plan.outcome import Compiled, Outcome, TooLarge
from alpacare_jax.plan.planning import Plan, compare_plans, plan
from alpacare_jax.plan.program import Program, make_program
from alpacare_jax.plan.search import Search, search_rows
from alpacare_jax.plan.ways import Comparison, Way

__all__ = [
    "Comparison",
    "Compiled",
    "Compiler",
    "Estimate",
    "Modelled",
    "Outcome",
    "Plan",
    "Program",
    "Search",
    "Stretch",
    "TooLarge",
    "Topology",
    "Way",
    "compare_plans",
    "estimate",
    "make_program",
    "parse_topology",
    "plan",
    "plan_cache",
    "search_rows",
]
