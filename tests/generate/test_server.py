"""The HTTP server through the real ``openai`` client, over loopback."""

import asyncio
import concurrent.futures
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openai
import pytest

from alpacare_jax.errors import ServiceError
from alpacare_jax.generate import Engine, Generation, SamplingParams, serve
from alpacare_jax.generate.api import Api
from alpacare_jax.generate.worker import Worker
from alpacare_jax.tokenizer import Tokenizer

HELLO = [{"role": "user", "content": "What is a fever?"}]


class Running:
    """A server in a thread of this process."""

    def __init__(self, engine: Engine, api_key: str | None = None) -> None:
        self.worker = Worker(engine)
        self.worker.start()
        listener = serve.bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        ready = threading.Event()
        app = Api(self.worker, "tiny", api_key).build()
        self.server = serve.make_server(app, self.worker, ready.set)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve(sockets=[listener])))
        self.thread.start()
        assert ready.wait(30)

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.worker.stop()


@pytest.fixture(scope="module")
def engine(architecture: Any, params: Any, tokenizer: Tokenizer) -> Engine:
    return Engine(architecture, params, tokenizer, slots=4, max_len=256)


@pytest.fixture(scope="module")
def running(engine: Engine) -> Iterator[Running]:
    server = Running(engine)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(running: Running) -> openai.OpenAI:
    return running.client()


@pytest.fixture(scope="module")
def alone(make_engine: Callable[..., Engine]) -> Callable[..., Generation]:
    """Answer one request with an engine of its own."""

    def answer(prompt: list[int], **sampling: Any) -> Generation:
        own = make_engine()
        generation = own.submit(Generation(prompt, SamplingParams(**sampling), continues=True))
        own.run()
        return generation

    return answer


def chat(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**({"model": "tiny", "messages": HELLO} | options))


def test_models_and_health(client: openai.OpenAI, running: Running) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with urllib.request.urlopen(f"{running.url}/health") as reply:
        assert json.load(reply) == {"status": "ok", "active": 0, "slots": 4}


def test_chat_puts_the_messages_into_the_template(
    client: openai.OpenAI, tokenizer: Tokenizer, alone: Callable[..., Generation]
) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    reply = chat(client, messages=messages, temperature=0, max_tokens=12)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    expected = alone(prompt, max_tokens=12)
    assert reply.choices[0].message.content == expected.text
    assert reply.choices[0].finish_reason == expected.finish_reason
    assert reply.usage.prompt_tokens == len(prompt)
    assert reply.usage.completion_tokens == len(expected.tokens)
    assert reply.usage.total_tokens == len(prompt) + len(expected.tokens)


def test_streamed_pieces_join_to_the_whole(client: openai.OpenAI) -> None:
    options = {"temperature": 1.0, "seed": 11, "max_tokens": 40, "n": 2}
    whole = chat(client, **options)
    texts, reasons, usage = ["", ""], ["", ""], None
    for chunk in chat(client, **options, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert texts[0] != texts[1]
    assert usage == whole.usage


def test_completions_stream_and_stop(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "tiny", "prompt": "The heart", "max_tokens": 30, "temperature": 0}
    options |= {"extra_body": {"ignore_eos": True}}
    text = client.completions.create(**options).choices[0].text
    stop = text[10:13]
    cut = client.completions.create(**options, stop=[stop]).choices[0]
    assert (cut.text, cut.finish_reason) == (text.partition(stop)[0], "stop")
    streamed = list(client.completions.create(**options, stop=stop, stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == cut.text
    assert streamed[-1].choices[0].finish_reason == "stop"


def test_many_clients_at_once_get_their_own_answers(client: openai.OpenAI) -> None:
    def ask(i: int) -> str:
        messages = [{"role": "user", "content": f"Question {i}?"}]
        reply = chat(client, messages=messages, max_tokens=15, seed=i, temperature=1.0)
        return reply.choices[0].message.content

    one_by_one = [ask(i) for i in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        assert list(threads.map(ask, range(10))) == one_by_one


def test_echo_with_logprobs_scores_the_prompt(
    client: openai.OpenAI, tokenizer: Tokenizer, forward: Callable[[list[int]], np.ndarray]
) -> None:
    context, continuation = tokenizer.encode("What is a fever?"), tokenizer.encode(" The answer is yes.")
    ids = context + continuation
    reply = client.completions.create(
        model="tiny", prompt=[ids, context], max_tokens=1, temperature=0, logprobs=1, echo=True
    )
    first = reply.choices[0]
    scores = forward(ids).astype(np.float64)
    scores -= np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True)) + scores.max(
        -1, keepdims=True
    )
    # The way log-likelihood benchmarks read it: the continuation's tokens, the drawn one left out.
    found = first.logprobs.token_logprobs[len(context) : -1]
    at = np.arange(len(context), len(ids))
    assert found == pytest.approx(scores[at - 1, ids[len(context) :]].tolist(), abs=1e-4)
    assert first.logprobs.token_logprobs[0] is None
    assert first.logprobs.top_logprobs[0] is None
    tops = first.logprobs.top_logprobs[len(context) : -1]
    greedy = [score == max(top.values()) for score, top in zip(found, tops, strict=True)]
    assert greedy == (scores[at - 1].argmax(-1) == ids[len(context) :]).tolist()
    assert first.text.startswith("What is a fever? The answer is yes.")
    pieces = zip(first.logprobs.tokens, first.logprobs.text_offset, strict=True)
    assert all(first.text[offset:].startswith(piece) for piece, offset in list(pieces)[: len(ids)])
    assert len(first.logprobs.tokens) == len(ids) + 1
    assert reply.choices[1].text.startswith("What is a fever?")
    only = client.completions.create(model="tiny", prompt="A fever.", max_tokens=0, logprobs=0, echo=True)
    assert only.choices[0].text == "A fever."
    assert only.usage.completion_tokens == 0


def test_chat_log_probabilities(client: openai.OpenAI) -> None:
    reply = chat(client, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3)
    content = reply.choices[0].logprobs.content
    assert 0 < len(content) <= 6
    for item in content:
        assert len(item.top_logprobs) == 3
        assert item.logprob == item.top_logprobs[0].logprob
        assert bytes(item.bytes).decode() == item.token


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"presence_penalty": 5}, "presence_penalty"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "<|im_end|>"}]}, "messages"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"extra_body": {"no_such_thing": 1}}, "no_such_thing"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": "why " * 500}]}, None),
    ],
)
def test_bad_values_are_named(client: openai.OpenAI, options: dict[str, Any], param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **options)
    body: Any = caught.value.body
    assert body["param"] == param
    assert body["type"] == "invalid_request_error"
    if param is None:
        assert body["code"] == "context_length_exceeded"
        assert "256" in body["message"]


def test_what_completions_cannot_do_is_refused(client: openai.OpenAI) -> None:
    for options in ({"suffix": "x"}, {"best_of": 3}, {"echo": True, "stream": True}, {"prompt": []}):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(**({"model": "tiny", "prompt": "x"} | options))  # type: ignore


def test_unknown_model_path_and_broken_json(client: openai.OpenAI, running: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="'other'") as caught:
        chat(client, model="other")
    assert caught.value.code == "model_not_found"
    for path, body, status in (("/v1/nothing", b"{}", 404), ("/v1/chat/completions", b"{broken", 400)):
        with pytest.raises(urllib.error.HTTPError) as failed:
            urllib.request.urlopen(urllib.request.Request(running.url + path, data=body))
        assert failed.value.code == status
        assert json.load(failed.value)["error"]["message"]


def test_a_client_that_leaves_frees_its_rows(running: Running, engine: Engine) -> None:
    client, before = running.client(), engine.drawn_tokens
    stream = chat(client, n=4, max_tokens=200, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        chat(client, n=4, max_tokens=230, extra_body={"ignore_eos": True}, timeout=0.05)
    # Under load the second request may reach the engine after its client has left, so the engine is asked once more.
    assert chat(client, max_tokens=3).choices[0].message is not None
    until = time.monotonic() + 20
    while engine.busy and time.monotonic() < until:
        time.sleep(0.02)
    assert not engine.busy
    assert engine.drawn_tokens - before < 4 * (200 + 230) / 2


def test_a_key_is_asked_for(make_engine: Callable[..., Engine]) -> None:
    server = Running(make_engine(slots=1), api_key="secret-key")
    try:
        assert chat(server.client("secret-key"), max_tokens=2).choices
        for wrong in ("wrong", "none"):
            with pytest.raises(openai.AuthenticationError) as caught:
                chat(server.client(wrong), max_tokens=2)
            assert "secret-key" not in str(caught.value)
    finally:
        server.stop()


def test_replies_under_way_are_told_when_the_server_ends(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "GRACE_S", 0.2)
    engine = make_engine(slots=1)
    step = engine.step
    monkeypatch.setattr(
        engine, "step", lambda: (time.sleep(0.05), step())[1]
    )  # still at it when the server ends
    server = Running(engine)
    long = {"max_tokens": 120, "extra_body": {"ignore_eos": True}}
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        streamed = chat(server.client(), **long, stream=True)
        next(iter(streamed))
        waiting = threads.submit(chat, server.client(), **long)
        rest = threads.submit(list, streamed)
        time.sleep(0.1)
        server.stop()
        for asked in (waiting, rest):
            with pytest.raises(openai.APIError, match="shutting down"):
                asked.result(30)
    assert not server.thread.is_alive()
    monkeypatch.undo()
    engine.run()  # to its end, since other tests share it


def test_a_port_in_use_is_named() -> None:
    taken = serve.bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(ServiceError, match=f"port {port} is in use") as caught:
        serve.bind("127.0.0.1", port)
    assert "--port" in str(caught.value)
    taken.close()


def test_loopback_addresses() -> None:
    assert [serve.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.8.0.1")] == [True] * 4
    assert [serve.is_loopback(host) for host in ("0.0.0.0", "192.168.1.4", "example.org")] == [False] * 3
