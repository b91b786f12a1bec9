"""The tables of patterns: every one compiles, and every one is used."""

import re
from pathlib import Path

import datagen
from datagen import phrases
from datagen.phrases import any_of, read_table

ROOT = Path(datagen.__file__).parent
TABLES = {
    **read_table("datagen", "phrases.yaml"),
    **read_table("datagen.replies", "patterns.yaml"),
}
PATTERNS = [name for name, value in TABLES.items() if isinstance(value, str | list)]


def test_every_pattern_compiles() -> None:
    for name in PATTERNS:
        re.compile(any_of(name), re.IGNORECASE)


def test_every_entry_is_named_somewhere() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")]
    texts += [str(value) for value in TABLES.values()]
    everything = "\n".join(texts)
    assert [
        name for name in TABLES if f'"{name}"' not in everything and f"{{{name}}}" not in everything
    ] == []


def test_a_name_means_one_thing() -> None:
    both = set(read_table("datagen", "phrases.yaml")) & set(read_table("datagen.replies", "patterns.yaml"))
    assert not both


def test_a_pattern_stands_on_several_lines_and_names_others() -> None:
    assert phrases.expand("a{two words}\n|b", {"two words": "[xy]"}.__getitem__) == "a[xy]|b"
