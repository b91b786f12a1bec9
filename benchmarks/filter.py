"""The near-duplicate filter: its speed, its growth, and its decisions against the package rouge_score.

    python benchmarks/filter.py medquad_train.jsonl --tasks med_seed.json medinstruct_test.jsonl

CPU seconds of one core, all in one run:

1. Pools of a quarter, half and the whole of ``--pool`` texts (the 64,350 tasks that AlpaCare's filter was given), in
   arrival order. Instructions of that kind and number are not published before filtering, so two stand-ins are used.
   *Recombined*: the instructions of ``--tasks``, drawn again and again, in which seven of ten words longer than three
   letters (the sixty commonest left out) give way to words drawn from ``file`` by frequency. That keeps lengths,
   phrasing and common words of real medical instructions, and is denser than they are: every text shares its
   pattern with about 170 others. The share of exchanged words is the one at which the filter keeps about as much as
   the paper's did (52,002 of 64,350 = 81%). *Sentences*: those of the answers in ``file`` (6 to 40 words, shuffled).
   Then: the whole pool under the all-pairs policy, and 1,000 further texts offered to a pool that already holds what
   was kept.
2. AlpaCare's published method in our own words: tokenise once, then score every text against all others with
   ``rouge_score``'s Python LCS. Its cost per text is measured on ``--sample`` random texts of the recombined
   pool, each against the whole pool, and multiplied by the pool's size; whether these texts vanish is compared with
   the product's all-pairs policy.
3. The first ``--rows`` instructions of ``file``, filtered by the product and by brute force: ``RougeScorer.score``
   on every pair of a text and a kept text before it, nothing skipped. All decisions, neighbours and scores must be
   equal.
"""

import argparse
import itertools
import platform
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from rouge_score import rouge_scorer

from datagen.dedup import Near, RougeFilter, all_pairs, tokenize
from datagen.records import read_objects

EXCHANGED = 0.7
WORD = re.compile(r"[A-Za-z]+")


def filtered(texts: Sequence[str], threshold: float) -> tuple[float, list[Near | None]]:
    """Filter with the product; return CPU seconds and each text's fate."""
    start = time.process_time()
    pool = RougeFilter(threshold=threshold)
    fates = [pool.offer(text) for text in texts]
    return time.process_time() - start, fates


def by_brute_force(texts: Sequence[str], threshold: float) -> list[Near | None]:
    """Filter greedily, keep first, scoring every pair with ``rouge_score``."""
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    kept: list[str] = []
    fates: list[Near | None] = []
    for text in texts:
        scores = [scorer.score(other, text)["rougeL"].fmeasure for other in kept]
        best = max(range(len(kept)), key=lambda index: (scores[index], -index), default=-1)
        if best >= 0 and scores[best] > threshold:
            fates.append(Near(best, scores[best], kept[best]))
        else:
            fates.append(None)
            kept.append(text)
    return fates


def published(texts: Sequence[str], places: Sequence[int], threshold: float) -> tuple[float, list[bool]]:
    """Compare the texts at ``places`` with all others as AlpaCare does; return CPU seconds and which vanish."""
    tokens = [tokenize(text) for text in texts]
    start = time.process_time()
    vanish = []
    for place in places:
        one = tokens[place]
        scores = [
            rouge_scorer._score_lcs(other, one).fmeasure
            for number, other in enumerate(tokens)
            if number != place
        ]
        vanish.append(max(scores) > threshold)
    return time.process_time() - start, vanish


def sentences(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the answers' sentences of 6 to 40 words in a fixed random order."""
    found = [part for row in rows for part in re.split(r"(?<=[.?!])\s+", row["output"])]
    found = [part for part in found if 6 <= len(part.split()) <= 40]
    random.Random(0).shuffle(found)
    return found


def recombined(patterns: Sequence[str], rows: Sequence[dict[str, str]], count: int) -> list[str]:
    """Return ``count`` texts made of the patterns with most of their longer words exchanged; see the module."""
    chance = random.Random(0)
    common = Counter(word.lower() for text in patterns for word in WORD.findall(text)).most_common(60)
    stay = {word for word, _ in common}
    source = itertools.chain(patterns, (f"{row['instruction']} {row['output'][:400]}" for row in rows))
    frequency = Counter(word.lower() for text in source for word in WORD.findall(text))
    words = [word for word in frequency if len(word) > 3 and word not in stay]
    weights = list(itertools.accumulate(frequency[word] ** 0.75 for word in words))

    def exchange(match: re.Match[str]) -> str:
        word = match.group()
        if len(word) <= 3 or word.lower() in stay or chance.random() > EXCHANGED:
            return word
        return chance.choices(words, cum_weights=weights)[0]

    return [WORD.sub(exchange, chance.choice(patterns)) for _ in range(count)]


def show_growth(name: str, texts: Sequence[str], threshold: float) -> float:
    """Print CPU seconds for a quarter, half and the whole, the better of two runs; return the last."""
    before = seconds = 0.0
    for size in (len(texts) // 4, len(texts) // 2, len(texts)):
        runs = [filtered(texts[:size], threshold) for _ in range(2)]
        seconds, kept = min(run[0] for run in runs), runs[0][1].count(None)
        growth = f", {seconds / before:.2f} x the half" if before else ""
        print(f"{name}: {size:,} texts, {kept / size:.0%} kept: {seconds:.2f} s{growth}", flush=True)
        before = seconds
    return seconds


def show_growing_pool(texts: Sequence[str], threshold: float) -> None:
    """Print what 1,000 more texts cost once the others have been filtered."""
    _, fates = filtered(texts, threshold)
    kept = [text for text, fate in zip(texts, fates, strict=True) if fate is None]
    start = time.process_time()
    pool = RougeFilter(kept[:-1000], threshold)
    taken = time.process_time()
    for text in kept[-1000:]:
        pool.offer(text)
    end = time.process_time()
    print(f"growing: {len(kept) - 1000:,} kept texts taken up unchecked in {taken - start:.2f} s, ", end="")
    print(f"1,000 more judged in {end - taken:.2f} s", flush=True)


def show_published(texts: Sequence[str], sample: int, threshold: float, ours_s: float) -> bool:
    """Print the ratio to AlpaCare's method; return whether its decisions on the sample are the product's."""
    start = time.process_time()
    nearest = all_pairs(texts, threshold=threshold)
    pairs_s = time.process_time() - start
    print(f"all-pairs policy: {nearest.count(None) / len(texts):.0%} kept: {pairs_s:.2f} s", flush=True)
    places = random.Random(1).sample(range(len(texts)), min(sample, len(texts)))
    sample_s, vanish = published(texts, places, threshold)
    whole_s = sample_s / len(places) * len(texts)
    equal = vanish == [nearest[place] is not None for place in places]
    print(
        f"published method: {sample_s:.1f} s for {len(places)} texts against all {len(texts):,}, hence "
        f"{whole_s / 3600:.0f} hours for all; {sum(vanish)} of the {len(places)} vanish, "
        f"{'as' if equal else 'NOT as'} under the product's all-pairs policy"
    )
    print(f"ratio: {whole_s / ours_s:,.0f} (keep first), {whole_s / pairs_s:,.0f} (all pairs)", flush=True)
    return equal


def show_brute_force(texts: Sequence[str], threshold: float) -> bool:
    """Print the comparison with brute force; return whether all decisions, neighbours and scores are equal."""
    ours_s, ours = filtered(texts, threshold)
    start = time.process_time()
    brute = by_brute_force(texts, threshold)
    brute_s = time.process_time() - start
    print(
        f"{len(texts):,} instructions, {brute.count(None):,} kept: ours {ours_s:.2f} s, brute force with rouge_score "
        f"{brute_s:.0f} s; decisions, neighbours and scores {'identical' if ours == brute else 'DIFFERENT'}"
    )
    return ours == brute


def main() -> None:
    """Run the parts and print the figures; exit status 1 if a decision differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="JSON Lines with instruction and output")
    parser.add_argument("--tasks", nargs="+", required=True, help="files with instructions to recombine")
    parser.add_argument("--pool", type=int, default=64_350, help="texts in the largest pool")
    parser.add_argument("--sample", type=int, default=12, help="texts given to the published method")
    parser.add_argument("--rows", type=int, default=5_000, help="rows for the comparison with brute force")
    parser.add_argument("--threshold", type=float, default=0.7, help="ROUGE-L F1")
    options = parser.parse_args()
    rows = [row for _, row in read_objects(options.file)]
    patterns = [row["instruction"] for path in options.tasks for _, row in read_objects(path)]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"rapidfuzz {version('rapidfuzz')}, rouge-score {version('rouge-score')}")

    show_growth("sentences", sentences(rows)[: options.pool], options.threshold)
    texts = recombined(patterns, rows, options.pool)
    ours_s = show_growth("recombined", texts, options.threshold)
    show_growing_pool(texts, options.threshold)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory so far, this program's own texts included: {peak:.0f} MiB", flush=True)
    equal = show_published(texts, options.sample, options.threshold, ours_s)
    instructions = [row["instruction"] for row in rows[: options.rows]]
    if not (show_brute_force(instructions, options.threshold) and equal):
        raise SystemExit("the decisions differ")


if __name__ == "__main__":
    main()
