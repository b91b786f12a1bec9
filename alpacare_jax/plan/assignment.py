"""Reading what the TPU compiler writes down once it has decided where every buffer lies.

That is after about a tenth of its time; the rest makes machine code, which a plan does not need. So the compiler is
asked to write its decisions to a folder, and where only a plan is wanted it is stopped there.
"""

import re
import time
from pathlib import Path

ASSIGNED = "*jit__step*after_optimizations_after_buffer_assignment.txt"
"""The last file that is written before machine code is made: the optimised program."""
OPTIMISED = "*jit__step*after_optimizations.txt"
"""The optimised program as the compiler for GPUs writes it, which is done in seconds and need not be stopped."""
BUFFERS = "*jit__step*after_optimizations-buffer-assignment.txt"
LARGEST = "*jit__step*after_optimizations-memory-usage-report.txt"


def wait_for_assignment(folder: Path, *, every_s: float = 0.2, settled_s: float = 0.6) -> Path:
    """Wait until the compiler has written its decisions, and return the optimised program's file."""
    seen, since = -1, time.monotonic()
    while True:
        files = sorted(folder.glob(ASSIGNED))
        size = files[-1].stat().st_size if files else -1
        if size != seen:
            seen, since = size, time.monotonic()
        elif size > 0 and time.monotonic() - since >= settled_s:
            return files[-1]
        time.sleep(every_s)


def read_buffers(text: str) -> dict[str, int]:
    """Add up the buffers by kind, in bytes.

    Returns:
        ``arguments``, ``aliased`` (arguments that become results), ``outputs`` (results of their own),
        ``temporaries``, and ``host`` (temporaries in the host's memory).

    Example:
        >>> read_buffers("allocation 0: size 8, page 0, parameter 1, shape |f32[2]| at ShapeIndex {}, maybe-live-out:")
        {'arguments': 8, 'aliased': 8, 'outputs': 0, 'temporaries': 0, 'host': 0}
    """
    found = {"arguments": 0, "aliased": 0, "outputs": 0, "temporaries": 0, "host": 0}
    for size, color, rest in re.findall(
        r"^allocation \d+: size (\d+),(?: color (\d+),)?(.*)$", text, re.MULTILINE
    ):
        if " parameter " in rest and "thread-local" not in rest:
            found["arguments" if not color else "host"] += int(size)
            if "maybe-live-out" in rest and not color:
                found["aliased"] += int(size)
        elif "preallocated-temp" in rest:
            if not color:
                found["temporaries"] += int(size)
            elif color == "5":
                found["host"] += int(size)
        elif "maybe-live-out" in rest and not color:
            found["outputs"] += int(size)
    return found


def read_largest(text: str, most: int = 8) -> list[dict[str, str]]:
    """Read the largest buffers of the device's memory from the compiler's report.

    Returns:
        For each its ``size`` and the shapes that lie there one after another, as the compiler writes them.
    """
    part = text.partition("Memory Space: default")[2].partition("Memory Space:")[0]
    rows = re.findall(r"^\s*\S+\(\s*\d+%\);\s*([\d.]+\w+);\s*\d+;\s*\d+; (.*)$", part, re.MULTILINE)
    return [{"size": size, "shapes": shapes[:200]} for size, shapes in rows[:most]]
