import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_killed_run_loses_nothing_pays_nothing_twice_and_keeps_its_cap(repository: Path) -> None:
    """The short form of the benchmark, whose own checks set the exit status; the long one kills 50 times."""
    script = repository / "benchmarks" / "synthesis_kills.py"
    run = subprocess.run(
        [sys.executable, str(script), "--kills", "5", "--requests", "60"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "killed 5 times" in run.stdout
