import datetime

import pytest

from datagen.service.limits import Allowance, Limits, in_words, read_limits, read_wait

NOON = datetime.datetime(2026, 5, 1, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.25", 1.25),
        ("86400", 86400.0),
        ("31536000", 31536000.0),
        ("12ms", 0.012),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2d", 172800.0),
        ("6 minutes", 360.0),
        ("Fri, 01 May 2026 12:01:30 GMT", 90.0),
        ("Fri, 01 May 2026 11:00:00 GMT", 0.0),
        ("Friday, 01-May-26 12:00:10 GMT", 10.0),
        ("2026-05-01T12:00:05Z", 5.0),
        ("1777636860", 60.0),
        ("1777636860000", 60.0),
        ("1777636740", 0.0),
        ("1777636740000", 0.0),
        ("1e9", 1e9),
        ("999999999", 999999999.0),
    ],
)
def test_a_wait_is_read_in_every_form_in_use(text: str, seconds: float) -> None:
    assert read_wait(text, NOON) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [None, "", "soon", "-1", "nan", "inf", "-inf", "1e400", "m", "0x10"])
def test_a_wait_that_makes_no_sense_counts_as_not_given(text: str | None) -> None:
    assert read_wait(text, NOON) is None


def test_headers_of_a_reply_are_read() -> None:
    limits = read_limits(
        {
            "x-ratelimit-limit-requests": "6000",
            "x-ratelimit-remaining-requests": "5999",
            "x-ratelimit-reset-requests": "10ms",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "1m0s",
            "retry-after": "3",
        },
        NOON,
    )
    assert limits == Limits(3.0, Allowance(6000, 5999, 0.01), Allowance(2_000_000, 0, 60.0))
    assert limits.reset_s == 60.0


def test_milliseconds_are_finer_and_count_first() -> None:
    assert read_limits({"retry-after": "2", "retry-after-ms": "1500"}).wait_s == 1.5
    assert read_limits({"retry-after": "2", "retry-after-ms": "nonsense"}).wait_s == 2.0


@pytest.mark.parametrize("value", ["", "-5", "many", "nan", "inf"])
def test_figures_that_are_none_are_not_believed(value: str) -> None:
    limits = read_limits({"x-ratelimit-limit-requests": value, "x-ratelimit-remaining-tokens": value})
    assert not limits.said


def test_a_limit_of_zero_is_not_believed() -> None:
    assert read_limits({"x-ratelimit-limit-tokens": "0"}).tokens.limit is None


@pytest.mark.parametrize(
    ("requests", "tokens", "needed", "exhausted"),
    [
        (None, None, 100, None),
        (0, None, 100, True),
        (1, None, 100, False),
        (5, 99, 100, True),
        (5, 100, 100, False),
        (None, 0, 0, True),
    ],
)
def test_the_figures_tell_whether_they_explain_a_refusal(
    requests: float | None, tokens: float | None, needed: float, exhausted: bool | None
) -> None:
    limits = Limits(None, Allowance(remaining=requests), Allowance(remaining=tokens))
    assert limits.exhausted(needed) is exhausted


def test_long_waits_are_written_as_people_say_them() -> None:
    assert [in_words(s) for s in (3599, 3600, 90000)] == ["59 min 59 s", "1 h 0 min", "1 d 1 h"]
