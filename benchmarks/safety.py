"""What the checks for evaluation items and identifiers find and miss, and how long they take.

    python benchmarks/safety.py --data ../shared/data

The folder holds MedInstruct-test, MedQA and PubMedQA as evaluation sets, and MedQuAD as rows that are none of them.
Planted items are altered with a fixed seed. Times are CPU seconds of one process.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datagen.contamination import Benchmarks, Leak
from datagen.privacy import find

SETS = {
    "medinstruct_test.jsonl": "instruction",
    "medqa_usmle_4opt_test.jsonl": "question",
    "pubmedqa_test.jsonl": "question",
}


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--tasks", type=int, default=8000, help="tasks and answers for the times")
    arguments = parser.parse_args()
    rows = {
        name: read(arguments.data / name) for name in (*SETS, "medquad_train.jsonl", "medquad_valid.jsonl")
    }
    start = time.process_time()
    exam = Benchmarks([arguments.data / name for name in SETS])
    print(f"index of {sum(len(rows[name]) for name in SETS):,} items: {time.process_time() - start:.1f} s")
    planted(exam, rows)
    parts(exam, rows)
    false_alarms(exam, rows, arguments.data)
    exam_language(rows["medqa_usmle_4opt_test.jsonl"], arguments.data)
    times(exam, rows["medquad_train.jsonl"], arguments.tasks)
    identifiers(rows)


def read(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def altered(text: str, every: int, draw: random.Random) -> str:
    """Replace, drop or double-up every so-manieth word."""
    words: list[str] = []
    for place, word in enumerate(text.split(), start=1):
        words += [word] if place % every else draw.choice([["certain"], [], [word, "also"]])
    return " ".join(words)


def planted(exam: Benchmarks, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Plant every item in eight ways and print the share that is caught."""
    draw = random.Random(0)
    around = [row["output"] for row in rows["medquad_valid.jsonl"] if 60 < len(row["output"].split()) < 200]
    ways: dict[str, Callable[[str, list[str], str, str], Leak | None]] = {
        "as the instruction": lambda text, _, a, b: exam.check_task(text),
        "input, choices in another order": lambda text, choices, a, b: exam.check_task(
            "Answer.", "\n".join([text, *choices])
        ),
        "inside a longer input": lambda text, _, a, b: exam.check_task("Summarise.", f"{a} {text} {b}"),
        "inside an answer": lambda text, _, a, b: exam.check_answer(f"{a} {text} {b}"),
        "every 12th word altered": lambda text, _, a, b: exam.check_task(altered(text, 12, draw)),
        "every 8th word altered": lambda text, _, a, b: exam.check_task(altered(text, 8, draw)),
        "every 5th word altered": lambda text, _, a, b: exam.check_task(altered(text, 5, draw)),
        "every 8th, inside an answer": lambda text, _, a, b: exam.check_answer(
            f"{a} {altered(text, 8, draw)} {b}"
        ),
    }
    print("\nplanted items caught".ljust(36) + "".join(name.split("_")[0].rjust(14) for name in SETS))
    for way, plant in ways.items():
        shares = []
        for name, field in SETS.items():
            caught = 0
            for row in rows[name]:
                choices = list(row.get("options", {}).values())
                draw.shuffle(choices)
                caught += plant(row[field], choices, draw.choice(around), draw.choice(around)) is not None
            shares.append(f"{caught / len(rows[name]):.1%}".rjust(14))
        print(way.ljust(35) + "".join(shares))


def parts(exam: Benchmarks, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Plant parts of at least 15 words of the items in answers."""
    ways: dict[str, Callable[[list[str]], list[str]]] = {
        "the first half": lambda words: words[: len(words) // 2],
        "the second half": lambda words: words[len(words) // 2 :],
        "20 words from the middle": lambda words: words[max(0, len(words) // 2 - 10) : len(words) // 2 + 10],
    }
    print("\nparts of at least 15 words, inside an answer")
    for name in list(SETS)[:2]:
        for way, cut in ways.items():
            texts = [" ".join(part) for row in rows[name] if len(part := cut(row[SETS[name]].split())) >= 15]
            caught = count(exam.check_answer(f"Consider this: {text} And so on.") for text in texts)
            print(f"  {name}, {way}: {caught / len(texts):.1%} of {len(texts):,}")


def false_alarms(exam: Benchmarks, rows: dict[str, list[dict[str, Any]]], data: Path) -> None:
    """Compare rows that are none of the evaluation items with them."""
    print("\nrows that are no evaluation items: caught")
    for name in ("medquad_train.jsonl", "medquad_valid.jsonl"):
        tasks = [exam.check_task(row["instruction"], row["input"]) for row in rows[name]]
        answers = [exam.check_answer(row["output"]) for row in rows[name]]
        print(
            f"  {name}: {count(tasks)} of {len(tasks):,} tasks, {count(answers)} of {len(answers):,} answers"
        )
    path = data / "med_seed.json"
    if path.exists():
        seeds = [
            exam.check_task(row["instruction"], row["input"]) for row in json.loads(path.read_text("utf-8"))
        ]
        print(f"  med_seed.json: {count(seeds)} of {len(seeds):,} tasks")


def count(leaks: Iterable[Leak | None]) -> int:
    """Return how many are leaks."""
    return sum(leak is not None for leak in leaks)


def exam_language(rows: list[dict[str, Any]], data: Path) -> None:
    """Take one half of an exam for the evaluation set and the other for new questions in its language."""
    order = random.Random(0).sample(range(len(rows)), len(rows))
    half = len(rows) // 2
    path = Path(f"{data.name}-half-{half}.jsonl").resolve()
    path.write_text("".join(json.dumps(rows[n]) + "\n" for n in order[:half]), encoding="utf-8")
    try:
        exam = Benchmarks([path])
    finally:
        path.unlink()
    leaks = [exam.check_task(rows[n]["question"]) for n in order[half:]]
    kinds = Counter(leak.kind for leak in leaks if leak)
    print(f"  one half of MedQA against the other: {count(leaks)} of {len(leaks)} questions {dict(kinds)}")


def times(exam: Benchmarks, rows: list[dict[str, Any]], number: int) -> None:
    """Time tasks of AlpaCare's shape, with inputs of 50 to 200 words, and answers."""
    draw = random.Random(0)
    texts = [row["output"] for row in rows]
    tasks = []
    for _ in range(number):
        words = draw.choice(texts).split()
        tasks.append((" ".join(draw.choice(texts).split()[:20]), " ".join(words[: draw.randrange(50, 200)])))
    answers = draw.choices(texts, k=number)
    print(f"\nCPU seconds for {number:,} (and for 64,350)")
    jobs: dict[str, Callable[[], object]] = {
        "tasks against the evaluation sets": lambda: [exam.check_task(*task) for task in tasks],
        "answers against the evaluation sets": lambda: [exam.check_answer(answer) for answer in answers],
        "identifiers in tasks": lambda: [find("\n".join(task)) for task in tasks],
        "identifiers in answers": lambda: [find(answer) for answer in answers],
    }
    for name, job in jobs.items():
        start = time.process_time()
        job()
        spent = time.process_time() - start
        print(f"  {name:<37}{spent:6.1f}  ({spent * 64350 / number:.0f})")


def identifiers(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Print how many identifiers of each kind stand in each set."""
    print("\nidentifiers found")
    for name, each in rows.items():
        texts = ["\n".join(texts_of(row)) for row in each]
        hits = Counter(hit.kind for text in texts for hit in find(text))
        print(
            f"  {name} ({len(texts):,} rows): {', '.join(f'{k} {n}' for k, n in hits.most_common()) or 'none'}"
        )


def texts_of(value: object) -> Iterable[str]:
    """Yield the texts in a row but for its id."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in ("id", "source"):
                yield from texts_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts_of(each)


if __name__ == "__main__":
    main()
