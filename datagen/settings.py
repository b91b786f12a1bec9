"""The settings of a synthesis run: read strictly from YAML and flags, and pinned to the work folder."""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from datagen.client import Sampling, Service
from datagen.errors import ConfigError, DataError
from datagen.records import SeedTask, write_atomically

# Free to change between runs of one work folder: they move the work or its end, never a result already there.
_FREE = ("target", "max_requests", "seeds", "eager")
_FREE_OF_SERVICE = ("base_url", "api_key_env", "timeout_s", "max_tries", "concurrency", "first_wait_s")

_TASK_SAMPLING = Sampling(presence_penalty=1.5, max_tokens=3072)
_ANSWER_SAMPLING = Sampling(presence_penalty=1.5, max_tokens=1024)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a synthesis run does.

    Attributes:
        teacher: Writes the tasks.
        answerer: Answers them.
        seeds: Seed file; None reads the project's own seeds.
        target: Accepted tasks at which the run stops asking for more.
        tasks_per_request: New tasks asked for in one request.
        examples: Seed tasks shown in one request.
        seed: Number from which every prompt is drawn.
        max_requests: Task requests after which the run gives up; None allows ten times what the target needs.
        similarity: ROUGE-L F1 with an earlier instruction above which a task is a near-duplicate.
        eager: Keep as many task requests in flight as allowed, though the last may not be needed: faster where
            requests cost nothing. Otherwise only as many as the target is estimated to need.
        send_seed: Send a sampling seed with each request, for services that honour it.
        task_sampling: How tasks are drawn.
        answer_sampling: How answers are drawn.
    """

    teacher: Service
    answerer: Service
    seeds: Path | None = None
    target: int = 100
    tasks_per_request: int = 12
    examples: int = 3
    seed: int = 0
    max_requests: int | None = None
    similarity: float = 0.7
    eager: bool = False
    send_seed: bool = False
    task_sampling: Sampling = _TASK_SAMPLING
    answer_sampling: Sampling = _ANSWER_SAMPLING

    def __post_init__(self) -> None:
        for name in ("target", "tasks_per_request", "examples", "max_requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1", found=value)
        if not 0 <= self.similarity <= 1:
            raise ConfigError("similarity is out of range", found=self.similarity, expected="0 to 1")

    def request_limit(self) -> int:
        """Return how many task requests the run may make."""
        if self.max_requests is not None:
            return self.max_requests
        return 10 * -(-self.target // self.tasks_per_request) + 10


def read_settings(sources: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Build the settings from nested mappings, each laid over the one before.

    Args:
        sources: Pairs of a name for messages (a file, "the command line") and its mapping. What the answerer
            does not name is the teacher's.

    Raises:
        ConfigError: Unknown keys, wrong types or impossible values; all bad keys are named at once.

    Example:
        >>> flags = {"teacher": {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}, "target": 5}
        >>> read_settings([("flags", flags)]).answerer.model
        'm'
    """
    problems: list[str] = []
    merged: dict[str, Any] = {}
    for name, mapping in sources:
        _check(Settings, mapping, "", name, problems)
        merged = _lay_over(merged, mapping)
    if not problems:
        merged["answerer"] = _inherit(merged.get("teacher", {}), merged.get("answerer", {}), problems)
    for key in ("base_url", "model"):
        if not problems and not merged.get("teacher", {}).get(key):
            problems.append(f"teacher.{key} is missing (in the config, or as --{key.replace('_', '-')})")
    if problems:
        unique = list(dict.fromkeys(problems))
        raise ConfigError("the configuration is not valid: " + "; ".join(unique), where=_names(sources))
    return _build(Settings, merged)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: The file is missing or is not a YAML mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "the configuration file does not exist", where=path, remedy="check the path"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("the configuration is not YAML", where=path, found=str(error)) from None
    if not isinstance(data, dict):
        raise ConfigError("the configuration must be a mapping", where=path, found=type(data).__name__)
    return data


def to_mapping(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON can hold them; :func:`read_settings` takes them back."""
    mapping = dataclasses.asdict(settings)
    mapping["seeds"] = str(settings.seeds.absolute()) if settings.seeds else None
    # What the answerer shares with the teacher stays shared when the teacher's is changed later.
    teacher, answerer = mapping["teacher"], mapping["answerer"]
    mapping["answerer"] = {key: value for key, value in answerer.items() if value != teacher[key]}
    return mapping


def pin(work: Path, settings: Settings, seeds: Sequence[SeedTask], prompt_version: str) -> None:
    """Write the settings into the work folder, or see that those that shape the result are the ones there.

    Raises:
        DataError: The folder was made by another configuration; every difference is named.
    """
    fixed = _fixed(settings, seeds, prompt_version)
    path = work / "config.json"
    if path.exists():
        there = _read_pinned(path)["fixed"]
        differences = [
            f"{key}: {there.get(key)!r} in the folder, {fixed.get(key)!r} now"
            for key in sorted(there.keys() | fixed.keys())
            if there.get(key) != fixed.get(key)
        ]
        if differences:
            raise DataError(
                "the work folder was made by another configuration",
                where=path,
                found="; ".join(differences),
                remedy="choose another --work folder, or go back to the values in the folder",
            )
    text = json.dumps({"version": 1, "fixed": fixed, "settings": to_mapping(settings)}, indent=2)
    write_atomically(path, lambda file: file.write(text + "\n"))


def pinned_settings(work: Path) -> dict[str, Any]:
    """Return the settings with which the work folder was last used, for :func:`read_settings`.

    Raises:
        DataError: The folder holds no configuration, or a broken one.
    """
    path = work / "config.json"
    if not path.exists():
        raise DataError(
            "this is not the work folder of a synthesis run", where=work, expected="a config.json in it"
        )
    settings: dict[str, Any] = _read_pinned(path)["settings"]
    return settings


def _read_pinned(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError("the work folder's configuration is broken", where=path, found=str(error)) from None
    if not isinstance(data, dict) or not {"fixed", "settings"} <= data.keys() or data.get("version") != 1:
        raise DataError("the work folder's configuration is of another version", where=path)
    return data


def _fixed(settings: Settings, seeds: Sequence[SeedTask], prompt_version: str) -> dict[str, Any]:
    text = json.dumps([seed.to_dict() for seed in seeds], sort_keys=True)
    fixed: dict[str, Any] = {
        "prompts": prompt_version,
        "seed tasks": f"{len(seeds)} tasks, {hashlib.sha256(text.encode()).hexdigest()[:12]}",
    }
    for name, value in dataclasses.asdict(settings).items():
        if isinstance(value, dict):
            kept = {key: v for key, v in value.items() if key not in _FREE_OF_SERVICE}
            fixed |= {f"{name}.{key}": list(v) if isinstance(v, tuple) else v for key, v in kept.items()}
        elif name not in _FREE:
            fixed[name] = value
    return fixed


def _names(sources: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    return " and ".join(name for name, mapping in sources if mapping) or "the command line"


def _inherit(teacher: Mapping[str, Any], answerer: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Give the answerer what it does not name itself, but never the teacher's key on another host."""
    own = dict(answerer)
    hosts = [urlsplit(str(service.get("base_url", ""))).netloc for service in (teacher, own)]
    if hosts[1] and hosts[0] != hosts[1] and "api_key_env" not in own:
        if Service(str(own["base_url"]), "any").is_loopback():
            own["api_key_env"] = ""
        else:
            problems.append(
                "answerer.api_key_env is missing (in the config, or as --answer-api-key-env): "
                "the answerer is at another host than the teacher, whose key is not for it"
            )
    return _lay_over(teacher, own)


def _lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _lay_over(result[key], value) if nested else value
    return result


def _check(kind: type, mapping: Mapping[str, Any], prefix: str, where: str, problems: list[str]) -> None:
    """Collect unknown keys and wrong types of one mapping against the fields of a dataclass."""
    hints = typing.get_type_hints(kind)
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        hint = hints.get(key)
        if hint is None:
            near = difflib.get_close_matches(str(key), hints, n=1)
            problems.append(
                f"unknown key {name!r} in {where}" + (f" (did you mean {near[0]!r}?)" if near else "")
            )
        elif dataclasses.is_dataclass(hint):
            if isinstance(value, Mapping):
                _check(typing.cast(type, hint), value, f"{name}.", where, problems)
            else:
                problems.append(f"{name} in {where} must be a mapping, not {type(value).__name__}")
        elif not _fits(value, hint):
            expected = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
            problems.append(f"{name} in {where} must be {expected}, not {value!r}")


def _fits(value: object, hint: Any) -> bool:
    if typing.get_origin(hint) is types.UnionType:
        return any(_fits(value, each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str | Path)
    return isinstance(value, hint)


def _build(kind: type, mapping: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name not in mapping:
            continue
        value, hint = mapping[field.name], hints[field.name]
        if dataclasses.is_dataclass(hint):
            default = (
                {}
                if field.default is dataclasses.MISSING
                else dataclasses.asdict(typing.cast(Any, field.default))
            )
            value = _build(typing.cast(type, hint), _lay_over(default, value))
        elif hint is float:
            value = float(value)
        elif typing.get_origin(hint) is tuple:
            value = tuple(value)
        elif field.name == "seeds" and value is not None:
            value = Path(value)
        values[field.name] = value
    return kind(**values)
