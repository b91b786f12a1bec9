"""The process that holds the compiler of TPUs or GPUs: reads programs as JSON lines, answers each with one.

It is a process of its own because the compiler wants its environment set before jax starts, prints as it pleases, and
ends its process where it meets something it does not expect.
"""

import dataclasses
import importlib.util
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from alpacare_jax.errors import ConfigError, UserError
from alpacare_jax.hardware.topology import Topology, parse_topology
from alpacare_jax.plan import assignment, costs, gpus, hlo
from alpacare_jax.plan.collectives import Places
from alpacare_jax.plan.programs import Compiled, Outcome, Program, TooLarge, outcome_to_dict
from alpacare_jax.plan.workspaces import attention_workspace
from alpacare_jax.train.program import is_too_large, needed_memory


def devices_of(topology: Topology) -> list[Any]:
    """Return the devices of a topology that is not there, to compile for.

    Raises:
        ConfigError: The compiler knows no such topology, or is not installed.
    """
    platform = topology.chip.platform
    newer = {
        "tpu": "pip install --upgrade libtpu",
        "gpu": "a newer jax and `alpacare plan --fetch-gpu-compiler`",
    }
    try:
        return gpus.devices_of(topology) if platform == "gpu" else tpus_of(topology)
    except Exception as error:  # whatever the plug-in raises becomes a message
        raise ConfigError(
            f"the {platform.upper()} compiler does not know this topology",
            where=f"topology: {topology.name}",
            found=str(error).splitlines()[0],
            remedy=f"another topology, or a newer compiler: {newer[platform]}",
        ) from error


def tpus_of(topology: Topology) -> list[Any]:
    """Return TPUs that are not there, slice by slice."""
    from jax.experimental import topologies

    options: dict[str, Any] = {} if topology.slices == 1 else {"num_slices": topology.slices}
    if topology.chip.compiler_name == "v4":
        # Two cores as one device, as a v4 slice presents itself to jax.
        options["chip_config_name"] = "megacore"
    made = topologies.get_topology_desc(platform="tpu", topology_name=topology.compiler_name, **options)
    return list(made.devices)


PLATFORMS = {"tpu": "tpu", "gpu": "cuda"}
"""What jax calls them when it lowers a program."""
Early = Callable[[Callable[[Path], Outcome]], None]


def compile_program(program: Program, early: Early | None = None) -> Outcome:
    """Compile a training step and say what it takes.

    Args:
        program: The step.
        early: Told, before the compiler starts, how to make an outcome of what it writes down on its way; None where
            it is to finish.

    Raises:
        UserError: The program is refused before the compiler sees it, by mesh, batch or model.
    """
    import jax
    import jax.numpy as jnp

    from alpacare_jax import sharding

    topology = parse_topology(program.topology)
    mesh = sharding.make_mesh(program.config.mesh, devices_of(topology))
    program, kernel = with_kernel(program, topology)
    train_step = program.config.train_step(program.model, 1000, mesh)
    train_step.architecture.check_mesh(mesh)
    state, step = train_step.abstract_state(), cast(Any, train_step.compile_step())
    column = jax.ShapeDtypeStruct(
        (program.rows, program.seq_len), jnp.int32, sharding=sharding.batch_sharding(mesh)
    )
    batch = dict.fromkeys(("tokens", "segment_ids", "positions", "loss_mask"), column)
    started = time.monotonic()
    with sharding.use_mesh(mesh):
        lowered = step.trace(state, batch).lower(lowering_platforms=(PLATFORMS[topology.chip.platform],))
    places = places_of(mesh, topology)
    if early is not None:
        early(lambda folder: assigned(folder, places, topology, time.monotonic() - started, kernel))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not is_too_large(error):
            raise
        needed, most = needed_memory(str(error))
        return TooLarge(needed, most or topology.chip.memory_bytes, time.monotonic() - started)
    seconds = time.monotonic() - started
    found, text = compiled.memory_analysis(), program_text(compiled)
    outcome = Compiled(
        arguments=found.argument_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        outputs=found.output_size_in_bytes,
        aliased=found.alias_size_in_bytes,
        code=found.generated_code_size_in_bytes,
        limit=topology.chip.memory_bytes,
        host=found.host_temp_size_in_bytes + found.host_argument_size_in_bytes,
        compile_s=seconds,
        costs=costs.count(text, places, topology.chip),
        largest=largest_of(dump_folder()),
        kernel=kernel,
        workspace=attention_workspace(hlo.read_module(text)),
    )
    # The TPU compiler refuses what is too large; the one for GPUs leaves that to the run.
    return outcome if outcome.needed <= outcome.limit else TooLarge(outcome.needed, outcome.limit, seconds)


def with_kernel(program: Program, topology: Topology) -> tuple[Program, str]:
    """Name in a program the attention kernel that a run with this jax would choose on the devices.

    Returns:
        The program, and the kernel with the reason for it.
    """
    from alpacare_jax import attention

    compute, chip = program.config.compute, topology.chip
    chosen = attention.select_kernel(
        attention.KernelContext(
            platform=chip.platform,
            device_kind=chip.name,
            dtype=compute.dtype,
            head_dim=program.model.head_dim,
            length=program.seq_len,
            context=program.config.mesh.shape(topology.devices)[3],
            compute_capability=chip.compute_capability,
            has_tokamax=importlib.util.find_spec("tokamax") is not None,
        ),
        compute.attention,
    )
    named = dataclasses.replace(compute, attention=chosen.name)
    named_program = program.replace(config=dataclasses.replace(program.config, compute=named))
    return named_program, f"{chosen.name} ({chosen.reason})"


def program_text(compiled: Any) -> str:
    """Return a compiled program's text, as the compiler wrote it to its folder, or as jax reads it back."""
    folder = dump_folder()
    files: list[Path] = []
    if folder:
        files = sorted(folder.glob(assignment.ASSIGNED)) or sorted(folder.glob(assignment.OPTIMISED))
    return files[-1].read_text(encoding="utf-8") if files else compiled.as_text()


def dump_folder() -> Path | None:
    """Return the folder that the compiler writes its decisions to; None where it was not asked to."""
    match = re.search(r"--xla_dump_to=(\S+)", os.environ.get("XLA_FLAGS", ""))
    return Path(match[1]) if match else None


def largest_of(folder: Path | None) -> list[dict[str, str]]:
    """Return the largest buffers by the compiler's own report, none where it has not written one."""
    files = sorted(folder.glob(assignment.LARGEST)) if folder else []
    return assignment.read_largest(files[-1].read_text(encoding="utf-8")) if files else []


def assigned(folder: Path, places: Places, topology: Topology, seconds: float, kernel: str) -> Outcome:
    """Say what a step takes once its buffers have their places, from what the compiler wrote down."""
    text = sorted(folder.glob(assignment.ASSIGNED))[-1].read_text(encoding="utf-8")
    found = assignment.read_buffers(sorted(folder.glob(assignment.BUFFERS))[-1].read_text(encoding="utf-8"))
    limit = topology.chip.memory_bytes
    needed = found["arguments"] + found["temporaries"] + found["outputs"]
    if needed > limit:
        return TooLarge(needed, limit, seconds)
    return Compiled(
        arguments=found["arguments"],
        temporaries=found["temporaries"],
        outputs=found["outputs"] + found["aliased"],
        aliased=found["aliased"],
        code=0,
        limit=limit,
        host=found["host"],
        compile_s=seconds,
        costs=costs.count(text, places, topology.chip),
        largest=largest_of(folder),
        kernel=kernel,
    )


def places_of(mesh: Any, topology: Topology) -> Places:
    """Say where the devices of a mesh stand in their slices."""
    devices = list(mesh.devices.flat)
    return Places(
        coordinates=tuple(tuple(device.coords) for device in devices),
        slices=tuple(_island(device, topology) for device in devices),
        sizes={name: int(size) for name, size in mesh.shape.items()},
        extent=topology.shape,
    )


def _island(device: Any, topology: Topology) -> int:
    """Return the number of the slice (TPU) or node (GPU) whose links a device is on."""
    if topology.chip.platform == "gpu":
        return int(device.process_index)
    return getattr(device, "slice_index", 0) or 0


PARTS = ("what", "where", "found", "expected", "remedy")
"""Of a user's error, as it travels to the process that asked."""


def text(part: object) -> str | None:
    """Return one part of an error as plain text."""
    return None if part is None else str(part)


def answer(line: str, early: Early | None = None) -> dict[str, Any]:
    """Do what one line asks and return the answer."""
    try:
        return outcome_to_dict(compile_program(Program.from_dict(json.loads(line)), early))
    except UserError as error:
        return {"refused": {key: text(getattr(error, key)) for key in PARTS}}
    except Exception as error:  # noqa: BLE001  # the parent turns it into one message with the log's place
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {str(error)[:2000]}"}


class Speaker:
    """Answers once for each line, whoever is first: the compiler's end, or a look at what it has written down."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        self._lock = threading.Lock()

    def say(self, values: dict[str, Any]) -> None:
        """Answer; where the other was first, wait for the process to end."""
        with self._lock:
            print(json.dumps(values), file=self._answers, flush=True)

    def stop_early(self, make: Callable[[Path], Outcome]) -> None:
        """Watch the compiler's folder, and answer and end this process once the buffers have their places."""
        folder = dump_folder()
        if folder is None:
            return

        def watch() -> None:
            assignment.wait_for_assignment(folder)
            with self._lock:
                try:
                    values = outcome_to_dict(make(folder)) | {"ended": True}
                except Exception:  # noqa: BLE001  # what is not understood is left to the compiler's own end
                    traceback.print_exc()
                    return
                print(json.dumps(values), file=self._answers, flush=True)
                # The compiler cannot be asked to stop.
                os._exit(0)

        threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> None:
    """Answer lines until there are no more; what the compiler prints goes to the error stream.

    Args:
        arguments: ``--early`` to answer, and end, once the buffers of a program have their places.
    """
    speaker = Speaker()
    os.dup2(2, 1)
    early = speaker.stop_early if "--early" in arguments else None
    for line in sys.stdin:
        speaker.say(answer(line, early))


if __name__ == "__main__":
    main(sys.argv[1:])
