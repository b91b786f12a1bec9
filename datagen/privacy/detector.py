"""A model beside the patterns: names and places that only the sense of a sentence gives away.

Presidio (the extra ``privacy``) runs a spaCy model of the user's choice over the text. Of what it finds, persons and
places count; its dates and organisations are far too many in medical texts. The same word lists that keep eponyms and
countries out of the patterns' hits keep them out here.
"""

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from datagen.errors import ConfigError
from datagen.privacy import Detector, Hit
from datagen.privacy.words import COUNTRIES, NOT_NAMES, STATES, is_owned

MIN_SCORE = 0.6
_KINDS = {"PERSON": "NAME", "LOCATION": "PLACE"}
_TITLE = re.compile(r"(?:(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Rev|Sgt|Capt)\b\.?|Professor|Nurse|Doctor)\s+")
_POSSESSIVE = re.compile(r"['’]s?$")


@lru_cache(maxsize=2)
def presidio(model: str) -> Detector:
    """Return a detector that runs a spaCy model through Presidio.

    Args:
        model: Name of an installed spaCy pipeline with entities, such as ``en_core_web_lg``, or the folder of one.

    Raises:
        ConfigError: Presidio or the model is not installed, or the model finds no entities. Nothing is downloaded.
    """
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    except ImportError:
        raise ConfigError(
            "privacy_model needs Presidio", found=model, remedy="pip install 'alpacare-jax[privacy]'"
        ) from None
    if not spacy.util.is_package(model) and not Path(model).is_dir():
        raise ConfigError(
            "the spaCy model of privacy_model is not installed",
            found=model,
            expected="an installed pipeline, or the folder of one",
            remedy=f"python -m spacy download {model}",
        )
    # Presidio warns of every label that it has no entity for.
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": model}])
    engine.load()
    # Only this recogniser: others would look for a list of domains in the network, and find what the patterns find.
    registry = RecognizerRegistry(recognizers=[SpacyRecognizer(supported_language="en")])
    analyzer = AnalyzerEngine(nlp_engine=engine, registry=registry, supported_languages=["en"])

    def detect(text: str) -> Iterator[Hit]:
        found = analyzer.analyze(text, language="en", entities=list(_KINDS), score_threshold=MIN_SCORE)
        for entity in found:
            hit = _trimmed(text, entity.start, entity.end, _KINDS[entity.entity_type])
            if hit is not None:
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
