"""Planning from Python: one configuration on devices that need not be present, as the verb ``plan`` does it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax import sharding
from alpacare_jax.errors import ConfigError
from alpacare_jax.hardware.chips import HOST_RESERVED
from alpacare_jax.hardware.topology import Topology
from alpacare_jax.model.uneven import describe_uneven
from alpacare_jax.plan import compilers, formulas, ways
from alpacare_jax.plan.compiler import Compiler, plan_cache
from alpacare_jax.plan.estimate import Estimate, estimate
from alpacare_jax.plan.formulas import Modelled
from alpacare_jax.plan.outcome import Compiled, Outcome, outcome_values
from alpacare_jax.plan.program import Program, make_program
from alpacare_jax.plan.search import Search, search_rows
from alpacare_jax.plan.templates import render
from alpacare_jax.train import RunConfig, load_config


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run's training step needs, and how fast it should be.

    Attributes:
        program: The step: configuration, model, devices (``program.place``), rows and length.
        outcome: What the compiler says, or what formulas say (:class:`Modelled`) for GPUs whose compiler is not
            installed; bytes per device.
        search: The search for the most rows, if it was asked for.
    """

    program: Program
    outcome: Outcome | Modelled
    search: Search | None = None

    @property
    def fits(self) -> bool:
        """Whether the step fits the devices' and the hosts' memory."""
        return self.outcome.fits

    @property
    def estimate(self) -> Estimate | None:
        """The speed, from the compiled program; None if there is no program."""
        return estimate(self.program, self.outcome.costs) if isinstance(self.outcome, Compiled) else None

    @property
    def uneven(self) -> str | None:
        """What the mesh does not divide of the model, and what that costs; None if it divides everything."""
        mesh = sharding.abstract_mesh(self.program.config.mesh, self.program.place.devices)
        return describe_uneven(self.program.model, mesh, self.program.seq_len)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        program, speed = self.program, self.estimate
        head = {"topology": program.place.name, "rows": program.rows, "uneven": self.uneven}
        if isinstance(self.outcome, Modelled):
            return head | {"model": self.outcome.to_dict(program)}
        return head | {
            "devices": program.place.devices,
            "mesh": program.mesh,
            "seq_len": program.seq_len,
            "microbatches": program.microbatches,
            "remat": program.config.compute.remat,
            "parameters": program.model.parameter_count,
            "search": self.search.to_dict() if self.search else None,
            "outcome": outcome_values(self.outcome),
            "host": host_values(program.place, self.outcome.host)
            if isinstance(self.outcome, Compiled)
            else None,
            "estimate": speed.to_dict() if speed else None,
        }

    def __str__(self) -> str:
        outcome = self.outcome
        values = vars(self) | {"place": self.program.place, "speed": self.estimate, "uneven": self.uneven}
        if isinstance(outcome, Modelled):
            return render("modelled.txt", **values, reserved=HOST_RESERVED)
        return render("plan.txt", **values, compiled=isinstance(outcome, Compiled), reserved=HOST_RESERVED)


def host_values(place: Topology, needed: int) -> dict[str, Any]:
    """Return what all devices of a host keep in its memory, as plain JSON values."""
    count, limit = place.devices_per_host, place.host_limit
    return {
        "machine": place.host.machine if place.host and place.host_bytes is None else None,
        "devices": count,
        "memory_bytes": place.host_memory,
        "limit_bytes": None if limit is None else limit * count,
        "needed_bytes": needed * count,
    }


def plan(
    config: RunConfig | str | Path,
    overrides: Sequence[str] = (),
    *,
    topology: str | None = None,
    rows: int | None = None,
    seq_len: int | None = None,
    layers: int | None = None,
    search_batch: bool = False,
    max_compiles: int = 10,
    host_gib: float | None = None,
    whole: bool = False,
    cache: bool = True,
    say: Callable[[str], None] | None = None,
) -> Plan:
    """Compile a run's training step for devices that need not be present: memory, fit and estimated speed.

    Args:
        config: The run's configuration, or its YAML file.
        overrides: ``key=value`` with dotted keys, for a YAML file.
        topology: Devices, such as "v5e:4x4", "v5p-128", "v5e:4x4 x2" or "h100-80gb x8"; the configuration's when None.
        rows: Rows of a batch over all devices; the configuration's when None.
        seq_len: Tokens of a row; the configuration's when None.
        layers: Layers of the model, fewer than it has, for a quick look.
        search_batch: Find the most rows per device that fit, and plan those.
        max_compiles: Most compilations of that search.
        host_gib: Memory of one host in GiB, if it differs from what is published for the topology's machines.
        whole: Let the compiler finish, machine code included.
        cache: Keep outcomes in the user's cache.
        say: Takes lines of progress.

    Returns:
        The plan; ``print(plan)`` shows it as the verb does.

    Raises:
        ConfigError: Something needed is not named or does not fit together, or the compiler is not installed.
        ServiceError: The compiler ended without an answer.

    Example::

        found = plan("configs/train/llama2_7b_v5e16.yaml", topology="v5e:4x4")
        found.fits, found.outcome.needed, found.estimate.tokens_per_s
    """
    program = make_program(
        _loaded(config, overrides),
        topology=topology,
        rows=rows,
        seq_len=seq_len,
        layers=layers,
        host_gib=host_gib,
    )
    compiler = _compiler(program, whole=whole, cache=cache, say=say)
    if compiler is None:
        if search_batch:
            program = program.replace(rows=formulas.most_rows(program))
        return Plan(program, formulas.model_step(program))
    search = search_rows(compiler, program, most=max_compiles) if search_batch else None
    if search is not None and search.largest:
        program = program.replace(rows=search.largest * program.shards)
    return Plan(program, compiler.compile(program), search)


def compare_plans(
    config: RunConfig | str | Path,
    overrides: Sequence[str] = (),
    *,
    this_mesh: bool = False,
    max_compiles: int = 10,
    whole: bool = False,
    cache: bool = True,
    say: Callable[[str], None] | None = None,
    **program: Any,
) -> ways.Comparison:
    """Compare meshes, microbatches, remat policies and rows in a layer for one batch; choose the fastest that fits.

    Args:
        config: The run's configuration, or its YAML file.
        overrides: ``key=value`` with dotted keys, for a YAML file.
        this_mesh: Keep to the configuration's mesh, and compile slow ways on it too.
        max_compiles: Most compilations.
        whole: Let the compiler finish, machine code included.
        cache: Keep outcomes in the user's cache.
        say: Takes lines of progress.
        **program: ``topology``, ``rows``, ``seq_len``, ``layers`` and ``host_gib`` as :func:`plan` takes them.

    Returns:
        The ways with their figures, and the choice; ``print(comparison)`` shows a table.

    Raises:
        ConfigError: Something needed is not named or does not fit together, or the compiler is not installed.
        ServiceError: The compiler ended without an answer, for every way that was tried.

    Example::

        compare_plans("configs/train/llama2_7b_v5e16.yaml", rows=128).choice.name
    """
    step = make_program(_loaded(config, overrides), **program)
    compiler = _compiler(step, whole=whole, cache=cache, say=say)
    return ways.compare(step, compiler, most=max_compiles, this_mesh=this_mesh)


def _loaded(config: RunConfig | str | Path, overrides: Sequence[str]) -> RunConfig:
    if not isinstance(config, RunConfig):
        return load_config(config, overrides)
    if overrides:
        raise ConfigError("overrides belong to a YAML file", where="overrides", found=" ".join(overrides))
    return config


def _compiler(
    program: Program, *, whole: bool, cache: bool, say: Callable[[str], None] | None
) -> Compiler | None:
    """Return the compiler for a program's devices; None for GPUs if theirs is not installed."""
    try:
        compilers.check_installed(program.place.chip.platform)
    except ConfigError:
        if program.place.chip.platform == "gpu":
            return None
        # A TPU's outcome may be remembered; else compiling raises the same.
    return Compiler(plan_cache() if cache else None, say or (lambda _: None), whole=whole)
