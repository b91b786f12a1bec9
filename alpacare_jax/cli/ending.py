"""Ending the process of the command at once, even if a compilation thread is still running."""

import os
import sys
import threading

from alpacare_jax.cli import main
from alpacare_jax.compilation import THREAD


def run() -> None:
    """Run the command and end the process.

    A compilation thread cannot be stopped, and a normal exit unloads libraries that it uses. So while such a thread is
    running, the process exits without cleanup; all output is written by then.
    """
    code = 0
    try:
        main()
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # noqa: BLE001  # a bug: print the traceback as Python does
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.name == THREAD for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)
