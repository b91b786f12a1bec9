"""How the command's process ends: at once, also where a compiler is still at work beside what failed."""

import os
import sys
import threading

from alpacare_jax.cli import main
from alpacare_jax.compilation import THREAD


def run() -> None:
    """Run the command and end the process.

    A thread that compiles cannot be stopped, and a process that ends in the usual way takes its libraries down while
    it works. So where one is at work, the process ends without that; everything was said and written by then.
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
    except BaseException:  # noqa: BLE001  # a fault of the product: shown as Python shows it
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.name == THREAD for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)
