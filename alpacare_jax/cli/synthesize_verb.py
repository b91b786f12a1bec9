"""``alpacare synthesize``: seed tasks to instructions, through a resumable work folder."""

import dataclasses
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alpacare_jax.cli import synthesis_options as options

if TYPE_CHECKING:
    from datagen.settings import Settings
    from datagen.synthesize import Funnel


def command(
    context: typer.Context,
    work: options.Work,
    config: options.Config = None,
    seeds: options.Seeds = None,
    target: options.Target = None,
    tasks_per_request: options.TasksPerRequest = None,
    examples: options.Examples = None,
    sampling: options.Sampling = None,
    seed: options.Seed = None,
    similarity: options.Similarity = None,
    privacy: options.Privacy = None,
    privacy_model: options.PrivacyModel = None,
    evaluation_files: options.EvaluationFiles = None,
    base_url: options.BaseUrl = None,
    model: options.Model = None,
    api_key_env: options.ApiKeyEnv = None,
    answer_base_url: options.AnswerBaseUrl = None,
    answer_model: options.AnswerModel = None,
    answer_api_key_env: options.AnswerApiKeyEnv = None,
    budget_usd: options.BudgetUsd = None,
    prices: options.PricesFile = None,
    max_requests: options.MaxRequests = None,
    concurrency: options.Concurrency = None,
    requests_per_minute: options.RequestsPerMinute = None,
    tokens_per_minute: options.TokensPerMinute = None,
    timeout_s: options.TimeoutS = None,
    patience_s: options.PatienceS = None,
    max_tries: options.MaxTries = None,
    eager: options.Eager = None,
    mode: options.Mode = None,
    batch_requests: options.BatchRequests = None,
    batch_tokens: options.BatchTokens = None,
    batch_poll_s: options.BatchPollS = None,
    no_wait: options.NoWait = False,
    cancel_batches: options.CancelBatches = False,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    presence_penalty: options.PresencePenalty = None,
    max_tokens: options.MaxTokens = None,
    format: options.Format = None,
    answer_temperature: options.AnswerTemperature = None,
    answer_top_p: options.AnswerTopP = None,
    answer_presence_penalty: options.AnswerPresencePenalty = None,
    answer_max_tokens: options.AnswerMaxTokens = None,
    send_seed: options.SendSeed = None,
    dry_run: options.DryRun = False,
    status: options.Status = False,
    as_json: options.AsJson = False,
    retry_failed: options.RetryFailed = False,
    derive: options.Derive = None,
) -> None:
    """Write new medical tasks with a model, filter them, and have them answered.

    Every request and reply is kept in WORK/ledger.sqlite: an interrupted run goes
    on with the same command and asks nothing twice. Results: instructions.jsonl,
    tasks.jsonl, rejected.jsonl (with reasons), funnel.json.

    Exit status: 0 target reached, 1 fewer tasks than that or no answer that can be
    published, 2 error, 3 batches are under way (--no-wait), 130 interrupted.
    """
    from alpacare_jax.cli.synthesis_report import print_funnel

    if status:
        _show(work, as_json)
        return
    if as_json:
        raise typer.BadParameter("it goes with --status", param_hint="--json")
    settings = _settings(work, config, options.to_settings(context.params))
    if dry_run:
        _show_plan(settings, work)
        return
    if derive is not None:
        work = _derive(work, derive, settings)
    if cancel_batches:
        _cancel(settings, work)
        return
    funnel = _run(settings, work, retry_failed, wait=not no_wait)
    print_funnel(funnel, work)
    less = not funnel.target_reached or funnel.budget_reached
    if less:
        typer.echo(_why_less(funnel), err=True)
    if funnel.nothing_published:
        typer.echo(funnel.nothing_published, err=True)
    if less or funnel.nothing_published:
        raise typer.Exit(1)


def _show(work: Path, as_json: bool) -> None:
    from alpacare_jax.cli.synthesis_report import print_status
    from datagen.synthesize import status

    found = status(work)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        print_status(found, work)


def _show_plan(settings: "Settings", work: Path) -> None:
    from alpacare_jax.cli.synthesis_report import print_plan
    from datagen.work.plan import plan

    print_plan(plan(settings, work), work)


def _cancel(settings: "Settings", work: Path) -> None:
    from alpacare_jax.cli.synthesis_report import print_batches
    from datagen.work.stop_batches import cancel_all

    ended = cancel_all(settings, work)
    print_batches(ended)
    if not ended:
        typer.echo("No batch is under way; nothing was ended.")


def _settings(work: Path, config: Path | None, flags: dict[str, Any]) -> "Settings":
    """Lay the flags over the configuration file, or over what the work folder was made with.

    A budget that the folder was given holds until another is named, and so do its prices: forgetting an option must
    not lift a cap.
    """
    from datagen.decoding import read_yaml_mapping
    from datagen.settings import beside, read_settings
    from datagen.work.folder import CONFIG, pinned_settings, recorded_seeds

    pinned = pinned_settings(work) if (work / CONFIG).exists() else {}
    sources: list[tuple[str, dict[str, Any]]] = []
    if config is not None:
        kept = {key: pinned[key] for key in ("budget_usd", "prices") if pinned.get(key) is not None}
        sources.append((str(work / CONFIG), kept))
        sources.append((str(config), beside(config, read_yaml_mapping(config))))
    elif pinned:
        sources.append((str(work / CONFIG), pinned))
    settings = read_settings([*sources, ("the command line", flags)])
    own = None
    if "seeds" not in flags and settings.seeds is not None and not settings.seeds.exists():
        own = recorded_seeds(work)
    if own is not None:
        typer.echo(
            f"seeds: {settings.seeds} is not there; going on with the folder's own copy, {own}", err=True
        )
        settings = dataclasses.replace(settings, seeds=own)
    known = {*flags, "seeds"} if own else set(flags)
    for where, mapping in reversed(sources):
        _refuse_missing_files(where, {key: each for key, each in mapping.items() if key not in known})
    return settings


def _refuse_missing_files(where: str, mapping: Mapping[str, Any]) -> None:
    """Name the file that settings lack, and who asks for it: a person who moved it is not told a path alone."""
    from datagen.errors import ConfigError
    from datagen.settings import missing_files

    options = {"seeds": "--seeds", "prices": "--prices", "evaluation_files": "--evaluation"}
    for key, path in missing_files(mapping).items():
        raise ConfigError(
            "a file that the settings name is not there",
            where=f"{key} in {where}",
            found=str(path.absolute()),
            remedy=f"put it back, correct the path (a config's paths start from the config's own folder), or say "
            f"where it is now with {options[key]} FILE",
        )


def _derive(work: Path, target: Path, settings: "Settings") -> Path:
    from datagen.work.derive import derive

    taken = derive(work, target, settings)
    typer.echo(
        f"{target} takes over {taken.tasks} of {taken.of_tasks} task requests and {taken.answers} of "
        f"{taken.of_answers} answers from {work}.",
        err=True,
    )
    return target


def _run(settings: "Settings", work: Path, retry_failed: bool, *, wait: bool) -> "Funnel":
    from alpacare_jax.cli.synthesis_progress import watching
    from datagen.batch.client import BatchesUnderWay, describe
    from datagen.synthesize import synthesize

    signal.signal(signal.SIGTERM, _end_politely)
    try:
        with watching() as watch:
            return synthesize(settings, work, retry_failed=retry_failed, wait=wait, watch=watch)
    except BatchesUnderWay as under_way:
        typer.echo(
            f"{describe(under_way.records)}. They go on at the provider, within a day of being sent; run the same "
            "command again to bring them in. --status shows them, --cancel-batches ends them.",
            err=True,
        )
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        batches = " Batches that were sent go on at the provider." if settings.mode == "batch" else ""
        typer.echo(
            f"\nInterrupted. Everything answered so far is in {work}; run the same command again to go on.{batches}",
            err=True,
        )
        raise typer.Exit(130) from None


def _why_less(funnel: "Funnel") -> str:
    from datagen.money.dollars import usd

    kept = f"{funnel.tasks_kept} of {funnel.target} tasks"
    if funnel.budget_reached and funnel.money and funnel.money.budget_usd is not None:
        return (
            f"Stopped at the budget of {usd(funnel.money.budget_usd)} with {kept} and {funnel.instructions} "
            "instructions; raise --budget-usd to go on."
        )
    return f"Stopped at {funnel.task_requests} task requests with {kept}; raise --max-requests to go on."


def _end_politely(*_: object) -> None:
    """Take a scheduler's polite end like Ctrl-C, also in a job that was started with Ctrl-C turned off (nohup, &)."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
