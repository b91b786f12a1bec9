"""Rendering the report: a template with every value escaped, and plotly's script inside the page."""

import datetime
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpacare_jax import __version__
from alpacare_jax.report import sections
from alpacare_jax.report.inputs import ReportInputs
from datagen.files import write_text

DISCLAIMER = "This is not medical advice."
DISCLAIMER_MORE = (
    "Tasks and answers on this page were written by language models. They may be wrong or harmful; "
    "nobody may use them to diagnose, treat or advise a person."
)


def write_report(inputs: ReportInputs, path: str | Path) -> None:
    """Write the report as one HTML file that needs no network and no other file.

    Args:
        inputs: What to show; absent parts are named as absent.
        path: The file; it appears whole or not at all.
    """
    page = render(inputs)
    write_text(path, page)


def render(inputs: ReportInputs, *, now: datetime.datetime | None = None) -> str:
    """Return the page as HTML.

    Args:
        inputs: What to show.
        now: Time of writing; the present when None.
    """
    charts = sections.charts(inputs.metrics)
    return fill(
        "page.html",
        now,
        inputs=inputs,
        headlines=sections.headlines(inputs),
        funnel=sections.funnel_steps(inputs.funnel) if inputs.funnel else [],
        rejected=sections.rejected_examples(inputs.rejected),
        packing=sections.packing_rows(inputs.packing),
        charts=charts,
        charts_json=script_json(charts),
        comparison=sections.comparison_rows(inputs),
        scores=(inputs.scores or {}).get("scores", []),
        bootstrap=(inputs.scores or {}).get("bootstrap"),
        provenance=flatten(inputs.provenance),
        plotly=plotly_script() if charts else None,
    )


def fill(template: str, now: datetime.datetime | None = None, **values: Any) -> str:
    """Fill a template of this package; every value is escaped.

    Args:
        template: Its file name.
        now: Time of writing; the present when None.
        values: What the template names.
    """
    import jinja2

    folder = importlib.resources.files("alpacare_jax.report")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters |= {
        "count": _count,
        "fixed": lambda value, digits: "–" if value is None else f"{value:,.{digits}f}",
        "signed": lambda value, digits: f"{value:+,.{digits}f}".replace("-", "−"),
        "percent": lambda value: f"{100 * value:.1f}%",
        "duration": sections.duration,
        "lines": _lines,
    }
    now = now or datetime.datetime.now(datetime.UTC)
    return environment.get_template(template).render(
        written=now.strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        disclaimer=DISCLAIMER,
        disclaimer_more=DISCLAIMER_MORE,
        **values,
    )


def script_json(value: object) -> Any:
    """Return JSON that may stand inside a script element: no text in it can end the element or open another.

    Example:
        >>> print(script_json("</script><!-- &"))
        "\\u003c/script\\u003e\\u003c!-- \\u0026"
    """
    import markupsafe

    text = json.dumps(value, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


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


def plotly_script() -> Any:
    """Return plotly's script, to stand inside a page."""
    import markupsafe
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs()
    assert "</script" not in script, "plotly's script would end its element"
    return markupsafe.Markup(script)


def _count(value: object) -> str:
    return "–" if value is None else f"{value:,}"


def _lines(points: Mapping[str, list[float]], most: int = 40) -> list[tuple[float, float]]:
    """Thin a line to at most ``most`` points for a table, always with the last one."""
    pairs = list(zip(points["x"], points["y"], strict=True))
    step = max(1, -(-len(pairs) // most))
    thin = pairs[::step]
    return thin if thin[-1] == pairs[-1] else [*thin, pairs[-1]]
