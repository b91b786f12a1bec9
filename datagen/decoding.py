"""Strict readers of JSON and YAML from outside: everything else raises one error.

Python's own readers accept what no strict reader takes (NaN, half of a surrogate pair) and answer some texts with
whatever error their insides raise (a number of 5,000 digits, 100,000 brackets, a date with a month 13, an alias that
contains itself). Here each of these is :class:`Malformed` with the reason and the line, and what is accepted can be
written again as JSON in UTF-8.
"""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from datagen.errors import ConfigError, DataError, UserError
from datagen.files import read_bytes

#: Lists and objects within one another, in JSON and in YAML. Known formats use about ten.
MAX_DEPTH = 100
#: Values in one YAML file after its aliases are expanded, so that a few lines cannot fill the memory.
MAX_YAML_VALUES = 1_000_000

_STRING = r'"(?:[^"\\]|\\.)*+"'
_KEY_BEFORE = re.compile(rf"({_STRING}|[\w.-]++)(?=\s*:\s*\Z)", re.DOTALL)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HALF = "half of a surrogate pair, which no UTF-8 file can hold"
_MOST_DIGITS = sys.get_int_max_str_digits()
_TOO_MANY_DIGITS = f"a number has more than {_MOST_DIGITS:,} digits"
_TOO_DEEP = f"values are nested more than {MAX_DEPTH} levels deep"


class Malformed(ValueError):
    """A text is not acceptable JSON or YAML.

    Args:
        reason: What is wrong, such as ``NaN is not JSON, under "score"``.
        line: Where, counted from 1; None where no place can be given.
        column: Likewise.

    Example:
        >>> try:
        ...     parse_json('{"score": NaN}')
        ... except Malformed as error:
        ...     print(error)
        NaN is not JSON, under "score" (line 1, column 11)
    """

    def __init__(self, reason: str, line: int | None = None, column: int | None = None) -> None:
        self.reason, self.line, self.column = reason, line, column
        super().__init__(reason if line is None else f"{reason} (line {line}, column {column})")


def parse_json(text: str | bytes, *, repeats: bool = False) -> Any:
    """Read one JSON value strictly.

    Args:
        text: The whole text; bytes are UTF-8, with or without a byte order mark.
        repeats: Whether an object may hold a key twice, the last of which counts.

    Returns:
        The value. Its numbers are finite, its texts have a UTF-8 form, its depth is at most :data:`MAX_DEPTH`.

    Raises:
        Malformed: The text is something else.

    Example:
        >>> parse_json(b'{"n": [1, 2.5, null]}')
        {'n': [1, 2.5, None]}
    """
    text = _decode(text)
    value, end = parse_json_at(text, skip_space(text, 0), repeats=repeats)
    if (rest := skip_space(text, end)) < len(text):
        raise _malformed("text follows after the JSON value", text, rest)
    return value


def parse_json_at(text: str, at: int, *, repeats: bool = False) -> tuple[Any, int]:
    """Read the JSON value that begins at a place in a text.

    Returns:
        The value, and the place behind it.

    Raises:
        Malformed: No valid JSON value begins there.

    Example:
        >>> parse_json_at("[1] [2]", 4)
        ([2], 7)
    """
    try:
        value, end = (_LENIENT if repeats else _UNIQUE).raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise Malformed(error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise _malformed(_TOO_DEEP, text, at) from None
    except _Refused as refused:
        raise _malformed(refused.reason, text, _outside_strings(re.escape(refused.token), text, at)) from None
    except ValueError:  # from int(): more digits than Python converts
        digits = rf"-?\d{{{_MOST_DIGITS + 1}}}"
        raise _malformed(_TOO_MANY_DIGITS, text, _outside_strings(digits, text, at)) from None
    if text.count("[", at, end) + text.count("{", at, end) > MAX_DEPTH and _nested_too_deep(value):
        raise _malformed(_TOO_DEEP, text, at)
    raw = None if text.isascii() else _SURROGATE.search(text, at, end)
    place = raw or _ESCAPED_SURROGATE.search(text, at, end)
    if place and (raw or not _is_utf8(value)):
        raise _malformed(_HALF, text, place.start())
    return value, end


def parse_yaml(text: str | bytes) -> Any:
    """Read one YAML document of plain values strictly.

    Args:
        text: The whole text; bytes are UTF-8, with or without a byte order mark.

    Returns:
        The value; None for an empty document. Limits are those of :func:`parse_json`. Dates stay dates.

    Raises:
        Malformed: The text is something else.

    Example:
        >>> parse_yaml("optim: {learning_rate: 1.0e-5}")
        {'optim': {'learning_rate': 1e-05}}
    """
    text = _decode(text)
    try:
        value = yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        if mark is None:
            raise Malformed(reason) from None
        raise Malformed(reason + _under(text, mark.index), mark.line + 1, mark.column + 1) from None
    except yaml.reader.ReaderError as error:
        raise _malformed(f"the character {error.character!r} is not allowed", text, error.position) from None
    except RecursionError:
        raise Malformed(_TOO_DEEP) from None
    if _nested_too_deep(value, of_yaml=True):
        raise Malformed(_TOO_DEEP)
    return value


def read_json_object(path: str | Path, *, error: type[UserError] = DataError) -> dict[str, Any]:
    """Read a file that holds one JSON object; the last of duplicate keys counts, as for every library.

    Args:
        path: The file.
        error: The kind of error to raise.

    Raises:
        UserError: Of that kind: the file is missing or holds something else; the message names file and line.
    """
    return _read_mapping(path, lambda data: parse_json(data, repeats=True), "JSON", "a JSON object", error)


def read_yaml_mapping(path: str | Path, *, error: type[UserError] = ConfigError) -> dict[str, Any]:
    """Read a YAML file that holds keys and values.

    Args:
        path: The file.
        error: The kind of error to raise.

    Raises:
        UserError: Of that kind: the file is missing or holds something else; the message names file and line.
    """
    return _read_mapping(path, parse_yaml, "YAML", "keys and values", error)


def _read_mapping(
    path: str | Path, parse: Callable[[bytes], Any], language: str, wanted: str, error: type[UserError]
) -> dict[str, Any]:
    path = Path(path)
    try:
        value = parse(read_bytes(path, error=error))
    except Malformed as problem:
        place = path if problem.line is None else f"{path}:{problem.line}"
        raise error(f"{path.name} is not valid {language}", where=place, found=problem.reason) from None
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise error(f"{path.name} must hold {wanted}", where=path, found=found)
    return value


class _Refused(ValueError):
    """A number that the JSON reader met and that is refused."""

    def __init__(self, reason: str, token: str) -> None:
        self.reason, self.token = reason, token


def _refuse_constant(name: str) -> Any:
    raise _Refused(f"{name} is not JSON", name)


def _finite(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise _Refused("a number is beyond the range of a 64-bit float", token)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise _Refused(f"duplicate key {key[:100]!r}", "")
    return value


_LENIENT = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_UNIQUE = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)


def _decode(text: str | bytes) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - text.rfind(b"\n", 0, error.start)
        raise Malformed("the text is not UTF-8", line, column) from None


def skip_space(text: str, at: int) -> int:
    """Return the place of the first character from ``at`` on that is not JSON white space."""
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def _outside_strings(pattern: str, text: str, at: int) -> int:
    """Return where a pattern first matches outside the strings of a JSON text, or ``at``."""
    found = re.compile(f"{_STRING}|(?P<it>{pattern})", re.DOTALL).finditer(text, at)
    return next((match.start() for match in found if match["it"] is not None), at)


def _malformed(reason: str, text: str, at: int) -> Malformed:
    """Give the reason with the key whose value begins at the place, if any, and the line and column."""
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return Malformed(reason + _under(text, at), line, column)


def _under(text: str, at: int) -> str:
    key = _KEY_BEFORE.search(text, max(0, at - 200), at)
    return f", under {key.group()}" if key else ""


def _nested_too_deep(value: Any, *, of_yaml: bool = False) -> bool:
    """Walk a value level by level; the aliases of YAML multiply within one another, or contain themselves."""
    level: list[Any] = [[value]]
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        children = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        seen += len(children)
        if of_yaml and seen > MAX_YAML_VALUES:
            raise Malformed(f"aliases expand to more than {MAX_YAML_VALUES:,} values")
        level = [child for child in children if isinstance(child, dict | list | tuple | set)]
        if not level:
            return False
    return True


def _is_utf8(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which names the line of every scalar that it or this module refuses."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                reason = f"duplicate key {key.value!r}"
                raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        reason = None
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            # A scalar that looks like a number or a date, or is tagged as such, but is not valid.
            reason = (
                _TOO_MANY_DIGITS if len(node.value) > _MOST_DIGITS else f"a value cannot be read: {error}"
            )
        else:
            if isinstance(value, int) and value.bit_length() > 3.3 * _MOST_DIGITS:  # hexadecimal, say
                reason = _TOO_MANY_DIGITS
            elif isinstance(value, float) and not math.isfinite(value):
                reason = "a number is not finite"
            elif isinstance(value, str) and _SURROGATE.search(value):
                reason = _HALF
        if reason is not None:
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
        return value


# YAML 1.1 takes 1e-5 for text; YAML 1.2 does not.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)
