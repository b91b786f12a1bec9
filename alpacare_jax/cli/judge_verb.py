"""``alpacare judge``: pairwise verdicts in both orders by an OpenAI-compatible judge."""

import dataclasses
from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from alpacare_jax.cli import synthesis_options as options
from datagen.finish import read_finish

if TYPE_CHECKING:
    from alpacare_jax.evaluate.judge import JudgeSettings, Plan
    from datagen.ledger import Ledger
    from datagen.records import Verdict


#: The settings that an option sets, by their dotted names; a config file holds the same.
SETTINGS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("budget_usd", "prices", "mode")},
    **{f"batch_{name}": (f"batch.{key}",) for name, key in options.BATCH_KEYS.items()},
    **{name: (f"judge.{name}",) for name in ("base_url", "model", "api_key_env", *options.SHARED_LIMITS)},
    **{
        name: (f"sampling.{name}",)
        for name in ("temperature", "top_p", "presence_penalty", "max_tokens", "max_tokens_field")
    },
}
_BUDGET = "budget_usd"  # the ledger's note of the cap
_drawn = partial(Option, rich_help_panel="How verdicts are drawn")
_sampled = partial(_drawn, parser=options.number_or_none, metavar="NUMBER|none")


def command(
    context: typer.Context,
    responses: Annotated[
        Path,
        Option(help="The model's responses, JSON Lines or a JSON list; AlpaCare's own files as they are."),
    ],
    references: Annotated[
        list[str],
        Option(
            help="Files of the reference answers (response or output); comma-separated, may be repeated. Rows "
            "without ids are joined by instruction and input."
        ),
    ],
    work: Annotated[Path, Option(help="Folder of the ledger; an interrupted run resumes from it.")],
    out: Annotated[Path, Option(help="Verdict file to write (JSON Lines).")],
    config: Annotated[
        Path | None, Option(help="YAML file of settings: judge, sampling, budget_usd, prices, mode, batch.")
    ] = None,
    base_url: Annotated[
        str | None, Option(help="Address of the judge's OpenAI-compatible API, usually ending in /v1.")
    ] = None,
    model: Annotated[str | None, Option(help="The judge's model name at that API.")] = None,
    api_key_env: options.ApiKeyEnv = None,
    name: Annotated[
        str | None, Option(help="What to call the judged model.", show_default="as in the file, or its name")
    ] = None,
    reference_fields: Annotated[
        str | None,
        Option(
            help="Comma-separated answer fields, where one reference file holds several answers a row: "
            "gpt-4-answer,claude-2."
        ),
    ] = None,
    allow_missing: Annotated[
        bool,
        Option("--allow-missing", help="Leave out and count responses without a reference answer."),
    ] = False,
    limit: Annotated[int | None, Option(min=1, help="Judge only the first N responses.")] = None,
    temperature: Annotated[
        float | None, _sampled(help="none leaves the field out.", show_default="0")
    ] = None,
    top_p: Annotated[float | None, _sampled(help="none leaves the field out.", show_default="1.0")] = None,
    presence_penalty: Annotated[
        float | None, _sampled(help="none leaves the field out.", show_default="0.0")
    ] = None,
    max_tokens: Annotated[
        int | None,
        _drawn(min=1, help="Longest reply, in tokens, thoughts included.", show_default="512"),
    ] = None,
    max_tokens_field: Annotated[
        str | None,
        _drawn(help="max_tokens, or max_completion_tokens for reasoning models.", show_default="max_tokens"),
    ] = None,
    budget_usd: options.BudgetUsd = None,
    prices: options.PricesFile = None,
    concurrency: options.Concurrency = None,
    requests_per_minute: options.RequestsPerMinute = None,
    tokens_per_minute: options.TokensPerMinute = None,
    timeout_s: options.TimeoutS = None,
    patience_s: options.PatienceS = None,
    max_tries: options.MaxTries = None,
    mode: options.Mode = None,
    batch_requests: options.BatchRequests = None,
    batch_tokens: options.BatchTokens = None,
    batch_poll_s: options.BatchPollS = None,
    no_wait: options.NoWait = False,
    cancel_batches: options.CancelBatches = False,
    dry_run: Annotated[
        bool,
        Option("--dry-run", help="Print what would be asked, a sample and the cost; send and write nothing."),
    ] = False,
    retry_failed: Annotated[
        bool,
        Option(
            "--retry-failed",
            help="Ask again what failed, came back empty, or was cut off before its verdict.",
        ),
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing verdict file.")] = False,
) -> None:
    """Compare responses with reference answers by a judge model.

    Each response meets each reference answer in both orders, joined by id (or by
    question where a file has no ids), at temperature 0. The judge answers "Output (a)",
    "Output (b)" or "Tie". Every reply is kept in the ledger of the work folder before it
    counts, so an interrupted run goes on where it stopped. Then: `alpacare score`.

    Exit status: 0 all asked, 1 some requests failed for good or no reply states a
    verdict, 2 error, 3 batches are under way (--no-wait), 130 interrupted.
    """
    from alpacare_jax.evaluate import answers
    from alpacare_jax.evaluate.judge import plan_comparisons
    from datagen.records import write_records

    settings = _settings(config, options.to_settings(context.params, SETTINGS))
    if not dry_run:
        refuse_existing(out, overwrite)
    asked = answers.read_responses(responses)[:limit]
    own = answers.as_answers(asked, responses, name or "")
    paths = [path for text in references for path in split_fields(text)]
    sets = answers.read_references(paths, split_fields(reference_fields), asked)
    plan = plan_comparisons(asked, own, sets, allow_missing=allow_missing)
    typer.echo(describe_plan(plan, len(asked)))
    if dry_run:
        typer.echo(_describe_cost(plan, settings, work))
        return
    verdicts = _judge(
        plan,
        settings,
        work,
        retry_failed=retry_failed,
        cancel=cancel_batches,
        lift_cap=budget_usd == float("inf"),
        wait=not no_wait,
    )
    if verdicts is None:
        return
    write_records(out, verdicts)
    typer.echo(describe_verdicts(verdicts, out))
    none = bool(verdicts) and all(verdict.verdict == "invalid" for verdict in verdicts)
    if none or any("error" in verdict.extra for verdict in verdicts):
        raise typer.Exit(1)


def _settings(config: Path | None, flags: dict[str, Any]) -> "JudgeSettings":
    from alpacare_jax.evaluate.judge import JudgeSettings
    from datagen.decoding import read_yaml_mapping
    from datagen.settings import beside, read_terms

    sources = [] if config is None else [(str(config), beside(config, read_yaml_mapping(config)))]
    return read_terms(JudgeSettings, [*sources, ("the command line", flags)], "judge")


def _judge(
    plan: "Plan",
    settings: "JudgeSettings",
    work: Path,
    *,
    retry_failed: bool,
    cancel: bool,
    lift_cap: bool,
    wait: bool,
) -> "list[Verdict] | None":
    """Ask what is missing and return all verdicts; None where batches were only ended."""
    from alpacare_jax.evaluate.judge import STAGE, ask_again, judge
    from datagen.batch.asking import BatchesUnderWay, cancel_batches, describe
    from datagen.ledger import Ledger
    from datagen.money.dollars import usd
    from datagen.money.purse import Purse
    from datagen.progress import ProgressDisplay

    with Ledger(work / "ledger.sqlite") as ledger:
        settings = dataclasses.replace(settings, budget_usd=_budget(settings, ledger, lift_cap))
        purse = Purse(ledger, settings.all_prices(), settings.budget_usd)
        if cancel:
            ended = cancel_batches({STAGE: settings.judge}, ledger, purse, settings.batch)
            typer.echo(describe(ended) if ended else "No batch is under way; nothing was ended.")
            return None
        if retry_failed:
            typer.echo(f"{ask_again(plan, settings, ledger)} failed, empty or cut replies are asked again")
        try:
            with ProgressDisplay() as display:
                progress = partial(display.update, "judging")
                verdicts = judge(plan, settings, ledger, purse, wait=wait, progress=progress)
        except BatchesUnderWay as under_way:
            typer.echo(f"{describe(under_way.records)}. Run the same command later to go on.", err=True)
            raise typer.Exit(3) from None
        except KeyboardInterrupt:
            typer.echo(
                f"\nInterrupted. {work} keeps every reply; the same command goes on from there.", err=True
            )
            raise typer.Exit(130) from None
        purse.close()
        if purse.spent_usd:
            typer.echo(f"spent so far in {work}: {usd(purse.spent_usd)}")
    return verdicts


def _budget(settings: "JudgeSettings", ledger: "Ledger", lift_cap: bool) -> float | None:
    """Return the cap that holds: the one given, or else the last one given for this ledger, unless it is lifted."""
    if lift_cap or settings.budget_usd is not None:
        ledger.note(_BUDGET, "" if lift_cap else str(settings.budget_usd))
    noted = ledger.noted(_BUDGET)
    return float(noted) if noted else None


def _describe_cost(plan: "Plan", settings: "JudgeSettings", work: Path) -> str:
    """Say what a run would ask and cost, with the first question."""
    from alpacare_jax.evaluate.judge import comparison_messages, estimate
    from datagen.ledger import Ledger
    from datagen.money.dollars import usd

    file = work / "ledger.sqlite"
    with Ledger(file, read_only=True) if file.exists() else nullcontext() as ledger:
        found = estimate(plan, settings, ledger)
    unknown = f"unknown: no price for {settings.judge.model} (--prices FILE)"
    lines = [f"judge {settings.judge.model} at {settings.judge.base_url}, {settings.mode}"]
    if plan.comparisons:
        lines += ["", *(message["content"] for message in comparison_messages(plan.comparisons[0])), ""]
    lines += [
        f"{found.asked:,} requests to send, {found.settled:,} settled already",
        f"about {found.prompt_tokens:,} tokens in",
        f"expected cost {unknown if found.expected_usd is None else usd(found.expected_usd)}",
        f"at most {unknown if found.worst_usd is None else usd(found.worst_usd)} if every request is sent once",
    ]
    return "\n".join(lines)


def split_fields(text: str | None) -> list[str]:
    """Split a comma-separated list and drop the blanks.

    Example:
        >>> split_fields("gpt-4-answer, claude-2,")
        ['gpt-4-answer', 'claude-2']
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that holds something, unless told to.

    Raises:
        DataError: The file exists, is not empty, and ``overwrite`` is false.
    """
    from datagen.errors import DataError

    if not overwrite and path.exists() and (path.is_dir() or path.stat().st_size):
        raise DataError(
            "the output exists already",
            where=path,
            expected="a new file",
            remedy="choose another name, or replace it with --overwrite",
        )


def describe_plan(plan: "Plan", responses: int) -> str:
    """Say what will be asked, and what has no partner."""
    lines = [
        f"{responses} responses of {plan.model} against {', '.join(plan.without_reference)}, both orders: "
        f"{len(plan.comparisons)} comparisons"
    ]
    for name, count in plan.without_reference.items():
        if count:
            lines.append(f"! {count} responses have no answer of {name} and are left out")
    for name, count in plan.without_response.items():
        if count:
            lines.append(f"{count} answers of {name} have no response and are not used")
    return "\n".join(lines)


def describe_verdicts(verdicts: "list[Verdict]", out: Path) -> str:
    """Say what came back: outcomes, and why comparisons are invalid."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    outcomes = ", ".join(f"{counts[name]} {name}" for name in ("win", "tie", "loss", "invalid"))
    lines = [f"wrote {len(verdicts)} verdicts to {out}: {outcomes}"]
    invalid = [verdict for verdict in verdicts if verdict.verdict == "invalid"]
    failed = [verdict.extra["error"] for verdict in invalid if "error" in verdict.extra]
    cut = sum(read_finish(verdict.extra.get("finish_reason")) == "cut" for verdict in invalid)
    empty = sum(not verdict.raw.strip() for verdict in invalid) - len(failed)
    if verdicts and len(invalid) == len(verdicts):
        lines.append("! no reply states a verdict: nothing was judged")
    if failed:
        lines.append(f"! {len(failed)} requests failed and count as invalid; --retry-failed asks them again")
        lines.append(f"  {Counter(failed).most_common(1)[0][0]}")
    if len(invalid) > len(failed):
        lines.append(f"! {len(invalid) - len(failed)} replies hold no clear verdict and count as invalid")
    if empty:
        lines.append(f"! {empty} of them are empty; --retry-failed asks them again")
    if cut:
        lines.append(
            f"! {cut} of them were cut off; --retry-failed with a larger --max-tokens asks them again"
        )
    return "\n".join([*lines, f"next: alpacare score {out}"])
