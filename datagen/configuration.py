"""Settings as frozen dataclasses: read from YAML files, dotted overrides and Python, checked by their annotations.

A field's annotation says what it may be: ``rank: Annotated[int, Range(1, 65_536)]`` for numbers,
``kind: Annotated[str, ("none", "lora")]`` for one of several names. A class calls :func:`check` when it is made, so
Python, files and the command line meet the same rules and the same errors.
"""

import dataclasses
import functools
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from datagen.decoding import Malformed, parse_yaml
from datagen.errors import ConfigError, UserError, did_you_mean

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of allowed numbers; NaN is in no range.

    Args:
        low: The smallest.
        high: The largest.
        above: Exclude ``low`` itself.
        below: Exclude ``high`` itself.
        beside: One more allowed number with a special meaning, such as -1.

    Example:
        >>> str(Range(0, 1, below=True)), 1.0 in Range(0, 1, below=True), -1 in Range(1, 8, beside=-1)
        ('at least 0 and below 1', False, True)
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    beside: float | None = None

    def __contains__(self, value: Any) -> bool:
        low = self.low < value if self.above else self.low <= value
        high = value < self.high if self.below else value <= self.high
        return (low and high) or value == self.beside

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:,}"
        beside = "" if self.beside is None else f", or {self.beside:,}"
        high = f" and {'below' if self.below else 'at most'} {self.high:,}" if self.high < math.inf else ""
        return f"{low}{high}{beside}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """The declaration of one field.

    Attributes:
        hint: Its type, without the rest of the annotation.
        allowed: The :class:`Range` or names that the value, or each element of a tuple, must be in; None allows all.
        field: The dataclass field.
    """

    hint: Any
    allowed: Range | tuple[str, ...] | None
    field: dataclasses.Field[Any]

    @functools.cached_property
    def types(self) -> tuple[Any, ...]:
        """The alternatives of its type."""
        return typing.get_args(self.hint) if isinstance(self.hint, types.UnionType) else (self.hint,)

    @functools.cached_property
    def _containers(self) -> list[Any]:
        return [typing.get_origin(each) for each in self.types]

    @functools.cached_property
    def group(self) -> Any:
        """The dataclass if the field is a group of settings, else None."""
        return next((each for each in self.types if dataclasses.is_dataclass(each)), None)

    def fit(self, value: Any, key: str) -> tuple[Any, list[str]]:
        """Convert a value to the declared type; return it with a list of problems."""
        fits = isinstance(value, self.group) if self.group else not value and type(value) in self._containers
        if not fits and type(value) not in self.types:
            try:
                if self.group:
                    raise ValueError  # pydantic would take a mapping, and pass over what it does not know
                # Texts and whole numbers stay what they are: "3" is no number, and 1 is not true.
                strict = isinstance(value, bool | int | str) and Path not in self.types
                value = _adapter(self.hint).validate_python(value, strict=strict)
            except ValueError:
                return value, [f"{key} must be {self}, not {value!r:.60}"]
        problems = []
        for each in value if isinstance(value, tuple) else (value,):
            if self.allowed is None or each is None or each in self.allowed:
                continue
            if isinstance(self.allowed, Range):
                problems.append(f"{key} must be {self.allowed}, not {f'{each:,}':.60}")
            else:
                near = did_you_mean(each, self.allowed)
                names = ", ".join(self.allowed)
                problems.append(f"{key}: {each!r} is not one of {names}" + (f"; {near}" if near else ""))
        return value, problems

    def __str__(self) -> str:
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path",
                 tuple: "a list", dict: "keys and values", type(None): "null"}  # fmt: skip
        known = [names.get(typing.get_origin(each) or each) for each in self.types]
        return " or ".join(name or f"keys and values ({self.group.__name__})" for name in known)


@functools.cache
def declared(kind: type) -> dict[str, Setting]:
    """Return the declarations of the fields of a dataclass, by name."""
    hints = typing.get_type_hints(kind, include_extras=True)
    settings = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        hint, allowed = (
            (hint.__origin__, hint.__metadata__[0]) if hasattr(hint, "__metadata__") else (hint, None)
        )
        settings[field.name] = Setting(hint, allowed, field)
    return settings


@functools.cache
def _adapter(hint: Any) -> Any:
    import pydantic  # 0.1 s, and most values are of the right type already

    return pydantic.TypeAdapter(hint)


def check(
    settings: Any, where: str = "", problems: Iterable[str] = (), *, error: type[UserError] = ConfigError
) -> None:
    """Check the fields of a frozen dataclass against their annotations: for its ``__post_init__``.

    Lists become tuples and texts become paths where the annotation says so.

    Args:
        settings: The dataclass.
        where: The key that holds it, after a file or not (``FILE: key``), named in errors; "" at the top.
        problems: Further problems to report.
        error: The kind of error to raise.

    Raises:
        UserError: Of the given kind, with all problems.
    """
    file, _, group = where.rpartition(": ")
    prefix = f"{group}." if group else ""
    found = []
    for name, setting in declared(settings.__class__).items():
        value = getattr(settings, name)
        fitted, wrong = setting.fit(value, prefix + name)
        found += wrong
        if fitted is not value:
            object.__setattr__(settings, name, fitted)
    refuse([*found, *(prefix + problem for problem in problems)], file, error=error)


def refuse(problems: Sequence[str], where: str, *, error: type[UserError] = ConfigError) -> None:
    """Raise an error that lists all problems, if any; each begins with its key."""
    if len(problems) == 1:
        raise error(problems[0], where=where or re.split(r"[^\w.]", problems[0])[0])
    if problems:
        listed = "\n            ".join(problems)
        raise error(f"{len(problems)} settings are not valid", where=where or None, found=listed)


def find_problems(kind: type, values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Check plain values against a dataclass and list the problems, each beginning with its dotted key.

    Args:
        kind: The dataclass.
        values: Values of some of its fields; those of a group are a mapping.
        prefix: Prefix of the keys in messages.
    """
    problems = []
    settings = declared(kind)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in settings:
            problems.append(_unknown(kind, name, prefix))
        elif settings[name].group and isinstance(value, Mapping):
            problems += find_problems(settings[name].group, value, f"{key}.")
        else:
            problems += settings[name].fit(value, key)[1]
    return problems


def _unknown(kind: type, name: str, prefix: str = "") -> str:
    known = declared(kind)
    near = did_you_mean(name, known, prefix=prefix)
    return f"{prefix}{name}: unknown key; {near or 'known: ' + ', '.join(sorted(known))}"


def make(kind: type[T], **values: Any) -> T:
    """Make a dataclass from keyword arguments that a function passes on.

    Raises:
        ConfigError: It has no such field, or a value does not fit.

    Example:
        >>> make(Range, low=0, hihg=1)
        Traceback (most recent call last):
        datagen.errors.ConfigError: hihg: unknown key; did you mean high?
          where:    hihg
    """
    refuse([_unknown(kind, name) for name in values if name not in declared(typing.cast(type, kind))], "")
    return kind(**values)


def build(kind: type[T], *sources: tuple[str, Mapping[str, Any]]) -> T:
    """Make a dataclass from nested mappings; later ones override earlier ones, and all override the defaults.

    Args:
        kind: The dataclass.
        sources: Pairs of a name for messages (a file, "the command line") and its mapping.

    Raises:
        ConfigError: Unknown or missing keys, wrong types or impossible values; all of them are named at once.

    Example:
        >>> build(Range, ("a.yaml", {"low": 0, "high": 4}), ("b.yaml", {"high": 8}))
        Range(low=0, high=8, above=False, below=False, beside=None)
    """
    absent: list[str] = []
    made = _make(kind, merge(kind, *sources), "", absent)
    refuse(
        [f"{key} is missing" for key in absent], " and ".join(where for where, values in sources if values)
    )
    return typing.cast(T, made)


def merge(kind: type, *sources: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merge nested mappings, which may lack keys; arguments and errors as for :func:`build`."""
    merged: dict[str, Any] = {}
    found = {}
    for where, values in sources:
        if wrong := find_problems(kind, values):
            found[where] = wrong
        merged = lay_over(merged, values)
    if len(found) > 1:
        refuse([f"{where}: {each}" for where, wrong in found.items() for each in wrong], "")
    for where, wrong in found.items():
        refuse(wrong, where)
    return merged


def _make(kind: type, values: Mapping[str, Any], prefix: str, absent: list[str]) -> Any:
    """Make a dataclass of values without problems; collect the keys that need a value and have none."""
    made = {}
    for name, setting in declared(kind).items():
        field, value = setting.field, values.get(name)
        required = field.default is field.default_factory is dataclasses.MISSING
        if setting.group and (isinstance(value, Mapping) or (required and name not in values)):
            # A default that a factory makes stands for the whole group only.
            below = vars(field.default) if dataclasses.is_dataclass(field.default) else {}
            made[name] = _make(setting.group, {**below, **(value or {})}, f"{prefix}{name}.", absent)
        elif required and value in (None, ""):  # also an empty shell variable: --model "$MODEL"
            absent.append(prefix + name)
        elif name in values:
            made[name] = value
    return None if absent else kind(**made)


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings; the second overrides the first.

    Example:
        >>> lay_over({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
        {'a': {'b': 3, 'c': 2}}
    """
    result = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = lay_over(result[key], value) if nested else value
    return result


def parse_overrides(kind: type, overrides: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` words with dotted keys, for settings of some kind.

    Values are read as YAML. Where a field holds text, ``3`` and ``off`` are text as well, and where one that holds no
    text may be null, ``none`` and ``inf`` (no limit) are null.

    Raises:
        ConfigError: A word is not ``key=value``, or its value is not valid YAML.

    Example:
        >>> parse_overrides(Range, ["low=1e-5", "beside=none"])
        {'low': 1e-05, 'beside': None}
    """
    result: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            expected = "key=value, such as optim.learning_rate=1e-5"
            raise ConfigError("an override is not of the form key=value", found=override, expected=expected)
        try:
            value = parse_yaml(text)
        except Malformed as error:
            what = "an override's value is not valid YAML"
            raise ConfigError(what, where=override[:160], found=error.reason) from None
        *groups, name = key.split(".")
        inner: Any = kind
        for each in groups:
            inner = getattr(declared(inner).get(each), "group", None) if inner else None
        types = declared(inner)[name].types if inner and name in declared(inner) else ()
        if str in types and not isinstance(value, str | None if type(None) in types else str):
            value = text
        elif str(value).lower() in ("none", "inf") and str not in types and type(None) in types:
            value = None
        for each in reversed([*groups, name]):
            value = {each: value}
        result = lay_over(result, value)
    return result


def to_plain(settings: Any) -> Any:
    """Return settings as YAML and JSON hold them: groups as mappings, paths as texts, tuples as lists."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {field.name: to_plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    if isinstance(settings, tuple):
        return list(settings)
    return str(settings) if isinstance(settings, Path) else settings


def to_yaml(settings: Any) -> str:
    """Write settings as YAML, every default spelled out."""
    return yaml.safe_dump(to_plain(settings), sort_keys=False, allow_unicode=True)


def describe(kind: type, prefix: str = "", default: Any = None) -> Iterator[tuple[str, str]]:
    """Yield every dotted key of a settings class as ``key=DEFAULT`` in YAML, with its description.

    Example:
        >>> list(describe(Range))[2]
        ('above=false', 'Exclude ``low`` itself.')
    """
    docs: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        text = inspect.cleandoc(each.__doc__ or "")
        docs |= dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE))
    for name, setting in declared(kind).items():
        value = getattr(default, name) if default is not None else setting.field.default
        if setting.group:
            yield from describe(
                setting.group, f"{prefix}{name}.", value if dataclasses.is_dataclass(value) else None
            )
        else:
            shown = "" if value is dataclasses.MISSING else json.dumps(to_plain(value), ensure_ascii=False)
            yield f"{prefix}{name}={shown}", " ".join(docs.get(name, "").split())
