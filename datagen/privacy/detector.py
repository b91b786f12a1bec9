"""A model that complements the patterns: names and places that only the context reveals.

A spaCy model of the user's choice (the extra ``privacy``) reads the text. Of what it finds, persons and places count;
its dates and organisations give far too many false positives in medical texts. The same word lists that keep eponyms
and countries out of the patterns' hits keep them out here.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from datagen.errors import ConfigError
from datagen.privacy import Detector, Hit
from datagen.privacy.words import COUNTRIES, NOT_NAMES, STATES, is_owned

_KINDS = dict.fromkeys(("PERSON", "PER", "PATIENT", "STAFF", "HCW"), "NAME") | dict.fromkeys(
    ("LOCATION", "LOC", "GPE"), "PLACE"
)
_TITLE = re.compile(r"(?:(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Rev|Sgt|Capt)\b\.?|Professor|Nurse|Doctor)\s+")
_POSSESSIVE = re.compile(r"['’]s?$")


@lru_cache(maxsize=2)
def model_detector(model: str) -> Detector:
    """Return a detector that runs a spaCy model.

    Args:
        model: Name of an installed spaCy pipeline with entities, such as ``en_core_web_lg``, or the folder of one.

    Raises:
        ConfigError: spaCy or the model is not installed. Nothing is downloaded.
    """
    try:
        import spacy
    except ImportError:
        raise ConfigError(
            "privacy_model needs spaCy", found=model, remedy="pip install 'alpacare-jax[privacy]'"
        ) from None
    if not spacy.util.is_package(model) and not Path(model).is_dir():
        raise ConfigError(
            "the spaCy model of privacy_model is not installed",
            found=model,
            expected="an installed pipeline, or the folder of one",
            remedy=f"python -m spacy download {model}",
        )
    pipeline = spacy.load(model)

    def detect(text: str) -> Iterator[Hit]:
        for entity in pipeline(text).ents:
            kind = _KINDS.get(entity.label_)
            if kind and (hit := _trimmed(text, entity.start_char, entity.end_char, kind)):
                yield hit

    return detect


def _trimmed(text: str, start: int, end: int, kind: str) -> Hit | None:
    """Cut a title and a possessive off; return None for what is an eponym, a country or no name at all."""
    if title := _TITLE.match(text, start, end):
        start = title.end()
    end -= len(text[start:end]) - len(_POSSESSIVE.sub("", text[start:end]).rstrip())
    words = text[start:end].split()
    if not words or "\n" in text[start:end] or text[start:end] in COUNTRIES | STATES:
        return None
    looks_like_one = all(word[0].isupper() and any(map(str.islower, word)) for word in (words[0], words[-1]))
    ordinary = words[0] in NOT_NAMES or any(map(str.isdigit, text[start:end])) or is_owned(words[-1])
    owned = is_owned(text[end : end + 60], 2)
    # Models take "Leukocyte count", at the head of a line, for a person.
    ordinary = ordinary or (len(words) == 1 and not title and _begins_a_line(text, start))
    return None if not looks_like_one or ordinary or owned else Hit(start, end, kind, text[start:end])


def _begins_a_line(text: str, place: int) -> bool:
    """Say whether a place is the beginning of a line, a sentence or an item."""
    before = text[max(0, place - 8) : place]
    last = before.rstrip()[-1:]
    return not last or last in ".!?:;|(•*-%" or "\n" in before[len(before.rstrip()) :]
