"""Provenance: the code's version and commit, the packages, and hashes of files."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import alpacare_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain",
            "tensorflow-datasets", "transformers", "numpy")  # fmt: skip


def describe_code() -> dict[str, Any]:
    """Describe the running code: version, commit (in a git checkout), Python and packages."""
    return {
        "alpacare-jax": alpacare_jax.__version__,
        "commit": find_commit(Path(alpacare_jax.__file__).resolve().parent),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": [f"{name} {_version(name) or 'missing'}" for name in PACKAGES],
    }


def find_commit(folder: Path) -> str | None:
    """Return the commit of the checkout that tracks ``folder``, marked where files differ, or None."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        if not _git(folder, "ls-files", "--", "."):
            return None  # an installed copy that merely lies inside somebody else's checkout
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} (with uncommitted changes)" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
