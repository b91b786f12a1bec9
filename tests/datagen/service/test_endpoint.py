"""Addresses as people give them: copied out of pages, files and other programs."""

from pathlib import Path
from typing import Any

import pytest
from loopback_server import Request
from scripted_server import Scripted, ScriptedServer

from datagen.client import ChatRequest, Sampling, Service, complete
from datagen.errors import ConfigError, ServiceError
from datagen.ledger import Ledger

AZURE = "https://example.openai.azure.com/openai"
ROOTS = {
    "https://a.example/v1/": "https://a.example/v1",
    "https://a.example/v1/chat": "https://a.example/v1",
    "https://a.example/v1/models/": "https://a.example/v1",
    "https://a.example/v1/responses": "https://a.example/v1",
    "https://a.example/v1/embeddings": "https://a.example/v1",
    "https://a.example/api/V1//Chat/Completions//": "https://a.example/api/V1",
    "http://localhost:8000/completions": "http://localhost:8000",
    "https://x.services.ai.azure.com/models": "https://x.services.ai.azure.com/models",
    "https://chat": "https://chat",
    "https://models.example": "https://models.example",
    ' "https://a.example/v1", ': "https://a.example/v1",
    "<https://a.example/v1>": "https://a.example/v1",
    "\u201chttps://a.example/v1\u201d\u00a0": "https://a.example/v1",
    "https://a.example/v1?": "https://a.example/v1",
    f"{AZURE}/deployments/d?api-version=2024-06-01": f"{AZURE}/deployments/d?api-version=2024-06-01",
    f"{AZURE}/deployments/d/chat/completions?api-version=1": f"{AZURE}/deployments/d?api-version=1",
    f"{AZURE}/v1/?api-version=preview&region=eu": f"{AZURE}/v1?api-version=preview&region=eu",
}


@pytest.mark.parametrize("given", ROOTS)
def test_an_address_is_taken_for_that_of_the_api(given: str) -> None:
    assert Service(given, "m").base_url == ROOTS[given]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("api.example.org/v1", "write https://api.example.org/v1"),
        ("localhost:8000/v1", "write http://localhost:8000/v1"),
        ("[::1]:8000", "write http://[::1]:8000"),
        ("//a.example/v1", "write https://a.example/v1"),
        ("https//a.example/v1", "write https://a.example/v1"),
        ("http:/a.example/v1", "write https://a.example/v1"),
        ("ftp://a.example/v1", "write https://a.example/v1"),
        *[
            (given, "not an address")
            for given in ("", "https://", "https:///v1", "https://a.example /v1", "http://[::1/v1", "http://h:99999/v1",
                          "https://<resource>.example/v1", "https://${HOST}/v1")
        ],
        ("https://a.example/v1#chat", "a part behind #"),
        ("https://a.example/v1?key=hunter2", "what may be a key behind ?"),
        ("https://a.example/v1?api_token=hunter2", "what may be a key behind ?"),
        ("https://a.example/v1?hunter2hunter2hunter2hunter2", "what may be a key behind ?"),
        ("https://a.example/v1?x=hunter2hunter2hunter2hunter2", "what may be a key behind ?"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_what_to_write(given: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Service(given, "m")
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


class Recording(ScriptedServer):
    """Remembers the line and the key of the last request."""

    def serve(self, request: Request) -> None:
        self.seen = request.path, request.headers.get("api-key")
        super().serve(request)


def ask(address: str, ledger: Ledger) -> str:
    request = ChatRequest("0", ({"role": "user", "content": "Why rest?"},), Sampling())
    return complete([request], Service(address, "m"), ledger, stage="s")[0].text


def test_what_stands_behind_the_address_is_sent_with_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-a-test")
    with Recording(lambda *_: "ok") as server, Ledger(tmp_path / "l.sqlite") as ledger:
        root = server.base_url.removesuffix("/v1")
        assert ask(f"{root}/openai/deployments/d?api-version=2024-06-01", ledger) == "ok"
    path = "/openai/deployments/d/chat/completions?api-version=2024-06-01"
    assert server.seen == (path, "sk-for-a-test")


def test_an_address_without_a_path_is_told_which_to_try(tmp_path: Path) -> None:
    def none(*_: Any) -> Scripted:
        return Scripted(status=404, raw=b'{"detail": "Not Found"}')

    with (
        ScriptedServer(none) as server,
        Ledger(tmp_path / "l.sqlite") as ledger,
        pytest.raises(ServiceError, match=f"perhaps {server.base_url}"),
    ):
        ask(server.base_url.removesuffix("/v1"), ledger)
