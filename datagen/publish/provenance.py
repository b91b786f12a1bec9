"""Where published rows come from: models, prompts, dates, counts, cost, and what was checked."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datagen.decoding import read_json_object
from datagen.ledger import Entry, Ledger
from datagen.records import read_objects
from datagen.results import CONTAMINATION_REPORT, PRIVACY_REPORT
from datagen.work.folder import CONFIG, LEDGER


@dataclasses.dataclass
class Spending:
    """Requests, tokens and cost of one stage, in US dollars, of the ``priced`` requests (those of known cost)."""

    requests: int = 0
    answered: int = 0
    failed: int = 0
    tries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    priced: int = 0
    cost_usd: float = 0.0
    models: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        """Count one request of the ledger."""
        self.requests += 1
        self.answered += entry.state == "answered"
        self.failed += entry.state == "failed"
        self.tries += entry.tries
        self.prompt_tokens += entry.prompt_tokens or 0
        self.completion_tokens += entry.completion_tokens or 0
        if entry.cost_usd is not None:
            self.priced += 1
            self.cost_usd += entry.cost_usd
        if entry.state == "answered" and entry.model:
            self.models[entry.model] += 1

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON; the cost is None where no request has one."""
        return dataclasses.asdict(self) | {
            "cost_usd": round(self.cost_usd, 6) if self.priced else None,
            "models": dict(sorted(self.models.items())),
        }


def sum_up(entries: Iterable[Entry]) -> dict[str, Any]:
    """Sum up a ledger.

    Returns:
        ``first_request`` and ``last_reply`` (UTC, ISO 8601, or None), and ``stages``: the figures of each
        :class:`Spending`.
    """
    stages: dict[str, Spending] = {}
    first: str | None = None
    last: str | None = None
    for entry in entries:
        stages.setdefault(entry.stage, Spending()).add(entry)
        first = min(filter(None, (first, entry.created_at)), default=None)
        last = max(filter(None, (last, entry.finished_at)), default=None)
    return {
        "first_request": first,
        "last_reply": last,
        "stages": {name: stages[name].to_dict() for name in sorted(stages, reverse=True)},
    }


def gather(
    work: Path,
    funnel: Mapping[str, Any],
    rows: Mapping[str, int],
    *,
    license: str | None,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Collect the provenance of the rows, without time and place of publishing.

    Args:
        work: The work folder.
        funnel: Its ``funnel.json``.
        rows: Rows of each split.
        license: Licence as the user names it, or None.
        versions: Versions of the packages that shape the files.
    """
    fixed = read_json_object(work / CONFIG).get("fixed", {})
    with Ledger(work / LEDGER, read_only=True) as ledger:
        requests = sum_up(ledger.entries())
        sums = ledger.spending().values()
    unknown_usd = math.fsum(stage.unknown_usd for stage in sums)
    counted_usd = math.fsum(stage.spent_usd for stage in sums)
    account = funnel.get("money", {})
    requests |= {key: account[key] for key in ("beyond_target", "taken_over_usd") if key in account}
    return {
        "kind": "alpacare-provenance",
        "license": license,
        "rows": dict(rows),
        "requests": requests | {"counted_usd": round(counted_usd, 6), "unknown_usd": round(unknown_usd, 6)},
        "funnel": {key: value for key, value in funnel.items() if key != "money"},
        "settings": {key: _without_folders(value) for key, value in fixed.items()},
        "contamination": _summary(work / CONTAMINATION_REPORT),
        "identifiers": count_identifiers(work),
        "versions": dict(versions),
    }


def _summary(report: Path) -> dict[str, Any] | None:
    """Return what the comparison with evaluation sets found, without their texts, which must not spread."""
    if not report.exists():
        return None
    found = read_json_object(report)
    return {key: _without_folders(value) for key, value in found.items() if key != "overlaps"}


def _without_folders(value: Any) -> Any:
    """Return a value with the names of files in place of their paths."""
    if isinstance(value, Mapping):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and value.startswith(("/", "~", "./", "../")):
        return Path(value).name
    return value


def count_identifiers(work: Path) -> dict[str, dict[str, int]] | None:
    """Count the personal identifiers that the run recorded: how many of each kind, by the action taken.

    Returns:
        ``{kind: {action: count}}``, or None where the run did not look.
    """
    path = work / PRIVACY_REPORT
    if not path.exists():
        return None
    counts: dict[str, Counter[str]] = {}
    for _, row in read_objects(path) if path.stat().st_size else ():
        counts.setdefault(str(row.get("kind")), Counter())[str(row.get("action"))] += 1
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}
