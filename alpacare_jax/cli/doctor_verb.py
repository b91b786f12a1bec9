"""``alpacare doctor``: what this machine offers a run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from alpacare_jax import doctor


def command(
    folder: Annotated[
        Path, typer.Option(help="Folder where runs would be written; its free disk is shown.")
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Show versions, devices, memory, optional parts, checked attention kernels and free disk, with advice."""
    from alpacare_jax import distributed, doctor, flags
    from alpacare_jax.errors import DataError

    if not folder.is_dir():
        raise DataError(
            "there is no such folder", where=folder, remedy="name an existing folder with --folder"
        )
    flags.set_flags()
    distributed.initialize_from_environment()
    checkup = doctor.examine(folder)
    if as_json:
        typer.echo(json.dumps(asdict(checkup), indent=2))
        return
    typer.echo(render(checkup))


def render(checkup: "doctor.Checkup") -> str:
    """Lay out the findings in lines of a name and what was found."""
    from alpacare_jax.doctor import OPTIONAL

    rows = [("python", f"{checkup.python} on {checkup.machine}, {checkup.cpus} CPU cores")]
    rows += [("memory", _gib(checkup.memory_bytes)), ("disk free", _gib(checkup.disk_free_bytes))]
    rows += list(checkup.versions.items())
    together = (
        f", {checkup.processes} processes, {checkup.all_devices} devices" if checkup.processes > 1 else ""
    )
    rows += [("platform", checkup.platform + together)]
    for index, device in enumerate(checkup.devices):
        rows.append(
            (f"device {index}", f"{device.platform}, {device.kind}, memory {_gib(device.memory_bytes)}")
        )
    for name, present in checkup.optional.items():
        purpose, _, install = OPTIONAL[name]
        rows.append((name, f"present ({purpose})" if present else f"absent; for {purpose}: {install}"))
    rows += list(checkup.environment.items())
    rows += [(f"attention {kernel}", said) for kernel, said in checkup.attention.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", *(f"advice: {sentence}" for sentence in checkup.advice or ("nothing needs doing",))]
    return "\n".join(lines)


def _gib(count: int | None) -> str:
    return "not told" if count is None else f"{count / (1 << 30):.1f} GiB"
