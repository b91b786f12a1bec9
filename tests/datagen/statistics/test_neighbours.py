from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from datagen.dedup import rouge_l
from datagen.records import read_objects
from datagen.statistics.neighbours import nearest_scores


def brute_force(texts: list[str]) -> list[float]:
    return [
        max((rouge_l(text, other) for j, other in enumerate(texts) if j != i), default=0.0)
        for i, text in enumerate(texts)
    ]


words = st.sampled_from(["gout", "Gout", "asthma", "the", "of", "a", "?", "é", "hb", "13.2"])


@given(st.lists(st.lists(words, max_size=8).map(" ".join), max_size=90))
def test_scores_are_those_of_brute_force(texts: list[str]) -> None:
    assert nearest_scores(texts) == brute_force(texts)


def test_scores_of_real_instructions_are_those_of_brute_force(real_data: Path) -> None:
    texts = [row["instruction"] for _, row in read_objects(real_data / "medquad_train.jsonl")][:300]
    assert nearest_scores(texts) == brute_force(texts)


def test_a_sample_is_spread_evenly_and_compared_with_all() -> None:
    texts = [f"text {number} {'twin' if number in (4, 9) else number * 7}" for number in range(10)]
    scores = nearest_scores(texts)
    assert nearest_scores(texts, 5) == scores[::2]
    assert nearest_scores(texts, 99) == scores
    assert nearest_scores([], 5) == []
