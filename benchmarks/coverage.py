"""How evenly example tasks are shown: AlpaCare's plain draws against this project's, over the same requests.

    python benchmarks/coverage.py [--seeds med_seed.json] [--requests 1000] [--examples 3]

Evenness is entropy over its largest possible value (1: every label shown alike often), over the labels' one spelling;
views and topics fall into groups. "different" is the share of requests whose examples all differ in the field.
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from datagen import labels
from datagen.coverage import SAMPLINGS, draw_examples
from datagen.labels import FIELDS
from datagen.records import SeedTask
from datagen.seeds import load_seeds


def evenness(values: Iterable[str]) -> float:
    """Return how evenly labels occur: entropy over its largest possible value; 1 is even, 0 is one label alone.

    Example:
        >>> evenness("aabb"), round(evenness("aaab"), 3), evenness("aa")
        (1.0, 0.811, 1.0)
    """
    counts = Counter(values)
    total = counts.total()
    if len(counts) < 2:
        return 1.0
    entropy = -math.fsum(n / total * math.log(n / total) for n in counts.values())
    return entropy / math.log(len(counts))


def measure(seeds: Sequence[SeedTask], draws: Sequence[Sequence[SeedTask]]) -> dict[str, float]:
    """Measure what many draws show.

    Returns:
        Per field: ``evenness.FIELD`` of the labels shown (as groups for views and topics; labels of the seeds that
        were never shown count), and ``different.FIELD``, the share of requests whose examples all differ in it; then
        ``seeds_shown``, the share of seeds shown at all, and ``most_shown``, how many times as often as in plain
        draws the most frequent seed was shown.
    """
    result: dict[str, float] = {}
    shown = Counter(id(task) for draw in draws for task in draw)
    for field in FIELDS:
        groups = [[labels.group(field, getattr(task, field)) for task in draw] for draw in draws]
        known = {labels.group(field, getattr(task, field)) for task in seeds}
        seen = {label for draw in groups for label in draw}
        share = evenness(label for draw in groups for label in draw)
        result[f"evenness.{field}"] = share * (
            math.log(len(seen)) / math.log(len(known)) if len(seen) > 1 else 1
        )
        result[f"different.{field}"] = sum(len(set(draw)) == len(draw) for draw in groups) / len(draws)
    result["seeds_shown"] = len(shown) / len(seeds)
    result["most_shown"] = max(shown.values()) * len(seeds) / shown.total()
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=Path, default=None, help="a seed file; the project's own without it")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--examples", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    seeds = load_seeds(given.seeds)
    results, seconds = {}, {}
    for how in SAMPLINGS:
        start = time.process_time()
        draws = [draw_examples(seeds, given.examples, given.seed, n, how) for n in range(given.requests)]
        seconds[how] = time.process_time() - start
        results[how] = measure(seeds, draws)
    print(f"{len(seeds)} seeds, {given.requests:,} requests of {given.examples} examples")
    print(f"{'':<12}{'evenness':>20}{'different':>20}")
    print(f"{'':<12}{'uniform':>10}{'even':>10}{'uniform':>10}{'even':>10}")
    for field in FIELDS:
        cells = [
            results[how][f"{kind}.{field}"]
            for kind in ("evenness", "different")
            for how in ("uniform", "even")
        ]
        print(f"{field:<12}" + "".join(f"{cell:>10.3f}" for cell in cells))
    for name in ("seeds_shown", "most_shown"):
        print(f"{name:<12}{results['uniform'][name]:>10.2f}{results['even'][name]:>10.2f}")
    print(f"{'CPU s':<12}{seconds['uniform']:>10.2f}{seconds['even']:>10.2f}")


if __name__ == "__main__":
    main()
