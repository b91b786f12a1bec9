"""The table of verbs: which module serves which, in the order of the work."""

import importlib

import typer

VERBS = (
    "quickstart",
    "synthesize",
    "filter",
    "publish",
    "pack",
    "import",
    "plan",
    "train",
    "export",
    "generate",
    "serve",
    "judge",
    "score",
    "evaluate",
    "launch",
    "report",
    "doctor",
)


def build_app() -> typer.Typer:
    """Build the typer application from ``alpacare_jax/cli/<verb>_verb.py``, each of which defines ``command``."""
    app = typer.Typer(
        name="alpacare",
        help="Medical instruction data and LLaMA fine-tuning on JAX, from seed tasks to judged answers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        debug: bool = typer.Option(False, "--debug", help="Show the full traceback of an error."),
    ) -> None:
        """Options of every verb. ``--debug`` is read before parsing and may stand anywhere."""

    for verb in VERBS:
        module = importlib.import_module(f"alpacare_jax.cli.{verb}_verb")
        register = getattr(module, "register", None)
        if register is not None:
            register(app)
        else:
            app.command(verb)(module.command)
    return app
