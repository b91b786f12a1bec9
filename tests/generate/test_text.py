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


CONTROL = {"<|end|>": 7, "</s>": 8, "<s>": 9, "<|end|>x": 10}


def feed_all(stops: StopFilter, pieces: list[tuple[str, int]]) -> str:
    shown = ""
    for text, token in pieces:
        shown += stops.feed(text, token)
        if stops.stopped:
            return shown
    return shown + stops.finish()


@pytest.mark.parametrize(
    ("stop", "pieces", "shown", "stopped"),
    [
        (["<|end|>"], [("a", 1), ("", 7), ("b", 1)], "a", True),
        (["<|end|>"], [("a", 1), ("", 8), ("b", 1)], "ab", False),
        (["</s>", "<|end|>"], [("a", 1), ("", 7)], "a", True),
        (["<|end|>"], [("a<|e", 1), ("nd|>b", 1)], "a", True),  # spelled by ordinary tokens
        (["b<|end|>"], [("ab", 1), ("", 7)], "a", True),
        (["b<|end|>"], [("ab", 1), ("c", 1), ("", 7)], "abc", False),
        (["<|end|>\n"], [("a", 1), ("", 7), ("\n", 1)], "a", True),
        (["<|end|>\n"], [("a", 1), ("", 7), ("b\n", 1)], "ab\n", False),
        (["<|end|><s>"], [("a", 1), ("", 7), ("", 9), ("b", 1)], "a", True),
        (["<|end|><s>"], [("a", 1), ("", 9), ("", 7), ("b", 1)], "ab", False),
        (["a<|end|>b</s>c"], [("xa", 1), ("", 7), ("b", 1), ("", 8), ("cd", 1)], "x", True),
        (["<|end|>x"], [("a", 1), ("", 10)], "a", True),  # the longest spelling is the token
        (["bc", "<|end|>"], [("ab", 1), ("", 9), ("c", 1)], "a", True),  # what is shown holds no stop text
        (["bcd", "b<|end|>"], [("ab", 1), ("", 7), ("cd", 1)], "a", True),
        (["<|end|>"], [("", 7)], "", True),
    ],
)
def test_stop_texts_may_spell_control_tokens(
    stop: list[str], pieces: list[tuple[str, int]], shown: str, stopped: bool
) -> None:
    stops = StopFilter(stop, CONTROL)
    assert feed_all(stops, pieces) == shown
    assert stops.stopped == stopped


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "7", "8"]), max_size=14),
    st.lists(st.text("ab78", min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_stops_end_where_the_spelled_text_holds_one(symbols: list[str], stops_written: list[str]) -> None:
    spelling = {"7": "<|end|>", "8": "</s>"}

    def spell(text: str) -> str:
        return "".join(spelling.get(symbol, symbol) for symbol in text)

    def visible(text: str) -> str:
        return text.replace("7", "").replace("8", "")

    stops = StopFilter([spell(stop) for stop in stops_written], CONTROL)
    pieces = [("", int(symbol)) if symbol in spelling else (symbol, 1) for symbol in symbols]
    shown = feed_all(stops, pieces)
    written = "".join(symbols)
    for end in range(len(written) + 1):  # the textbook way: look again after every token
        so_far = written[:end]
        found = [len(visible(so_far[: so_far.find(stop)])) for stop in stops_written if stop in so_far]
        found += [visible(so_far).find(stop) for stop in stops_written if stop in visible(so_far)]
        if found:
            assert stops.stopped
            assert shown == visible(so_far)[: min(found)]
            return
    assert not stops.stopped
    assert shown == visible(written)
