"""The near-duplicate filter against brute force with the package rouge_score, on the same rows in one run.

    python benchmarks/filter.py medquad_train.jsonl [--rows 500] [--pool 64350]

Part 1 filters the first ``--rows`` instructions twice, with the product's filter and with ``rouge_score`` on every
kept text, and checks that all decisions are equal. Part 2 filters growing pools with the product's filter alone;
where the file holds too few instructions, sentences of its answers (6 to 40 words, shuffled with a fixed seed)
stand in for them. CPU seconds of one core.
"""

import argparse
import json
import platform
import random
import re
import resource
import time
from importlib.metadata import version

from rouge_score import rouge_scorer

from datagen.dedup import Near, RougeFilter


def by_brute_force(texts: list[str], threshold: float) -> list[tuple[int, float] | None]:
    """Filter greedily, keep first, scoring every pair with ``rouge_score``."""
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    kept: list[str] = []
    fates: list[tuple[int, float] | None] = []
    for text in texts:
        scores = [scorer.score(other, text)["rougeL"].fmeasure for other in kept]
        best = max(range(len(kept)), key=lambda index: (scores[index], -index), default=-1)
        if best >= 0 and scores[best] > threshold:
            fates.append((best, scores[best]))
        else:
            fates.append(None)
            kept.append(text)
    return fates


def timed_filter(texts: list[str], threshold: float) -> tuple[float, list[Near | None]]:
    """Filter with the product; return CPU seconds and each text's fate."""
    start = time.process_time()
    pool = RougeFilter(threshold=threshold)
    fates = [pool.offer(text) for text in texts]
    return time.process_time() - start, fates


def sentences(rows: list[dict[str, str]]) -> list[str]:
    """Return the answers' sentences of 6 to 40 words in a fixed random order."""
    found = [part for row in rows for part in re.split(r"(?<=[.?!])\s+", row["output"])]
    found = [part for part in found if 6 <= len(part.split()) <= 40]
    random.Random(0).shuffle(found)
    return found


def main() -> None:
    """Run both parts and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="JSON Lines with instruction and output")
    parser.add_argument("--rows", type=int, default=500, help="rows for the comparison with brute force")
    parser.add_argument("--pool", type=int, default=64_350, help="largest pool")
    parser.add_argument("--threshold", type=float, default=0.7, help="ROUGE-L F1")
    options = parser.parse_args()
    with open(options.file, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"rapidfuzz {version('rapidfuzz')}, rouge-score {version('rouge-score')}")

    texts = [row["instruction"] for row in rows[: options.rows]]
    ours_s, ours = timed_filter(texts, options.threshold)
    start = time.process_time()
    brute = by_brute_force(texts, options.threshold)
    brute_s = time.process_time() - start
    equal = [near and (near.index, near.score) for near in ours] == brute
    kept = brute.count(None)
    print(
        f"{len(texts):,} instructions, {kept:,} kept: ours {ours_s:.3f} s, brute force {brute_s:.2f} s, ",
        end="",
    )
    print(f"ratio {brute_s / ours_s:,.0f}; decisions {'identical' if equal else 'DIFFERENT'}")

    pool = [row["instruction"] for row in rows]
    if len(pool) < options.pool:
        pool = sentences(rows)
    before = None
    for size in sorted({options.pool // 4, options.pool // 2, options.pool}):
        seconds, fates = timed_filter(pool[:size], options.threshold)
        growth = f", {seconds / before:.2f} x the half" if before else ""
        print(f"{min(size, len(pool)):,} texts, {fates.count(None):,} kept: {seconds:.2f} s{growth}")
        before = seconds
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if not equal:
        raise SystemExit("the decisions differ")


if __name__ == "__main__":
    main()
