"""The report of a synthesis work folder: finished, running, stopped, and before anything was asked."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from test_report import Page
from typer.testing import CliRunner

from alpacare_jax.cli import app
from alpacare_jax.report.charts import sunburst
from alpacare_jax.report.page import short, variety
from datagen import statistics
from datagen.client import Sampling, Service
from datagen.errors import DataError
from datagen.ledger import Entry, Ledger
from datagen.records import SeedTask, write_records
from datagen.settings import Settings
from datagen.work.folder import pin

SEEDS = ("What is gout?", "List signs of sepsis.", "Explain asthma.", "Why rest?")
HOSTILE = "</script><script>alert(1)</script><!-- {{ 7*7 }} & \"'\u2028"
VERBS = ("List the causes of", "Describe two signs of", "Explain the treatment of", "What is the cause of")


def reply(number: int, words: str = "") -> str:
    """What a teacher writes: four tasks that differ enough."""
    topics = [f"{name}{number}" for name in ("gout", "asthma", "stroke", "fever")]
    return "###\n".join(
        f"{place}. Type: Open Q&A{words}\nTopic: Medicine\nView: Students\nDifficulty: {place % 5 + 1}\n"
        f"Instruction: {VERBS[(place + number) % 4]} {topic} in {topic}s {place}{number}.{words}\n"
        f"Input: {'<noinput>' if place % 2 else 'A patient of 40 years.'}\n"
        for place, topic in enumerate(topics, start=2)
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    seeds = tmp_path / "seeds.jsonl"
    write_records(seeds, [SeedTask(text, "", "Open Q&A", "Medicine", "Nurse", "2") for text in SEEDS])
    service = Service("http://127.0.0.1:9/v1", "teacher")
    sampling = Sampling(max_tokens=64)
    return Settings(
        service, service, seeds, target=40, tasks_per_request=4, examples=1, task_sampling=sampling
    )


def begin(work: Path, settings: Settings, replies: int, words: str = "") -> None:
    """Fill a work folder as a run does that was stopped while it asked for tasks."""
    from datagen.seeds import load_seeds

    seeds = load_seeds(settings.seeds)
    with Ledger(work / "ledger.sqlite") as ledger:
        pin(work, settings, seeds, "test")
        for number in range(replies):
            id = f"{number:06d}"
            ledger.record_sent("tasks", id, prompt_hash="x", request={})
            ledger.record_reply(
                "tasks",
                id,
                text=reply(number, words),
                finish_reason="stop",
                model="teacher",
                prompt_tokens=100,
                completion_tokens=50,
                cost_usd=0.5,
            )


def report(work: Path, *options: str) -> Page:
    out = work.with_name("page.html")
    result = CliRunner().invoke(app, ["report", str(work), "--out", str(out), "--overwrite", *options])
    assert result.exit_code == 0, result.output
    text = out.read_text("utf-8")
    assert len(text) < 6_000_000
    return Page(text)


def charts_of(page: Page) -> set[str]:
    return {value for _, name, value in page.attributes if name == "data-chart"}


def test_a_stopped_run_shows_every_figure_as_far_as_it_came(tmp_path: Path, settings: Settings) -> None:
    begin(tmp_path / "work", settings, replies=5)
    page = report(tmp_path / "work")
    assert "The run has not finished" in page.text
    assert "Tasks kept so far 20" in page.text
    assert {"roots", "length-instruction", "length-input", "nearest", "tokens", "cost"} == charts_of(page)
    assert "list 5 cause 5" in page.text
    assert "Cost $2.50" in page.text
    assert "report written with / versions" not in page.text
    assert "packages jax " in page.text
    assert "Tasks kept 20 not answered yet 20 Answers received 0" in page.text
    assert "5 are questions" in page.text
    assert "Student 20 · 100.0%" in page.text
    assert "Not checked" in page.text
    assert "not medical advice" in page.text


def test_the_page_can_be_written_beside_a_running_job(tmp_path: Path, settings: Settings) -> None:
    work = tmp_path / "work"
    begin(work, settings, replies=3)
    with Ledger(work / "ledger.sqlite") as ledger:
        before = list(ledger.entries())
        page = report(work)
        assert list(ledger.entries()) == before
    assert "A run is writing to this folder at the moment" in page.text
    assert "Tasks kept so far 12" in page.text


def test_a_work_folder_without_any_reply_says_so(tmp_path: Path, settings: Settings) -> None:
    work = tmp_path / "work"
    begin(work, settings, replies=0)
    page = report(work)
    assert "Nothing has been asked yet" in page.text
    assert charts_of(page) == set()
    (work / "ledger.sqlite").unlink()
    with pytest.raises(DataError, match="its ledger is missing"):
        statistics.collect(work)


def test_a_reply_without_a_task_still_gives_a_page(tmp_path: Path, settings: Settings) -> None:
    work = tmp_path / "work"
    begin(work, settings, replies=1)
    with Ledger(work / "ledger.sqlite") as ledger:
        ledger.record_sent("tasks", "000000", prompt_hash="x", request={})
        ledger.record_reply("tasks", "000000", text="Sorry.", finish_reason="stop", model="m")
    page = report(work)
    assert "There is no task to compare yet." in page.text
    assert "Pieces found in the replies 1 prose 1 Tasks kept 0" in page.text
    assert "Cost not known" in page.text


def test_nothing_that_a_model_writes_gets_out_of_its_place(tmp_path: Path, settings: Settings) -> None:
    begin(tmp_path / "work", settings, replies=3, words=HOSTILE.replace("\n", " "))
    page = report(tmp_path / "work", "--title", HOSTILE)
    assert page.tags.count("script") == 3
    assert "alert(1)" in page.text
    assert "{{ 7*7 }}" in page.text
    assert not [value for tag, name, value in page.attributes if name in ("src", "href") and "#" not in value]


def test_the_figures_of_a_finished_run_are_those_of_its_instructions(
    tmp_path: Path, settings: Settings
) -> None:
    work = tmp_path / "work"
    begin(work, settings, replies=2)
    rows = [
        {
            "id": str(n),
            "instruction": f"List {n} causes of gout{n}",
            "input": "",
            "output": "x " * n,
            "view": "Nurses",
        }
        for n in range(1, 8)
    ]
    (work / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "rejected.jsonl").write_text("")
    (work / "funnel.json").write_text(
        json.dumps({"target_reached": True, "tasks_found": 9, "tasks_kept": 7, "instructions": 7})
    )
    found = statistics.collect(work)
    assert (found.state, found.rows, found.what) == ("finished", 7, "published instructions")
    assert found.roots["top"] == [
        {"verb": "list", "count": 7, "objects": [("cause", 7)], "without_object": 0}
    ]
    assert found.lengths["answer"]["max"] == 7
    assert found.lengths["input"] is None
    assert found.without_input == 7
    assert found.labels["view"]["top"] == [("Nurse", 7)]
    assert found.labels["type"]["without"] == 7


@pytest.mark.parametrize(
    ("spent", "words"), [(True, "its budget was spent"), (False, "as many requests as it may")]
)
def test_a_run_that_ended_before_its_target_says_why(
    tmp_path: Path, settings: Settings, spent: bool, words: str
) -> None:
    begin(tmp_path / "work", settings, replies=1)
    funnel = {"target": 40, "target_reached": False, "budget_reached": spent, "instructions": 0}
    (tmp_path / "work" / "funnel.json").write_text(json.dumps(funnel))
    assert "The run ended before its target of 40 tasks: " in (text := report(tmp_path / "work").text)
    assert words in text


def test_costs_and_tokens_add_up_over_time_and_are_thinned(tmp_path: Path, settings: Settings) -> None:
    begin(tmp_path / "work", settings, replies=9)
    with Ledger(tmp_path / "work" / "ledger.sqlite", read_only=True) as ledger:
        rows = statistics.over_time(ledger.entries(), points=4)
    assert [row["replies"] for row in rows] == [3, 6, 9]
    assert rows[-1] | {"time": ""} == {
        "time": "",
        "replies": 9,
        "prompt_tokens": 900,
        "completion_tokens": 450,
        "cost_usd": 4.5,
    }


def test_the_nearest_neighbours_of_a_large_pool_are_sampled_and_the_page_says_so(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "SAMPLE_ABOVE", 10)
    monkeypatch.setattr(statistics, "SAMPLE", 6)
    begin(tmp_path / "work", settings, replies=5)
    assert "a sample of 6, spread evenly, each against all" in report(tmp_path / "work").text


def test_commands_without_an_object_are_shown_and_all_commands_add_up() -> None:
    texts = ["Identify which test fits.", "Identify how it spreads.", "List signs of gout.", "What is gout?"]
    texts += [f"{verb} the dose." for verb in ("Name", "Explain", "Calculate", "Describe")]
    found = statistics.root_verbs(texts, verbs=3)
    assert found["top"][0] == {"verb": "identify", "count": 2, "objects": [], "without_object": 2}
    nodes = sunburst(found["top"], found["other_verbs"])["nodes"]
    assert sum(node["value"] for node in nodes if not node["parent"]) == found["kinds"]["command"] == 7
    assert [node["value"] for node in nodes if node["label"] == "no object"] == [2]
    assert [node["value"] for node in nodes if node["label"] == "other verbs"] == [3]


def test_every_row_of_the_table_of_verbs_adds_up(tmp_path: Path, settings: Settings) -> None:
    begin(tmp_path / "work", settings, replies=1)
    nouns = ("sign", "sign", "cause", "risk", "drug", "test", "cost")
    rows = [{"id": noun, "instruction": f"List the {noun} of gout", "output": "x"} for noun in nouns]
    rows += [{"id": "how", "instruction": "List how gout spreads", "output": "x"}]
    (tmp_path / "work" / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "work" / "funnel.json").write_text(json.dumps({"instructions": len(rows)}))
    words = "list 8 sign 2 , cause 1 , cost 1 , drug 1 , others 2 , no object 1"
    assert words in report(tmp_path / "work").text


def test_the_figures_of_a_running_job_are_of_one_moment(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    begin(work, settings, replies=2)
    summed = statistics.sum_up

    def sum_up_while_a_reply_comes(entries: Iterable[Entry]) -> dict[str, Any]:
        sums = summed(entries)
        if sums["stages"]:
            begin(work, settings, replies=3)
        return sums

    monkeypatch.setattr(statistics, "sum_up", sum_up_while_a_reply_comes)
    found = statistics.collect(work)
    answered = found.requests["stages"]["tasks"]["answered"]
    assert answered == found.timeline[-1]["replies"] == found.funnel.task_replies == 2


def test_the_cost_is_the_least_where_some_replies_have_no_price(tmp_path: Path, settings: Settings) -> None:
    begin(tmp_path / "work", settings, replies=2)
    with Ledger(tmp_path / "work" / "ledger.sqlite") as ledger:
        ledger.record_sent("tasks", "000002", prompt_hash="x", request={})
        ledger.record_reply("tasks", "000002", text=reply(2), finish_reason="stop", model="free")
    assert "Cost at least $1.00 2 of 3 replies priced" in report(tmp_path / "work").text


def test_the_page_says_where_the_files_of_a_folder_disagree(tmp_path: Path, settings: Settings) -> None:
    work = tmp_path / "work"
    begin(work, settings, replies=1)
    row = {"id": "a", "instruction": "List causes of gout", "input": "", "output": "x"}
    (work / "instructions.jsonl").write_text(json.dumps(row) + "\n")
    (work / "funnel.json").write_text(json.dumps({"instructions": 2}))
    words = "funnel.json counts 2 instructions, but instructions.jsonl holds 1"
    assert words in report(work).text
    (work / "funnel.json").write_text(json.dumps({"instructions": 1}))
    assert "disagree" not in report(work).text


def test_the_overlap_with_evaluation_files_is_a_table_for_a_reader(
    tmp_path: Path, settings: Settings
) -> None:
    work = tmp_path / "work"
    begin(work, settings, replies=1)
    file = {
        "file": "medqa.jsonl",
        "sha256": "0123456789ab" + "c" * 52,
        "fields": ["question", "options"],
        "items": 1273,
        "tasks_rejected": 5,
        "answers_rejected": 0,
        "by_kind": {"ngram": 4, "whole-text": 1},
    }
    contamination = {"ngram": 13, "rouge_l": 0.7, "files": [file], "overlaps": []}
    (work / "contamination.json").write_text(json.dumps(contamination))
    page = report(work)
    row = "medqa.jsonl 0123456789ab question, options 1,273 5 0 tokens in a row 4, whole text 1"
    assert row in page.text
    assert "or a short question as the whole text" in page.text
    assert ("code", "title", file["sha256"]) in page.attributes


def test_labels_are_summed_up_in_words() -> None:
    assert variety({"distinct": 10, "effective": 3.0}) == "10 labels, very uneven (effective number 3.0)"
    assert variety({"distinct": 1, "effective": 1.0}) == "1 label"


def test_a_histogram_counts_every_value_once() -> None:
    values = [0, 1, 2, 3, 5, 8, 13, 21, 34, 1000]
    for step in (1, 5, 100):
        found = statistics.histogram(values, step=step)
        assert found is not None
        assert sum(found["counts"]) == len(values)
    assert statistics.histogram([]) is None
    wide = statistics.histogram([*range(200), 10**6])
    assert wide is not None
    assert (wide["open"], wide["max"], len(wide["counts"])) == (True, 10**6, 20)


def test_options_of_a_training_run_are_refused_for_a_work_folder(tmp_path: Path, settings: Settings) -> None:
    begin(tmp_path / "work", settings, replies=1)
    arguments = [
        "report",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "o.html"),
        "--packed",
        str(tmp_path),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert "belongs to a training run" in str(result.exception)


def test_a_folder_of_neither_kind_is_refused_with_both_kinds_named(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "NOTEXIST", "does not exist"), (tmp_path, "neither a run folder nor")):
        result = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "o.html")])
        assert result.exit_code != 0
        assert words in str(result.exception)
        assert "`alpacare train`, or a work folder of `alpacare synthesize`" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_amounts_are_written_for_a_reader() -> None:
    assert [short(n) for n in (9999, 10_000, 2_500_000)] == ["9,999", "10.0k", "2.5M"]
