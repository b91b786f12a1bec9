"""What a resumed run may change, and what it may not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from alpacare_jax import checkpoint, convert
from alpacare_jax.convert.adapted import check_base
from alpacare_jax.errors import ConfigError
from alpacare_jax.model import LlamaConfig, Params
from alpacare_jax.train.config import RunConfig
from alpacare_jax.train.settings import Progress

FREE_TO_CHANGE = ("out", "mesh", "compute", "topology", "validation_data")
"""Parts of the configuration that a resumed run may change without changing what is learnt."""
FIXED = (
    *(f"adapter.{key}" for key in ("kind", "rank", "alpha", "targets", "base")),
    "train.freeze",
    "optim.name",
    "optim.state_dtype",
)
"""Keys that no resumed run may change: they say what a checkpoint holds, or how its adapters are merged later."""
FREE_KEYS = (
    "train.microbatches",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "adapter.start",
    "adapter.start_rows",
)
"""Keys that a resumed run may change too, or never reads."""
ORDER_FREE = ("adapter.targets", "train.freeze")
"""Keys whose values may stand in any order."""


def progress_of(out: Path) -> Progress | None:
    """Return what a run has done up to its latest checkpoint; None where it has none."""
    steps = checkpoint.steps_of(out)
    if not steps:
        return None
    with checkpoint.RunCheckpoints(out / "checkpoints") as checkpoints:
        saved = checkpoints.metadata(steps[-1])
    return Progress(steps[-1], int(saved["position"]), saved["schedule"]["batch_rows"])


def check_unchanged(saved: dict[str, Any], now: dict[str, Any], out: Path, *, accepted: bool = False) -> None:
    """Check that a resumed run learns what it was started to learn.

    Args:
        saved: What the checkpoint belongs to, from :func:`describe`.
        now: The same of the run as it is now.
        out: The run folder.
        accepted: Whether changes are asked for; those of :data:`FIXED` keys are refused all the same.

    Raises:
        ConfigError: Names every key that differs.
    """
    differing = changed_keys(saved["config"], now["config"])
    fixed = [text for key, text in differing.items() if key in FIXED]
    problems = list(differing.values())
    if saved["data"] != now["data"]:
        problems.append("the training data are not the same bytes")
    if saved["schedule"] != now["schedule"] and not problems:
        problems.append(f"the run's size: {saved['schedule']} before, {now['schedule']} now")
    if fixed:
        raise ConfigError(
            "the run's checkpoints do not fit this configuration",
            where=out,
            found="\n            ".join(fixed),
            remedy=f"restore these keys; or choose another `out` with `init` {out}, to start from what was learnt",
        )
    if problems and not accepted:
        raise ConfigError(
            "the run was started with another configuration",
            where=out,
            found="\n            ".join(problems),
            remedy="choose another `out`, restore these keys, or pass --accept-changes",
        )


def changed_keys(saved: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Say of every key that differs what it was and is; those that may change and those of no effect left out."""
    unset = dataclasses.asdict(RunConfig(out="", train_data="", init=""))
    before = checkpoint.flatten(json.loads(json.dumps(unset))) | checkpoint.flatten(saved)
    after = checkpoint.flatten(now)
    free = {*FREE_TO_CHANGE, *FREE_KEYS}
    for config in (before, after):
        config.update({key: sorted(config[key]) for key in ORDER_FREE if config.get(key)})
    if before["adapter.kind"] == after["adapter.kind"] == "none":
        free.add("adapter")
    return {
        key: f"{key}: {before.get(key)!r} before, {after.get(key)!r} now"
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key) and key not in free and key.partition(".")[0] not in free
    }


def check_same_base(out: Path, model: LlamaConfig, base: Params, mesh: Mesh) -> None:
    """Check that the base that a resumed run's adapters stand on is the one they were trained on.

    Raises:
        CheckpointError: It is another.
    """
    check_base(out, checkpoint.read_description(out), model, convert.mark_base(base, mesh))
