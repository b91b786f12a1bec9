"""What the refusals of many services mean: ``refusals.yaml`` has a row for each."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from datagen.service.error_body import read_error, wait_in_words
from datagen.service.refusals import read_refusal


def openai(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def wrapped(raw: Any, code: int) -> dict[str, Any]:
    """OpenRouter's form of an upstream's refusal."""
    raw = raw if isinstance(raw, str) else json.dumps(raw)
    return openai("Provider returned error", code=code, metadata={"raw": raw, "provider_name": "Up"})


GEMINI_QUOTA = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{"quotaId": "RequestsPerMinute"}],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12s"},
        ],
    }
}

ROWS = yaml.safe_load((Path(__file__).parent / "refusals.yaml").read_text(encoding="utf-8"))
KINDS = {"quota": "fatal", "content-filter": "final", "rate-limited": "refusal", "server-error": "fault"}


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['service']}, {row['code']}" for row in ROWS])
def test_what_a_refusal_means(row: dict[str, Any]) -> None:
    body = row["body"] if isinstance(row["body"], str) else json.dumps(row["body"])
    meant = read_refusal(read_error(row["status"], body))
    assert meant is not None
    assert (meant.code, meant.field) == (row["code"], row.get("field", meant.field))
    assert meant.kind == KINDS.get(meant.code, meant.kind)


def test_a_body_without_an_error_means_nothing() -> None:
    assert [
        read_refusal(read_error(200, json.dumps(body)))
        for body in ({}, [], {"object": "x"}, "hello", {"data": [1]})
    ] == [None] * 5


WAITS = [
    ("Please try again in 1.2s.", 1.2),
    ("Please try again in 20 ms", 0.02),
    ("try again in 1m3.5s", 63.5),
    ("Bitte versuchen Sie es in 3 Sekunden erneut", 3),
    ("Réessayez dans 5 secondes", 5),
    ("Inténtelo de nuevo en 12 segundos", 12),
    ("请在 20 秒后重试", 20),
    ("wait 2 minutes and 5 seconds", 125),
    ("Limit 3 / min, 100 per 60 seconds. Please try again in 20s.", 20),
    ("retry-after: 30", 30),
    ("try again later", None),
    ("reduce the 3 messages and try again", None),
    ("100 requests per 60 seconds; try again", None),
]


@pytest.mark.parametrize(("words", "wait_s"), WAITS)
def test_waits_in_words(words: str, wait_s: float | None) -> None:
    assert wait_in_words(words) == (wait_s if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("body", "wait_s"),
    [
        ([GEMINI_QUOTA], 12),
        ({"error": {"message": "x", "retry_after": 2}}, 2),
        ({"retry_after_ms": 1500}, 1.5),
        ({"error": {"resets_in_seconds": "90"}}, 90),
        ({"error": {"details": [{"retryDelay": {"seconds": 7}}]}}, 7),
        (wrapped("Slow down; try again in 4 s", 429), 4),
        ({"error": {"retry_after": True, "message": "x", "wait": None}}, None),
    ],
)
def test_waits_in_fields(body: Any, wait_s: float | None) -> None:
    assert read_error(429, json.dumps(body)).wait_s == wait_s


@pytest.mark.parametrize(
    "body", ["[" * 5000, '{"error": ' * 3000, "9" * 6000, '{"error": ' + "9" * 6000 + "}", "\ud800"]
)
def test_no_error_body_breaks_the_reader(body: str) -> None:
    assert read_refusal(read_error(400, body)).code == "bad-request"  # type: ignore[union-attr]
