"""``alpacare judge``: pairwise verdicts in both orders by an OpenAI-compatible judge."""

from typing import Any

import typer

from alpacare_jax.cli import judge_options
from alpacare_jax.cli import synthesis_options as options


def command(
    context: typer.Context,
    responses: judge_options.Responses,
    references: judge_options.References,
    work: judge_options.Work,
    out: judge_options.Out,
    config: judge_options.Config = None,
    base_url: judge_options.BaseUrl = None,
    model: judge_options.Model = None,
    api_key_env: options.ApiKeyEnv = None,
    name: judge_options.Name = None,
    reference_fields: judge_options.ReferenceFields = None,
    allow_missing: judge_options.AllowMissing = False,
    limit: judge_options.Limit = None,
    temperature: judge_options.Temperature = None,
    top_p: judge_options.TopP = None,
    presence_penalty: judge_options.PresencePenalty = None,
    max_tokens: judge_options.MaxTokens = None,
    max_tokens_field: judge_options.MaxTokensField = None,
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
    dry_run: judge_options.DryRun = False,
    retry_failed: judge_options.RetryFailed = False,
    overwrite: judge_options.Overwrite = False,
) -> None:
    """Compare responses with reference answers by a judge model.

    Each response meets each reference answer in both orders, joined by id (or by
    question where a file has no ids), at temperature 0. The judge answers "Output (a)",
    "Output (b)" or "Tie". Every reply is kept in the ledger of the work folder before it
    counts, so an interrupted run goes on where it stopped. Then: `alpacare score`.

    Exit status: 0 all asked, 1 some requests failed for good or no reply states a
    verdict, 2 error, 3 batches are under way (--no-wait), 130 interrupted.
    """
    from alpacare_jax.evaluate import judging
    from datagen.batch.client import BatchesUnderWay, describe
    from datagen.files import refuse_existing

    settings = judging.read_settings(config, options.to_settings(context.params, judge_options.SETTINGS))
    paths = [path for text in references for path in judge_options.split_fields(text)]
    fields = judge_options.split_fields(reference_fields)
    if dry_run or cancel_batches:
        if not dry_run:
            refuse_existing(out, overwrite)
        plan, heading = judging.plan_files(responses, paths, name or "", fields, allow_missing, limit)
        typer.echo(heading)
        typer.echo(judging.describe_cost(plan, settings, work) if dry_run else judging.cancel(settings, work))
        return
    given: dict[str, Any] = {
        "name": name or "",
        "reference_fields": fields,
        "lift_budget": budget_usd == float("inf"),
        "wait": not no_wait,
        "say": typer.echo,
    }
    for key in ("work", "allow_missing", "limit", "retry_failed", "overwrite"):
        given[key] = context.params[key]
    try:
        verdicts = judging.judge(responses, paths, settings, out, **given)
    except BatchesUnderWay as under_way:
        typer.echo(f"{describe(under_way.records)}. Run the same command later to go on.", err=True)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        kept = f"{work} keeps every reply; the same command goes on from there."
        typer.echo(f"\nInterrupted. {kept}", err=True)
        raise typer.Exit(130) from None
    outcomes, problems = judging.describe_verdicts(verdicts)
    typer.echo(f"wrote {len(verdicts)} verdicts to {out}: {outcomes}")
    typer.echo("\n".join([*problems, f"next: alpacare score {out}"]))
    none = bool(verdicts) and all(verdict.verdict == "invalid" for verdict in verdicts)
    if none or any("error" in verdict.extra for verdict in verdicts):
        raise typer.Exit(1)
