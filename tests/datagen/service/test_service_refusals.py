"""What the refusals of many services mean: ``refusals.yaml`` has a row for each."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_server import Scripted, ScriptedServer

from datagen import providers
from datagen.client import ChatRequest, Reply, Sampling, Service, complete
from datagen.errors import ServiceError
from datagen.ledger import Ledger
from datagen.service.error_body import read_error, wait_in_words
from datagen.service.refusals import read_refusal
from datagen.service.wire import RequestError, Wire


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


def answer_of(row: dict[str, Any]) -> Scripted:
    return Scripted(status=row["status"], raw=json.dumps(row["body"]).encode())


def of(service: str, code: str) -> Scripted:
    return answer_of(next(row for row in ROWS if (row["service"], row["code"]) == (service, code)))


def ask(texts: str, script: Any, ledger: Ledger, stage: str = "answers", **settings: Any) -> list[Reply]:
    requests = [ChatRequest(text, ({"role": "user", "content": text},), Sampling()) for text in texts]
    with ScriptedServer(script) as server:
        service = Service(server.base_url, "scripted", first_wait_s=0.01, **({"concurrency": 1} | settings))
        return complete(requests, service, ledger, stage=stage)


def text_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


@pytest.mark.parametrize("service", ["OpenRouter", "Gemini", "a gateway"])
def test_however_many_prompts_are_filtered_the_others_are_answered(service: str, tmp_path: Path) -> None:
    filtered = of(service, "content-filter")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        replies = ask("abcdefghijkl", lambda body, _: filtered if text_of(body) < "k" else "ok", ledger)
        assert [reply.error_code for reply in replies] == ["content-filter"] * 10 + [""] * 2
        # Once the service has changed its mind, they are asked again.
        assert ledger.reopen("answers") == 10
        assert [reply.text for reply in ask("abcdefghijkl", lambda *_: "ok", ledger)] == ["ok"] * 12


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["code"] == "quota"][::3], ids=lambda row: row["service"]
)
def test_without_credit_the_run_ends_at_once_and_goes_on_later(row: dict[str, Any], tmp_path: Path) -> None:
    empty = answer_of(row)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(ServiceError, match="no credit left"):
            ask("abcdefgh", lambda body, _: "ok" if text_of(body) < "c" else empty, ledger)
        assert [entry.state for entry in ledger.entries()] == ["answered", "answered", "sent"]
        assert [reply.text for reply in ask("abcdefgh", lambda *_: "ok", ledger)] == ["ok"] * 8


@pytest.mark.parametrize(
    ("service", "stage", "words"),
    [
        ("OpenAI, length", "answers", "set `answer_sampling.max_tokens_field` to max_completion_tokens"),
        ("an old server", "tasks", "set `task_sampling.max_tokens_field` to max_tokens"),
        (
            "OpenAI, value",
            "answers",
            "`answer_sampling.temperature`, or leave the field out with `answer_sampling.temperature` none",
        ),
        (
            "Mistral",
            "tasks",
            "`task_sampling.presence_penalty`, or leave the field out with `task_sampling.presence_penalty` none",
        ),
        ("too many", "answers", "a smaller `answer_sampling.max_tokens`"),
        ("format", "tasks", "`task_sampling.format` text"),
        ("stream", "answers", "turn streaming off"),
    ],
)
def test_a_field_that_no_request_may_hold_ends_the_run_with_the_option(
    service: str, stage: str, words: str, tmp_path: Path
) -> None:
    refusal = of(service, "bad-request")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(ServiceError) as caught:
            ask("abcdefgh", lambda *_: refusal, ledger, stage=stage)
        assert words in str(caught.value)
        assert [entry.state for entry in ledger.entries()] == ["sent"]


def test_a_field_that_others_were_answered_with_fails_one_request(tmp_path: Path) -> None:
    refusal = of("OpenAI, value", "bad-request")
    with Ledger(tmp_path / "l.sqlite") as ledger:
        replies = ask("abc", lambda body, _: refusal if text_of(body) == "b" else "ok", ledger)
    assert [reply.error_code for reply in replies] == ["", "bad-request", ""]


def test_a_wait_in_the_body_is_kept_and_the_longer_one_counts(tmp_path: Path) -> None:
    body = {"error": {"message": "Slow down. Please try again in 300 ms.", "code": 429}}
    limited = Scripted(status=429, raw=json.dumps(body).encode(), headers={"retry-after": "0.1"})
    times: list[float] = []

    def script(*_: Any) -> Scripted | str:
        times.append(time.monotonic())
        return limited if len(times) in (1, 3) else "ok"

    async def post(server: ScriptedServer) -> None:
        async with Wire(Service(server.base_url, "scripted")) as wire:
            await wire.post({"model": "scripted", "messages": []})

    with ScriptedServer(script) as server, Ledger(tmp_path / "l.sqlite") as ledger:
        request = ChatRequest("a", ({"role": "user", "content": "a"},), Sampling())
        service = Service(server.base_url, "scripted", first_wait_s=0.01)
        assert complete([request], service, ledger, stage="s")[0].text == "ok"
        # Never earlier; how much later is the machine's affair, and what was understood is what the trouble says.
        assert times[1] - times[0] >= 0.3
        with pytest.raises(RequestError) as caught:
            asyncio.run(post(server))
    assert caught.value.limits.wait_s == 0.3


def test_a_quota_of_the_day_is_not_waited_for_again_and_again(tmp_path: Path) -> None:
    body = {
        "error": {
            "code": 429,
            "message": "Quota exceeded.",
            "details": [{"quotaId": "RequestsPerDay"}],
            "retryDelay": "0.05s",
        }
    }
    with Ledger(tmp_path / "l.sqlite") as ledger:
        with pytest.raises(ServiceError, match="quota of the day"):
            ask("ab", lambda *_: Scripted(status=429, raw=json.dumps(body).encode()), ledger)
        assert {entry.state for entry in ledger.entries()} == {"sent"}


def test_the_table_of_providers_reads_alike_without_the_yaml_library_in_c() -> None:
    path = Path(providers.__file__).with_name("providers.yaml")
    assert yaml.load(path.read_text(), yaml.SafeLoader) == providers.table()
