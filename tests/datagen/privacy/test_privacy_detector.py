"""A spaCy pipeline of rules, which is a model like any other and needs no download."""

import sys
from pathlib import Path

import pytest
import spacy

from datagen.errors import ConfigError
from datagen.privacy import find, mask
from datagen.privacy.detector import model_detector
from datagen.safety import Objection, SafetyCheck


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pipeline that takes these words for persons and places, as a trained one may."""
    pipeline = spacy.blank("en")
    persons = ("Chidi", "Dr. Chidi Eze", "Romberg", "Leukocyte", "Chidi's", "MRN 5", "Salmonella")
    places = ("Gothenburg", "Mexico", "Barthel Index")
    rules = pipeline.add_pipe("entity_ruler")
    rules.add_patterns(  # type: ignore[attr-defined]
        [{"label": "PERSON", "pattern": text} for text in persons]
        + [{"label": "GPE", "pattern": text} for text in places]
        + [{"label": "ORG", "pattern": "Mayo"}, {"label": "DATE", "pattern": "yesterday"}]
    )
    folder = tmp_path_factory.mktemp("spacy") / "rules"
    pipeline.to_disk(folder)
    return str(folder)


def test_a_model_finds_what_no_pattern_can(model: str) -> None:
    text = "We asked Chidi, who works in Gothenburg, to call 212-555-0143."
    assert [(hit.kind, hit.text) for hit in find(text)] == [("PHONE", "212-555-0143")]
    hits = find(text, model_detector(model))
    assert mask(text, hits) == "We asked [NAME], who works in [PLACE], to call [PHONE]."
    assert find(mask(text, hits), model_detector(model)) == []


@pytest.mark.parametrize(
    "text",
    [
        "The sign of Romberg sign is negative.",
        "She came from Mexico.",
        "Results:\nLeukocyte count 8,100/mm3",
        "He saw the Mayo building yesterday.",
        "The Barthel Index is 60.",
    ],
)
def test_eponyms_countries_and_line_heads_are_no_persons(model: str, text: str) -> None:
    assert find(text, model_detector(model)) == []


def test_titles_and_possessives_stay(model: str) -> None:
    text = "A word from Dr. Chidi Eze and of Chidi's sister."
    assert mask(text, find(text, model_detector(model))) == "A word from Dr. [NAME] and of [NAME]'s sister."


def test_rows_are_cleaned_with_a_model(model: str) -> None:
    check = SafetyCheck(privacy="drop", detector=model_detector(model))
    with pytest.raises(Objection) as caught:
        check.check({"instruction": "Ask how Chidi is."})
    assert caught.value.details["identifiers"] == [
        {"kind": "NAME", "field": "instruction", "start": 8, "end": 13}
    ]


def test_a_missing_model_or_extra_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="not installed") as caught:
        model_detector("en_core_web_nothing")
    assert "python -m spacy download en_core_web_nothing" in str(caught.value)
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match="needs spaCy") as missing:
        model_detector("en_core_web_sm")
    assert "alpacare-jax[privacy]" in str(missing.value)


@pytest.mark.slow
def test_nothing_is_fetched(model: str, tmp_path: Path) -> None:
    """The detector works where every connection fails."""
    import subprocess

    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from datagen.privacy import find\n"
        "from datagen.privacy.detector import model_detector\n"
        "print([hit.text for hit in find('We asked Chidi.', model_detector(sys.argv[1]))])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "['Chidi']", run.stderr
    assert "tried" not in run.stderr
