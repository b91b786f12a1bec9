"""Bodies of requests: services differ in what they take, and whatever shapes a reply shapes the prompt's hash."""

import dataclasses
import math

import pytest

from datagen.errors import ConfigError
from datagen.service.chat import ChatRequest, Sampling, prompt_hash
from datagen.settings import read_settings

MESSAGES = ({"role": "user", "content": "Hi"},)


def body(sampling: Sampling) -> dict[str, object]:
    return ChatRequest("0", MESSAGES, sampling).body("m")


def test_null_leaves_a_field_out_and_reasoning_models_get_their_own_length_field() -> None:
    sampling = Sampling(
        temperature=None,
        top_p=None,
        presence_penalty=None,
        max_tokens=9000,
        max_tokens_field="max_completion_tokens",
        extra_body={"reasoning_effort": "low"},
    )
    assert body(sampling) == {
        "model": "m",
        "messages": list(MESSAGES),
        "max_completion_tokens": 9000,
        "reasoning_effort": "low",
    }


def test_whole_numbers_are_the_same_prompt_as_their_decimals() -> None:
    assert prompt_hash(body(Sampling(temperature=1, presence_penalty=0))) == prompt_hash(body(Sampling()))


def test_form_and_extra_fields_are_part_of_the_prompt_hash() -> None:
    plain = ChatRequest("0", MESSAGES, Sampling())
    others = [
        dataclasses.replace(plain, response_format={"type": "json_object"}),
        dataclasses.replace(plain, sampling=Sampling(extra_body={"top_k": 40})),
        dataclasses.replace(plain, sampling=Sampling(max_tokens_field="max_completion_tokens")),
        dataclasses.replace(plain, sampling=Sampling(top_p=None)),
    ]
    hashes = {prompt_hash(each.body("m")) for each in [plain, *others]}
    assert len(hashes) == 5


@pytest.mark.parametrize("key", ["n", "model", "messages", "max_tokens", "max_completion_tokens", "stream"])
def test_extra_fields_may_not_change_what_a_request_costs(key: str) -> None:
    with pytest.raises(ConfigError, match="extra_body may not set") as caught:
        Sampling(extra_body={key: 5, "top_k": 3})
    assert key in str(caught.value)
    assert "top_k" not in str(caught.value)


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_tokens_field"):
        Sampling(max_tokens_field="max_token")
    for name, value in (
        ("temperature", 2.5),
        ("top_p", math.nan),
        ("presence_penalty", -3),
        ("max_tokens", 0),
    ):
        with pytest.raises(ConfigError, match=f"{name} must be at least"):
            Sampling(**{name: value})  # type: ignore[arg-type]


def test_task_writer_and_answerer_are_configured_apart() -> None:
    settings = read_settings(
        [
            (
                "file",
                {
                    "teacher": {
                        "base_url": "https://one.example/v1",
                        "model": "big",
                        "api_key_env": "ONE_KEY",
                    },
                    "answerer": {
                        "base_url": "https://two.example/v1",
                        "model": "mini",
                        "api_key_env": "TWO_KEY",
                    },
                    "task_sampling": {
                        "temperature": None,
                        "max_tokens_field": "max_completion_tokens",
                        "extra_body": {"reasoning": {"effort": "low"}},
                    },
                    "answer_sampling": {"presence_penalty": None},
                },
            ),
            ("flags", {"task_sampling": {"extra_body": {"reasoning": {"exclude": True}}}}),
        ]
    )
    task, answer = body(settings.task_sampling), body(settings.answer_sampling)
    assert task["reasoning"] == {"effort": "low", "exclude": True}
    assert task["max_completion_tokens"] == 3072
    assert "temperature" not in task
    assert answer["temperature"] == 1.0
    assert answer["max_tokens"] == 1024
    assert not {"presence_penalty", "reasoning"} & answer.keys()
    assert (settings.teacher.api_key_env, settings.answerer.api_key_env) == ("ONE_KEY", "TWO_KEY")
    with pytest.raises(ConfigError, match="extra_body must be keys and values"):
        read_settings([("file", {"task_sampling": {"extra_body": ["top_k"]}})])
