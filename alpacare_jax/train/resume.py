"""Which configuration keys a resumed run may change."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from alpacare_jax import checkpoint
from alpacare_jax.errors import ConfigError
from alpacare_jax.train.config import RunConfig

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


def check_unchanged(saved: dict[str, Any], now: dict[str, Any], out: Path, *, accepted: bool = False) -> None:
    """Check that a resumed run learns what it was started to learn.

    Args:
        saved: What the checkpoint belongs to, from :func:`run_folder.describe`.
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
