"""Text as it comes: whole characters, and no part of a stop string."""

from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpacare_jax.generate.text import Decoder, StopFilter
from alpacare_jax.tokenizer import Tokenizer, load_tokenizer

TEXTS = [
    "The heart.",
    " one space",
    "naïve café – 37 °C",
    "emoji 👩‍⚕️🫀 and 漢字かな",
    "\n\n- a\n- b",
    "  two  ",
]


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    return load_tokenizer(Path(str(resources.files("mistral_common") / "data" / "tokenizer.model.v1")))


def stream(decoder: Decoder, ids: list[int]) -> list[str]:
    return [*(decoder.feed(token) for token in ids), decoder.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_decoded_text(text: str, tokenizer: Tokenizer, sentencepiece: Tokenizer) -> None:
    for some in (tokenizer, sentencepiece):
        ids = some.encode(text)
        pieces = stream(Decoder(some), ids)
        assert "".join(pieces) == some.decode(ids)
        assert not any("\ufffd" in piece for piece in pieces)


def test_nothing_is_given_before_a_character_is_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("é")
    assert len(ids) == 2
    assert stream(Decoder(tokenizer), ids) == ["", "é", ""]


def test_half_a_character_at_the_end_is_shown_as_such(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("aé")
    assert stream(Decoder(tokenizer), ids[:-1]) == ["a", "", "\ufffd"]


def test_text_that_goes_on_keeps_the_space_between(sentencepiece: Tokenizer) -> None:
    prompt, whole = sentencepiece.encode("The heart pumps"), sentencepiece.encode("The heart pumps blood now")
    assert whole[: len(prompt)] == prompt
    assert "".join(stream(Decoder(sentencepiece, prompt), whole[len(prompt) :])) == " blood now"
    assert "".join(stream(Decoder(sentencepiece), whole[len(prompt) :])) == "blood now"


def test_control_tokens_give_nothing(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("yes"), tokenizer.eos_id, *tokenizer.encode(" no")]
    assert "".join(stream(Decoder(tokenizer), ids)) == "yes no"


def test_the_worked_example() -> None:
    stops = StopFilter(["###"])
    assert [stops.feed(piece) for piece in ("a#", "#", "b")] == ["a", "", "##b"]
    assert stops.feed("###") == ""
    assert stops.stopped


@settings(max_examples=200, deadline=None)
@given(st.text("ab#", max_size=30), st.text("ab#", min_size=1, max_size=4), st.data())
def test_any_division_into_pieces_stops_at_the_same_place(text: str, stop: str, data: st.DataObject) -> None:
    stops, shown, rest = StopFilter([stop]), "", text
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        shown += stops.feed(rest[:cut])
        assert text.partition(stop)[0].startswith(shown)
        rest = rest[cut:]
    shown += stops.finish()
    assert shown == text.partition(stop)[0]
    assert stops.stopped == (stop in text)


def test_the_earliest_of_several_stops_wins() -> None:
    stops = StopFilter(["beta", "alpha"])
    assert stops.feed("one alpha two beta") == "one "
    assert stops.stopped
