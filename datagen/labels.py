"""Normalises the labels of a task (type, topic, view, difficulty) to one spelling each.

Clinicians and models vary the spelling ("Rewrite", "Rewrites", "Rewriting task"). Counting, evening out and reporting
need one spelling, so a label is reduced to a key (case, plural, possessive, punctuation, British spelling and filling
words taken away), and the key is looked up among those of ``labels.yaml`` and of the project's own seed tasks. A
label that is not there keeps its words, in a tidy form that does not depend on case or number.
"""

import functools
import json
import re
import unicodedata
from importlib import resources
from typing import Any

from datagen.errors import nearest
from datagen.phrases import read_table

FIELDS = ("type", "topic", "view", "difficulty")
OTHER = "Other"

_LISTS: dict[str, Any] = read_table("datagen", "labels.yaml")
_LEVELS = {words: level for level, synonyms in _LISTS["difficulty"].items() for words in synonyms}
_AMERICAN = [(re.compile(british), american) for british, american in _LISTS["american spelling"].items()]
_LEVEL, _PREFIX, _SAME_IN_PLURAL = (
    re.compile(_LISTS[name].replace("\n", ""), re.IGNORECASE)
    for name in ("level", "prefix", "same in the plural")
)


def normalise(field: str, label: str) -> str:
    """Return the one spelling of a label of the field "type", "topic", "view" or "difficulty".

    Example:
        >>> normalise("type", "Rewrites"), normalise("type", "MCQ"), normalise("view", "Patient’s Perspective")
        ('Rewriting', 'Multiple-choice Q&A', 'Patient')
        >>> normalise("topic", "Paediatrics"), normalise("topic", "Snake Bites"), normalise("view", "ICU Chaplains")
        ('Pediatrics', 'Snake bite', 'ICU chaplain')
    """
    if field == "difficulty":
        return normalise_difficulty(label)
    known = _known(field)
    for key in _keys(field, label):
        if key in known:
            return known[key]
    return _tidy(label)


def normalise_difficulty(label: str) -> str:
    """Return a difficulty as "1" (easy) to "5" (very hard); anything else in tidy form.

    Example:
        >>> [normalise_difficulty(label) for label in ("Difficulty: 3/5", "Level 4", "★★☆☆☆", "moderate", "7/10")]
        ['3', '4', '2', '3', '7/10']
    """
    text = _tidy(label)
    stars = sum(text.count(star) for star in "★⭐")
    if 1 <= stars <= 5:
        return str(stars)
    number = _LEVEL.fullmatch(text)
    if number:
        return number.group(1)
    words = " ".join(re.findall(r"[a-z]+", text.lower()))
    words = re.sub(r"\b(?:level|difficulty)\b", "", words).strip()
    return _LEVELS.get(words, text)


@functools.lru_cache(maxsize=100_000)
def group(field: str, label: str) -> str:
    """Return the label that balancing counts: for views and topics, that of a group.

    Returns:
        The group of a view or a topic, "Other" where none fits, "" for an empty label; of a type or a difficulty
        its one spelling.

    Example:
        >>> group("view", "Dialysis nurses"), group("topic", "Atrial fibrillation"), group("type", "Rewrites")
        ('Nursing', 'Heart and vessels', 'Rewriting')
    """
    label = normalise(field, label)
    if field not in ("view", "topic") or not label:
        return label
    words = f" {_key(field, label)}"
    return next((name for name, pattern in _groups(field) if pattern.search(words)), OTHER)


def is_known(field: str, label: str) -> bool:
    """Tell whether a label (or, of a view or topic, its group) is in the lists."""
    if field == "difficulty":
        return normalise_difficulty(label) in _LISTS["difficulty"]
    return any(key in _known(field) for key in _keys(field, label)) or (
        field in ("view", "topic") and group(field, label) not in (OTHER, "")
    )


def nearest_known(field: str, label: str) -> str | None:
    """Return the known label that an unknown label resembles most, or None.

    Example:
        >>> nearest_known("type", "Sumarisation"), nearest_known("type", "Xyz")
        ('Summarization', None)
    """
    if field == "difficulty":
        return None
    near = nearest(_key(field, label), _known(field), cutoff=0.6)
    return _known(field)[near[0]] if near else None


def _tidy(label: str) -> str:
    """Write a label with single spaces, an initial capital and the last word in the singular."""
    text = label
    for _ in range(8):
        before, text = text, _tidied(text)
        if text == before:
            break
    return text


def _tidied(label: str) -> str:
    text = unicodedata.normalize("NFKC", label).replace("’", "'").replace("‘", "'")
    text = _PREFIX.sub("", " ".join(text.split())).strip(" *_`\"'[]{}<>.,;:!?#|-–—")
    if text.count("(") != text.count(")"):
        text = text.strip("()")
    words = text.split()
    if text.isupper() and max(map(len, words)) > 5:
        words = [word.lower() for word in words]
    # Words in Title Case become lower case; acronyms and names within them ("ICU", "mRNA", "COVID-19") stay.
    words = [word.lower() if re.fullmatch(r"\W*[A-Z][a-z']*\W*", word) else word for word in words]
    if words and words[-1].isalpha() and words[-1].islower():
        words[-1] = singular(words[-1])
    tidy = " ".join(words)
    return tidy if re.match(r"[a-z][A-Z]", tidy) else tidy[:1].upper() + tidy[1:]


def _keys(field: str, label: str) -> list[str]:
    """Return the keys under which a label is looked up, the strictest first."""
    key = _key(field, label)
    without_brackets = _key(field, re.sub(r"\([^)]*\)|\[[^\]]*\]", " ", label))
    return [each for each in dict.fromkeys([key, without_brackets]) if each]


def _key(field: str, label: str) -> str:
    """Reduce a label to what its spellings have in common."""
    text = unicodedata.normalize("NFKC", label).replace("’", "'").replace("‘", "'")
    text = _PREFIX.sub("", text).lower()
    text = re.sub(r"'s\b|(?<=s)'(?=\s|$)", "", text).replace("&", " and ").replace("+", " and ")
    for british, american in _AMERICAN:
        text = british.sub(american, text)
    words = [singular(word) for word in re.findall(r"[^\W_]+", text)]
    text = " ".join(words)
    if field == "type":
        text = re.sub(r"\bq and a\b|\bquestion(?: and)? answer(?:ing)?\b|\bqna\b|\bq a\b", "qa", text)
    if field == "view":
        text = re.sub(r"\bpoint of view\b", "", text)
    kept = [word for word in text.split() if word not in _LISTS["fillers"][field].split()]
    return " ".join(kept) or text


def singular(word: str) -> str:
    """Return the singular of an English plural; other words are returned unchanged.

    Example:
        >>> [singular(word) for word in ("diagnoses", "studies", "biopsies", "nurses", "diabetes", "mcqs")]
        ['diagnosis', 'study', 'biopsy', 'nurse', 'diabetes', 'mcq']
    """
    if len(word) < 4 or not word.endswith("s") or _SAME_IN_PLURAL.search(word):
        return word
    if re.search(r"(?:agno|ogno|the|hypothe|synthe|anasto?mo|psycho|thrombo)ses$", word):
        return word[:-2] + "is"
    if re.search(r"[^aeiou]ies$", word):
        return word[:-3] + "y"
    if re.search(r"(?:x|ch|sh|ss|zz|irus|inus)es$", word):
        return word[:-2]
    return word[:-1]


@functools.cache
def _known(field: str) -> dict[str, str]:
    """Return key -> label: of the lists first, then of the project's own seed tasks as they are spelt there."""
    known: dict[str, str] = {}
    for label, synonyms in _LISTS[field].items():
        known.setdefault(_key(field, label), label)
        for synonym in synonyms:
            key = _key(field, synonym)
            assert known.get(key, label) == label, f"{synonym!r} stands for {known[key]!r} and {label!r}"
            known[key] = label
    seeds = (resources.files("datagen") / "seed_tasks.jsonl").read_text(encoding="utf-8")
    for line in seeds.split("\n"):
        if line.strip():
            label = json.loads(line)[field]
            known.setdefault(_key(field, label), label)
    return known


@functools.cache
def _groups(field: str) -> list[tuple[str, re.Pattern[str]]]:
    return [
        (name, re.compile("|".join(_word_pattern(word) for word in words)))
        for name, words in _LISTS[f"{field}_groups"].items()
    ]


def _word_pattern(word: str) -> str:
    if word.startswith("="):
        return rf"\b{re.escape(word[1:])}\b"
    # These are endings; everything else is the beginning of a word.
    return re.escape(word) if word in ("ologist", "iatrist", "therapist") else rf"\b{re.escape(word)}"
