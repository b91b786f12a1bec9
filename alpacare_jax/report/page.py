"""Rendering a report: templates with every value escaped, and plotly's script inside the page."""

import datetime
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpacare_jax import __version__
from alpacare_jax.report import charts
from alpacare_jax.report.funnel import funnel_steps, rejected_examples
from alpacare_jax.report.inputs import ReportInputs
from datagen.money.dollars import usd
from datagen.service.limits import in_words
from datagen.statistics import WorkStatistics
from datagen.templates import environment

if TYPE_CHECKING:
    import jinja2
    import markupsafe

DISCLAIMER = "This is not medical advice."


def render(inputs: ReportInputs) -> str:
    """Return the page of a training run as HTML that needs no network; absent parts are named as absent."""
    sources = {
        name: {"tokenizer": manifest.get("tokenizer", {}).get("fingerprint"), **manifest.get("source", {})}
        for name, manifest in inputs.packing.items()
    }
    return _fill(
        "training.html",
        title=inputs.title,
        subtitle=inputs.subtitle,
        inputs=inputs,
        steps=funnel_steps(inputs.funnel) if inputs.funnel else [],
        rejected=rejected_examples(inputs.rejected),
        charts=charts.of_training(inputs.metrics),
        scores=(inputs.scores or {}).get("scores", []),
        provenance=flatten(inputs.provenance) + flatten(sources),
    )


def render_synthesis(
    statistics: WorkStatistics, *, title: str, subtitle: str, provenance: Mapping[str, Any]
) -> str:
    """Return the page of a synthesis work folder as HTML that needs no network and no other file.

    Args:
        statistics: What to show.
        title: Heading of the page.
        subtitle: One line below it.
        provenance: What made the page; a value may be a mapping.
    """
    unaccounted = "unaccounted for" if statistics.state == "finished" else "not answered yet"
    judged = statistics.funnel.task_requests
    return _fill(
        "synthesis.html",
        title=title,
        subtitle=subtitle,
        figures=statistics,
        steps=funnel_steps(statistics.funnel, unaccounted) if judged else [],
        rejected=rejected_examples(statistics.rejected),
        charts=charts.of_synthesis(statistics),
        settings=flatten(statistics.settings),
        provenance=flatten(provenance),
    )


def _fill(template: str, **values: Any) -> str:
    written = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return _templates().get_template(template).render(values, written=written)


@functools.cache
def _templates() -> "jinja2.Environment":
    import jinja2

    templates = environment(Path(__file__).parent, escape=True)
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False}
    templates.globals |= {
        "disclaimer": DISCLAIMER,
        "plotly_script": plotly_script,
        "version": __version__,
    }
    templates.filters |= {
        "count": lambda value: "–" if value is None or jinja2.is_undefined(value) else f"{value:,}",
        "fixed": lambda value, digits: "–" if value is None else f"{value:,.{digits}f}",
        "signed": lambda value, digits: f"{value:+,.{digits}f}".replace("-", "−"),
        "percent": lambda value: f"{100 * value:.1f}%",
        "duration": in_words,
        "lines": charts.thin,
        "short": short,
        "time": datetime.datetime.fromisoformat,
        "usd": usd,
        "variety": variety,
    }
    return templates


def plotly_script() -> "markupsafe.Markup":
    """Return plotly's script, to stand inside a page."""
    import markupsafe
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs()
    assert "</script" not in script, "plotly's script would end its element"
    return markupsafe.Markup(script)


def flatten(provenance: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Lay nested provenance out as rows.

    Example:
        >>> flatten({"commit": "abc", "versions": {"jax": "0.10.2", "flax": None}})
        [('commit', 'abc'), ('versions / jax', '0.10.2'), ('versions / flax', '–')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in provenance.items():
        name = f"{prefix} / {key}" if prefix else str(key)
        if isinstance(value, Mapping):
            rows += flatten(value, name)
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(str(part) for part in value) or "–"))
        else:
            rows.append((name, "–" if value is None or value == "" else str(value)))
    return rows


def short(count: float) -> str:
    """Write a large count in a few characters.

    Example:
        >>> short(950), short(12_345), short(67_890_000)
        ('950', '12.3k', '67.9M')
    """
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if count >= least:
            return f"{count / unit:.1f}{letter}"
    return f"{count:,}"


def variety(counted: Mapping[str, Any]) -> str:
    """Say how many labels there are and how evenly they occur.

    Args:
        counted: ``distinct``, how many there are; and ``effective``, how many equally frequent ones are as varied.

    Example:
        >>> variety({"distinct": 8, "effective": 7.9})
        '8 labels, nearly even (effective number 7.9)'
    """
    distinct, effective = counted["distinct"], counted["effective"]
    if distinct < 2:
        return f"{distinct} label{'' if distinct == 1 else 's'}"
    share = effective / distinct
    word = "nearly even" if share >= 0.9 else "uneven" if share >= 0.6 else "very uneven"
    return f"{distinct:,} labels, {word} (effective number {effective:.1f})"
