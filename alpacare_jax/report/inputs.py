"""What a report can show. Every part is optional; the page names the parts that were not given."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from datagen.synthesize import Funnel


@dataclasses.dataclass(frozen=True)
class ComparisonRow:
    """One figure before and after fine-tuning.

    Attributes:
        name: What was measured, such as "Held-out loss per token".
        before: The figure of the model that fine-tuning started from.
        after: The figure of the fine-tuned model.
        better: Which direction is the better one.
        digits: Digits after the point.
        unit: Unit, "" for a pure number.
        before_interval: 95% interval of ``before``, low and high, where known.
        after_interval: 95% interval of ``after``, low and high, where known.
        note: How it was measured, in a few words.
    """

    name: str
    before: float | None
    after: float | None
    better: Literal["lower", "higher"]
    digits: int = 3
    unit: str = ""
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None
    note: str = ""

    @property
    def change(self) -> float | None:
        """The difference between the two figures, where both are known."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> Literal["better", "worse", "unchanged", "unclear"] | None:
        """The reading of the change; "unclear" where the intervals overlap, None where a figure is missing."""
        if self.change is None:
            return None
        one, other = self.before_interval, self.after_interval
        if one and other and one[0] <= other[1] and other[0] <= one[1]:
            return "unclear"
        if not self.change:
            return "unchanged"
        return "better" if (self.change < 0) == (self.better == "lower") else "worse"


@dataclasses.dataclass(frozen=True)
class AnswerComparison:
    """One question with the answers before and after fine-tuning, and the reference.

    The two ROUGE-L figures, from 0 to 1, are shown where known.
    """

    id: str
    instruction: str
    input: str = ""
    reference: str = ""
    before: str | None = None
    after: str | None = None
    before_rouge: float | None = None
    after_rouge: float | None = None


@dataclasses.dataclass(frozen=True)
class ReportInputs:
    """Everything a report may show.

    Attributes:
        title: Heading of the page.
        subtitle: One line below it, such as the model and the data.
        funnel: The synthesis work folder's ``funnel.json``.
        rejected: Rows of its ``rejected.jsonl``, for examples of each reason.
        packing: Content of each packed data set's ``manifest.json``, by the name to show.
        metrics: Rows of the run's ``metrics.jsonl``.
        comparison: Figures before and after fine-tuning.
        answers: Answers before and after, side by side.
        scores: A score table as ``alpacare score --json`` prints it.
        provenance: Where everything comes from: commit, versions, hashes; a value may be a mapping.
        config: The run's config as text.
        commands: The command lines that made the run.
        wall_times_s: Seconds each stage took, by the stage's name.
    """

    title: str = "AlpaCare-JAX report"
    subtitle: str = ""
    funnel: Funnel | None = None
    rejected: Sequence[Mapping[str, Any]] = ()
    packing: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    comparison: Sequence[ComparisonRow] = ()
    answers: Sequence[AnswerComparison] = ()
    scores: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: str = ""
    commands: Sequence[str] = ()
    wall_times_s: Mapping[str, float] = dataclasses.field(default_factory=dict)


def loss_rows(before: float, after: float, note: str = "") -> list[ComparisonRow]:
    """Give the rows of a held-out loss and of the perplexity that follows from it.

    Args:
        before: Held-out loss before fine-tuning, in nats per supervised token.
        after: The same after it.
        note: How it was measured.

    Example:
        >>> [(row.name, round(row.after, 2)) for row in loss_rows(2.0, 1.0)]
        [('Held-out loss per token', 1.0), ('Held-out perplexity', 2.72)]
    """
    return [
        ComparisonRow("Held-out loss per token", before, after, "lower", digits=4, unit="nats", note=note),
        ComparisonRow(
            "Held-out perplexity",
            math.exp(before),
            math.exp(after),
            "lower",
            digits=2,
            note="exp of the loss",
        ),
    ]
