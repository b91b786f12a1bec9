import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from alpacare_jax.cli import score_verb
from alpacare_jax.evaluate import bootstrap
from alpacare_jax.evaluate.scores import MEAN, score_verdicts
from datagen.errors import DataError
from datagen.records import Verdict, write_objects

PUBLISHED = {
    "gpt-4": ("25.9", "32.7", "36.3", "79.2", "36.34"),
    "gpt-3.5-turbo": ("31.9", "37.9", "39.8", "84.3", "39.81"),
    "text-davinci-003": ("86.1", "92.1", "89.4", "93.5", "89.24"),
    "claude-2": ("4.2", "5.9", "19.0", "70.4", "18.98"),
}
A, B, TIE, NOISE = "Output (a)", "Output (b)", "Tie", "I cannot say."


def said(id_: str, model_first: str | None, reference_first: str | None, **fields: object) -> list[Verdict]:
    pairs = (("model_first", model_first), ("reference_first", reference_first))
    fields = {"reference": "gpt-4"} | fields
    return [Verdict(id=id_, order=order, raw=raw, **fields) for order, raw in pairs if raw is not None]  # type: ignore[arg-type]


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(score_verb.command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_published_table_is_reproduced_from_the_raw_texts_whatever_the_verdict_fields_say(
    real_data: Path, tmp_path: Path
) -> None:
    lines = (real_data / "verdicts_alpaca-llama-2-7b-chat.jsonl").read_text().splitlines()
    flipped = [json.loads(line) | {"final_verdict": "WIN", "verdict": "win"} for line in lines]
    write_objects(tmp_path / "flipped.jsonl", flipped)
    told = json.loads(run(tmp_path / "flipped.jsonl", "--json"))
    scores = {score["reference"]: score for score in told["scores"]}
    for reference, expected in PUBLISHED.items():
        score = scores[reference]
        rates = [
            score[name]["percent"]
            for name in ("win_rate", "win_rate_non_tied", "ties_as_half", "consistency")
        ]
        printed = (*(f"{rate:.1f}" for rate in rates), f"{score['alpacare']['percent']:.2f}")
        assert printed == expected
        assert [score[name] for name in ("items", "complete", "invalid", "missing")] == [216, 216, 0, 0]
    assert told["verdicts"]["parsed"] == 1728
    truly_won = sum(json.loads(line)["final_verdict"] == "WIN" for line in lines)
    assert told["verdicts"]["differing"] == len(lines) - truly_won


def test_every_rate_of_a_file_small_enough_to_do_by_hand() -> None:
    verdicts = [
        *said("1", A, B),  # won in both orders
        *said("2", A, A),  # won, then lost: the judge follows the place
        *said("3", TIE, TIE),
        *said("4", B, A),  # lost in both
        *said("5", A, TIE),  # won and tied
    ]
    score = score_verdicts(verdicts).scores[0]
    assert score.alpacare.percent == pytest.approx(100 * (1 + 0.5 + 0.5 + 0 + 0.75) / 5)
    assert (score.wins, score.ties, score.losses) == (1, 3, 1)
    assert score.win_rate.percent == pytest.approx(20)
    assert score.win_rate_non_tied.percent == pytest.approx(50)
    assert score.ties_as_half.percent == pytest.approx(50)
    assert score.consistency.percent == pytest.approx(60)
    assert score.model_first.percent == pytest.approx(100 * 3.5 / 5)
    assert score.reference_first.percent == pytest.approx(100 * 2 / 5)


def test_unreadable_and_missing_verdicts_are_counted_and_bound_the_rate() -> None:
    verdicts = [*said("1", A, B), *said("2", A, NOISE), *said("3", None, A), *said("4", B, A)]
    score = score_verdicts(verdicts).scores[0]
    assert (score.items, score.complete, score.invalid, score.missing) == (4, 2, 1, 1)
    assert score.alpacare.percent == pytest.approx(50)
    assert score.at_worst == pytest.approx(100 * (1 + 0.5 + 0 + 0) / 4)
    assert score.at_best == pytest.approx(100 * (1 + 1 + 0.5 + 0) / 4)


def test_a_one_way_file_has_a_one_way_rate_and_no_other(tmp_path: Path) -> None:
    verdicts = [v for id_, raw in enumerate([A, A, B, TIE]) for v in said(str(id_), raw, None)]
    score = score_verdicts(verdicts).scores[0]
    assert (score.items, score.complete, score.missing) == (4, 0, 4)
    assert score.alpacare.percent is None
    assert score.consistency.percent is None
    assert score.model_first.percent == pytest.approx(62.5)
    assert score.reference_first.percent is None
    write_objects(tmp_path / "v.jsonl", [v.to_dict() for v in verdicts])
    assert "only 0 of 4 items are complete" in run(tmp_path / "v.jsonl")


def test_the_mean_row_averages_the_references_not_the_items() -> None:
    verdicts = [
        *said("1", A, B, reference="x"),
        *said("2", A, B, reference="x"),
        *said("1", B, A, reference="y"),
    ]
    scores = {score.reference: score for score in score_verdicts(verdicts).scores}
    assert scores[MEAN].alpacare.percent == pytest.approx(50)
    assert (scores[MEAN].items, scores[MEAN].wins, scores[MEAN].losses) == (3, 2, 1)


def test_several_models_are_scored_apart() -> None:
    verdicts = [*said("1", A, B, model="m"), *said("1", B, A, model="n")]
    got = {score.model: score.alpacare.percent for score in score_verdicts(verdicts).scores}
    assert got == {"m": 100.0, "n": 0.0}


def test_a_verdict_without_text_is_taken_as_written_and_said_so() -> None:
    verdicts = [
        Verdict(id="1", reference="r", order="model_first", verdict="win"),
        Verdict(id="1", reference="r", order="reference_first", verdict="nonsense"),
    ]
    table = score_verdicts(verdicts)
    assert (table.as_written, table.parsed) == (2, 0)
    assert table.scores[0].invalid == 1


def test_repeated_verdicts_and_unknown_orders_are_refused() -> None:
    with pytest.raises(DataError, match="duplicate verdicts"):
        score_verdicts([*said("1", A, B), *said("1", A, B)])
    with pytest.raises(DataError, match="unknown order"):
        score_verdicts([Verdict(id="1", reference="r", order="sideways", raw=A)])


def test_words_come_from_the_verdicts_or_from_the_answer_files(tmp_path: Path) -> None:
    write_objects(tmp_path / "v.jsonl", [v.to_dict() for v in [*said("1", A, B), *said("2", A, B)]])
    rows = [("1", "three short words"), ("2", "one")]
    write_objects(
        tmp_path / "r.jsonl",
        [{"id": i, "instruction": "Ask.", "response": text, "model": "m"} for i, text in rows],
    )
    write_objects(
        tmp_path / "ref.jsonl", [{"id": i, "instruction": "Ask.", "gpt-4-answer": "a b c d"} for i, _ in rows]
    )
    told = run(
        tmp_path / "v.jsonl", "--json", "--responses", tmp_path / "r.jsonl",
        "--references", tmp_path / "ref.jsonl", "--reference-fields", "gpt-4-answer",
    )  # fmt: skip
    score = json.loads(told)["scores"][0]
    assert (score["model_words"], score["reference_words"]) == (2.0, 4.0)


def test_the_interval_of_a_proportion_agrees_with_theory_and_repeats() -> None:
    won, n = 60, 200
    verdicts = [v for i in range(n) for v in (said(str(i), A, B) if i < won else said(str(i), B, A))]
    rate = score_verdicts(verdicts).scores[0].alpacare
    half_width = 100 * 1.96 * np.sqrt(won / n * (1 - won / n) / n)
    assert rate.low == pytest.approx(30 - half_width, abs=0.8)
    assert rate.high == pytest.approx(30 + half_width, abs=0.8)
    assert score_verdicts(verdicts).scores[0].alpacare == rate


def test_bootstrap_resamples_items_and_keeps_their_columns_together() -> None:
    values = np.array([1.0, 5.0, 9.0])
    low, high = bootstrap.mean_interval(values)
    assert (low, high) == (1.0, 9.0)
    paired = np.stack([values, 2 * values, np.ones(3)], axis=1)
    twice = bootstrap.interval(paired, lambda sums: sums[:, 1:2] / sums[:, :1])
    assert twice == [(2.0, 2.0)]
    assert bootstrap.mean_interval(np.array([])) is None
