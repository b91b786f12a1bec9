"""What a plan says, as lines for people and as plain values for programs."""

from typing import Any

from alpacare_jax.plan.chips import GIB
from alpacare_jax.plan.programs import Compiled, Outcome, Program, outcome_to_dict
from alpacare_jax.plan.topology import Topology


def plan_values(program: Program, place: Topology, outcome: Outcome) -> dict[str, Any]:
    """Return a plan as plain JSON values; bytes are per device."""
    return {
        "topology": place.name,
        "devices": place.devices,
        "mesh": mesh_sizes(program, place),
        "rows": program.rows,
        "seq_len": program.seq_len,
        "microbatches": program.config.train.microbatches,
        "remat": program.config.compute.remat,
        "parameters": program.model.parameter_count,
        "outcome": outcome_to_dict(outcome),
    }


def mesh_sizes(program: Program, place: Topology) -> dict[str, int]:
    """Return the sizes of the mesh axes on a topology."""
    from alpacare_jax.sharding import MESH_AXES

    return dict(zip(MESH_AXES, program.config.mesh.shape(place.devices), strict=True))


def plan_text(program: Program, place: Topology, outcome: Outcome) -> str:
    """Return a plan as lines."""
    mesh = ", ".join(f"{axis}={size}" for axis, size in mesh_sizes(program, place).items() if size > 1)
    lines = [
        f"model     {program.model.parameter_count:,} parameters, {program.model.num_hidden_layers} layers",
        f"devices   {place.devices} of {place.chip.name} ({place.name}), mesh {mesh or 'of one device'}",
        f"batch     {program.rows} rows of {program.seq_len} tokens, "
        f"{program.config.train.microbatches} microbatches, remat {program.config.compute.remat}",
        "",
    ]
    if not isinstance(outcome, Compiled):
        return "\n".join([*lines, str(outcome)])
    return "\n".join([*lines, *memory_lines(outcome)])


def memory_lines(outcome: Compiled) -> list[str]:
    """Return the memory of a device, line by line."""
    parts = {
        "arguments": outcome.arguments,
        "temporaries": outcome.temporaries,
        "outputs": outcome.outputs,
        "aliased": -outcome.aliased,
    }
    lines = ["per device, GiB"]
    lines += [f"  {name:<12}{size / GIB:>8.2f}" for name, size in parts.items()]
    lines.append(f"  {'in all':<12}{outcome.needed / GIB:>8.2f}  of {outcome.limit / GIB:.2f}")
    lines.append(f"  {'peak':<12}{outcome.peak / GIB:>8.2f}")
    lines.append(f"  {'headroom':<12}{outcome.headroom / GIB:>8.2f}")
    if outcome.host:
        lines.append(f"  {'on the host':<12}{outcome.host / GIB:>8.2f}")
    return lines
