import base64
import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.service.concealment import HIDDEN, Concealer, LogGuard

KEY = "sk-proj-Zq81/hTn+w0Ye_77aLmV"


@pytest.mark.parametrize(
    "shown",
    [KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode(), KEY[:12], KEY[-9:], KEY[5:20]],
)
def test_a_key_is_hidden_whole_in_part_and_encoded(shown: str) -> None:
    assert Concealer(KEY).conceal(f"header: {shown}, sorry") == f"header: {HIDDEN}, sorry"


@pytest.mark.parametrize(
    "shown",
    [
        "sk-proj*****aLmV",
        "sk-p...aLmV",
        "sk-***",
        "sk-proj-Zq…LmV",
        "Bearer abcdef123456",
        "sk-other-key-123",
    ],
)
def test_masked_and_foreign_keys_are_hidden_in_error_texts(shown: str) -> None:
    hidden = Concealer(KEY).conceal_words(f"Incorrect API key provided: {shown}.")
    assert HIDDEN in hidden
    assert "aLmV" not in hidden
    assert "sk-" not in hidden
    assert "123" not in hidden


@given(st.text(max_size=40), st.integers(0, len(KEY) - 8), st.integers(8, len(KEY)), st.text(max_size=40))
def test_no_eight_characters_of_the_key_survive(before: str, start: int, length: int, after: str) -> None:
    text = Concealer(KEY).conceal(before + KEY[start : start + length] + after)
    assert not any(KEY[at : at + 8] in text for at in range(len(KEY) - 7))


@given(st.text(alphabet="abcdefghij klmnop", max_size=200))
def test_other_text_is_left_alone(text: str) -> None:
    assert Concealer(KEY).conceal(text) == text


@pytest.mark.parametrize("key", ["", "none", "EMPTY", "sk-no-key-required", "abc"])
def test_a_placeholder_is_no_secret(key: str) -> None:
    text = "The EMPTY stomach, none of it abc; sk-no-key-required."
    assert Concealer(key).conceal(text) == text


def test_log_lines_of_the_http_library_are_guarded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("httpcore2.http11")
    with LogGuard(Concealer(KEY)):
        log.debug("headers %r", [(b"x-echo", KEY.encode())])
        log.debug("nothing %s", "special")
    log.debug("afterwards")
    assert KEY not in caplog.text
    assert [HIDDEN in record.getMessage() for record in caplog.records] == [True, False, False]
    assert not log.filters
