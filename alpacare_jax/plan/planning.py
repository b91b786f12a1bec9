"""Planning from Python: one configuration on devices that need not be present, as the verb ``plan`` does it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alpacare_jax.errors import ConfigError
from alpacare_jax.plan import compilers, plans
from alpacare_jax.plan.compiler import Compiler
from alpacare_jax.plan.formulas import model_step, most_rows
from alpacare_jax.plan.plans import Comparison, Plan
from alpacare_jax.plan.program import Program, make_program
from alpacare_jax.plan.search import search_rows
from alpacare_jax.train import RunConfig, load_config


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
        topology: Devices: "v5e:4x4", "v5p-128", "v5e:4x4 x2", "h100-80gb x8"; the configuration's when None.
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

    Examples:
        ```python
        found = plan("configs/train/llama2_7b_v5e16.yaml", topology="v5e:4x4")
        found.fits, found.needed, found.tokens_per_s
        ```
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
    if search_batch and compiler is None:
        program = program.replace(rows=most_rows(program))
    search = search_rows(compiler, program, most=max_compiles) if search_batch and compiler else None
    if search is not None and search.largest:
        program = program.replace(rows=search.largest * program.shards)
    # Before anything is compiled: refuses a mesh that does not divide the model.
    modelled = model_step(program)
    outcome = compiler.compile(program) if compiler else None
    return Plan(program, modelled, outcome, search=search)


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
) -> Comparison:
    """Compare meshes, microbatches, remat policies and rows in a layer for one batch; choose the fastest that fits.

    Args:
        config: The run's configuration, or its YAML file.
        overrides: ``key=value`` with dotted keys, for a YAML file.
        this_mesh: Keep to the configuration's mesh, and compile slow ways on it too.
        max_compiles: Most compilations.
        whole: Let the compiler finish, machine code included.
        cache: Keep outcomes in the user's cache.
        say: Takes lines of progress.
        **program: ``topology``, ``rows``, ``seq_len``, ``layers`` and ``host_gib`` as ``plan`` takes them.

    Returns:
        The plans with their figures, and the choice; ``print(comparison)`` shows a table.

    Raises:
        ConfigError: Something needed is not named or does not fit together, or the compiler is not installed.
        ServiceError: The compiler ended without an answer, for every way that was tried.

    Examples:
        ```python
        compare_plans("configs/train/llama2_7b_v5e16.yaml", rows=128).choice.program.name
        ```
    """
    step = make_program(_loaded(config, overrides), **program)
    compiler = _compiler(step, whole=whole, cache=cache, say=say)
    return plans.compare(step, compiler, most=max_compiles, this_mesh=this_mesh)


def _loaded(config: RunConfig | str | Path, overrides: Sequence[str]) -> RunConfig:
    if not isinstance(config, RunConfig):
        return load_config(config, overrides)
    if overrides:
        raise ConfigError("overrides only apply to a YAML file", where="overrides", found=" ".join(overrides))
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
    return Compiler(cache, say or (lambda _: None), whole=whole)
