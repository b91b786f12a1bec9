"""The process that runs the compiler of TPUs or GPUs: reads one program from a folder, and writes the outcome there.

The TPU compiler assigns all buffers after about a tenth of its time; the rest makes machine code, which a plan does
not need. So it is asked to write its decisions to the folder, and this process ends as soon as they are there.
"""

import concurrent.futures
import importlib.util
import os
import pickle
import re
import sys
import time
from pathlib import Path
from typing import Any

from alpacare_jax.errors import ConfigError, UserError
from alpacare_jax.hardware.topology import Topology
from alpacare_jax.plan import costs, gpus, hlo
from alpacare_jax.plan.collectives import Places
from alpacare_jax.plan.outcome import Compiled, Outcome, TooLarge
from alpacare_jax.plan.products import attention_workspace
from alpacare_jax.plan.program import Program, choose_kernel
from alpacare_jax.train.program import is_too_large, needed_memory

ASSIGNED = "*jit__step*after_optimizations_after_buffer_assignment.txt"
"""The last file that the TPU compiler writes before it makes machine code: the optimised program."""
OPTIMISED = "*jit__step*after_optimizations.txt"
"""The optimised program as the compiler for GPUs writes it."""
BUFFERS = "*jit__step*after_optimizations-buffer-assignment.txt"
LARGEST = "*jit__step*after_optimizations-memory-usage-report.txt"
SETTLED_S = 0.6
"""Seconds for which a file that is written must not have grown."""
PLATFORMS = {"tpu": "tpu", "gpu": "cuda"}
"""What jax calls them when it lowers a program."""


def devices_of(topology: Topology) -> list[Any]:
    """Return the devices of a topology that is not present, to compile for.

    Raises:
        ConfigError: The compiler knows no such topology, or is not installed.
    """
    platform = topology.chip.platform
    try:
        return gpus.devices_of(topology) if platform == "gpu" else tpus_of(topology)
    except Exception as error:  # whatever the plug-in raises becomes a message
        newer = "a newer jax and `alpacare plan --fetch-gpu-compiler`"
        raise ConfigError(
            f"the {platform.upper()} compiler does not know this topology",
            where=f"topology: {topology.name}",
            found=str(error).splitlines()[0],
            remedy="choose another topology, or install a newer compiler: "
            + (newer if platform == "gpu" else "pip install --upgrade libtpu"),
        ) from error


def tpus_of(topology: Topology) -> list[Any]:
    """Return TPUs that are not present, slice by slice."""
    from jax.experimental import topologies

    options: dict[str, Any] = {} if topology.slices == 1 else {"num_slices": topology.slices}
    if topology.chip.name == "v4":
        # Two cores as one device, as a v4 slice presents itself to jax.
        options["chip_config_name"] = "megacore"
    made = topologies.get_topology_desc(platform="tpu", topology_name=topology.slice_name, **options)
    return list(made.devices)


def compile_program(program: Program, folder: Path, *, early: bool) -> Outcome:
    """Compile a training step and return what it takes.

    Args:
        program: The step.
        folder: Where the compiler writes its decisions.
        early: Return as soon as buffers are assigned, while the compiler goes on.

    Raises:
        UserError: The program is refused before the compiler sees it, by mesh, batch or model.
    """
    import jax

    from alpacare_jax import sharding

    chip = program.place.chip
    mesh = sharding.make_mesh(program.config.mesh, devices_of(program.place))
    kernel = choose_kernel(program, has_tokamax=importlib.util.find_spec("tokamax") is not None)
    train_step = program.configured(attention=kernel.name).config.train_step(program.model, 1000, mesh)
    train_step.architecture.check_mesh(mesh)
    started = time.monotonic()
    with sharding.use_mesh(mesh):
        traced = train_step.trace(program.rows, program.seq_len)
        lowered = traced.lower(lowering_platforms=(PLATFORMS[chip.platform],))
    compiling = concurrent.futures.ThreadPoolExecutor(1).submit(lowered.compile)
    if early and is_assigned(folder, compiling):
        memory, text = read_buffers(newest(folder, BUFFERS)), newest(folder, ASSIGNED)
    else:
        try:
            compiled = compiling.result()
        except jax.errors.JaxRuntimeError as error:
            if not is_too_large(error):
                raise
            needed, most = needed_memory(str(error))
            return TooLarge(needed, most or chip.memory_bytes, time.monotonic() - started)
        memory = memory_of(compiled)
        text = newest(folder, ASSIGNED) or newest(folder, OPTIMISED) or compiled.as_text()
    module = hlo.read_module(text)
    outcome = Compiled(
        **memory,
        limit=chip.memory_bytes,
        compile_s=time.monotonic() - started,
        costs=costs.count(module, places_of(mesh, program.place), chip),
        largest=read_largest(newest(folder, LARGEST)),
        host_limit=program.place.host_limit,
        kernel=f"{kernel.name} ({kernel.reason})",
        workspace=attention_workspace(module),
    )
    # The TPU compiler refuses what is too large only at its end, the one for GPUs leaves that to the run.
    if outcome.needed > outcome.limit:
        return TooLarge(outcome.needed, outcome.limit, outcome.compile_s)
    return outcome


def is_assigned(folder: Path, compiling: "concurrent.futures.Future[Any]") -> bool:
    """Wait until the compiler has written its decisions; return False if it ended before."""
    seen, since = 0, time.monotonic()
    while not compiling.done():
        size = sum(file.stat().st_size for file in folder.glob(ASSIGNED))
        if size != seen:
            seen, since = size, time.monotonic()
        elif size and time.monotonic() - since >= SETTLED_S:
            return True
        concurrent.futures.wait([compiling], timeout=0.2)
    return False


def newest(folder: Path, pattern: str) -> str:
    """Return the text of the last file of a pattern; empty if there is none."""
    files = sorted(folder.glob(pattern))
    return files[-1].read_text(encoding="utf-8") if files else ""


def memory_of(compiled: Any) -> dict[str, int]:
    """Return the bytes by kind of a compiled program, by its own account."""
    found = compiled.memory_analysis()
    return {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "aliased": found.alias_size_in_bytes,
        "code": found.generated_code_size_in_bytes,
        "host": found.host_temp_size_in_bytes + found.host_argument_size_in_bytes,
    }


def read_buffers(text: str) -> dict[str, int]:
    """Add up the buffers by kind, in bytes, from what the compiler wrote.

    Returns:
        As :func:`memory_of`, without code: ``aliased`` are arguments that become results, part of ``outputs`` too;
        ``host`` are temporaries in the host's memory.

    Example:
        >>> read_buffers("allocation 0: size 8, page 0, parameter 1, shape |f32[2]| at ShapeIndex {}, maybe-live-out:")
        {'arguments': 8, 'temporaries': 0, 'outputs': 8, 'aliased': 8, 'code': 0, 'host': 0}
    """
    found = dict.fromkeys(("arguments", "temporaries", "outputs", "aliased", "code", "host"), 0)
    for number, color, rest in re.findall(
        r"^allocation \d+: size (\d+),(?: color (\d+),)?(.*)$", text, re.MULTILINE
    ):
        size, parameter = int(number), " parameter " in rest and "thread-local" not in rest
        if color:
            found["host"] += size * (parameter or ("preallocated-temp" in rest and int(color) == hlo.HOST))
        elif parameter:
            found["arguments"] += size
            found["aliased"] += size * ("maybe-live-out" in rest)
            found["outputs"] += size * ("maybe-live-out" in rest)
        elif "preallocated-temp" in rest:
            found["temporaries"] += size
        elif "maybe-live-out" in rest:
            found["outputs"] += size
    return found


def read_largest(text: str, most: int = 8) -> list[dict[str, str]]:
    """Read the largest buffers of the device's memory from the compiler's report.

    Returns:
        For each its ``size`` and the shapes that lie there one after another, as the compiler writes them.
    """
    part = text.partition("Memory Space: default")[2].partition("Memory Space:")[0]
    rows = re.findall(r"^\s*\S+\(\s*\d+%\);\s*([\d.]+\w+);\s*\d+;\s*\d+; (.*)$", part, re.MULTILINE)
    return [{"size": size, "shapes": shapes[:200]} for size, shapes in rows[:most]]


def places_of(mesh: Any, topology: Topology) -> Places:
    """Return where the devices of a mesh stand in their slices (TPU) or nodes (GPU)."""
    devices = list(mesh.devices.flat)
    gpu = topology.chip.platform == "gpu"
    return Places(
        coordinates=tuple(tuple(device.coords) for device in devices),
        slices=tuple(
            int(device.process_index) if gpu else getattr(device, "slice_index", 0) or 0 for device in devices
        ),
        sizes={name: int(size) for name, size in mesh.shape.items()},
        extent=topology.shape,
    )


def main(folder: Path, *, early: bool) -> None:
    """Compile the program in a folder and write the outcome, or the user's error, beside it."""
    answer: Outcome | UserError
    try:
        answer = compile_program(pickle.loads((folder / "program").read_bytes()), folder, early=early)
    except UserError as error:
        answer = error
    (folder / "answer").write_bytes(pickle.dumps(answer))
    os._exit(0)  # the compiler may still be at work, and cannot be asked to stop


if __name__ == "__main__":
    main(Path(sys.argv[1]), early="--early" in sys.argv)
