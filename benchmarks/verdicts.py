"""How the replies of judges in a file are read: counts, agreement with a known winner, and examples to look at.

    python benchmarks/verdicts.py replies.jsonl
    python benchmarks/verdicts.py replies.jsonl --known winner --by judge --examples 10

``replies.jsonl`` holds one object a line with the judge's text in ``raw`` (``--raw`` names another field). A known
winner may be the place (``first`` or ``second``, ``a`` or ``b``, ``1`` or ``2``, ``tie``), or the model's outcome
(``win``, ``loss`` or ``lose``, ``tie``); outcomes need the field ``order``, which is
``model_first`` or ``reference_first``.
A disagreement is not always an error of reading: the known winner was read by somebody too.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from alpacare_jax.evaluate.verdicts import MODEL_FIRST, ORDERS, parse_choice
from datagen.errors import DataError
from datagen.records import read_objects

CHOICES = ("first", "second", "tie", "invalid")
PLACES = {"first": "first", "a": "first", "1": "first", "second": "second", "b": "second", "2": "second"}
LONGEST_EXAMPLE = 600


def known_choice(value: object, order: object, where: str) -> str | None:
    """Read the known winner of a row as a place; None where the row has none."""
    text = str("" if value is None else value).strip().lower()
    if text in ("", "none", "invalid"):
        return None
    if text in ("tie", *PLACES):
        return PLACES.get(text, "tie")
    if text not in ("win", "loss", "lose"):
        raise DataError(
            f"unknown winner {value!r}", where=where, remedy="write first, second, tie, win or loss"
        )
    if order not in ORDERS:
        raise DataError(
            f"a winner {value!r} needs an order, not {order!r}", where=where, remedy="name it with --order"
        )
    return "first" if (text == "win") == (order == MODEL_FIRST) else "second"


def print_group(name: str, pairs: Iterable[tuple[str, str | None]]) -> None:
    """Print how a group of replies was read, and how far that agrees with the known winners."""
    pairs = list(pairs)
    read = Counter(choice for choice, _ in pairs)
    shares = "  ".join(f"{choice} {read[choice]} ({read[choice] / len(pairs):.2%})" for choice in CHOICES)
    print(f"{name}: {len(pairs)} replies  {shares}")
    known = [(choice, winner) for choice, winner in pairs if winner]
    if known:
        agreed = sum(choice == winner for choice, winner in known)
        invalid = sum(choice == "invalid" for choice, _ in known)
        otherwise = len(known) - agreed - invalid
        print(
            f"    winner known {len(known)}: agree {agreed} ({agreed / len(known):.2%}), invalid {invalid} "
            f"({invalid / len(known):.2%}), read otherwise {otherwise} ({otherwise / len(known):.2%})"
        )


def print_examples(title: str, rows: list[tuple[str, str]], most: int) -> None:
    """Print distinct examples, spread over the file; long replies lose their middle."""
    distinct = list(dict.fromkeys(rows))
    for head, raw in distinct[:: max(1, -(-len(distinct) // most))] if most else []:
        half = LONGEST_EXAMPLE // 2
        text = raw if len(raw) <= LONGEST_EXAMPLE else f"{raw[:half]} [...] {raw[-half:]}"
        print(f"\n--- {title}, {head}\n{text}")


def main() -> int:
    """Read the file and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="JSON Lines of judge replies")
    parser.add_argument("--raw", default="raw", metavar="FIELD", help="the field of the judge's text (raw)")
    parser.add_argument("--known", metavar="FIELD", help="the field of the known winner")
    parser.add_argument("--order", default="order", metavar="FIELD", help="the field of the order (order)")
    parser.add_argument("--by", metavar="FIELD", help="a field to group by, such as the judge's name")
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="examples of each kind (3)")
    arguments = parser.parse_args()
    groups: dict[str, list[tuple[str, str | None]]] = {}
    examples: dict[str, list[tuple[str, str]]] = {"invalid": [], "read otherwise": []}
    spent = 0.0
    try:
        for where, row in read_objects(arguments.file):
            raw = _text(row, arguments.raw, where)
            winner = (
                known_choice(row.get(arguments.known), row.get(arguments.order), where)
                if arguments.known
                else None
            )
            start = time.process_time()
            choice = parse_choice(raw)
            spent += time.process_time() - start
            groups.setdefault(str(row.get(arguments.by)) if arguments.by else "all", []).append(
                (choice, winner)
            )
            if choice == "invalid":
                examples["invalid"].append((f"known winner {winner}", raw))
            elif winner and choice != winner:
                examples["read otherwise"].append((f"as {choice}, known winner {winner}", raw))
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    for name in sorted(groups):
        print_group(name, groups[name])
    if arguments.by:
        print_group("all", (pair for pairs in groups.values() for pair in pairs))
    replies = sum(map(len, groups.values()))
    print(f"{spent / replies * 1e3:.2f} ms of CPU time a reply")
    for title, rows in examples.items():
        print_examples(title, rows, arguments.examples)
    return 0


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if not isinstance(row.get(field), str):
        raise DataError(
            f"no text in the field {field!r}", where=where, remedy="name the judge's text with --raw"
        )
    return str(row[field])


if __name__ == "__main__":
    raise SystemExit(main())
