"""Configurations: dataclasses read from YAML, changed by dotted overrides, checked key by key."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from alpacare_jax.adapters import config as adapters
from alpacare_jax.errors import ConfigError
from datagen.decoding import Malformed, parse_yaml, read_yaml_mapping
from datagen.records import shorten

T = TypeVar("T")


def load_config(path: str | Path, overrides: Sequence[str], kind: type[T]) -> T:
    """Read a configuration file and apply overrides.

    Args:
        path: A YAML file.
        overrides: ``key=value`` with dotted keys; values are read as YAML.
        kind: The dataclass to make.

    Raises:
        ConfigError: The file is missing or broken; a key is unknown or a value of the wrong type. All bad keys are
            named at once, each with the nearest known key.

    Example:
        >>> from alpacare_jax.train import RunConfig
        >>> load_config("run.yaml", ["optim.learning_rate=1e-5", "train.epochs=1"], RunConfig).train.epochs
        1.0
    """
    values = read_yaml_mapping(path)
    for override in overrides:
        _apply(values, override)
    adapter = values.get("adapter")
    if isinstance(adapter, dict) and adapter and "kind" not in adapter:
        raise ConfigError(
            "the adapter has no kind, so the whole model would be trained",
            where=f"{path}: adapter.kind",
            found=", ".join(map(str, adapter)),
            expected=", ".join(adapters.KINDS),
            remedy="name its kind, or none to train the whole model",
        )
    return build(kind, values, where=str(path))


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            "an override is not understood",
            found=override,
            expected="key=value, such as optim.learning_rate=1e-5",
        )
    *branches, leaf = key.split(".")
    for branch in branches:
        values = values.setdefault(branch, {})
        if not isinstance(values, dict):
            raise ConfigError("an override reaches into a plain value", where=override, found=branch)
    try:
        values[leaf] = parse_yaml(text)
    except Malformed as error:
        raise ConfigError(
            "an override's value is not valid YAML", where=shorten(override), found=error.reason
        ) from None


def build(kind: type[T], values: dict[str, Any], *, where: str) -> T:
    """Make a dataclass from plain values, naming every unknown key and every value of the wrong type.

    Raises:
        ConfigError: Something does not fit.
    """
    problems = unknown_keys(kind, values) or _flags_for_numbers(kind, values)
    if not problems:
        try:
            return pydantic.TypeAdapter(kind).validate_python(values)
        except pydantic.ValidationError as error:
            for issue in error.errors():
                key = ".".join(str(part) for part in issue["loc"] if not isinstance(part, int))
                problems.append(f"{key}: {issue['msg']} (found {issue['input']!r})")
    raise ConfigError(
        "the configuration is not valid",
        where=where,
        found="\n            ".join(problems),
        remedy="mend these keys",
    )


def unknown_keys(kind: Any, values: dict[str, Any], prefix: str = "") -> list[str]:
    """List the keys that a dataclass and the dataclasses within it do not have, each with the nearest one."""
    hints = typing.get_type_hints(kind)
    problems = []
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(sorted(hints))}"
            problems.append(f"{prefix}{key}: unknown key{hint}")
        elif dataclasses.is_dataclass(_without_none(hints[key])) and isinstance(value, dict):
            problems += unknown_keys(_without_none(hints[key]), value, f"{prefix}{key}.")
    return problems


def _flags_for_numbers(kind: Any, values: dict[str, Any], prefix: str = "") -> list[str]:
    """List where true or false stands for a number, which pydantic takes for 1 or 0."""
    problems = []
    for key, hint in typing.get_type_hints(kind).items():
        wanted, value = _without_none(hint), values.get(key)
        if dataclasses.is_dataclass(wanted) and isinstance(value, dict):
            problems += _flags_for_numbers(wanted, value, f"{prefix}{key}.")
        elif wanted in (int, float) and isinstance(value, bool):
            problems.append(f"{prefix}{key}: a number is wanted (found {value})")
    return problems


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def to_yaml(config: Any) -> str:
    """Write a configuration as YAML, every default spelled out."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
