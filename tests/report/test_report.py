import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import alpacare_jax as alpacare
from alpacare_jax.cli import report_verb
from alpacare_jax.evaluate.scores import score_verdicts
from alpacare_jax.report import AnswerComparison, ComparisonRow, ReportInputs, loss_rows, render
from alpacare_jax.report.charts import of_training, series
from alpacare_jax.report.funnel import UNACCOUNTED, funnel_steps
from alpacare_jax.report.page import DISCLAIMER
from alpacare_jax.report.provenance import describe_code, find_commit
from datagen.errors import ConfigError, DataError
from datagen.records import Verdict, write_objects
from datagen.synthesize import Funnel

FUNNEL = {
    "task_requests": 5,
    "task_replies": 4,
    "task_requests_failed": {"timeout": 1},
    "tasks_found": 10,
    "tasks_rejected": {"near-duplicate": 3, "no-instruction": 1},
    "tasks_kept": 6,
    "answer_requests": 6,
    "answer_replies": 6,
    "answer_requests_failed": {},
    "answers_rejected": {"empty": 1},
    "instructions": 5,
}
MANIFEST = {
    "row_length": 512,
    "template": "alpaca",
    "packing": "best-fit",
    "statistics": {
        "records": 9, "examples": 8, "rows": 2, "tokens": 1010, "supervised_tokens": 400, "fill": 0.986,
        "longest_example": 480, "left_out": 1, "truncated": 0,
    },
    "tokenizer": {"fingerprint": "f" * 64},
    "source": {"path": "instructions.jsonl"},
}  # fmt: skip
METRICS: list[dict[str, Any]] = [
    {"step": 0, "val_loss": 3.0},
    {
        "step": 1,
        "loss": 2.9,
        "lr": 1e-5,
        "grad_norm": 1.5,
        "tokens_per_s": 3.0,
        "step_ms": 9000.0,
        "compiled": True,
    },
    {"step": 2, "loss": 2.5, "lr": 2e-5, "grad_norm": 1.2, "tokens_per_s": 900.0, "step_ms": 400.0},
    {"step": 2, "val_loss": 2.0},
]


class Page(HTMLParser):
    """Collects what a browser would see: elements, attributes and the text outside of scripts and styles."""

    VOID = {"meta", "line", "circle", "br", "img", "link", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"elements stay open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


def full_inputs(text: str = "plain") -> ReportInputs:
    """Inputs with every part given, and ``text`` wherever a text may come from outside."""
    raws = {"model_first": "Output (a)", "reference_first": "Output (a)"}
    verdicts = [
        Verdict(id="1", reference=text, order=order, raw=raw, model=text) for order, raw in raws.items()
    ]
    return ReportInputs(
        title=text,
        subtitle=text,
        funnel=Funnel(**FUNNEL | {"tasks_rejected": {text: 4}}),
        rejected=[{"reason": text, "instruction": text, "text": text, "nearest": text, "rouge_l": 0.9}],
        packing={text: MANIFEST | {"source": {"path": text}, "template": text}},
        metrics=METRICS,
        comparison=[ComparisonRow(text, 1.0, 2.0, "lower", unit=text, note=text, before_interval=(0.5, 1.5))],
        answers=[AnswerComparison(text, text, text, text, text, text, 0.1, 0.2)],
        scores=score_verdicts(verdicts, resamples=50).to_dict(),
        provenance={text: {text: text}, "list": [text]},
        config=text,
        commands=[text],
        wall_times_s={text: 70.0},
    )


def test_an_empty_report_says_of_every_section_that_nothing_was_given() -> None:
    page = Page(render(ReportInputs()))
    for words in (
        "no funnel to show",
        "no packing statistics",
        "no curves",
        "No figures before and after",
        "No answers before and after",
        "No verdicts",
        "Nothing is known about where these figures come from",
    ):
        assert words in page.text
    assert "script" not in page.tags


def test_the_page_says_in_bold_that_it_is_not_medical_advice() -> None:
    for inputs in (ReportInputs(), full_inputs()):
        assert f"<strong>{DISCLAIMER}</strong>" in render(inputs)
    assert "not medical advice" in DISCLAIMER


def test_a_full_report_shows_every_part_and_needs_no_network() -> None:
    page = Page(render(full_inputs()))
    for words in ("Pieces found in the replies", "98.6%", "1 min 10 s", "ROUGE-L 0.200", "✗ worse"):
        assert words in page.text
    assert "was given" not in page.text
    loading = [
        (tag, name, value)
        for tag, name, value in page.attributes
        if name in ("src", "href", "data", "action")
    ]
    assert all(value.startswith("#") for _, _, value in loading)
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    policy = [value for tag, _, value in page.attributes if tag == "meta" and "default-src 'none'" in value]
    assert len(policy) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script><!--",
        "\"><img src=x onerror=alert(1)>'",
        "{{ 7 * 7 }} {% raw %} &lt; &amp;",
        "</pre></td></table></style></title>",
    ],
)
def test_texts_from_outside_are_shown_and_never_run(text: str) -> None:
    harmless, page = Page(render(full_inputs())), Page(render(full_inputs(text)))
    assert page.tags == harmless.tags
    assert page.text.count(" ".join(text.split())) >= 15


def test_numbers_can_be_read_without_the_charts() -> None:
    text = Page(render(ReportInputs(metrics=METRICS))).text
    assert "Loss: training (nats per supervised token) step value 1 2.9 2 2.5" in text
    assert "Loss: validation (nats per supervised token) step value 0 3 2 2" in text


def test_a_repeated_step_counts_once_and_what_is_no_number_not_at_all() -> None:
    rows = [{"step": 2, "loss": 9.0}, {"step": 1, "loss": 3}, {"step": 2, "loss": 2.0}]
    assert series([*rows, {"step": 3, "loss": float("nan")}, {"step": 4, "loss": "x"}], "loss") == [
        (1, 3),
        (2, 2.0),
    ]


def test_the_step_that_compiles_does_not_flatten_the_speed() -> None:
    by_title = {chart["title"]: chart["lines"] for chart in of_training(METRICS).values()}
    assert by_title["Speed"][0]["y"] == [900.0]
    assert [line["name"] for line in by_title["Loss"]] == ["training", "validation"]


def test_the_funnel_adds_up_or_says_by_how_much_it_does_not() -> None:
    def losses(funnel: dict[str, Any]) -> dict[str, int]:
        steps = funnel_steps(Funnel(**funnel))
        return {loss["label"]: loss["count"] for step in steps for loss in step["lost"]}

    assert losses(FUNNEL) == {
        "failed: timeout": 1,
        "near-duplicate": 3,
        "no-instruction": 1,
        "empty": 1,
    }
    assert losses(FUNNEL | {"tasks_found": 12})[UNACCOUNTED] == 2


def test_loss_rows_give_perplexity_and_the_table_its_reading() -> None:
    inputs = ReportInputs(
        comparison=[
            *loss_rows(2.0, 1.0),
            ComparisonRow("ROUGE-L F1", 0.2, 0.1, "higher"),
            ComparisonRow("x", None, 1, "lower"),
            ComparisonRow("y", 0.2, 0.4, "higher", before_interval=(0.1, 0.3), after_interval=(0.25, 0.5)),
        ]
    )
    text = Page(render(inputs)).text
    assert "2.0000 1.0000 −1.0000 ✓ better" in text
    assert "7.39 2.72 −4.67 ✓ better" in text
    assert "0.200 0.100 −0.100 ✗ worse" in text
    assert "0.100 to 0.300 0.400 0.250 to 0.500 +0.200 intervals overlap" in text
    tiles = text[: text.index("Synthesis: what was kept")]
    assert "Held-out loss per token 1.0000 2.0000 before; lower is better Held-out perplexity 2.72" in tiles
    assert tiles.endswith(
        "ROUGE-L F1 0.100 0.200 before; higher is better y 0.400 0.200 before; higher is better "
    )


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(report_verb.command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run folder and its neighbours, as the other verbs leave them."""
    for name, folder in (("manifest.json", "packed"), ("funnel.json", "work"), ("alpacare.json", "run")):
        (tmp_path / folder).mkdir()
        content = {"packed": MANIFEST, "work": FUNNEL, "run": {"kind": "run", "source": {"format": "gguf"}}}[
            folder
        ]
        (tmp_path / folder / name).write_text(json.dumps(content))
    write_objects(
        tmp_path / "work" / "rejected.jsonl", [{"reason": "near-duplicate", "instruction": "Again?"}]
    )
    write_objects(tmp_path / "run" / "metrics.jsonl", METRICS)
    config = f"train_data: {tmp_path / 'packed'}\nvalidation_data: null\n"
    (tmp_path / "run" / "config.yaml").write_text(config)
    for name, text in (("before", "no idea"), ("after", "take one tablet daily")):
        write_objects(
            tmp_path / f"{name}.jsonl",
            [{"id": 1, "instruction": "How often?", "input": "<noinput>", "response": text}],
        )
    write_objects(
        tmp_path / "references.jsonl",
        [{"id": "1", "instruction": "How often?", "output": "Take the tablet daily."}],
    )
    rows = [
        {"id": "1", "reference": "gpt-4", "order": o, "raw": "Tie"}
        for o in ("model_first", "reference_first")
    ]
    write_objects(tmp_path / "v.jsonl", rows)
    write_objects(
        tmp_path / "figures.jsonl", [{"name": "Exact match", "before": 0.1, "after": 0.4, "better": "higher"}]
    )
    return tmp_path


def test_the_verb_gathers_a_runs_files(finished: Path) -> None:
    run(
        finished / "run", "--out", finished / "report.html", "--synthesis", finished / "work",
        "--before", finished / "before.jsonl", "--after", finished / "after.jsonl",
        "--references", finished / "references.jsonl", "--verdicts", finished / "v.jsonl",
        "--figures", finished / "figures.jsonl", "--title", "A run",
    )  # fmt: skip
    text = Page((finished / "report.html").read_text()).text
    for words in (
        "3.0000 2.0000 −1.0000 ✓ better",  # the run's own validation, before and after
        "0.000 0.000 to 0.000 0.750 0.750 to 0.750 +0.750 ✓ better",  # ROUGE-L
        "Exact match 0.100 0.400 +0.300 ✓ better",
        "near-duplicate 3",
        "98.6%",
        "50.00 50.0 to 50.0",
        "model / source / format gguf",
        "training steps 9.4 s",
    ):
        assert words in text
    assert "noinput" not in text
    assert "was given" not in text


def test_evaluations_give_the_held_out_loss_and_a_journal_the_times(finished: Path) -> None:
    common = {"data": "held_out.jsonl", "template": "alpaca", "supervised_tokens": 1200, "examples": 6}
    for name, loss in (("before", 2.0), ("after", 1.0)):
        (finished / name).mkdir()
        (finished / f"{name}.jsonl").rename(finished / name / "responses.jsonl")
        (finished / name / "evaluation.json").write_text(json.dumps(common | {"loss": loss}))
    (finished / "stages.json").write_text(
        json.dumps({"seconds": {"fetch": 3.0}, "commands": {"fetch": "a command"}})
    )
    for before in (finished / "before", finished / "before" / "responses.jsonl"):
        run(
            finished / "run", "--out", finished / "report.html", "--before", before, "--after", finished / "after",
            "--journal", finished / "stages.json", "--overwrite",
        )  # fmt: skip
        text = Page((finished / "report.html").read_text()).text
        assert "held-out examples: 6, tokens: 1,200 2.0000 1.0000 −1.0000 ✓ better" in text
        assert "3.0000" not in text
        assert "fetch 3.0 s" in text
        assert "Commands a command" in text
    (finished / "after" / "evaluation.json").write_text(
        json.dumps(common | {"loss": 1.0, "template": "chat"})
    )
    with pytest.raises(DataError, match="did not measure the same"):
        run(
            finished / "run", "--out", finished / "other.html",
            "--before", finished / "before", "--after", finished / "after",
        )  # fmt: skip


def test_the_verb_needs_only_a_run(finished: Path) -> None:
    run(finished / "run", "--out", finished / "report.html")
    text = Page((finished / "report.html").read_text()).text
    assert "No synthesis work folder was given" in text
    assert "98.6%" in text


def test_from_python_the_page_is_the_verbs(finished: Path) -> None:
    out = alpacare.report(str(finished / "run"), title="From Python", overwrite=True)
    assert out == finished / "run" / "report.html"
    assert "From Python" in out.read_text()
    with pytest.raises(DataError, match="exists"):
        alpacare.report(finished / "run")


def test_the_verb_refuses_what_is_not_a_run_and_what_exists(finished: Path) -> None:
    with pytest.raises(DataError, match="neither a run folder"):
        run(finished / "work", "--out", finished / "report.html")
    (finished / "report.html").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        run(finished / "run", "--out", finished / "report.html")
    assert (finished / "report.html").read_text() == "precious"
    run(finished / "run", "--out", finished / "report.html", "--overwrite")


def test_a_broken_count_of_the_funnel_is_named(finished: Path) -> None:
    (finished / "work" / "funnel.json").write_text(json.dumps(FUNNEL | {"tasks_rejected": {"x": "y"}}))
    with pytest.raises(DataError, match=r"tasks_rejected\.x of the funnel is not valid") as caught:
        run(finished / "run", "--out", finished / "report.html", "--synthesis", finished / "work")
    assert "funnel.json" in str(caught.value)


def test_a_broken_journal_is_named_and_leaves_the_earlier_report(finished: Path) -> None:
    run(finished / "run", "--title", "first")
    (finished / "stages.json").write_text(json.dumps({"seconds": {"fetch": "long"}, "commands": {}}))
    with pytest.raises(ConfigError, match="seconds must be"):
        run(finished / "run", "--journal", finished / "stages.json", "--overwrite")
    assert "<title>first</title>" in (finished / "run" / "report.html").read_text()


def test_answers_to_other_questions_are_refused(finished: Path) -> None:
    write_objects(finished / "after.jsonl", [{"id": "2", "instruction": "How often?", "response": "x"}])
    with pytest.raises(DataError, match="1 of 1 responses lack"):
        run(
            finished / "run", "--out", finished / "report.html",
            "--before", finished / "before.jsonl", "--after", finished / "after.jsonl",
        )  # fmt: skip


def test_a_figure_with_a_wrong_key_is_named(finished: Path) -> None:
    write_objects(
        finished / "figures.jsonl",
        [{"name": "x", "before": 1, "after": 2, "better": "lower", "colour": "red"}],
    )
    with pytest.raises(ConfigError, match="colour: unknown key") as caught:
        run(finished / "run", "--out", finished / "report.html", "--figures", finished / "figures.jsonl")
    assert "figures.jsonl:1" in str(caught.value)
    assert "colour" in str(caught.value)


def test_the_commit_is_that_of_the_checkout_that_tracks_the_folder(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", "package")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert find_commit(tmp_path / "package") == commit
    (tmp_path / "package" / "code.py").write_text("x = 2\n")
    assert find_commit(tmp_path / "package") == f"{commit} (with uncommitted changes)"
    (tmp_path / "other").mkdir()
    assert find_commit(tmp_path / "other") is None
    assert describe_code()["packages"][0].startswith("jax 0.")
