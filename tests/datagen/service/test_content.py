"""Contents of replies in every form in use: one text, or none, or asked for once more and no further."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Scripted, ScriptedServer

from datagen.client import ChatRequest, Reply, Sampling, Service, complete
from datagen.ledger import Ledger
from datagen.service.content import Content, UnreadableError, read_content

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Rest.", "Rest."),
        (None, ""),
        ([], ""),
        (["Re", "st."], "Rest."),
        ([{"type": "text", "text": "Rest"}, None, {"type": "output_text", "text": "."}], "Rest."),
        ([{"text": "Rest"}, {"type": "text", "text": None}, "."], "Rest."),
        ([{"type": "text", "text": {"value": "Rest.", "annotations": []}}], "Rest."),
        ([{"type": "text", "text": ["Re", "st."]}], "Rest."),
        ({"type": "text", "text": "Rest."}, "Rest."),
        ({"parts": [{"thought": True, "text": "Hm."}, {"text": "Rest."}]}, "Rest."),
        ([{"type": "message", "content": [{"type": "output_text", "text": "Rest."}]}], "Rest."),
        ([THOUGHT, {"type": "text", "text": "Rest."}], "Rest."),
        (json.dumps([THOUGHT, {"type": "text", "text": "Rest."}]), "Rest."),
        (str([{"type": "text", "text": "Rest."}]), "Rest."),
        ('{"role": "assistant", "content": "Rest."}', "Rest."),
        ('[{"type": "tablet", "text": "5 mg"}]', '[{"type": "tablet", "text": "5 mg"}]'),
        ('[{"type": "text"} marks a part', '[{"type": "text"} marks a part'),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "summary_text", "text": "Hm."}, "Rest."], "Rest."),
        (["Rest.", {"type": "reference", "reference_ids": [1]}, {"type": "tool_use", "id": "x"}], "Rest."),
    ],
)
def test_the_text_of_a_reply(content: Any, text: str) -> None:
    assert read_content({"content": content}).text == text


def test_refusals_and_thoughts_are_told_from_the_text() -> None:
    assert read_content({"content": None, "refusal": "No."}) == Content("No.", refused=True)
    assert read_content({"content": [{"type": "refusal", "refusal": "No."}]}) == Content("No.", refused=True)
    parts = ["Rest. ", {"type": "refusal", "refusal": "No."}]
    assert read_content({"content": parts}) == Content("Rest. No.", refused=True)
    assert read_content({"content": None, "reasoning_content": "Hm."}) == Content("", thoughts=3)
    assert read_content({"content": [THOUGHT]}) == Content("", thoughts=3)


@pytest.mark.parametrize(
    "content", [5, True, [5], [{"type": "hologram", "text": "x"}], [{"type": "text"}], [{}], {"text": 7}]
)
def test_an_unknown_form_is_refused(content: Any) -> None:
    with pytest.raises(UnreadableError):
        read_content({"content": content})


USAGE = {"prompt_tokens": 7, "completion_tokens": 9}
EVENTS = 'data: {"choices": [{"delta": {"content": "Rest."}}]}\n\ndata: [DONE]\n\n'


def completion(content: Any, reason: Any = "stop", **message: Any) -> dict[str, Any]:
    choice = {"message": {"content": content, **message}, "finish_reason": reason}
    return {"choices": [choice], "usage": USAGE}


def asked(tmp_path: Path, body: Any, **changes: Any) -> tuple[Reply, int]:
    raw = (body if isinstance(body, str) else json.dumps(body)).encode()
    request = ChatRequest("a", ({"role": "user", "content": "a"},), Sampling(max_tokens=100))
    with Ledger(tmp_path / "l.sqlite") as ledger, ScriptedServer(lambda *_: Scripted(raw=raw)) as server:
        service = Service(server.base_url, "scripted", first_wait_s=0.01, **changes)
        (reply,) = complete([request], service, ledger, stage="s")
        return reply, server.count


@pytest.mark.parametrize(
    ("body", "code", "tries"),
    [
        (completion(5), "bad-reply", 2),
        (completion([{"type": "hologram", "text": "x"}]), "bad-reply", 2),
        ({"choices": [], "usage": USAGE}, "bad-reply", 2),
        (EVENTS, "streams", 2),
        (": PROCESSING\n\n" + EVENTS, "streams", 2),
        ('{"message": {"content": "Re"}}\n{"message": {"content": "st"}, "done": true}\n', "streams", 2),
        ('data: {"error": {"message": "busy", "code": 500}}\n\n', "server-error", 5),
        ({"model": "m", "message": {"content": "Rest."}, "done_reason": "stop"}, "bad-reply", 2),
        (completion("Rest and", "error"), "interrupted", 2),
        (completion("Rest.", ["stop"]), "interrupted", 2),
        (completion("Rest.", {}), "interrupted", 2),
        (completion("Rest and", "insufficient_system_resource"), "interrupted", 2),
        (completion(None, "tool_calls", tool_calls=[]), "interrupted", 2),
        (completion(None, reasoning_content="Hm."), "no-text", 1),
        (completion([THOUGHT]), "no-text", 1),
        (completion("Rest", "SAFETY"), "content-filter", 1),
        (completion("", "content_filter"), "content-filter", 1),
    ],
)
def test_what_is_billed_and_cannot_be_used_is_not_paid_for_again_and_again(
    tmp_path: Path, body: Any, code: str, tries: int
) -> None:
    reply, count = asked(tmp_path, body)
    assert (reply.error_code, count) == (code, tries)


def test_an_error_beside_a_cut_reply_says_what_ended_it(tmp_path: Path) -> None:
    body = completion("Rest", "error")
    body["choices"][0]["error"] = {"code": 502, "message": "the upstream broke off"}
    reply, _ = asked(tmp_path, body)
    assert reply.error.startswith(
        "interrupted: the reply ended with finish_reason 'error': the upstream broke off"
    )


@pytest.mark.parametrize("reason", ["stop", "", None, {"type": "stop", "matched": 2}, "END_TURN"])
def test_a_whole_reply_is_taken(tmp_path: Path, reason: Any) -> None:
    reply, count = asked(tmp_path, completion(["Re", {"text": "st."}], reason))
    assert (reply.text, reply.error, count) == ("Rest.", "", 1)


@pytest.mark.parametrize(
    "end",
    ["", "/", "//", "/chat/completions", "/chat/completions/", "/completions", "/Chat/Completions", " "],
)
def test_the_address_of_chat_completions_is_taken_for_that_of_the_api(tmp_path: Path, end: str) -> None:
    request = ChatRequest("a", ({"role": "user", "content": "a"},), Sampling())
    with Ledger(tmp_path / "l.sqlite") as ledger, ScriptedServer(["Rest."]) as server:
        service = Service(f"{server.base_url}{end}", "scripted")
        assert service.base_url == server.base_url
        assert complete([request], service, ledger, stage="s")[0].text == "Rest."


@pytest.mark.parametrize("charset", ["idna", "undefined", "zlib", "rot13", "utf-16"])
def test_a_charset_that_is_wrong_costs_no_reply(charset: str, tmp_path: Path) -> None:
    headers = {"content-type": f"application/json; charset={charset}"}
    script = [Scripted("oops", 500, headers=headers), Scripted("é", headers=headers)]
    service = {"max_tries": 3, "first_wait_s": 0.01}
    requests = [ChatRequest("0", ({"role": "user", "content": "Why?"},), Sampling())]
    with ScriptedServer(script) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        replies = complete(requests, Service(server.base_url, "m", **service), ledger, stage="s")  # type: ignore[arg-type]
    assert [reply.text for reply in replies] == ["é"]
