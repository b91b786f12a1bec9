"""``alpacare synthesize``: seed tasks to instructions, through a resumable work folder."""

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datagen.settings import Settings
    from datagen.status import Progress, Watch

SECONDS_BETWEEN_LINES = 5.0


def command(
    work: Annotated[
        Path, typer.Option(help="Work folder: ledger and results; made if missing, resumed if not.")
    ],
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; without it a work folder's own settings hold.")
    ] = None,
    seeds: Annotated[
        Path | None, typer.Option(help="Seed tasks, JSONL or JSON list.", show_default="the project's own")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address of the OpenAI-compatible API that writes the tasks, usually ending in /v1."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model that writes the tasks.")] = None,
    answer_base_url: Annotated[
        str | None, typer.Option(help="Address of the API that answers.", show_default="as --base-url")
    ] = None,
    answer_model: Annotated[
        str | None, typer.Option(help="Model that answers.", show_default="as --model")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable that holds the key.", show_default="OPENAI_API_KEY"),
    ] = None,
    answer_api_key_env: Annotated[
        str | None,
        typer.Option(help="The same for the API that answers.", show_default="as --api-key-env"),
    ] = None,
    target: Annotated[
        int | None, typer.Option(help="Accepted tasks to reach; may be raised later.", show_default="100")
    ] = None,
    tasks_per_request: Annotated[
        int | None, typer.Option(help="New tasks asked for in one request.", show_default="12")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(help="Seed tasks shown in one request.", show_default="3")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Number that all prompts are drawn from.", show_default="0")
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(help="Task requests at most.", show_default="ten times what the target needs"),
    ] = None,
    similarity: Annotated[
        float | None,
        typer.Option(help="ROUGE-L F1, 0 to 1, above which a task is a near-duplicate.", show_default="0.7"),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Requests in flight at once.", show_default="8")
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option(help="Longest wait for one reply, in seconds.", show_default="120")
    ] = None,
    max_tries: Annotated[int | None, typer.Option(help="Tries per request.", show_default="5")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the tasks.", show_default="1.0")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the tasks.", show_default="1.0")] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="Of the tasks.", show_default="1.5")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest reply with tasks, in tokens.", show_default="3072")
    ] = None,
    answer_temperature: Annotated[
        float | None, typer.Option(help="Of the answers.", show_default="1.0")
    ] = None,
    answer_top_p: Annotated[float | None, typer.Option(help="Of the answers.", show_default="1.0")] = None,
    answer_presence_penalty: Annotated[
        float | None, typer.Option(help="Of the answers.", show_default="1.5")
    ] = None,
    answer_max_tokens: Annotated[
        int | None, typer.Option(help="Longest answer, in tokens.", show_default="1024")
    ] = None,
    eager: Annotated[
        bool | None,
        typer.Option(
            "--eager", help="Keep all requests in flight, though the last may be in vain.", show_default="no"
        ),
    ] = None,
    send_seed: Annotated[
        bool | None,
        typer.Option(
            "--send-seed",
            help="Send a sampling seed with each request, if the service takes one.",
            show_default="no",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what an earlier run gave up on.")
    ] = False,
    status: Annotated[
        bool,
        typer.Option(
            "--status", help="Print how far the work folder is, also beside a running job; send nothing."
        ),
    ] = False,
) -> None:
    """Write new medical tasks with a model, filter them, and have them answered.

    Every request and reply is kept in WORK/ledger.sqlite: an interrupted run goes
    on with the same command and asks nothing twice. Results: instructions.jsonl,
    tasks.jsonl, rejected.jsonl (with reasons), funnel.json.

    Exit status: 0 target reached, 1 fewer tasks than that, 2 error, 130 interrupted.
    """
    from datagen.synthesize import status as summarize
    from datagen.synthesize import synthesize

    if status:
        _print_funnel(summarize(work), work)
        return
    flags: dict[str, Any] = {
        "seeds": seeds,
        "target": target,
        "tasks_per_request": tasks_per_request,
        "examples": examples,
        "seed": seed,
        "max_requests": max_requests,
        "similarity": similarity,
        "eager": eager,
        "send_seed": send_seed,
        "teacher": {
            "base_url": base_url,
            "model": model,
            "api_key_env": api_key_env,
            "concurrency": concurrency,
            "timeout_s": timeout_s,
            "max_tries": max_tries,
        },
        "answerer": {
            "base_url": answer_base_url,
            "model": answer_model,
            "api_key_env": answer_api_key_env,
            "concurrency": concurrency,
            "timeout_s": timeout_s,
            "max_tries": max_tries,
        },
        "task_sampling": {
            "temperature": temperature,
            "top_p": top_p,
            "presence_penalty": presence_penalty,
            "max_tokens": max_tokens,
        },
        "answer_sampling": {
            "temperature": answer_temperature,
            "top_p": answer_top_p,
            "presence_penalty": answer_presence_penalty,
            "max_tokens": answer_max_tokens,
        },
    }
    settings = _settings(work, config, _given(flags))
    signal.signal(signal.SIGTERM, _end_politely)
    try:
        with _watching() as watch:
            funnel = synthesize(settings, work, retry_failed=retry_failed, watch=watch)
    except KeyboardInterrupt:
        typer.echo(
            f"\nInterrupted. Everything answered so far is in {work}; run the same command again to go on.",
            err=True,
        )
        raise typer.Exit(130) from None
    _print_funnel(funnel, work)
    if not funnel["target_reached"]:
        typer.echo(
            f"Stopped at {funnel['task_requests']} task requests with {funnel['tasks_kept']} of "
            f"{funnel['target']} tasks; raise --max-requests to go on.",
            err=True,
        )
        raise typer.Exit(1)


def _end_politely(*_: object) -> None:
    """Take a scheduler's polite end like Ctrl-C, also in a job that was started with Ctrl-C turned off (nohup, &)."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Leave out the flags that were not given, and the groups that are empty then."""
    pruned = {key: _given(value) if isinstance(value, dict) else value for key, value in flags.items()}
    return {key: value for key, value in pruned.items() if value is not None and value != {}}


def _settings(work: Path, config: Path | None, flags: dict[str, Any]) -> "Settings":
    """Lay the flags over the configuration file, or over what the work folder was made with."""
    from datagen.settings import read_settings, read_yaml
    from datagen.work_folder import pinned_settings

    sources: list[tuple[str, dict[str, Any]]] = []
    if config is not None:
        sources.append((str(config), read_yaml(config)))
    elif (work / "config.json").exists():
        sources.append((str(work / "config.json"), pinned_settings(work)))
    return read_settings([*sources, ("the command line", flags)])


@contextlib.contextmanager
def _watching() -> "Iterator[Watch]":
    """Show progress: live bars on a terminal, a line now and then elsewhere."""
    with _terminal_watch() if sys.stderr.isatty() else _line_watch() as watch:
        yield watch


@contextlib.contextmanager
def _terminal_watch() -> "Iterator[Watch]":
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with _logging_to(RichHandler(console=console, show_path=False)), Bars(*columns, console=console) as bars:
        tasks = bars.add_task("tasks", total=None, detail="")
        answers = bars.add_task("answers", total=None, visible=False, detail="")

        def show(progress: "Progress") -> None:
            if progress.stage == "answers":
                bars.update(answers, total=progress.target, completed=progress.answered, visible=True)
            else:
                detail = f"{progress.requests} requests, {progress.rejected} rejected"
                bars.update(tasks, total=progress.target, completed=progress.kept, detail=detail)

        yield show


@contextlib.contextmanager
def _line_watch() -> "Iterator[Watch]":
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    last = 0.0

    def show(progress: "Progress") -> None:
        nonlocal last
        is_answer = progress.stage == "answers"
        done = (progress.answered if is_answer else progress.kept) >= progress.target
        if not done and time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        if is_answer:
            typer.echo(f"answers {progress.answered}/{progress.target}", err=True)
        else:
            typer.echo(
                f"tasks {progress.kept}/{progress.target} | {progress.requests} requests | "
                f"{progress.rejected} rejected",
                err=True,
            )

    with _logging_to(handler):
        yield show


@contextlib.contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    """Show what the synthesis has to say, and nothing of the HTTP library."""
    logger = logging.getLogger("datagen")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _print_funnel(funnel: dict[str, Any], work: Path) -> None:
    """Print the counts as a person reads them, from requests down to instructions."""

    def line(label: str, number: int, lost: dict[str, int]) -> None:
        typer.echo(f"{label:<28}{number:>8}")
        for reason, many in sorted(lost.items(), key=lambda pair: -pair[1]):
            typer.echo(f"    {reason:<24}{many:>8}")

    line("task requests", funnel["task_requests"], _renamed("failed", funnel["task_requests_failed"]))
    line("tasks found in replies", funnel["tasks_found"], funnel["tasks_rejected"])
    line(f"tasks kept (target {funnel['target']})", funnel["tasks_kept"], {})
    failed = _renamed("failed", funnel["answer_requests_failed"])
    line("answers", funnel["answer_replies"], failed | funnel["answers_rejected"])
    line("instructions", funnel["instructions"], {})
    typer.echo(f"tokens: {funnel['prompt_tokens']} in, {funnel['completion_tokens']} out; results in {work}")
    for stage, counts in funnel.get("ledger", {}).items():
        typer.echo(
            f"ledger, {stage}: {counts['answered']} answered, {counts['failed']} failed, "
            f"{counts['sent']} without an outcome, {counts['tries']} sent"
        )


def _renamed(prefix: str, counts: dict[str, int]) -> dict[str, int]:
    return {f"{prefix}: {reason}": many for reason, many in counts.items()}
