"""The near-duplicate filter decides exactly as brute force with the package rouge_score does."""

import json
import random
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from rouge_score.tokenizers import DefaultTokenizer

from datagen import dedup
from datagen.dedup import Near, RougeFilter, all_pairs, f_measure, rouge_l, tokenize
from datagen.errors import ConfigError
from datagen.seeds import load_seeds

SCORER = rouge_scorer.RougeScorer(["rougeL"])
WORDS = ["a", "b", "c", "d", "e", "pain", "of", "the", "2", "Ärger", "naïve", "é", "!", ""]
# Latin letters with and without accents, ligatures, symbols, signs of measurement, punctuation.
latin = st.text(
    st.characters(max_codepoint=0x36F) | st.sampled_from("ẞễỿꞪﬁ™ªº²½µ°℃Å€≥–…“•😀❤\ufe0f"), max_size=80
)
texts = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | latin


def brute_force(texts: list[str], seeds: list[str], threshold: float) -> list[Near | None]:
    """The definition: compare with every kept text, keep the first, report the nearest."""
    kept, fates = list(seeds), []
    for text in texts:
        scores = [SCORER.score(other, text)["rougeL"].fmeasure for other in kept]
        best = max(range(len(kept)), key=lambda index: (scores[index], -index), default=None)
        if best is not None and scores[best] > threshold:
            fates.append(Near(best, scores[best], kept[best]))
        else:
            fates.append(None)
            kept.append(text)
    return fates


@given(texts)
def test_tokens_of_latin_script_are_those_of_rouge_score(text: str) -> None:
    assert tokenize(text) == DefaultTokenizer().tokenize(text)


@given(texts, texts)
def test_score_is_that_of_rouge_score_to_the_last_bit(a: str, b: str) -> None:
    assert rouge_l(a, b) == SCORER.score(a, b)["rougeL"].fmeasure


@settings(max_examples=300, deadline=None)
@given(
    st.lists(texts, max_size=25),
    st.lists(texts, max_size=4),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 2 / 3, 0.7, 0.75, 0.8, 0.9, 1.0]),
)
def test_decisions_are_those_of_brute_force(items: list[str], seeds: list[str], threshold: float) -> None:
    pool = RougeFilter(seeds, threshold)
    assert [pool.offer(item) for item in items] == brute_force(items, seeds, threshold)


def brute_force_all_pairs(texts: list[str], known: list[str], threshold: float) -> list[Near | None]:
    """The published policy: compare with every other text, later ones too."""
    everything, fates = [*known, *texts], []
    for place in range(len(known), len(everything)):
        scores = {
            other: SCORER.score(everything[other], everything[place])["rougeL"].fmeasure
            for other in range(len(everything))
            if other != place
        }
        best = max(scores, key=lambda index: (scores[index], -index), default=None)
        near = best is not None and scores[best] > threshold
        fates.append(Near(best, scores[best], everything[best]) if near else None)
    return fates


@settings(max_examples=150, deadline=None)
@given(
    st.lists(texts, max_size=18),
    st.lists(texts, max_size=4),
    st.sampled_from([0.0, 0.3, 0.5, 2 / 3, 0.7, 0.8, 1.0]),
)
def test_all_pairs_is_brute_force_over_all_others(
    items: list[str], known: list[str], threshold: float
) -> None:
    assert all_pairs(items, known, threshold) == brute_force_all_pairs(items, known, threshold)


def test_both_members_of_a_pair_vanish_under_all_pairs() -> None:
    fates = all_pairs(["what is gout", "define fever", "what is gout exactly"])
    assert [fate is None for fate in fates] == [False, True, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=20), st.integers(0, 20), st.sampled_from([0.3, 0.7]))
def test_a_pool_that_grows_later_decides_as_if_begun_anew(
    items: list[str], at: int, threshold: float
) -> None:
    """What an earlier run kept is added unchecked, and the rest is judged: same decisions as in one go."""
    whole = RougeFilter([], threshold)
    fates = [whole.offer(item) for item in items]
    kept_before = [item for item, fate in zip(items[:at], fates, strict=False) if fate is None]
    later = RougeFilter(kept_before, threshold)
    assert [later.offer(item) for item in items[at:]] == fates[at:]
    assert later.texts == whole.texts


def test_lengths_far_apart_and_long_texts_are_decided_as_by_brute_force() -> None:
    """Lengths from 1 to 300, copies with words dropped: every band of lengths meets every other."""
    chance = random.Random(11)
    items: list[str] = []
    for _ in range(110):
        if items and chance.random() < 0.6:
            words = chance.choice(items).split()
            share = chance.choice([0.5, 0.53, 0.54, 0.55, 0.6, 0.8, 0.95])
            items.append(" ".join(word for word in words if chance.random() < share))
        else:
            length = chance.choice([1, 2, 3, 5, 9, 17, 33, 80, 160, 300])
            items.append(" ".join(f"w{chance.randrange(40 + length)}" for _ in range(length)))
    pool = RougeFilter([], 0.7)
    fates = [pool.offer(item) for item in items]
    assert fates == brute_force(items, [], 0.7)
    assert 10 < sum(fate is not None for fate in fates) < 100


@pytest.mark.parametrize(
    "items",
    [
        ["a " * n for n in range(60)],
        ["yes no " * n for n in range(40)],
        ["", " ", "?", "😀", "éé", "a", "A", "a."] * 4,
        ["what is gout"] * 30,
        [f"what is x{n % 7}" for n in range(50)],
    ],
    ids=["one word repeated", "two words repeated", "empty", "equal", "template"],
)
def test_adversarial_texts_are_decided_as_by_brute_force(items: list[str]) -> None:
    for threshold in (0.5, 0.7):
        pool = RougeFilter([], threshold)
        assert [pool.offer(item) for item in items] == brute_force(items, [], threshold)


def test_renewed_order_changes_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "_FIRST_RENEWAL", 2)
    chance = random.Random(5)
    items = [" ".join(chance.choices("abcdefghij", k=chance.randint(0, 9))) for _ in range(250)]
    pool = RougeFilter([], 0.6)
    assert [pool.offer(item) for item in items] == brute_force(items, [], 0.6)


def test_vocabulary_beyond_unicode_changes_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "_LARGEST_CHARACTER", 12)  # texts before and after the limit meet each other
    chance = random.Random(6)
    letters = "abcdefghijklmnopqrstuvwxyz"
    items = [" ".join(chance.choices(letters[: 4 + n // 4], k=chance.randint(1, 7))) for n in range(88)]
    pool = RougeFilter([], 0.5)
    assert [pool.offer(item) for item in items] == brute_force(items, [], 0.5)


def test_real_questions_are_decided_as_by_brute_force(real_data: Path) -> None:
    with (real_data / "medquad_train.jsonl").open(encoding="utf-8") as file:
        items = [json.loads(line)["instruction"] for line, _ in zip(file, range(200), strict=False)]
    seeds = [seed.instruction for seed in load_seeds()]
    pool = RougeFilter(seeds)
    fates = [pool.offer(item) for item in items]
    assert fates == brute_force(items, seeds, 0.7)
    assert 20 < sum(fate is not None for fate in fates) < 180
    assert pool.texts == seeds + [item for item, fate in zip(items, fates, strict=True) if fate is None]


def test_few_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes it fast: of millions of pairs only about one a text reaches the LCS, also as the pool doubles."""
    chance = random.Random(2)
    words = [f"word{n}" for n in range(3000)]
    weights = list(accumulate(1 / (n + 1) for n in range(len(words))))
    items = [
        " ".join(chance.choices(words, cum_weights=weights, k=chance.randint(6, 30))) for _ in range(4000)
    ]
    compared = 0
    similarity = dedup.LCSseq.similarity

    class Counted:
        @staticmethod
        def similarity(a: object, b: object) -> int:
            nonlocal compared
            compared += 1
            return similarity(a, b)

    monkeypatch.setattr(dedup, "LCSseq", Counted)
    pool = RougeFilter()
    for item in items[:2000]:
        pool.offer(item)
    half = compared
    for item in items[2000:]:
        pool.offer(item)
    assert len(pool) > 3500
    assert half < 2000
    assert compared < 4000


@pytest.mark.slow
def test_the_benchmark_runs(real_data: Path) -> None:
    """Tiny pools; it ends with an error status if a decision differs from rouge_score's."""
    root = Path(__file__).parents[3]
    tasks = [real_data / "med_seed.json", real_data / "medinstruct_test.jsonl"]
    command = [sys.executable, root / "benchmarks" / "filter.py", real_data / "medquad_train.jsonl"]
    command += ["--tasks", *tasks, "--pool", "1600", "--sample", "2", "--rows", "150"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert "decisions, neighbours and scores identical" in done.stdout
    assert "ratio:" in done.stdout


def test_score_equal_to_the_threshold_is_kept() -> None:
    first, second = "a b c d e f g x y z", "a b c d e f g p q r"
    score = SCORER.score(first, second)["rougeL"].fmeasure
    assert score == f_measure(7, 10, 10)
    assert RougeFilter([first], score).offer(second) is None
    just_below = score - 1e-12
    assert RougeFilter([first], just_below).offer(second) == Near(0, score, first)


def test_earlier_dropped_texts_drop_nothing() -> None:
    """The greedy rule: only kept texts count, so a chain of neighbours does not vanish as a whole."""
    pool = RougeFilter(threshold=0.7)
    assert pool.offer("name five causes of chronic cough in adults") is None
    assert pool.offer("name six causes of chronic cough in children") == Near(
        0, f_measure(6, 8, 8), "name five causes of chronic cough in adults"
    )
    assert pool.offer("name six signs of chronic disease in children") is None
    assert len(pool) == 2


def test_order_of_words_counts() -> None:
    assert RougeFilter(["one two three four"]).offer("four three two one") is None


def test_texts_without_a_word_are_kept() -> None:
    pool = RougeFilter([""])
    assert [pool.offer(text) for text in ("", "😀🤒", "😀🤒", "→ ≥ €", "→ ≥ €", "…?!")] == [None] * 6


def test_exact_repeats_are_dropped_at_any_threshold_below_one() -> None:
    pool = RougeFilter(threshold=0.999)
    assert pool.offer("What is gout?") is None
    assert pool.offer("what IS gout") == Near(0, 1.0, "What is gout?")
    assert RougeFilter(["What is gout?"], threshold=1.0).offer("What is gout?") is None


def test_nearest_adds_nothing() -> None:
    pool = RougeFilter(["What is gout?"])
    assert pool.nearest("How is asthma treated in children?") is None
    assert len(pool) == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        RougeFilter([], threshold)
