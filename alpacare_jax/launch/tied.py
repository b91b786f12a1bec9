"""Run a program that ends with the process that started it, however that one ends.

A file for the interpreter alone: ``python -I -S tied.py STARTER PROGRAM ARGS...`` asks the kernel to kill this process
when its starter, process number STARTER, is gone, and then becomes the program. It imports nothing of the project, so
that it costs some milliseconds.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""From ``linux/prctl.h``. What it sets stays when the process becomes another program."""


def main() -> None:
    """Tie this process to its starter and become the program."""
    starter, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(starter):  # it ended before the kernel was asked
            sys.exit(128 + signal.SIGKILL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main()
