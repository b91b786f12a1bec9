"""Judging and scoring from Python, on the answers themselves as on their files."""

from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer
from test_judge import files, prefers_ours

import alpacare_jax as alpacare
from alpacare_jax.errors import DataError
from alpacare_jax.evaluate.answers import read_responses
from alpacare_jax.evaluate.tables import format_table
from datagen.client import Service
from datagen.records import Verdict, read_records

__all__ = ["files"]


def test_answers_are_judged_and_scored_as_their_files_are(files: Path) -> None:
    said: list[str] = []
    ours, theirs = (read_responses(files / name) for name in ("ours.jsonl", "ref.jsonl"))
    with ScriptedServer(prefers_ours) as server:
        settings = alpacare.JudgeSettings(Service(server.base_url, "scripted-judge"))
        given: dict[str, Any] = {"work": files / "work"}
        verdicts = alpacare.judge(ours, theirs, settings, **given)
        asked = server.count
        again = alpacare.judge(
            files / "ours.jsonl", [files / "ref.jsonl"], settings, files / "v.jsonl", say=said.append, **given
        )
        assert server.count == asked == 6
    assert verdicts == again
    assert {verdict.verdict for verdict in verdicts} == {"win"}
    assert said == ["3 responses of ours against gpt-4, both orders: 6 comparisons"]
    assert [v.raw for v in read_records(files / "v.jsonl", Verdict)] == [v.raw for v in verdicts]
    table = alpacare.score(verdicts, responses=ours, references=[theirs])
    assert table == alpacare.score(files / "v.jsonl")
    assert table.scores[0].alpacare.percent == 100.0
    with pytest.raises(DataError, match="the output exists already"):
        alpacare.judge(ours, theirs, settings, files / "v.jsonl", **given)
    assert "gpt-4" in format_table(table)
