import base64
import logging
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.service.redaction import HIDDEN, LogRedactor, Redactor

KEY = "sk-proj-Zq81/hTn+w0Ye_77aLmV"


@pytest.mark.parametrize(
    "shown",
    [KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode(), KEY[:12], KEY[-9:], KEY[5:20]],
)
def test_a_key_is_hidden_whole_in_part_and_encoded(shown: str) -> None:
    assert Redactor(KEY).redact(f"header: {shown}, sorry") == f"header: {HIDDEN}, sorry"


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
    hidden = Redactor(KEY).redact_words(f"Incorrect API key provided: {shown}.")
    assert HIDDEN in hidden
    assert "aLmV" not in hidden
    assert "sk-" not in hidden
    assert "123" not in hidden


def spelled(form: str) -> str:
    return "".join(form.format(ord(each)) for each in KEY)


@pytest.mark.parametrize(
    "shown",
    [
        spelled("&#{};"),
        spelled("&#x{:x};"),
        spelled("%{:02x}"),
        spelled("\\u{:04x}"),
        quote(KEY, safe="").lower(),
        quote(quote(KEY, safe=""), safe=""),
        base64.b64encode(f"user:{KEY}".encode()).decode(),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.urlsafe_b64encode(f"?{KEY}".encode()).decode(),
        KEY.encode().hex(),
        KEY.upper(),
        " ".join(KEY),
        f'"{KEY[:5]}" + "{KEY[5:10]}" + "{KEY[10:]}"',
        "-".join(KEY[at : at + 4] for at in range(0, len(KEY), 4)),
        KEY[:9] + "\u200b" + KEY[9:],
        KEY.replace("/", "\\/"),
    ],
)
def test_a_key_is_hidden_in_error_texts_however_it_is_spelt(shown: str) -> None:
    hidden = Redactor(KEY).redact_words(f"<p>The key is {shown}, and wrong.</p>")
    assert hidden.startswith("<p>The key is ")
    assert HIDDEN in hidden
    assert hidden.endswith(", and wrong.</p>")
    assert len(hidden) < 60


@pytest.mark.parametrize("words", ["5 &lt; 7 &#38; 100%", "%41 \\u0041 of C:\\users", "İstanbul ﬁle"])
def test_words_without_a_key_keep_their_form(words: str) -> None:
    assert Redactor(KEY).redact_words(words) == words


def test_a_long_page_without_a_key_is_searched_quickly() -> None:
    page = "<td class='x'>&#176; 100% of the pages \\u00e9</td>\n" * 20_000
    start = time.process_time()
    assert Redactor(KEY).redact_words(page) == page
    assert time.process_time() - start < 3


@given(st.text(max_size=40), st.integers(0, len(KEY) - 8), st.integers(8, len(KEY)), st.text(max_size=40))
def test_no_eight_characters_of_the_key_survive(before: str, start: int, length: int, after: str) -> None:
    text = Redactor(KEY).redact(before + KEY[start : start + length] + after)
    assert not any(KEY[at : at + 8] in text for at in range(len(KEY) - 7))


@given(st.text(alphabet="abcdefghij klmnop", max_size=200))
def test_other_text_is_left_alone(text: str) -> None:
    assert Redactor(KEY).redact(text) == text


@pytest.mark.parametrize("key", ["", "none", "EMPTY", "sk-no-key-required", "abc"])
def test_a_placeholder_is_no_secret(key: str) -> None:
    text = "The EMPTY stomach, none of it abc; sk-no-key-required."
    assert Redactor(key).redact(text) == text


def test_log_lines_of_the_http_library_are_guarded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("httpcore2.http11")
    with LogRedactor(Redactor(KEY)):
        log.debug("headers %r", [(b"x-echo", KEY.encode())])
        log.debug("nothing %s", "special")
    log.debug("afterwards")
    assert KEY not in caplog.text
    assert [HIDDEN in record.getMessage() for record in caplog.records] == [True, False, False]
    assert not log.filters
