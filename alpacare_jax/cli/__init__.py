"""The command ``alpacare``: one verb a module, light to import, heavy work imported inside each verb."""

import sys
import traceback

import typer

from alpacare_jax.cli import verbs
from datagen.errors import UserError

app = verbs.build_app()


def main(argv: list[str] | None = None) -> None:
    """Run the command and turn every user error into one message and exit status 2.

    Args:
        argv: Arguments after the program's name; ``sys.argv`` when None.
    """
    argv = sys.argv[1:] if argv is None else argv
    # What follows two dashes belongs to the verb that `launch` starts.
    own = argv.index("--") if "--" in argv else len(argv)
    debug = "--debug" in argv[:own]
    argv = [argument for argument in argv[:own] if argument != "--debug"] + argv[own:]
    try:
        app(args=argv, prog_name="alpacare")
    except (UserError, OSError) as error:
        if debug:
            traceback.print_exc()
        message = str(error) if isinstance(error, UserError) else explain_os_error(error)
        typer.echo(f"alpacare: {message}", err=True)
        sys.exit(2)


def explain_os_error(error: OSError) -> str:
    """Say an operating system's failure in the form of a user error."""
    remedy = {28: "free some disk space and run the same command again; what was finished is kept"}
    return str(
        UserError(
            f"the operating system refused: {error.strerror or error}",
            where=error.filename,
            remedy=remedy.get(error.errno or 0),
        )
    )
