"""What a plan says, as lines for people and as plain values for programs."""

from typing import Any

from alpacare_jax.hardware.chips import GIB, HOST_RESERVED
from alpacare_jax.hardware.topology import Topology
from alpacare_jax.plan.compare import Way, choose, mesh_name
from alpacare_jax.plan.compiler import summarize
from alpacare_jax.plan.estimate import Estimate, estimate
from alpacare_jax.plan.model import Modelled
from alpacare_jax.plan.programs import Compiled, Outcome, Program, outcome_to_dict
from alpacare_jax.plan.search import Search


def plan_values(
    program: Program, place: Topology, outcome: Outcome, search: Search | None = None
) -> dict[str, Any]:
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
        "uneven": uneven(program, place),
        "search": search.to_dict() if search else None,
        "outcome": outcome_to_dict(outcome),
        "host": host_values(outcome.host, place) if isinstance(outcome, Compiled) else None,
        "estimate": estimate(program, place, outcome).to_dict() if isinstance(outcome, Compiled) else None,
    }


def mesh_sizes(program: Program, place: Topology) -> dict[str, int]:
    """Return the sizes of the mesh axes on a topology."""
    from alpacare_jax.sharding import MESH_AXES

    return dict(zip(MESH_AXES, program.config.mesh.shape(place.devices), strict=True))


def plan_text(program: Program, place: Topology, outcome: Outcome, search: Search | None = None) -> str:
    """Return a plan as lines."""
    lines = head_lines(program, place)
    if search is not None:
        lines += [*search_lines(search), ""]
    if not isinstance(outcome, Compiled):
        return "\n".join([*lines, str(outcome)])
    if outcome.kernel:
        lines.insert(lines.index(""), f"attention {outcome.kernel}")
    lines += [*memory_lines(outcome, place), "", *speed_lines(program, place, outcome)]
    return "\n".join(lines if outcome.fits else [*lines, "", summarize(outcome)])


def head_lines(program: Program, place: Topology) -> list[str]:
    """Return what is planned, in lines."""
    mesh = ", ".join(f"{axis}={size}" for axis, size in mesh_sizes(program, place).items() if size > 1)
    odd = uneven(program, place)
    return [
        f"model     {program.model.parameter_count:,} parameters, {program.model.num_hidden_layers} layers",
        f"devices   {place.devices} of {place.chip.name} ({place.name}), mesh {mesh or 'of one device'}",
        f"batch     {program.rows} rows of {program.seq_len} tokens, "
        f"{program.config.train.microbatches} microbatches, remat {program.config.compute.remat}",
        *([f"uneven    {odd}"] if odd else []),
        "",
    ]


def uneven(program: Program, place: Topology) -> str | None:
    """Say what the mesh does not divide of the model, and what that costs; None where it divides everything."""
    from alpacare_jax import sharding
    from alpacare_jax.model.uneven import describe_uneven

    mesh = sharding.abstract_mesh(program.config.mesh, place.devices)
    return describe_uneven(program.model, mesh, program.seq_len)


def search_lines(search: Search) -> list[str]:
    """Return what a search tried and found, line by line."""
    lines = ["rows per device"]
    for probe in sorted(search.probes, key=lambda probe: probe.rows_per_device):
        lines.append(f"  {probe.rows_per_device:>4}  {summarize(probe.outcome)}")
    if not search.largest:
        return [*lines, "  not even the fewest rows fit"]
    sure = (
        "the next size does not fit"
        if search.confirmed
        else "more may fit: the search was ended by its bound"
    )
    return [*lines, f"  largest that fits: {search.largest} ({sure})"]


def memory_lines(outcome: Compiled, place: Topology) -> list[str]:
    """Return the memory of a device, line by line."""
    parts = {
        "arguments": outcome.arguments,
        "temporaries": outcome.temporaries,
        "outputs": outcome.outputs,
        "aliased": -outcome.aliased,
    }
    if outcome.workspace:
        parts["workspace"] = outcome.workspace
    lines = ["per device, GiB"]
    lines += [f"  {name:<12}{size / GIB:>8.2f}" for name, size in parts.items()]
    lines.append(f"  {'in all':<12}{outcome.needed / GIB:>8.2f}  of {outcome.limit / GIB:.2f}")
    lines.append(f"  {'headroom':<12}{outcome.headroom / GIB:>8.2f}")
    if outcome.largest:
        lines.append(
            "  largest buffers: "
            + ", ".join(f"{b['size']} {b['shapes'].split(', ')[0]}" for b in outcome.largest[:4])
        )
    if outcome.host:
        lines += host_lines(outcome.host, place)
    return lines


def host_lines(size: int, place: Topology) -> list[str]:
    """Return what lies in the host's memory, line by line: for a device, and for all devices of a host."""
    count, memory = place.devices_per_host, place.host_memory
    line = f"  {'on the host':<12}{size / GIB:>8.2f}"
    if memory is None:
        return [line + "  (a host's memory is not known here; --host-gib says it)"]
    assert place.host_limit is not None
    machine = place.host.machine if place.host and place.host_bytes is None else "host"
    return [
        line + f"  of {place.host_limit / GIB:.2f}",
        f"    {count} devices on a {machine}: {count * size / GIB:.1f} of {memory / GIB:.1f} GiB, "
        f"{HOST_RESERVED / 10**9:.0f} GB left alone",
    ]


def host_values(size: int, place: Topology) -> dict[str, Any]:
    """Return the host's side of a plan as plain JSON values."""
    limit = place.host_limit
    return {
        "machine": place.host.machine if place.host and place.host_bytes is None else None,
        "devices": place.devices_per_host,
        "memory_bytes": place.host_memory,
        "limit_bytes": None if limit is None else limit * place.devices_per_host,
        "needed_bytes": size * place.devices_per_host,
    }


def speed_lines(program: Program, place: Topology, outcome: Compiled) -> list[str]:
    """Return what a step does and how long it should take, line by line."""
    found = estimate(program, place, outcome)
    lines = ["a step, per device"]
    lines.append(f"  model's own  {found.model_flops / 1e12:>8.2f} TFLOP (causal attention counted once)")
    lines.append(
        f"  program's    {found.flops / 1e12:>8.2f} TFLOP, {found.recomputed:+.0%}: what is recomputed"
    )
    lines.append(f"  memory       {outcome.costs['memory_bytes'] / GIB:>8.2f} GiB read and written")
    for kind, size in sorted(outcome.costs["collective_bytes"].items(), key=lambda item: -item[1]):
        lines.append(f"  received     {size / GIB:>8.2f} GiB by {kind}")
    if outcome.costs["host_bytes"]:
        lines.append(f"  host         {outcome.costs['host_bytes'] / GIB:>8.2f} GiB to and from")
    return [*lines, "", *estimate_lines(found)]


def estimate_lines(found: Estimate) -> list[str]:
    """Return the estimate, line by line."""
    lines = ["estimate, not a measurement (docs/planning.md says how)"]
    lines.append(f"  {'ms':<30}{'cores':>8}{'waits':>8}{'links':>8}{'network':>8}{'host':>8}  bound by")
    for part in found.stretches:
        times = (part.cores_s, part.waits_s, part.links_s, part.network_s, part.host_s)
        row = "".join(f"{1000 * seconds:>8.1f}" for seconds in times)
        lines.append(f"  {part.name:<30}{row}  {part.bound}")
    lines.append(
        f"  step {1000 * found.step_s:.0f} ms, {found.tokens_per_s:,.0f} tokens/s, MFU {found.mfu:.0%} (estimate)"
    )
    return lines


def modelled_text(program: Program, place: Topology, found: Modelled) -> str:
    """Return what formulas say of devices whose compiler is not installed, as lines."""
    parts = {
        "state": found.state,
        "gradients": found.gradients,
        "kept": found.kept,
        "a layer": found.working,
        "loss": found.loss,
    }
    lines = ["per device, GiB (model, not measured)"]
    lines += [f"  {name:<12}{size / GIB:>8.2f}" for name, size in parts.items()]
    lines.append(f"  {'in all':<12}{found.needed / GIB:>8.2f}  of {found.limit / GIB:.2f}")
    lines.append(f"  {'headroom':<12}{(found.limit - found.needed) / GIB:>8.2f}")
    lines += host_lines(found.host, place) if found.host else []
    verdict = "" if found.fits else "\ndoes not fit, by the model"
    speed = program.rows * program.seq_len / found.step_s
    mfu = found.model_flops / found.step_s / place.chip.bf16_flops
    lines.append("")
    lines.append(
        f"step {1000 * found.step_s:.0f} ms, {speed:,.0f} tokens/s, MFU {mfu:.0%}, bound by {found.bound}, "
        f"{found.recomputed:+.0%} recomputed (model, not measured)"
    )
    lines.append("the real compiler says it exactly, without a GPU: alpacare plan --fetch-gpu-compiler")
    return "\n".join([*head_lines(program, place), *lines]) + verdict


def ways_text(ways: list[Way], place: Topology, most: int = 24) -> str:
    """Return the ways to run a batch as a table, the choice and its reason below."""
    judged = [way for way in ways if way.judged]
    lines = [
        f"{'mesh':<20}{'micro':>6}  {'remat':<12}{'at once':>7}{'GiB':>8}{'again':>7}{'recv GiB':>9}{'ms':>8}"
        f"{'tok/s':>10}{'MFU':>5}  by"
    ]
    for way in ways[: max(most, len(judged))]:
        found = way.to_dict(place)
        fits = "  refused" if way.refused else "" if way.fits else "  does not fit"
        lines.append(
            f"{mesh_name(way.program, place):<20}{found['microbatches']:>6}  {found['remat']:<12}"
            f"{found['layer_rows'] or 'all':>7}{found['needed_bytes'] / GIB:>8.2f}{found['recomputed_share']:>7.0%}"
            f"{found['received_bytes'] / GIB:>9.1f}{1000 * found['step_s']:>8.0f}{found['tokens_per_s']:>10,.0f}"
            f"{found['mfu']:>5.0%}  {'compiler' if found['compiled'] else 'model'}{fits}"
        )
    lines += [f"refused: {way.name(place)}: {way.refused}" for way in judged if way.refused]
    if len(ways) > max(most, len(judged)):
        lines.append(
            f"... and {len(ways) - max(most, len(judged))} more that the model finds slower or larger"
        )
    best = choose(ways)
    if best is None:
        return "\n".join([*lines, "", "none of them fits"])
    how = (
        f"the fastest that fits of {len(judged)} compiled"
        if judged
        else "the fastest that fits, by the model"
    )
    sizes = " ".join(
        f"mesh.{name}={size}"
        for name, size in best.to_dict(place)["mesh"].items()
        if size > 1 or name == "fsdp"
    )
    config = best.program.config
    return "\n".join(
        [
            *lines,
            "",
            f"choice: {best.name(place)}: {how}; estimates, not measurements",
            f"  {sizes} train.microbatches={config.train.microbatches} compute.remat={config.compute.remat} "
            f"compute.layer_rows={config.compute.layer_rows or 'null'}",
        ]
    )
