import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from alpacare_jax.evaluate.rouge import mean_rouge_l, rouge_l_f1
from datagen.errors import DataError

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
WORDS = st.lists(
    st.sampled_from(["the", "Dose", "is", "5", "mg/kg", "naïve", "T-cell", "…", "İ", "a_b"]), max_size=30
)


@given(WORDS, WORDS)
def test_equals_rouge_score_on_word_sequences(answer: list[str], reference: list[str]) -> None:
    ours, theirs = " ".join(answer), " ".join(reference)
    assert rouge_l_f1(ours, theirs) == pytest.approx(SCORER.score(theirs, ours)["rougeL"].fmeasure, abs=1e-12)


@given(st.text(max_size=80), st.text(max_size=80))
def test_equals_rouge_score_on_any_text(answer: str, reference: str) -> None:
    assert rouge_l_f1(answer, reference) == pytest.approx(
        SCORER.score(reference, answer)["rougeL"].fmeasure, abs=1e-12
    )


def test_the_mean_joins_by_id_and_brackets_itself() -> None:
    answers = {"b": "take one tablet", "a": "rest"}
    result = mean_rouge_l(answers, {"a": "rest", "b": "drink water", "c": "unused"})
    assert result.by_id == {"b": 0.0, "a": 1.0}
    assert result.mean == 0.5
    assert result.interval == (0.0, 1.0)
    assert np.mean(list(result.by_id.values())) == result.mean


def test_an_answer_without_its_reference_is_refused() -> None:
    with pytest.raises(DataError, match="have no reference"):
        mean_rouge_l({"a": "x"}, {"b": "x"})
    with pytest.raises(DataError, match="no answers"):
        mean_rouge_l({}, {})
