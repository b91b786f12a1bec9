"""The data set card: Markdown with the front matter that data set hubs read, from the template ``card.md.jinja``."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from datagen.templates import environment

_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
_OVERLAPS = {"ngram": "tokens in a row", "rouge-l": "ROUGE-L", "whole-text": "whole text"}


def render(provenance: Mapping[str, Any], *, name: str, files: Mapping[str, str]) -> str:
    """Write the data set card.

    Args:
        provenance: As :func:`datagen.publish.provenance.gather` returns it.
        name: Name of the data set.
        files: JSON Lines file of each split.
    """
    templates = environment(Path(__file__).parent)
    templates.filters |= {
        "cell": _cell,
        "code": _code,
        "number": _number,
        "plain": _plain,
        "usd": lambda usd: f"{usd:,.2f}" if usd >= 1 else f"{usd:.4f}",
        "value": _value,
    }
    compared = (provenance["contamination"] or {}).get("files", [])
    return templates.get_template("card.md.jinja").render(
        provenance,
        front=yaml.safe_dump(_front_matter(provenance, name, files), sort_keys=False, allow_unicode=True),
        name=name,
        files=files,
        columns=list(dict.fromkeys(key for file in compared for key in file)),
    )


def _front_matter(provenance: Mapping[str, Any], name: str, files: Mapping[str, str]) -> dict[str, Any]:
    license, rows = provenance["license"], sum(provenance["rows"].values())
    language = str(provenance["settings"].get("language", "en"))
    front: dict[str, Any] = {"pretty_name": name}
    if license and re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        front["license"] = license
    elif license:
        front |= {"license": "other", "license_name": license}
    if language != "any":
        front["language"] = [language]
    data_files = [{"split": split, "path": file} for split, file in files.items()]
    return front | {
        "task_categories": ["text-generation", "question-answering"],
        "tags": ["medical", "instruction-tuning", "synthetic"],
        "size_categories": [next((size for limit, size in _SIZES.items() if rows < limit), "n>10M")],
        "configs": [{"config_name": "default", "data_files": data_files}],
    }


def _cell(value: Any, column: str) -> str:
    """Return a cell of the table of evaluation files."""
    if column == "sha256":
        return _code(str(value)[:12])
    if column == "by_kind" and isinstance(value, Mapping):
        found = [f"{_OVERLAPS.get(kind) or _code(kind)} {count:,}" for kind, count in value.items()]
        return ", ".join(found) or "none"
    return _value(value) if isinstance(value, str | list | tuple | Mapping) else _number(value)


def _value(value: object) -> str:
    """Return a value for a reader: words for yes and no, the parts of a list one by one, everything else as code."""
    if isinstance(value, bool):
        return _number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_code(str(key))}: {_value(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return _code(value)


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else _code(value)


def _plain(text: str) -> str:
    """Return a text from outside as one line without markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def _code(value: object) -> str:
    """Return a value from outside as code that ends neither its span nor a table's cell."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`" if text else "none"
